"""The operator's files (devices/, models/, apps/): TOML checked to the last key.

The structs below are the schema: their field names are the TOML keys, their bounds stand next to
the fields. A mistake is a ConfigError of one line that names file, table and key.
"""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec

from edgeperc.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Positive = Annotated[int, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Rate = Annotated[float, msgspec.Meta(ge=1e-6, le=10_000)]
Threads = Annotated[int, msgspec.Meta(gt=0, le=1024)]
Angle = Annotated[float, msgspec.Meta(gt=0, lt=180)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^(?!\s)[^/\x00-\x1f\x7f]{1,64}(?<!\s)\Z")]
"""Of a pipeline or sensor: it stands in health's `pipelines/NAME`, in logs and on pages."""

INTEGERS = range(-(1 << 63), 1 << 63)
"""What TOML calls one. Larger ones would pass all bounds, which msgspec then does not look at."""

T = TypeVar("T")


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table in which a misspelt key is an error."""


class FileEntry(Strict, frozen=True, kw_only=True):
    """[[files]]: one file of a model, beside its card or in the cache.

    role: "network" is the whole network as ONNX; the others are what an engine wants beside it.
    """

    path: str
    role: str = "network"
    url: str = ""
    sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    bytes: int = 0


class Input(Strict, frozen=True, kw_only=True):
    """[input]: what the network eats.

    For events, represent is the name of a packet-to-tensor recipe in `edgeperc.represent`;
    width_px, height_px: the sensor that the network was trained for; exactly one of window_us and
    window_events. For frames, represent says how a picture comes to the network's size of width_px
    x height_px (`edgeperc.picture`), and then (pixel - mean) / std of each channel, pixels 0..255.
    window_at: with [frames], where the window lies: around the middle of a frame's exposure, or
    before it.
    """

    kind: Literal["events", "frame"]
    represent: str
    width_px: Positive
    height_px: Positive
    bins: Positive = 5
    window_us: Positive | None = None
    window_events: Positive | None = None
    channels: Literal["grey", "rgb", "bgr"] = "rgb"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, msgspec.Meta(gt=0)], ...] = (255.0,)
    window_at: Literal["centred", "before"] = "centred"


class FrameInput(Strict, frozen=True, kw_only=True):
    """[frames]: what a network that fuses frames with events eats besides the events of [input].

    (pixel - mean) / std of each channel, pixels 0..255. A frame comes to the network's size as the
    grid of the events does, so that both lie on the same pixels.
    """

    channels: Literal["grey", "rgb", "bgr"] = "grey"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, msgspec.Meta(gt=0)], ...] = (255.0,)


class DetectOptions(Strict, frozen=True, kw_only=True):
    """`detect` of a pipeline: which boxes count, where the model's card is not to decide.

    score: weaker boxes are left out. iou: boxes of a class that overlap more are one. tile_px:
    sides of the square tiles that are looked at one by one, of each size in turn (none: the whole
    picture at once); neighbours share `overlap` of their side.
    """

    score: Share | None = None
    iou: Share | None = None
    tile_px: tuple[Positive, ...] | None = None
    overlap: Annotated[float, msgspec.Meta(ge=0, le=0.8)] | None = None


class DetectTable(DetectOptions, frozen=True, kw_only=True):
    """[detect] of a card. decode: name of a decoder in `edgeperc.detection.decode`."""

    decode: str


class PromptTable(Strict, frozen=True, kw_only=True):
    """[prompt] of a card: the sizes for which a promptable network was exported.

    kind: "video" also has the two files of the memory, "image" has not. picture_px: side of the
    square that the encoder sees. points: tokens of clicks and box corners that a prompt may have.
    An object is remembered by its newest prompt_frames frames with a prompt, the memory_frames - 1
    frames before this one, and the pointers of max_pointers - 1 frames. window_routing,
    memory_keep_share: of Efficient-SAM2; where its files are there, and 1 keeps all tokens.
    """

    kind: Literal["image", "video"]
    picture_px: Positive
    points: Positive = 16
    prompt_frames: Positive = 2
    memory_frames: Positive = 7
    max_pointers: Positive = 16
    window_routing: bool = False
    memory_keep_share: Share = 1.0


class Checkpoint(Strict, frozen=True, kw_only=True):
    """[checkpoint]: the training weights that `edgeperc models import` converts."""

    architecture: str
    sha256: str = ""
    bytes: int = 0
    url: str = ""
    note: str = ""


class Accuracy(Strict, frozen=True, kw_only=True):
    """[[accuracy]]: one figure and where it comes from."""

    dataset: str
    status: Literal["published", "recorded in checkpoint", "measured here", "not measured"]
    miou_percent: float | None = None
    ap50_percent: float | None = None
    recall_percent: float | None = None
    command: str = ""
    note: str = ""


class ModelCard(Strict, frozen=True, kw_only=True):
    """models/<name>/model.toml: what a network is, where it comes from and what it achieves."""

    name: str
    task: Literal["semantic", "detection", "promptable"]
    summary: str
    licence: str
    source: str
    classes: tuple[str, ...]
    input: Input
    frames: FrameInput | None = None
    detect: DetectTable | None = None
    prompt: PromptTable | None = None
    files: tuple[FileEntry, ...] = ()
    checkpoint: Checkpoint | None = None
    accuracy: tuple[Accuracy, ...] = ()
    training: str = ""


class PromptedObject(Strict, frozen=True, kw_only=True):
    """One of `objects` in `prompt`: what an object is, in pixels of the sensor.

    box: left, upper, right, lower edge. points: [x, y] on the object. background: [x, y] beside it.
    frame: the first frame that it is looked for in, counted from 0.
    """

    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()
    background: tuple[tuple[float, float], ...] = ()
    frame: Annotated[int, msgspec.Meta(ge=0)] = 0


class PromptOptions(Strict, frozen=True, kw_only=True):
    """`prompt` of a pipeline whose model follows what it is shown.

    objects: followed without any client. max_objects: at a time, those of clients included.
    max_sessions: clients at a time. ttl_s: a client that says nothing for so long is given up.
    window_routing, memory_keep_share: where the model's card is not to decide.
    """

    objects: tuple[PromptedObject, ...] = ()
    max_objects: Positive = 8
    max_sessions: Positive = 4
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 60.0
    window_routing: bool | None = None
    memory_keep_share: Share | None = None


class PairOptions(Strict, frozen=True, kw_only=True):
    """`pair` of a pipeline whose model fuses frames with events: see `edgeperc.pairs.Rules`.

    silent_ms: a sensor that says nothing for so long is gone, and the other one goes on. skew_ms:
    how much later than the other a sensor's packets may come. max_offset_ms: farther apart, the
    sensors are not on one clock. single: whether what one sensor alone saw is answered for, with
    zeros in the other's place, or passed over.
    """

    silent_ms: Positive = 200
    skew_ms: Positive = 100
    max_offset_ms: Positive = 10_000
    single: Literal["zeros", "skip"] = "zeros"


ProviderName = Literal["tensorrt", "cuda", "openvino", "cpu"]


class ProviderTable(Strict, frozen=True, kw_only=True):
    """One of `providers`, with more than its name.

    device: of openvino. precision: what floats are computed in, "bf16" only by openvino, "f16" by
    openvino and tensorrt, "int8" by tensorrt for networks that were compressed so. options: more of
    tensorrt's and cuda's, by onnxruntime's own names.
    """

    name: ProviderName
    device: Literal["CPU", "GPU", "NPU"] = "CPU"
    precision: Literal["f32", "f16", "bf16", "int8"] = "f32"
    options: dict[str, bool | int | float | str] = {}


class PipelineTable(Strict, frozen=True, kw_only=True):
    """[[pipelines]]: which model looks at which sensor.

    frames: for a model that fuses frames with events, the sensor of the frames, where `input` sends
    only events.
    window_us / window_events replace the card's own window. rate_hz: at most so many packets a
    second are answered, the others are passed over; for the pipeline of a steered camera it is the
    rate of the gazes. engine: "auto" takes the spike-driven one where the model has its file, else
    onnxruntime. providers: of onnxruntime, by name or as a table, and then not the spike-driven
    engine: the first must run the network, the next take what it cannot; without "cpu", nothing may
    be left to the processor. None named: the best that starts. require: the provider that must run
    the network; where another one would, nothing starts. detect: which boxes count, instead
    of what the card says. prompt: what a promptable model follows, and for how many. pair: how
    frames and events are paired.
    """

    name: Name
    input: str
    model: str
    frames: str = ""
    window_us: Positive | None = None
    window_events: Positive | None = None
    rate_hz: Rate | None = None
    engine: Literal["auto", "onnx", "spiking"] = "auto"
    threads: Threads = 2
    providers: tuple[str | ProviderTable, ...] = ()
    require: ProviderName | None = None
    detect: DetectOptions = DetectOptions()
    prompt: PromptOptions = PromptOptions()
    pair: PairOptions = PairOptions()


class ValidateTable(Strict, frozen=True, kw_only=True):
    """[validate]: what happens to a packet that breaks the rules of order, bounds or gaps."""

    policy: Literal["raise", "drop", "clamp"] = "drop"
    max_gap_us: Positive = 10_000_000


class SearchTable(Strict, frozen=True, kw_only=True):
    """[search]: how the mirror is steered, from results through a probability map.

    gaze: the pipeline whose camera looks through the mirror. hints: pipelines of other cameras;
    their boxes and label maps say where it is worth looking. scheduler: see
    `edgeperc.search.schedulers`; options are its constructor's. pd: how probably the model of the
    gaze pipeline finds a target that is in its picture. targets: classes of boxes that count; with
    none named, all do. prior: class of a label map -> share of the targets that are there; classes
    that are not named have none. priority: of the loop's process, by SCHED_FIFO where that is
    permitted; 0 leaves it as it is. hint_delay_ms: in replay, how long after its exposure a hint
    arrives.
    """

    gaze: str
    hints: tuple[str, ...] = ()
    scheduler: str = "bayes"
    options: dict[str, Any] = {}
    pd: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.92
    targets: tuple[str, ...] = ()
    prior: dict[str, NotNegative] = {}
    priority: Annotated[int, msgspec.Meta(ge=0, le=98)] = 20
    hint_delay_ms: NotNegative = 50.0


class SuperviseTable(Strict, frozen=True, kw_only=True):
    """[supervise]: when a process of the daemon is killed and started anew.

    hang_s: it says nothing, or is at one packet, for so long. start_s: it takes so long to load its
    model, or for its first result. max_rss_mib: its memory, without what it shares; 0 is no limit.
    """

    hang_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 10.0
    start_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 1800.0
    max_rss_mib: Annotated[int, msgspec.Meta(ge=0)] = 0


class App(Strict, frozen=True, kw_only=True):
    """apps/<name>.toml: which pipelines run on a rig, and where results go.

    Each [[sinks]] table is checked against the constructor that its `kind` names.
    """

    rig: str
    pipelines: Annotated[tuple[PipelineTable, ...], msgspec.Meta(min_length=1)]
    summary: str = ""
    search: SearchTable | None = None
    sinks: tuple[dict[str, Any], ...] = ()
    validate: ValidateTable = ValidateTable()
    supervise: SuperviseTable = SuperviseTable()


class FieldTable(Strict, frozen=True, kw_only=True):
    """[field]: what the cameras of a search rig see.

    wide, search: the sensors that see the whole field, and a part of it through the mirror.
    wide_deg, search_deg: angles that the widths of their pictures span. width_deg, height_deg: the
    field that is searched, in angles of gaze around the mirror's centre.
    """

    wide: str = "wide"
    search: str = "search"
    wide_deg: Angle = 60.0
    search_deg: Angle = 2.81
    width_deg: Angle = 60.0
    height_deg: Angle = 30.0


Nine = Annotated[tuple[float, ...], msgspec.Meta(min_length=9, max_length=9)]
Twelve = Annotated[tuple[float, ...], msgspec.Meta(min_length=12, max_length=12)]


class IntrinsicsTable(Strict, frozen=True, kw_only=True):
    """[intrinsics.<sensor>]: how a camera's lens brings rays to pixels, as ROS and OpenCV say it.

    file: what ROS's camera_calibration wrote (YAML), relative to the rig's file; or else all of the
    others. width_px, height_px: of the pictures it was found with. focal_px, centre_px: x and y;
    the middle of the upper left pixel is (0, 0). distortion: of plumb_bob k1, k2, p1, p2, k3; of
    rational_polynomial also k4, k5, k6; of equidistant k1 to k4. rectification, projection: R and P
    of a camera of a pair. binning: so many pixels of those pictures, each way, are one of what the
    camera sends now. window_px: where in those pictures that begins, by default the sensor's own
    offset_x_px and offset_y_px.
    """

    file: str = ""
    model: Literal["plumb_bob", "rational_polynomial", "equidistant"] = "plumb_bob"
    width_px: Positive | None = None
    height_px: Positive | None = None
    focal_px: tuple[float, float] | None = None
    centre_px: tuple[float, float] | None = None
    distortion: tuple[float, ...] = ()
    rectification: Nine | None = None
    projection: Twelve | None = None
    binning: Positive = 1
    window_px: tuple[int, int] | None = None


class Rig(Strict, frozen=True, kw_only=True):
    """devices/<name>.toml: what is bolted together.

    Each [sensors.<name>] table, and [mirror], is checked against the constructor that its `driver`
    names. calibration: file that `edgeperc calibrate` wrote for this rig, relative to the rig's.
    intrinsics: of those cameras whose lens is known.
    """

    sensors: Annotated[dict[Name, dict[str, Any]], msgspec.Meta(min_length=1)]
    mirror: dict[str, Any] | None = None
    field: FieldTable = FieldTable()
    calibration: str = ""
    intrinsics: dict[str, IntrinsicsTable] = {}
    summary: str = ""


def load(path: Path, kind: type[T]) -> T:
    """Read a TOML file as `kind`. Raises ConfigError naming file, table and key."""
    return convert(read_toml(path), kind, where=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ConfigError if it is missing or not TOML."""
    return parse_toml(read_text(path), where=str(path))


def read_text(path: Path) -> str:
    """The text of an operator's file. Raises ConfigError for what cannot be read, or is no text."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ConfigError(f"{path}: is no file")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text in UTF-8, at byte {error.start:,}") from error


def parse_toml(text: str, *, where: str) -> dict[str, Any]:
    """Read TOML. Raises ConfigError that starts with `where` if it is none."""
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: its arrays are too deep") from error
    return table


def convert(table: Any, kind: type[T], *, where: str) -> T:
    """Check a parsed table against `kind`. Raises ConfigError that starts with `where`."""
    if huge := _huge(table):
        raise ConfigError(f"{where}: {str(huge[0])[:40]} has more than 64 bits")
    try:
        return msgspec.convert(table, kind, strict=True)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        place = f"{where} {_toml_path(path.rstrip('`'))}".rstrip()
        place = place if place.endswith(":") else f"{place}:"
        raise ConfigError(f"{place} {_plain(message, kind)}") from None


def _huge(value: Any) -> list[int]:
    """The integers within that are none of TOML's."""
    if isinstance(value, dict | list | tuple):
        inside = value.values() if isinstance(value, dict) else value
        return [huge for each in inside for huge in _huge(each)]
    return [value] if isinstance(value, int) and value not in INTEGERS else []


def _toml_path(path: str) -> str:
    """`.pipelines[0].window_us` as msgspec says it -> `[[pipelines]] #1 window_us:` as in TOML."""
    # `[...]` is a value in a table of tables; msgspec does not say which.
    *tables, key = path.replace("[...]", "").lstrip(".").split(".")
    if in_array := re.fullmatch(r"(\w+)\[(\d+)\]", key):  # the mistake is the whole table
        return f"[[{in_array[1]}]] #{int(in_array[2]) + 1}:"
    header = ".".join(tables)
    if in_array := re.fullmatch(r"(\w+)\[(\d+)\]", header):
        header = f"[[{in_array[1]}]] #{int(in_array[2]) + 1} "
    elif header:
        header = f"[{header}] "
    return f"{header}{key}:" if key else header


def _plain(message: str, kind: type) -> str:
    """Say msgspec's complaint in the words of an operator's file."""
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        near = difflib.get_close_matches(unknown[1], _all_keys(kind), n=1)
        return f"unknown key '{unknown[1]}'" + (f"; did you mean '{near[0]}'?" if near else "")
    if missing := re.fullmatch(r"Object missing required field `(.*)`", message):
        return f"key '{missing[1]}' is missing"
    if message.startswith("Expected `str` matching regex") and "x7f" in message:
        return "a name is 1 to 64 characters, without /, control characters and blanks around it"
    return message[:1].lower() + message[1:]


def _all_keys(kind: Any) -> set[str]:
    """Every key that may stand in `kind` or in a table within it."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = msgspec.structs.fields(kind)
        inner = (_all_keys(field.type) for field in fields)
        return {field.name for field in fields}.union(*inner)
    return set().union(*(_all_keys(part) for part in get_args(kind)))
