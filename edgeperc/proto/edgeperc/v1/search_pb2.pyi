from edgeperc.proto.edgeperc.v1 import perception_pb2 as _perception_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AcquireSteeringRequest(_message.Message):
    __slots__ = ("holder", "ttl_s")
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    holder: str
    ttl_s: float
    def __init__(self, holder: _Optional[str] = ..., ttl_s: _Optional[float] = ...) -> None: ...

class AcquireSteeringResponse(_message.Message):
    __slots__ = ("lease", "ttl_s")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    lease: str
    ttl_s: float
    def __init__(self, lease: _Optional[str] = ..., ttl_s: _Optional[float] = ...) -> None: ...

class RenewSteeringRequest(_message.Message):
    __slots__ = ("lease", "ttl_s")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    lease: str
    ttl_s: float
    def __init__(self, lease: _Optional[str] = ..., ttl_s: _Optional[float] = ...) -> None: ...

class RenewSteeringResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReleaseSteeringRequest(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: str
    def __init__(self, lease: _Optional[str] = ...) -> None: ...

class ReleaseSteeringResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PointAtRequest(_message.Message):
    __slots__ = ("lease", "gaze")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    GAZE_FIELD_NUMBER: _ClassVar[int]
    lease: str
    gaze: _perception_pb2.Gaze
    def __init__(self, lease: _Optional[str] = ..., gaze: _Optional[_Union[_perception_pb2.Gaze, _Mapping]] = ...) -> None: ...

class PointAtResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ScanRequest(_message.Message):
    __slots__ = ("lease", "places", "looks")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    LOOKS_FIELD_NUMBER: _ClassVar[int]
    lease: str
    places: _containers.RepeatedCompositeFieldContainer[_perception_pb2.Gaze]
    looks: int
    def __init__(self, lease: _Optional[str] = ..., places: _Optional[_Iterable[_Union[_perception_pb2.Gaze, _Mapping]]] = ..., looks: _Optional[int] = ...) -> None: ...

class ScanResponse(_message.Message):
    __slots__ = ("place", "result")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    place: int
    result: _perception_pb2.Result
    def __init__(self, place: _Optional[int] = ..., result: _Optional[_Union[_perception_pb2.Result, _Mapping]] = ...) -> None: ...

class GetMirrorStateRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetMirrorStateResponse(_message.Message):
    __slots__ = ("gaze", "lowest", "highest", "holder", "lease_s")
    GAZE_FIELD_NUMBER: _ClassVar[int]
    LOWEST_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    gaze: _perception_pb2.Gaze
    lowest: _perception_pb2.Gaze
    highest: _perception_pb2.Gaze
    holder: str
    lease_s: float
    def __init__(self, gaze: _Optional[_Union[_perception_pb2.Gaze, _Mapping]] = ..., lowest: _Optional[_Union[_perception_pb2.Gaze, _Mapping]] = ..., highest: _Optional[_Union[_perception_pb2.Gaze, _Mapping]] = ..., holder: _Optional[str] = ..., lease_s: _Optional[float] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
