from edgeperc.proto.edgeperc.v1 import perception_pb2 as _perception_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("version", "app", "state", "uptime_s", "sensors", "pipelines", "workers", "recording", "errors", "notes", "loaded_models", "refused", "sinks")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[GetStatusResponse.State]
        STATE_STARTING: _ClassVar[GetStatusResponse.State]
        STATE_SERVING: _ClassVar[GetStatusResponse.State]
        STATE_DEGRADED: _ClassVar[GetStatusResponse.State]
        STATE_STOPPING: _ClassVar[GetStatusResponse.State]
    STATE_UNSPECIFIED: GetStatusResponse.State
    STATE_STARTING: GetStatusResponse.State
    STATE_SERVING: GetStatusResponse.State
    STATE_DEGRADED: GetStatusResponse.State
    STATE_STOPPING: GetStatusResponse.State
    class RefusedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    APP_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    SENSORS_FIELD_NUMBER: _ClassVar[int]
    PIPELINES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    LOADED_MODELS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    SINKS_FIELD_NUMBER: _ClassVar[int]
    version: str
    app: str
    state: GetStatusResponse.State
    uptime_s: float
    sensors: _containers.RepeatedCompositeFieldContainer[SensorState]
    pipelines: _containers.RepeatedCompositeFieldContainer[PipelineState]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerState]
    recording: Recording
    errors: _containers.RepeatedScalarFieldContainer[str]
    notes: _containers.RepeatedScalarFieldContainer[str]
    loaded_models: _containers.RepeatedScalarFieldContainer[str]
    refused: _containers.ScalarMap[str, int]
    sinks: _containers.RepeatedCompositeFieldContainer[SinkState]
    def __init__(self, version: _Optional[str] = ..., app: _Optional[str] = ..., state: _Optional[_Union[GetStatusResponse.State, str]] = ..., uptime_s: _Optional[float] = ..., sensors: _Optional[_Iterable[_Union[SensorState, _Mapping]]] = ..., pipelines: _Optional[_Iterable[_Union[PipelineState, _Mapping]]] = ..., workers: _Optional[_Iterable[_Union[WorkerState, _Mapping]]] = ..., recording: _Optional[_Union[Recording, _Mapping]] = ..., errors: _Optional[_Iterable[str]] = ..., notes: _Optional[_Iterable[str]] = ..., loaded_models: _Optional[_Iterable[str]] = ..., refused: _Optional[_Mapping[str, int]] = ..., sinks: _Optional[_Iterable[_Union[SinkState, _Mapping]]] = ...) -> None: ...

class SinkState(_message.Message):
    __slots__ = ("kind", "where", "counts")
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    where: str
    counts: _containers.ScalarMap[str, int]
    def __init__(self, kind: _Optional[str] = ..., where: _Optional[str] = ..., counts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class SensorState(_message.Message):
    __slots__ = ("name", "state", "packets", "events", "frames", "error", "hint", "moves")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: str
    packets: int
    events: int
    frames: int
    error: str
    hint: str
    moves: int
    def __init__(self, name: _Optional[str] = ..., state: _Optional[str] = ..., packets: _Optional[int] = ..., events: _Optional[int] = ..., frames: _Optional[int] = ..., error: _Optional[str] = ..., hint: _Optional[str] = ..., moves: _Optional[int] = ...) -> None: ...

class PipelineState(_message.Message):
    __slots__ = ("name", "model", "results", "dropped", "failed", "rate_hz", "stages", "error", "note")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: _perception_pb2.ModelRef
    results: int
    dropped: int
    failed: int
    rate_hz: float
    stages: _containers.RepeatedCompositeFieldContainer[StageTimes]
    error: str
    note: str
    def __init__(self, name: _Optional[str] = ..., model: _Optional[_Union[_perception_pb2.ModelRef, _Mapping]] = ..., results: _Optional[int] = ..., dropped: _Optional[int] = ..., failed: _Optional[int] = ..., rate_hz: _Optional[float] = ..., stages: _Optional[_Iterable[_Union[StageTimes, _Mapping]]] = ..., error: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class StageTimes(_message.Message):
    __slots__ = ("stage", "p50_ms", "p99_ms")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P99_MS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    p50_ms: float
    p99_ms: float
    def __init__(self, stage: _Optional[str] = ..., p50_ms: _Optional[float] = ..., p99_ms: _Optional[float] = ...) -> None: ...

class WorkerState(_message.Message):
    __slots__ = ("name", "state", "pid", "restarts", "rss_bytes", "beat_s", "error", "preparing")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    BEAT_S_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PREPARING_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: str
    pid: int
    restarts: int
    rss_bytes: int
    beat_s: float
    error: str
    preparing: Preparing
    def __init__(self, name: _Optional[str] = ..., state: _Optional[str] = ..., pid: _Optional[int] = ..., restarts: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., beat_s: _Optional[float] = ..., error: _Optional[str] = ..., preparing: _Optional[_Union[Preparing, _Mapping]] = ...) -> None: ...

class Preparing(_message.Message):
    __slots__ = ("model", "network", "number", "count", "seconds", "bytes")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    model: str
    network: str
    number: int
    count: int
    seconds: float
    bytes: int
    def __init__(self, model: _Optional[str] = ..., network: _Optional[str] = ..., number: _Optional[int] = ..., count: _Optional[int] = ..., seconds: _Optional[float] = ..., bytes: _Optional[int] = ...) -> None: ...

class Recording(_message.Message):
    __slots__ = ("name", "path", "running", "seconds", "bytes", "messages", "dropped", "files", "error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    path: str
    running: bool
    seconds: float
    bytes: int
    messages: int
    dropped: int
    files: int
    error: str
    def __init__(self, name: _Optional[str] = ..., path: _Optional[str] = ..., running: bool = ..., seconds: _Optional[float] = ..., bytes: _Optional[int] = ..., messages: _Optional[int] = ..., dropped: _Optional[int] = ..., files: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class GetConfigRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetConfigResponse(_message.Message):
    __slots__ = ("name", "toml", "etag")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOML_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    name: str
    toml: str
    etag: str
    def __init__(self, name: _Optional[str] = ..., toml: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class ValidateConfigRequest(_message.Message):
    __slots__ = ("toml",)
    TOML_FIELD_NUMBER: _ClassVar[int]
    toml: str
    def __init__(self, toml: _Optional[str] = ...) -> None: ...

class ValidateConfigResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ApplyConfigRequest(_message.Message):
    __slots__ = ("toml", "etag")
    TOML_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    toml: str
    etag: str
    def __init__(self, toml: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class ApplyConfigResponse(_message.Message):
    __slots__ = ("etag",)
    ETAG_FIELD_NUMBER: _ClassVar[int]
    etag: str
    def __init__(self, etag: _Optional[str] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _perception_pb2.ModelRef
    def __init__(self, model: _Optional[_Union[_perception_pb2.ModelRef, _Mapping]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StartRecordingRequest(_message.Message):
    __slots__ = ("name", "max_bytes", "max_seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    max_bytes: int
    max_seconds: float
    def __init__(self, name: _Optional[str] = ..., max_bytes: _Optional[int] = ..., max_seconds: _Optional[float] = ...) -> None: ...

class StartRecordingResponse(_message.Message):
    __slots__ = ("recording",)
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    recording: Recording
    def __init__(self, recording: _Optional[_Union[Recording, _Mapping]] = ...) -> None: ...

class StopRecordingRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopRecordingResponse(_message.Message):
    __slots__ = ("recording",)
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    recording: Recording
    def __init__(self, recording: _Optional[_Union[Recording, _Mapping]] = ...) -> None: ...
