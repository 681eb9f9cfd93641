"""What comes from the network or from an operator's hand may be anything: it is an error, no crash.

`make fuzz` does the same for ten minutes each, with other damage each time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message

from edgeperc import masks
from edgeperc.changes import changed
from edgeperc.config import App, ModelCard, Rig, load
from edgeperc.errors import ConfigError, DataError, EdgepercError
from edgeperc.packet import Gaze, Stamp
from edgeperc.plan import Plan, check_names
from edgeperc.proto.codec import from_message, mask_of, to_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.result import Detections, Instances, LabelMap, ModelRef, Result, SearchMap, decode_rle

from .mutations import damaged, mutations

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.fuzz

STAMP = Stamp(source="dvs", seq=3, start_ns=10**18, end_ns=10**18 + 5)
MODEL = ModelRef(name="m", sha256="ab", engine="onnxruntime", provider="cpu")
WORDS = (b"[[pipelines]]\n", b"[search]\n", b'"', b"inf", b"nan", b"-1", b"99999999999999999999")
WORDS += (b"= ", b"\x00", b"[", b"]", b"{", b"'''", b"\xff\xfe", b"true", b"1979-05-27", b"\\u0000")


def results() -> list[Result]:
    rng = np.random.default_rng(0)
    blob = np.zeros((20, 30), np.bool_)
    blob[4:9, 7:20] = True
    boxes = rng.random((2, 4)).astype(np.float32)
    ones = np.ones(2, np.float32)
    return [
        LabelMap(
            stamp=STAMP,
            labels=np.repeat(np.arange(6, dtype=np.uint8), 100).reshape(20, 30),
            classes=("road", "sky"),
            model=MODEL,
        ),
        Detections(
            stamp=STAMP,
            boxes=boxes,
            scores=ones,
            class_ids=np.zeros(2, np.int64),
            classes=("car",),
            model=MODEL,
            picture_px=(30, 20),
            variance=boxes,
            gaze=Gaze(pan_rad=0.1, tilt_rad=-0.1),
        ),
        Instances(
            stamp=STAMP,
            ids=np.array([1, 7]),
            masks=(masks.encode(blob), masks.encode(~blob)),
            boxes=boxes,
            scores=ones,
            visible=ones,
            picture_px=(30, 20),
            model=MODEL,
        ),
        SearchMap(
            stamp=STAMP,
            intensity=rng.random((9, 16)).astype(np.float32),
            cell_rad=0.01,
            tracks=np.zeros((1, 4), np.float32),
            trail=np.zeros((5, 2), np.float32),
            model=MODEL,
        ),
    ]


def shake(message: Message, rng: np.random.Generator) -> None:
    """Put an extreme or a random value into one of the fields that are set, or none at all."""
    fields = message.ListFields()
    if not fields:
        return
    field, value = fields[int(rng.integers(len(fields)))]
    if field.message_type:
        inner = value if isinstance(value, Message) else value[int(rng.integers(len(value)))]
        shake(inner, rng)
    elif isinstance(value, bytes):
        setattr(message, field.name, damaged(value, rng) if rng.random() < 0.9 else b"")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        for extreme in rng.permutation([-(2**63), -1, 0, 1, 255, 2**31 - 1, 2**32 - 1, 2**63 - 1]):
            try:
                setattr(message, field.name, type(value)(extreme))
            except ValueError:  # too large for the field
                continue
            return
    else:
        message.ClearField(field.name)


def test_damaged_results_are_data_errors() -> None:
    encodings = (pb.MASK_ENCODING_RAW, pb.MASK_ENCODING_ZSTD, pb.MASK_ENCODING_RLE)
    seeds = [to_message(each, how).SerializeToString() for each in results() for how in encodings]
    outcomes = {"read": 0, "refused": 0}
    rng = np.random.default_rng(0)
    for data in mutations(seeds):
        try:
            message = pb.Result.FromString(data)
        except DecodeError:  # as nearly all: so shake a whole one, too
            message = pb.Result.FromString(seeds[int(rng.integers(len(seeds)))])
            shake(message, rng)
        try:
            read = from_message(message)
        except DataError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        to_message(read, pb.MASK_ENCODING_RLE)  # what was let in is whole
    assert min(outcomes.values()) > 10, outcomes


def test_damaged_masks_and_run_lengths_are_errors() -> None:
    blob = np.zeros((64, 64), np.bool_)
    blob[10:30, 20:50] = True
    rle = masks.encode(blob)
    refused = 0
    for data in mutations([rle.counts]):
        try:
            mask = mask_of(pb.Mask(width=64, height=64, counts=data))
            assert masks.decode(mask).shape == (64, 64)
        except DataError:
            refused += 1
        try:
            assert decode_rle(data, height_px=8, width_px=8).shape == (8, 8)
        except ValueError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("folder", "kind"), [("apps", App), ("devices", Rig), ("models", ModelCard)]
)
def test_damaged_files_of_an_operator_are_config_errors(
    folder: str, kind: type, tmp_path: Path
) -> None:
    pattern = "*/model.toml" if folder == "models" else "*.toml"
    texts = [path.read_bytes() for path in sorted((ROOT / folder).glob(pattern))]
    path, said = tmp_path / "file.toml", set()
    for data in mutations(texts, words=WORDS):
        path.write_bytes(data)
        try:
            load(path, kind)
        except ConfigError as error:
            said.add(str(error))
    assert len(said) > 30
    assert all(str(path) in words for words in said)


def test_damaged_apps_are_refused_before_anything_starts(tmp_path: Path) -> None:
    texts = [path.read_bytes() for path in sorted((ROOT / "apps").glob("*.toml"))]
    path, said = tmp_path / "app.toml", set()
    for data in mutations(texts, words=WORDS):
        path.write_bytes(data)
        try:
            check_names(Plan.load(str(path)))
        except EdgepercError as error:
            said.add(str(error))
    assert len(said) > 30
    assert not any("\n" in words for words in said)


def test_damaged_changes_are_config_errors() -> None:
    table = {"pipelines": [{"name": "a", "threads": 2}], "sinks": [], "rig": "twin"}
    seeds = [b"pipelines.0.model=./small", b"sinks.0.port=0", b"rig=twin", b"a.b.c={x = 1}"]
    refused = 0
    for data in mutations(seeds, words=(b"=", b".", b"0", b"-1", b"99", b"pipelines")):
        try:
            changed(table, [data.decode("utf-8", "replace")])
        except ConfigError:
            refused += 1
    assert refused > 30
