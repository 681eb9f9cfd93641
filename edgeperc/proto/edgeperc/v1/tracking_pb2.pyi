from edgeperc.proto.edgeperc.v1 import perception_pb2 as _perception_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateSessionRequest(_message.Message):
    __slots__ = ("source", "model", "ttl_s")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    source: str
    model: str
    ttl_s: float
    def __init__(self, source: _Optional[str] = ..., model: _Optional[str] = ..., ttl_s: _Optional[float] = ...) -> None: ...

class CreateSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: SessionOpened
    def __init__(self, session: _Optional[_Union[SessionOpened, _Mapping]] = ...) -> None: ...

class AddPromptsRequest(_message.Message):
    __slots__ = ("session_id", "prompts")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    prompts: _containers.RepeatedCompositeFieldContainer[AddPrompt]
    def __init__(self, session_id: _Optional[str] = ..., prompts: _Optional[_Iterable[_Union[AddPrompt, _Mapping]]] = ...) -> None: ...

class AddPromptsResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[PromptAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[PromptAnswer, _Mapping]]] = ...) -> None: ...

class PromptAnswer(_message.Message):
    __slots__ = ("accepted", "refused")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    accepted: RequestAccepted
    refused: RequestRefused
    def __init__(self, accepted: _Optional[_Union[RequestAccepted, _Mapping]] = ..., refused: _Optional[_Union[RequestRefused, _Mapping]] = ...) -> None: ...

class RemoveObjectsRequest(_message.Message):
    __slots__ = ("session_id", "object_ids", "reset")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECT_IDS_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    object_ids: _containers.RepeatedScalarFieldContainer[int]
    reset: bool
    def __init__(self, session_id: _Optional[str] = ..., object_ids: _Optional[_Iterable[int]] = ..., reset: bool = ...) -> None: ...

class RemoveObjectsResponse(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[PromptAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[PromptAnswer, _Mapping]]] = ...) -> None: ...

class DeleteSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class DeleteSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("session_id", "delivery")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    delivery: _perception_pb2.DeliveryPolicy
    def __init__(self, session_id: _Optional[str] = ..., delivery: _Optional[_Union[_perception_pb2.DeliveryPolicy, _Mapping]] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("request_id", "open", "prompt", "remove", "reset", "close")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    open: OpenSession
    prompt: AddPrompt
    remove: RemoveObject
    reset: ResetSession
    close: CloseSession
    def __init__(self, request_id: _Optional[int] = ..., open: _Optional[_Union[OpenSession, _Mapping]] = ..., prompt: _Optional[_Union[AddPrompt, _Mapping]] = ..., remove: _Optional[_Union[RemoveObject, _Mapping]] = ..., reset: _Optional[_Union[ResetSession, _Mapping]] = ..., close: _Optional[_Union[CloseSession, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("opened", "result", "accepted", "refused", "closed")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    opened: SessionOpened
    result: _perception_pb2.Result
    accepted: RequestAccepted
    refused: RequestRefused
    closed: SessionClosed
    def __init__(self, opened: _Optional[_Union[SessionOpened, _Mapping]] = ..., result: _Optional[_Union[_perception_pb2.Result, _Mapping]] = ..., accepted: _Optional[_Union[RequestAccepted, _Mapping]] = ..., refused: _Optional[_Union[RequestRefused, _Mapping]] = ..., closed: _Optional[_Union[SessionClosed, _Mapping]] = ...) -> None: ...

class OpenSession(_message.Message):
    __slots__ = ("source", "model", "delivery", "ttl_s")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    source: str
    model: str
    delivery: _perception_pb2.DeliveryPolicy
    ttl_s: float
    def __init__(self, source: _Optional[str] = ..., model: _Optional[str] = ..., delivery: _Optional[_Union[_perception_pb2.DeliveryPolicy, _Mapping]] = ..., ttl_s: _Optional[float] = ...) -> None: ...

class SessionOpened(_message.Message):
    __slots__ = ("session_id", "source", "model", "width", "height", "ttl_s", "max_objects", "max_points", "max_message_bytes")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    TTL_S_FIELD_NUMBER: _ClassVar[int]
    MAX_OBJECTS_FIELD_NUMBER: _ClassVar[int]
    MAX_POINTS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    source: str
    model: _perception_pb2.ModelRef
    width: int
    height: int
    ttl_s: float
    max_objects: int
    max_points: int
    max_message_bytes: int
    def __init__(self, session_id: _Optional[str] = ..., source: _Optional[str] = ..., model: _Optional[_Union[_perception_pb2.ModelRef, _Mapping]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., ttl_s: _Optional[float] = ..., max_objects: _Optional[int] = ..., max_points: _Optional[int] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class AddPrompt(_message.Message):
    __slots__ = ("object_id", "points", "box", "mask")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    object_id: int
    points: _containers.RepeatedCompositeFieldContainer[_perception_pb2.Point]
    box: _perception_pb2.Box
    mask: _perception_pb2.Mask
    def __init__(self, object_id: _Optional[int] = ..., points: _Optional[_Iterable[_Union[_perception_pb2.Point, _Mapping]]] = ..., box: _Optional[_Union[_perception_pb2.Box, _Mapping]] = ..., mask: _Optional[_Union[_perception_pb2.Mask, _Mapping]] = ...) -> None: ...

class RemoveObject(_message.Message):
    __slots__ = ("object_id",)
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    object_id: int
    def __init__(self, object_id: _Optional[int] = ...) -> None: ...

class ResetSession(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CloseSession(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RequestAccepted(_message.Message):
    __slots__ = ("request_id", "object_id", "instance_id", "stamp")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    object_id: int
    instance_id: int
    stamp: _perception_pb2.Stamp
    def __init__(self, request_id: _Optional[int] = ..., object_id: _Optional[int] = ..., instance_id: _Optional[int] = ..., stamp: _Optional[_Union[_perception_pb2.Stamp, _Mapping]] = ...) -> None: ...

class RequestRefused(_message.Message):
    __slots__ = ("request_id", "code", "message", "hint")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    code: int
    message: str
    hint: str
    def __init__(self, request_id: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., hint: _Optional[str] = ...) -> None: ...

class SessionClosed(_message.Message):
    __slots__ = ("reason",)
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[SessionClosed.Reason]
        REASON_ASKED: _ClassVar[SessionClosed.Reason]
        REASON_EXPIRED: _ClassVar[SessionClosed.Reason]
        REASON_STOPPING: _ClassVar[SessionClosed.Reason]
    REASON_UNSPECIFIED: SessionClosed.Reason
    REASON_ASKED: SessionClosed.Reason
    REASON_EXPIRED: SessionClosed.Reason
    REASON_STOPPING: SessionClosed.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: SessionClosed.Reason
    def __init__(self, reason: _Optional[_Union[SessionClosed.Reason, str]] = ...) -> None: ...
