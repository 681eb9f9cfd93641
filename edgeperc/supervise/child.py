"""What all workers have in common: the link to the front process, and the end when that is gone.

    child = Child(fd)
    order = child.wait_for("order")
    child.say("ready", Ready())
    child.serve(hear=..., report=..., has_ended=...)

`serve` runs in the main thread and does nothing that lasts, so that a worker that is told to stop
ends within a second, whatever its other threads are at. One whose front process died ends, too, and
at the latest after GRACE_S: also while it loads a model.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from edgeperc.errors import EdgepercError
from edgeperc.supervise.link import Link
from edgeperc.supervise.orders import Report

REPORT_EVERY_S = 0.5
_LISTEN_S = 0.1
_LAST_WORDS_S = 0.5
GRACE_S = 0.9
"""How long a worker has to close its device once the front process is gone."""


class Child:
    """A worker's end of its link to the front process."""

    def __init__(self, fd: int) -> None:
        faulthandler.enable()
        self.link = Link(socket.socket(fileno=fd))
        self._early: list[tuple[str, Any, list[int]]] = []
        log = logging.getLogger("edgeperc")
        log.addHandler(_Forward(self.link))
        log.propagate = False
        threading.Thread(target=self._guard, args=(fd,), name="guard", daemon=True).start()

    def say(self, kind: str, content: Any = None, *, must_arrive: bool = True) -> None:
        """Tell the front process; that it is gone, `serve` finds out by itself."""
        with suppress(BrokenPipeError):
            self.link.send((kind, content), must_arrive=must_arrive)

    def wait_for(self, wanted: str) -> Any:
        """Wait for a message of one kind; ends the process if the front is gone or says stop.

        What else comes meanwhile is kept for `serve`.
        """
        while True:
            for number, (kind, content, _) in enumerate(self._early):
                if kind == wanted:
                    del self._early[number]
                    return content
                if kind == "stop":
                    self.leave()
            try:
                messages = self.link.receive(1.0)
            except EOFError:
                self.leave()
            self._early += [(kind, content, fds) for (kind, content), fds in messages]

    def fail(self, error: EdgepercError) -> NoReturn:
        """Say what the user can mend, and end."""
        self.say("failed", (type(error).__name__, str(error), error.hint))
        self.leave(1)

    def serve(
        self,
        *,
        hear: Callable[[str, Any, list[int]], None],
        report: Callable[[], Report],
        has_ended: Callable[[], bool],
        stop: Callable[[], None],
    ) -> NoReturn:
        """Listen, and report twice a second, until the front says stop, is gone, or all is done.

        has_ended: raises what a thread died of.
        """
        next_s = 0.0
        code = 0
        try:
            for message in self._early:
                hear(*message)
            while True:
                if time.monotonic() >= next_s:
                    next_s = time.monotonic() + REPORT_EVERY_S
                    self.say("report", report(), must_arrive=False)
                if has_ended():
                    self.say("report", report())
                    self.say("ended")
                    break
                messages = self.link.receive(_LISTEN_S)
                for (kind, content), fds in messages:
                    if kind == "stop":
                        raise EOFError
                    hear(kind, content, fds)
        except EOFError:
            pass
        except BaseException:
            traceback.print_exc()
            code = 1
        stop()
        self.leave(code)

    def _guard(self, fd: int) -> None:
        """End with the front process, whatever the main thread is at."""
        poll = select.poll()
        poll.register(fd, 0)  # hanging up is told unasked
        poll.poll()
        time.sleep(GRACE_S)
        os._exit(1)

    def leave(self, code: int = 0) -> NoReturn:
        """End the process at once; threads that hang do not matter."""
        deadline_s = time.monotonic() + _LAST_WORDS_S
        try:
            while self.link.waiting and time.monotonic() < deadline_s:
                time.sleep(0.01)
                self.link.flush()
        except BrokenPipeError:
            pass
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class _Forward(logging.Handler):
    """Lets the front process log what a worker has to say."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            self._link.send(("log", (record.levelno, text)), must_arrive=False)
        except BrokenPipeError:
            pass
