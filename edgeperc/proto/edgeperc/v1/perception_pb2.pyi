from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResultKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESULT_KIND_UNSPECIFIED: _ClassVar[ResultKind]
    RESULT_KIND_LABEL_MAP: _ClassVar[ResultKind]
    RESULT_KIND_DETECTIONS: _ClassVar[ResultKind]
    RESULT_KIND_INSTANCES: _ClassVar[ResultKind]
    RESULT_KIND_SEARCH_MAP: _ClassVar[ResultKind]

class MaskEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASK_ENCODING_UNSPECIFIED: _ClassVar[MaskEncoding]
    MASK_ENCODING_RAW: _ClassVar[MaskEncoding]
    MASK_ENCODING_ZSTD: _ClassVar[MaskEncoding]
    MASK_ENCODING_RLE: _ClassVar[MaskEncoding]
    MASK_ENCODING_PNG: _ClassVar[MaskEncoding]
RESULT_KIND_UNSPECIFIED: ResultKind
RESULT_KIND_LABEL_MAP: ResultKind
RESULT_KIND_DETECTIONS: ResultKind
RESULT_KIND_INSTANCES: ResultKind
RESULT_KIND_SEARCH_MAP: ResultKind
MASK_ENCODING_UNSPECIFIED: MaskEncoding
MASK_ENCODING_RAW: MaskEncoding
MASK_ENCODING_ZSTD: MaskEncoding
MASK_ENCODING_RLE: MaskEncoding
MASK_ENCODING_PNG: MaskEncoding

class SubscribeRequest(_message.Message):
    __slots__ = ("source", "encoding", "delivery", "kinds", "include_image")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_IMAGE_FIELD_NUMBER: _ClassVar[int]
    source: str
    encoding: MaskEncoding
    delivery: DeliveryPolicy
    kinds: _containers.RepeatedScalarFieldContainer[ResultKind]
    include_image: bool
    def __init__(self, source: _Optional[str] = ..., encoding: _Optional[_Union[MaskEncoding, str]] = ..., delivery: _Optional[_Union[DeliveryPolicy, _Mapping]] = ..., kinds: _Optional[_Iterable[_Union[ResultKind, str]]] = ..., include_image: bool = ...) -> None: ...

