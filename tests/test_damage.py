"""What is left of damaged recordings: the sound beginning, then one error; never a hang or a jump.

Files of our own readers are read in this process, those of native libraries as the daemon does.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeperc.drivers.formats import Options, sniff
from edgeperc.drivers.formats.packets import UntilError, cut, in_order
from edgeperc.drivers.replay import Replay
from edgeperc.errors import DataError, EdgepercError
from edgeperc.packet import Events, Packet
from edgeperc.validate import Validator

from .mutations import damaged, tries

Written = Callable[[str], Path]
Real = Callable[[str], Path]
Damage = Callable[[bytes], bytes]

OURS = ("evt2", "evt3", "dat1", "dat2", "es", "text_s", "text_us", "ros1_packets", "ros1_dvs")
OURS += ("ros2_db3", "mcap", "mcap_dvs")
NATIVE = ("aedat4", "mvsec")
RANDOM = np.random.default_rng(3)


def shortened(data: bytes) -> bytes:
    """Without the last 40 %, inside an event: of no format is its size a divisor of the rest."""
    rest = len(data) * 4 // 10
    return data[: -(rest - rest % 10 + 1)]


def flipped(data: bytes) -> bytes:
    """50 bits of the second half."""
    damaged = np.frombuffer(data, np.uint8).copy()
    at = RANDOM.integers(len(data) // 2, len(data), 50)
    damaged[at] ^= (1 << RANDOM.integers(0, 8, 50)).astype(np.uint8)
    return damaged.tobytes()


def with_garbage(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + RANDOM.bytes(4096) + data[half:]


def overwritten(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + RANDOM.bytes(4096) + data[half + 4096 :]


def with_a_hole(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + data[half + 4097 :]


def swapped(data: bytes) -> bytes:
    half, block = len(data) // 2, len(data) // 6
    return data[:half] + data[half + block : half + 2 * block] + data[half : half + block]


DAMAGES = (shortened, flipped, with_garbage, overwritten, with_a_hole, swapped)


def outcome(packets: Any) -> tuple[list[np.ndarray[Any, Any]], DataError | None]:
    """Events that come through, as columns, and why there are no more."""
    good = UntilError(Validator("raise").stream(packets))
    parts = [packet for packet in good if isinstance(packet, Events)]
    empty = np.zeros(0)
    columns = [np.concatenate([empty, *(getattr(part, c) for part in parts)]) for c in "txyp"]
    try:
        good.reraise()
    except DataError as error:
        return columns, error
    return columns, None


def read_here(path: Path) -> Any:
    reader = importlib.import_module(f"edgeperc.drivers.formats.{sniff(path).module}")
    raw = UntilError(reader.read(path, Options()))
    yield from in_order(cut(raw, span_us=10_000, count=1 << 17))
    try:
        raw.reraise()
    except Exception as error:  # as the decoder's process does
        raise DataError(str(error)) from error


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", OURS + NATIVE)
def test_the_sound_half_is_delivered(
    kind: str, damage: Damage, scene: Any, written: Written, tmp_path: Path
) -> None:
    whole = written(kind)
    path = tmp_path / whole.name
    path.write_bytes(damage(whole.read_bytes()))
    packets = Replay(str(path), deadline_s=5).packets() if kind in NATIVE else read_here(path)
    columns, error = outcome(packets)
    count = columns[0].size
    truth = (scene.t - (scene.t[0] if kind == "es" else 0), scene.x, scene.y, scene.p)
    no_index = kind == "mvsec" and damage in (shortened, with_garbage, with_a_hole, swapped)
    if not no_index:  # of HDF5 with its parts out of place nothing can be read
        sound = int(0.4 * scene.t.size)
        assert count >= sound
        for have, want in zip(columns, truth, strict=True):
            assert (have[:sound] == want[:sound]).all()
    if damage is shortened:
        for have, want in zip(columns, truth, strict=True):
            assert (have == want[:count]).all()
    assert (np.diff(columns[0]) >= 0).all()
    looks_whole = damage in (flipped, overwritten) or kind.startswith("text")
    assert error is not None or looks_whole
    if error and kind in NATIVE:
        assert str(error).startswith((str(path), "replay: event"))


@pytest.mark.fuzz
def test_no_damage_by_chance_is_worse_than_a_data_error(
    scene: Any, written: Written, writers: Any, tmp_path: Path
) -> None:
    few = {column: getattr(scene, column)[:400] for column in "txyp"}
    small = dataclasses.replace(
        scene, **few, images=scene.images[:2, :8], exposures_us=scene.exposures_us[:2]
    )
    wholes, opened = {}, 0
    for kind in OURS:
        path = tmp_path / kind / written(kind).name
        path.parent.mkdir()
        writers[kind](path, small)
        wholes[kind] = path.read_bytes()
    for dice in tries(150):
        kind = OURS[int(dice.integers(len(OURS)))]
        path = tmp_path / kind / f"damaged-{written(kind).name}"
        path.write_bytes(damaged(wholes[kind], dice, tuple(wholes.values())))
        began_s = time.process_time()
        try:
            columns, _ = outcome(read_here(path))
        except EdgepercError:  # it cannot even be told what it was
            continue
        opened += 1
        kept = tmp_path / f"slow-{kind}"
        if (spent_s := time.process_time() - began_s) > 20:
            kept.write_bytes(path.read_bytes())
        assert spent_s <= 20, kept
        assert (np.diff(columns[0]) >= 0).all(), kind
    assert opened > 20


@pytest.mark.parametrize("kind", ["evt2", "evt3", "dat2", "text_s", "dsec", "ros1_dvs"])
def test_time_that_runs_backwards_ends_a_recording(
    kind: str, scene: Any, written: Written, tmp_path: Path, writers: Any
) -> None:
    path = tmp_path / written(kind).name
    writers[kind](path, dataclasses.replace(scene, t=scene.t[::-1].copy()))
    columns, error = outcome(read_here(path))
    assert error
    assert "time goes back from" in str(error)
    assert (np.diff(columns[0]) >= 0).all()
    assert 1 <= columns[0].size < 10


@pytest.mark.parametrize("kind", ["evt2", "dat2", "aedat4", "ros1_dvs", "mcap", "es", "dsec"])
def test_a_header_without_a_body_is_one_sentence(
    kind: str, written: Written, tmp_path: Path
) -> None:
    whole = written(kind)
    path = tmp_path / whole.name
    path.write_bytes(whole.read_bytes()[:19])
    with pytest.raises(DataError) as caught:
        list(Replay(str(path)).packets())
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_the_byte_of_the_damage_is_named(written: Written, tmp_path: Path) -> None:
    cases = {
        "evt2": r"the file ends inside a word, at byte {}",
        "dat2": r"the file ends inside an event, at byte {}",
        "es": r"the file ends inside an event, at byte {}",
        "aedat4": r"packet \d+, at byte \d+,\d{{3}}, ends early",
        "ros1_dvs": r"in the record at byte \d",
        "text_s": r"line 1\d,\d{{3}} is not 't x y p'",
    }
    for kind, message in cases.items():
        path = tmp_path / written(kind).name
        cut_off = shortened(written(kind).read_bytes())
        path.write_bytes(cut_off)
        with pytest.raises(DataError, match=message.format(f"{len(cut_off):,}")):
            list(Replay(str(path)).packets())


@pytest.mark.parametrize("time_s", ["nan", "inf", "-inf", "1e300"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_time_that_never_is_ends_a_text(time_s: str, tmp_path: Path) -> None:
    path = tmp_path / "events.txt"
    path.write_text(f"0.1 1 1 1\n0.2 1 1 0\n{time_s} 1 1 1\n0.4 1 1 1\n")
    columns, error = outcome(read_here(path))
    assert columns[0].tolist() == [100_000, 200_000]
    assert error


@pytest.mark.parametrize("column", ["x", "t", "p"])
def test_of_hdf5_the_chunks_before_a_damaged_one_are_read(
    column: str, scene: Any, written: Written, tmp_path: Path
) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "events.h5"
    path.write_bytes(written("dsec").read_bytes())
    with h5py.File(path) as file:
        chunk = file[f"events/{column}"].id.get_chunk_info(3)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(bytes(chunk.size))
    columns, error = outcome(read_here(path))
    assert "events from 12,288 on cannot be read" in str(error)
    assert (columns[0] == scene.t[: 3 * 4096]).all()
    assert (columns[1] == scene.x[: 3 * 4096]).all()


def test_a_wrong_time_in_a_bags_index_loses_no_message(
    scene: Any, written: Written, tmp_path: Path
) -> None:
    data = bytearray(written("ros1_packets").read_bytes())
    record = data.rindex(b"\x2f\0\0\0", 0, data.index(b"op=\x04"))  # its header has 47 bytes
    fifth_entry = record + 4 + 47 + 4 + 4 * 12
    data[fifth_entry] += 1  # a second later
    path = tmp_path / "scene.bag"
    path.write_bytes(data)
    columns, error = outcome(read_here(path))
    assert (columns[0] == scene.t).all()
    assert "index is missing or damaged" in str(error)


def test_a_folder_without_its_metadata_is_read_by_its_files(
    scene: Any, written: Written, tmp_path: Path
) -> None:
    for kind, suffix in (("ros2_mcap", "mcap"), ("ros2_sqlite", "db3")):
        folder = tmp_path / kind
        folder.mkdir()
        file = next(written(kind).glob(f"*.{suffix}"))
        (folder / file.name).write_bytes(file.read_bytes())
        columns, error = outcome(read_here(folder))
        assert error is None
        assert columns[0].size == scene.t.size


def check_real(path: Path, damage: Damage, folder: Path, whole: list[Packet]) -> None:
    damaged = folder / path.name
    damaged.write_bytes(damage(path.read_bytes()))
    truth = outcome(whole)[0]
    columns, error = outcome(Replay(str(damaged), deadline_s=8).packets())
    sound = int(0.35 * truth[0].size)
    assert columns[0].size >= sound
    for have, want in zip(columns, truth, strict=True):
        assert (have[:sound] == want[:sound]).all()
    assert (np.diff(columns[0]) >= 0).all()
    assert error or damage in (flipped, overwritten)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("davis346.aedat4", shortened),
        ("davis346.aedat4", flipped),
        ("gen3_evt2.raw", flipped),
        ("evk3_evt3.raw", swapped),
        ("eventpacket_evt3_ros1.bag", shortened),
        ("tonic_sample_ncars.dat", with_a_hole),
    ],
)
def test_a_real_recording_damaged(name: str, damage: Damage, real: Real, tmp_path: Path) -> None:
    path = real(f"events/{name}")
    check_real(path, damage, tmp_path, list(Replay(str(path)).packets()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "davis346.aedat4",
        "dvxplorer320x240.aedat4",
        "gen3_evt2.raw",
        "evk3_evt3.raw",
        "eventpacket_evt3_ros1.bag",
        "eventpacket_evt3_trigger_ros2/test_data_evt3_trigger_0.db3",
        "tonic_sample_ncars.dat",
    ],
)
def test_every_real_recording_with_every_damage(name: str, real: Real, tmp_path: Path) -> None:
    path = real(f"events/{name}")
    whole = list(Replay(str(path)).packets())
    for damage in DAMAGES:
        check_real(path, damage, tmp_path, whole)
