"""What a daemon that cannot answer yet waits for, in the words of its status.

waiting = Waiting(daemon)
waiting.said()          # "dvs is lost: unplugged; pipeline events: preparing sltnet, 12 s", or ""
waiting.check()         # raises while networks are being loaded
"""

from __future__ import annotations

import threading
import time

from edgeperc.control import Daemon, DaemonStatus
from edgeperc.sessions import RefusedError

FRESH_S = 0.5
"""A status is asked for no more often, however many clients are told."""


class Waiting:
    """daemon: None where the sink stands alone, and nothing is known."""

    def __init__(self, daemon: Daemon | None) -> None:
        self._daemon = daemon
        self._lock = threading.Lock()
        self._status: DaemonStatus | None = None
        self._until_s = 0.0

    def said(self) -> str:
        """What is lost or being made ready; "" where nothing is."""
        status = self._now()
        if status is None:
            return ""
        lost = [
            f"{each.name} is {each.state}{f': {each.error}' if each.error else ''}"
            for each in status.sensors
            if each.state in ("lost", "failed")
        ]
        return "; ".join([*lost, *_preparing(status)])

    def check(self, model: str = "") -> None:
        """Raise RefusedError ("later") while a process loads networks, or builds engines.

        model: only if it is this one's.
        """
        status = self._now()
        if status and (doing := _preparing(status, model)):
            raise RefusedError(
                f"the app's networks are not ready yet: {'; '.join(doing)}", why="later"
            )

    def _now(self) -> DaemonStatus | None:
        if self._daemon is None:
            return None
        with self._lock:
            if time.monotonic() >= self._until_s:
                self._status = self._daemon.status()
                self._until_s = time.monotonic() + FRESH_S
            return self._status


def _preparing(status: DaemonStatus, model: str = "") -> list[str]:
    if status.state == "starting" and not (status.workers or status.pipelines):
        return ["the daemon has just begun"]
    return [
        f"{each.name}: {each.preparing or each.state}"
        for each in status.workers
        if (each.preparing and model in ("", each.preparing.model))
        or (not each.preparing and each.state == "starting" and each.name.startswith("pipelines/"))
    ]
