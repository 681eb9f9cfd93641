"""A daemon's status and recordings to messages and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgeperc.control import (
    DaemonStatus,
    Preparing,
    RecordingStatus,
    SinkStatus,
    State,
    WorkerStatus,
)
from edgeperc.meter import MeterSnapshot, StageRow
from edgeperc.proto.codec import as_dataclass, as_message
from edgeperc.proto.edgeperc.v1 import control_pb2 as control
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.result import ModelRef
from edgeperc.status import PipelineStatus, SensorStatus

_STATES: dict[State, control.GetStatusResponse.State] = {
    "starting": control.GetStatusResponse.STATE_STARTING,
    "serving": control.GetStatusResponse.STATE_SERVING,
    "degraded": control.GetStatusResponse.STATE_DEGRADED,
    "stopping": control.GetStatusResponse.STATE_STOPPING,
}
_METER = ("results", "dropped", "failed", "rate_hz")


def status_message(status: DaemonStatus) -> control.GetStatusResponse:
    """Say on the wire how a daemon is."""
    return control.GetStatusResponse(
        version=status.version,
        app=status.app,
        state=_STATES[status.state],
        uptime_s=status.uptime_s,
        sensors=[_sensor_message(each) for each in status.sensors],
        pipelines=[_pipeline_message(each) for each in status.pipelines],
        workers=[_worker_message(each) for each in status.workers],
        sinks=[
            control.SinkState(kind=sink.kind, where=sink.where, counts=sink.counts)
            for sink in status.sinks
        ],
        recording=recording_message(status.recording) if status.recording else None,
        errors=status.errors,
        notes=status.notes,
    )


def status_of(message: control.GetStatusResponse) -> DaemonStatus:
    """Inverse of `status_message`, but for what the daemon alone counts of its sensors."""
    states: dict[Any, State] = {value: name for name, value in _STATES.items()}
    return DaemonStatus(
        version=message.version,
        app=message.app,
        state=states.get(message.state, "degraded"),
        uptime_s=message.uptime_s,
        sensors=tuple(_sensor(each) for each in message.sensors),
        pipelines=tuple(_pipeline(each) for each in message.pipelines),
        workers=tuple(_worker(each) for each in message.workers),
        sinks=tuple(
            SinkStatus(kind=sink.kind, where=sink.where, counts=dict(sink.counts))
            for sink in message.sinks
        ),
        recording=recording_of(message.recording) if message.HasField("recording") else None,
        errors=tuple(message.errors),
        notes=tuple(message.notes),
    )


def recording_message(recording: RecordingStatus) -> control.Recording:
    """Say on the wire how a recording is."""
    return as_message(control.Recording, recording)


def recording_of(message: control.Recording) -> RecordingStatus:
    """Inverse of `recording_message`."""
    return as_dataclass(RecordingStatus, message)


def _worker_message(status: WorkerStatus) -> control.WorkerState:
    message = as_message(control.WorkerState, replace(status, preparing=None))
    if status.preparing:
        message.preparing.CopyFrom(as_message(control.Preparing, status.preparing))
    return message


def _worker(message: control.WorkerState) -> WorkerStatus:
    status = as_dataclass(WorkerStatus, message)
    named = as_dataclass(Preparing, message.preparing) if message.HasField("preparing") else None
    return replace(status, preparing=named)


def _sensor_message(status: SensorStatus) -> control.SensorState:
    names = control.SensorState.DESCRIPTOR.fields_by_name
    return control.SensorState(**{name: getattr(status, name) for name in names})


def _sensor(message: control.SensorState) -> SensorStatus:
    names = control.SensorState.DESCRIPTOR.fields_by_name
    return SensorStatus(**{name: getattr(message, name) for name in names})


def _pipeline_message(status: PipelineStatus) -> control.PipelineState:
    return control.PipelineState(
        name=status.name,
        model=as_message(pb.ModelRef, status.model),
        stages=[as_message(control.StageTimes, row) for row in status.meter.stages],
        error=status.error,
        note=status.note,
        **{name: getattr(status.meter, name) for name in _METER},
    )


def _pipeline(message: control.PipelineState) -> PipelineStatus:
    rows = tuple(as_dataclass(StageRow, row) for row in message.stages)
    meter = MeterSnapshot(stages=rows, **{name: getattr(message, name) for name in _METER})
    return PipelineStatus(
        name=message.name,
        model=as_dataclass(ModelRef, message.model),
        meter=meter,
        error=message.error,
        note=message.note,
    )
