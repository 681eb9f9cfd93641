"""The processes of another plan, begun while the present ones are at work."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edgeperc.plan import Plan
from edgeperc.supervise.worker import Worker

STOP_S = 1.2


class Change:
    """The workers of another plan. fresh: those that the run has not, and that wait to be sent off.

    sensors, pipelines: all of them, by name.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sensors: dict[str, Worker] = {}
        self.pipelines: dict[str, Worker] = {}
        self.fresh: list[Worker] = []

    def await_ready(self) -> None:
        """Wait until all have what they need. Raises what keeps one from it."""
        for worker in self.fresh:
            worker.await_ready()

    def discard(self) -> None:
        """End what was begun for it."""
        end(self.fresh)


def end(workers: Sequence[Worker], *, within_s: float = STOP_S) -> None:
    """Stop workers, and kill those that do not."""
    for worker in workers:
        worker.stop()
    deadline_s = time.monotonic() + within_s
    for worker in workers:
        worker.join(max(0.0, deadline_s - time.monotonic()))
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(1.0)