class DeliveryPolicy(_message.Message):
    __slots__ = ("mode", "depth", "max_rate_hz")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[DeliveryPolicy.Mode]
        MODE_LATEST: _ClassVar[DeliveryPolicy.Mode]
        MODE_QUEUE: _ClassVar[DeliveryPolicy.Mode]
    MODE_UNSPECIFIED: DeliveryPolicy.Mode
    MODE_LATEST: DeliveryPolicy.Mode
    MODE_QUEUE: DeliveryPolicy.Mode
    MODE_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    MAX_RATE_HZ_FIELD_NUMBER: _ClassVar[int]
    mode: DeliveryPolicy.Mode
    depth: int
    max_rate_hz: float
    def __init__(self, mode: _Optional[_Union[DeliveryPolicy.Mode, str]] = ..., depth: _Optional[int] = ..., max_rate_hz: _Optional[float] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("stamp", "model", "label_map", "instances", "detections", "search_map", "timings", "dropped_before", "image")
    STAMP_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LABEL_MAP_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    SEARCH_MAP_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    stamp: Stamp
    model: ModelRef
    label_map: LabelMap
    instances: Instances
    detections: Detections
    search_map: SearchMap
    timings: Timings
    dropped_before: int
    image: Image
    def __init__(self, stamp: _Optional[_Union[Stamp, _Mapping]] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., label_map: _Optional[_Union[LabelMap, _Mapping]] = ..., instances: _Optional[_Union[Instances, _Mapping]] = ..., detections: _Optional[_Union[Detections, _Mapping]] = ..., search_map: _Optional[_Union[SearchMap, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., dropped_before: _Optional[int] = ..., image: _Optional[_Union[Image, _Mapping]] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("jpeg", "width", "height")
    JPEG_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    jpeg: bytes
    width: int
    height: int
    def __init__(self, jpeg: _Optional[bytes] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Stamp(_message.Message):
    __slots__ = ("source", "seq", "start_ns", "end_ns")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    START_NS_FIELD_NUMBER: _ClassVar[int]
    END_NS_FIELD_NUMBER: _ClassVar[int]
    source: str
    seq: int
    start_ns: int
    end_ns: int
    def __init__(self, source: _Optional[str] = ..., seq: _Optional[int] = ..., start_ns: _Optional[int] = ..., end_ns: _Optional[int] = ...) -> None: ...

class ModelRef(_message.Message):
    __slots__ = ("name", "sha256", "engine", "provider", "precision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    engine: str
    provider: str
    precision: str
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., engine: _Optional[str] = ..., provider: _Optional[str] = ..., precision: _Optional[str] = ...) -> None: ...

class LabelMap(_message.Message):
    __slots__ = ("width", "height", "encoding", "data", "classes")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    encoding: MaskEncoding
    data: bytes
    classes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., encoding: _Optional[_Union[MaskEncoding, str]] = ..., data: _Optional[bytes] = ..., classes: _Optional[_Iterable[str]] = ...) -> None: ...

class Instances(_message.Message):
    __slots__ = ("instances", "width", "height", "classes")
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    instances: _containers.RepeatedCompositeFieldContainer[Instance]
    width: int
    height: int
    classes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, instances: _Optional[_Iterable[_Union[Instance, _Mapping]]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., classes: _Optional[_Iterable[str]] = ...) -> None: ...

class Instance(_message.Message):
    __slots__ = ("id", "mask", "box", "score", "visible")
    ID_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    VISIBLE_FIELD_NUMBER: _ClassVar[int]
    id: int
    mask: Mask
    box: Box
    score: float
    visible: float
    def __init__(self, id: _Optional[int] = ..., mask: _Optional[_Union[Mask, _Mapping]] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., score: _Optional[float] = ..., visible: _Optional[float] = ...) -> None: ...

class Mask(_message.Message):
    __slots__ = ("width", "height", "counts")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    counts: bytes
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., counts: _Optional[bytes] = ...) -> None: ...

class Detections(_message.Message):
    __slots__ = ("detections", "classes", "gaze", "width", "height")
    DETECTIONS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    GAZE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    detections: _containers.RepeatedCompositeFieldContainer[Detection]
    classes: _containers.RepeatedScalarFieldContainer[str]
    gaze: Gaze
    width: int
    height: int
    def __init__(self, detections: _Optional[_Iterable[_Union[Detection, _Mapping]]] = ..., classes: _Optional[_Iterable[str]] = ..., gaze: _Optional[_Union[Gaze, _Mapping]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Gaze(_message.Message):
    __slots__ = ("pan_rad", "tilt_rad")
    PAN_RAD_FIELD_NUMBER: _ClassVar[int]
    TILT_RAD_FIELD_NUMBER: _ClassVar[int]
    pan_rad: float
    tilt_rad: float
    def __init__(self, pan_rad: _Optional[float] = ..., tilt_rad: _Optional[float] = ...) -> None: ...

class SearchMap(_message.Message):
    __slots__ = ("width", "height", "intensity", "cell_rad", "tracks", "trail")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    INTENSITY_FIELD_NUMBER: _ClassVar[int]
    CELL_RAD_FIELD_NUMBER: _ClassVar[int]
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    TRAIL_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    intensity: bytes
    cell_rad: float
    tracks: _containers.RepeatedCompositeFieldContainer[Track]
    trail: _containers.RepeatedCompositeFieldContainer[Gaze]
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., intensity: _Optional[bytes] = ..., cell_rad: _Optional[float] = ..., tracks: _Optional[_Iterable[_Union[Track, _Mapping]]] = ..., trail: _Optional[_Iterable[_Union[Gaze, _Mapping]]] = ...) -> None: ...

class Track(_message.Message):
    __slots__ = ("gaze", "confidence", "age_s")
    GAZE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    gaze: Gaze
    confidence: float
    age_s: float
    def __init__(self, gaze: _Optional[_Union[Gaze, _Mapping]] = ..., confidence: _Optional[float] = ..., age_s: _Optional[float] = ...) -> None: ...

class Detection(_message.Message):
    __slots__ = ("box", "score", "class_id", "variance")
    BOX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_FIELD_NUMBER: _ClassVar[int]
    box: Box
    score: float
    class_id: int
    variance: Box
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., score: _Optional[float] = ..., class_id: _Optional[int] = ..., variance: _Optional[_Union[Box, _Mapping]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x_min", "y_min", "x_max", "y_max")
    X_MIN_FIELD_NUMBER: _ClassVar[int]
    Y_MIN_FIELD_NUMBER: _ClassVar[int]
    X_MAX_FIELD_NUMBER: _ClassVar[int]
    Y_MAX_FIELD_NUMBER: _ClassVar[int]
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    def __init__(self, x_min: _Optional[float] = ..., y_min: _Optional[float] = ..., x_max: _Optional[float] = ..., y_max: _Optional[float] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("wait_ns", "represent_ns", "infer_ns", "total_ns", "published_ns")
    WAIT_NS_FIELD_NUMBER: _ClassVar[int]
    REPRESENT_NS_FIELD_NUMBER: _ClassVar[int]
    INFER_NS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_NS_FIELD_NUMBER: _ClassVar[int]
    wait_ns: int
    represent_ns: int
    infer_ns: int
    total_ns: int
    published_ns: int
    def __init__(self, wait_ns: _Optional[int] = ..., represent_ns: _Optional[int] = ..., infer_ns: _Optional[int] = ..., total_ns: _Optional[int] = ..., published_ns: _Optional[int] = ...) -> None: ...

class ListSourcesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSourcesResponse(_message.Message):
    __slots__ = ("sources",)
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    def __init__(self, sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("name", "driver")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    name: str
    driver: str
    def __init__(self, name: _Optional[str] = ..., driver: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelRef]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelRef, _Mapping]]] = ...) -> None: ...

class GetLatestRequest(_message.Message):
    __slots__ = ("source", "model", "kinds", "encoding", "include_image")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_IMAGE_FIELD_NUMBER: _ClassVar[int]
    source: str
    model: str
    kinds: _containers.RepeatedScalarFieldContainer[ResultKind]
    encoding: MaskEncoding
    include_image: bool
    def __init__(self, source: _Optional[str] = ..., model: _Optional[str] = ..., kinds: _Optional[_Iterable[_Union[ResultKind, str]]] = ..., encoding: _Optional[_Union[MaskEncoding, str]] = ..., include_image: bool = ...) -> None: ...

class GetLatestResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: Result
    def __init__(self, result: _Optional[_Union[Result, _Mapping]] = ...) -> None: ...

class SegmentRequest(_message.Message):
    __slots__ = ("model", "encoded", "raw", "encoding", "prompts")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    encoded: bytes
    raw: RawImage
    encoding: MaskEncoding
    prompts: _containers.RepeatedCompositeFieldContainer[ObjectPrompt]
    def __init__(self, model: _Optional[str] = ..., encoded: _Optional[bytes] = ..., raw: _Optional[_Union[RawImage, _Mapping]] = ..., encoding: _Optional[_Union[MaskEncoding, str]] = ..., prompts: _Optional[_Iterable[_Union[ObjectPrompt, _Mapping]]] = ...) -> None: ...

class ObjectPrompt(_message.Message):
    __slots__ = ("points", "box", "mask")
    POINTS_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedCompositeFieldContainer[Point]
    box: Box
    mask: Mask
    def __init__(self, points: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., mask: _Optional[_Union[Mask, _Mapping]] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y", "background")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    BACKGROUND_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    background: bool
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., background: bool = ...) -> None: ...

class RawImage(_message.Message):
    __slots__ = ("width", "height", "channels", "data")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    channels: int
    data: bytes
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., channels: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class SegmentResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: Result
    def __init__(self, result: _Optional[_Union[Result, _Mapping]] = ...) -> None: ...
