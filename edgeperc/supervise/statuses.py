"""A worker as status, health and reports show it: what it said last, and whether it is there."""

from __future__ import annotations

from dataclasses import replace

from edgeperc.control import WorkerStatus
from edgeperc.result import ModelRef
from edgeperc.status import PipelineStatus, SensorStatus
from edgeperc.supervise.totals import NOTHING
from edgeperc.supervise.worker import Worker


def ref_of(worker: Worker) -> ModelRef:
    """What a pipeline's worker runs."""
    return worker.made.ref or ModelRef(name="")


def sensor_status(name: str, worker: Worker) -> SensorStatus:
    """With the counts of its earlier processes; one whose process is away is lost."""
    status = replace(worker.total.sensor or SensorStatus(name=name))
    if worker.error:
        status.state = "lost"
        status.error = f"sensor '{name}': its process died: {worker.error}"
    return status


def pipeline_status(name: str, worker: Worker) -> PipelineStatus:
    """With the counts of its earlier processes, and what was lost on the way."""
    total = worker.total
    status = total.pipeline or PipelineStatus(
        name=name, model=ref_of(worker), meter=NOTHING, error=""
    )
    notes = [status.note] if status.note else []
    if worker.restarts:
        notes.append(f"restarted {worker.restarts} times")
    if total.lost:
        notes.append(f"{total.lost:,} packets or results lost between processes")
    error = f"its process died: {worker.error}" if worker.error else status.error
    return replace(status, note="; ".join(notes), error=error)


def successor(status: WorkerStatus, taken: set[str]) -> WorkerStatus:
    """Of one that is not at work yet: its name is not that of the one that is."""
    return replace(status, name=f"{status.name} (next)") if status.name in taken else status
