"""How the daemon is, for the page: the last minutes of each pipeline, and all figures of now."""

from __future__ import annotations

import time
from collections import deque

import msgspec

from edgeperc.control import Daemon, DaemonStatus
from edgeperc.sinks.web_encoder import Key
from edgeperc.sinks.web_wire import pack
from edgeperc.status import PipelineStatus

MINUTES = 5
SAMPLES = 60 * MINUTES


class History:
    """A sample a second of every pipeline, so that a page that is opened late has a past.

    `sample` is called by one thread; the messages may be asked for by any.
    """

    def __init__(self, daemon: Daemon | None) -> None:
        self._daemon = daemon
        self._samples: dict[str, deque[list[float]]] = {}
        self._counts: dict[str, tuple[int, int]] = {}
        self.status: DaemonStatus | None = None

    def sample(self) -> None:
        """Look at the daemon once more."""
        if self._daemon is None:
            return
        status = self._daemon.status()
        now_s = round(time.time(), 1)
        for pipeline in status.pipelines:
            kept = self._samples.setdefault(pipeline.name, deque(maxlen=SAMPLES))
            kept.append([now_s, *self._figures(pipeline)])
        for gone in self._samples.keys() - {pipeline.name for pipeline in status.pipelines}:
            del self._samples[gone]
        self.status = status

    def past(self) -> bytes:
        """All samples: [Unix s, rate Hz, p50 ms, p99 ms, dropped, failed] each."""
        pipelines = {name: list(kept) for name, kept in list(self._samples.items())}
        return pack({"kind": "history", "pipelines": pipelines})

    def now(self, streams: list[Key], clients: int) -> bytes:
        """The status with the newest samples. streams: what can be looked at."""
        newest = {name: kept[-1] for name, kept in list(self._samples.items()) if kept}
        status = msgspec.to_builtins(self.status) if self.status else None
        return pack(
            {
                "kind": "status",
                "status": status,
                "newest": newest,
                "streams": streams,
                "clients": clients,
            }
        )

    def _figures(self, pipeline: PipelineStatus) -> list[float]:
        """Rate, latencies and what was lost since the last sample."""
        meter = pipeline.meter
        dropped, failed = self._counts.get(pipeline.name, (meter.dropped, meter.failed))
        self._counts[pipeline.name] = (meter.dropped, meter.failed)
        total = next((row for row in meter.stages if row.stage == "total"), None)
        p50_ms, p99_ms = (total.p50_ms, total.p99_ms) if total else (0.0, 0.0)
        return [
            round(meter.rate_hz, 2),
            round(p50_ms, 3),
            round(p99_ms, 3),
            max(0, meter.dropped - dropped),
            max(0, meter.failed - failed),
        ]
