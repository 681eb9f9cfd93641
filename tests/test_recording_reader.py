"""Damaged recordings: what is whole comes, then one sentence; and nothing else."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zstandard
from mcap.reader import make_reader

from edgeperc.drivers.formats.recording import end_of, sensors_in
from edgeperc.errors import DataError, EdgepercError
from edgeperc.packet import Packet
from edgeperc.plan import Plan
from edgeperc.recording.bag import make_bag
from edgeperc.recording.head import About
from edgeperc.recording.items import items
from edgeperc.recording.mcap_file import MAGIC, McapFile
from edgeperc.recording.plan import recorded_plan
from edgeperc.recording.reader import head, is_ours, records, topics
from edgeperc.recording.recorder import Recorder
from edgeperc.recording.repair import repair
from edgeperc.result import Result

from .mutations import tries
from .recording_process import packet
from .test_recorder import frame, record
from .test_ros_messages import ITEMS, as_bytes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[Packet | Result]]:
    """A recording of several chunks and all kinds of items, and what it holds."""
    path = tmp_path_factory.mktemp("whole") / "a.mcap"
    what: list[Packet | Result] = []
    for seq in range(60):
        what += [packet(seq), frame(seq), *ITEMS.values()]
    record(path, what)
    return path.read_bytes(), what


def readable(path: Path) -> tuple[list[Packet | Result], str]:
    """What can be read, and why there is no more."""
    found = []
    try:
        for item in items(path):
            found.append(item)
    except DataError as error:
        return found, str(error)
    return found, ""


def write(folder: Path, data: bytes) -> Path:
    path = folder / "damaged.mcap"
    path.write_bytes(data)
    return path


def chunks(data: bytes, folder: Path) -> list[tuple[int, int]]:
    """Where the chunks begin and end."""
    return [(r.at, r.end) for r in records(write(folder, data)) if r.opcode == 6]


def check_prefix(path: Path, what: list[Packet | Result]) -> tuple[int, str]:
    """See that what can be read is how it began; how much that is, and why there is no more."""
    found, why = readable(path)
    assert [as_bytes(item) for item in found] == [as_bytes(item) for item in what[: len(found)]]
    return len(found), why


def test_a_whole_recording_is_read_without_a_word(
    whole: tuple[bytes, list[Packet | Result]], tmp_path: Path
) -> None:
    data, what = whole
    assert len(chunks(data, tmp_path)) > 4
    assert check_prefix(write(tmp_path, data), what) == (len(what), "")
    assert is_ours(data[:256])
    assert not is_ours(data[:20])
    assert topics(write(tmp_path, data))["dvs/events"] == "event_camera_msgs/msg/EventPacket"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_recording_that_was_cut_gives_all_before_the_cut(
    whole: tuple[bytes, list[Packet | Result]], tmp_path: Path, share: float
) -> None:
    data, what = whole
    size = round(share * len(data))
    path = write(tmp_path, data[:size])
    count, why = check_prefix(path, what)
    whole_chunks = sum(end <= size for _, end in chunks(data, tmp_path))
    path = write(tmp_path, data[:size])
    if share < 0.999:
        assert "was not closed" in why
    assert (count > 0) == (whole_chunks > 0)
    repaired = repair(path)
    assert repair(path).was_whole
    again, why = check_prefix(path, what)
    assert (again, why) == (count, "")
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        assert reader.get_summary().statistics.message_count == repaired.messages
        assert sum(1 for _ in reader.iter_messages()) == repaired.messages


def test_a_cut_within_a_chunks_index_is_mended(
    whole: tuple[bytes, list[Packet | Result]], tmp_path: Path
) -> None:
    data, what = whole
    second = chunks(data, tmp_path)[1]
    path = write(tmp_path, data[: second[1] + 40])
    count, _ = check_prefix(path, what)
    repair(path)
    with path.open("rb") as file:
        reader = make_reader(file)
        events = sum(1 for _ in reader.iter_messages(["dvs/events"]))
    found, why = readable(path)
    assert (len(found), why) == (count, "")
    assert events > sum(type(item).__name__ == "Events" for item in found) > 0  # rare ones are cut


def test_zeros_at_the_end_are_a_cut(
    whole: tuple[bytes, list[Packet | Result]], tmp_path: Path
) -> None:
    data, what = whole
    end = chunks(data, tmp_path)[2][1]
    path = write(tmp_path, data[:end] + bytes(100_000))
    count, why = check_prefix(path, what)
    assert "was not closed" in why
    assert repair(path).cut_bytes >= 100_000
    assert check_prefix(path, what) == (count, "")


def test_flipped_bits_are_found_by_the_checksum(
    whole: tuple[bytes, list[Packet | Result]], tmp_path: Path
) -> None:
    data, what = whole
    start, end = chunks(data, tmp_path)[2]
    for at in (start + 26, (start + end) // 2, end - 3):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        path = write(tmp_path, bytes(damaged))
        count, why = check_prefix(path, what)
        assert 0 < count < len(what)
        assert f"in the chunk at byte {start:,}" in why
        with pytest.raises(DataError, match="damaged") as error:
            repair(path)
        assert "all before it" in error.value.hint
        assert path.read_bytes() == bytes(damaged)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is no MCAP file"),
        (b"\x89MCAP0", "is no MCAP file"),
        (MAGIC, "was not closed"),
        (MAGIC + b"\x05" + b"\xff" * 8, "was not closed"),
        (MAGIC + b"\xee" + b"\x01" + bytes(7) + b"xy", "damaged at byte 8"),
    ],
)
def test_files_that_are_none_say_so(tmp_path: Path, data: bytes, why: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(DataError, match=why):
        list(records(path))
    with pytest.raises(DataError):
        head(path)
    with pytest.raises(DataError, match="is no recording of edgeperc"):
        repair(path)


def test_a_file_that_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        head(tmp_path / "a.mcap")
    with pytest.raises(DataError, match="No such file"):
        repair(tmp_path / "a.mcap")
    with pytest.raises(DataError, match="holds no recording"):
        head(tmp_path)


def test_a_flipped_bit_in_the_app_inside_is_found(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.mcap", About.of(Plan.load("events"), ()))
    recorder.close()
    data = bytearray(recorder.path.read_bytes())
    data[data.index(b"sltnet-twin")] ^= 1
    path = write(tmp_path, bytes(data))
    with pytest.raises(DataError, match="the recording's beginning is damaged"):
        recorded_plan(path)


def bomb(size: int, claimed: int) -> bytes:
    """A chunk that unpacks to `size` zeros and says that it unpacks to `claimed`."""
    content = bytes(size)
    packed = zstandard.ZstdCompressor().compress(content)
    body = struct.pack("<QQQI", 0, 0, claimed, zlib.crc32(content))
    body += struct.pack("<I", 4) + b"zstd" + struct.pack("<Q", len(packed)) + packed
    return b"\x06" + struct.pack("<Q", len(body)) + body


@pytest.mark.parametrize(("size", "claimed"), [(1 << 26, 100), (100, 1 << 60), (1 << 20, 1 << 30)])
def test_a_chunk_that_lies_about_its_size_is_not_unpacked(
    tmp_path: Path, size: int, claimed: int
) -> None:
    record(tmp_path / "a.mcap", [])
    data = (tmp_path / "a.mcap").read_bytes()
    start = next(record.at for record in records(tmp_path / "a.mcap") if record.opcode == 15)
    path = write(tmp_path, data[:start] + bomb(size, claimed))
    assert "its sizes are wrong" in readable(path)[1]


def test_a_recording_that_is_not_whole_is_no_bag(
    whole: tuple[bytes, list[Packet | Result]], tmp_path: Path
) -> None:
    path = write(tmp_path, whole[0][:-20])
    with pytest.raises(DataError, match="is not whole") as error:
        make_bag(path, tmp_path / "bag")
    assert "--repair" in error.value.hint
    assert not (tmp_path / "bag").exists()


def test_only_files_of_ours_in_a_folder_count(tmp_path: Path) -> None:
    (tmp_path / "other.mcap").write_bytes(MAGIC + b"xxxx")
    file = McapFile(tmp_path / "ours.mcap")
    file.describe("edgeperc", {"offset_ns": "5"})
    file.close()
    assert head(tmp_path).offset_ns == 5
    assert list(items(tmp_path)) == []


def damaged(data: bytes, dice: np.random.Generator) -> bytes:
    """A recording with something wrong."""
    at, other = (int(dice.integers(len(data))) for _ in range(2))
    length = int(dice.choice([1, 2, 8, 100, 5000]))
    wild = (0, 1, (1 << 32) - 1, 1 << 31, (1 << 64) - 1, 1 << 40)[int(dice.integers(6))]
    flipped = bytearray(data)
    for _ in range(int(dice.choice([1, 3, 50]))):
        flipped[int(dice.integers(len(data)))] ^= 1 << int(dice.integers(8))
    return (
        bytes(flipped),
        data[:at],
        data[:at] + data[at + length :],
        data[:at] + data[at : at + length] + data[at:],
        data[:at] + data[other : other + length] + data[at + length :],
        data[:at] + dice.bytes(length) + data[at + length :],
        data[:at] + wild.to_bytes(8, "little") + data[at + 8 :],
        data[:at] + data[other:],
    )[int(dice.integers(8))]


def unpacked(data: bytes, folder: Path) -> bytes:
    """The same recording without compression and checksums, so that damage goes deep."""
    found = bytearray(MAGIC)
    for record_ in records(write(folder, data)):
        body = bytes(record_.body)
        if record_.opcode == 6:
            content = zstandard.ZstdDecompressor().decompress(body[44:])
            body = body[:24] + bytes(8) + struct.pack("<Q", len(content)) + content
        found += bytes([record_.opcode]) + struct.pack("<Q", len(body)) + body
    return bytes(found)


@pytest.mark.fuzz
def test_no_damage_is_worse_than_a_data_error(
    whole: tuple[bytes, list[Packet | Result]], tmp_path: Path
) -> None:
    small = Recorder(tmp_path / "small.mcap", About.of(Plan.load("search"), ()), wait=True)
    for item in (packet(0), frame(0, side=20), *ITEMS.values(), packet(1)):
        small.put(item)
    small.close()
    originals = [small.path.read_bytes(), whole[0]]
    originals.append(unpacked(originals[0], tmp_path))
    for dice in tries(60):
        data = originals[int(dice.choice(3, p=[0.46, 0.08, 0.46]))]
        path = write(tmp_path, damaged(data, dice))
        try:
            readable(path)
            for step in (head, topics, sensors_in, end_of, recorded_plan, repair):
                with suppress(EdgepercError):
                    step(path)
        except Exception as error:
            kept = Path(f"/tmp/edgeperc-fuzz-{zlib.crc32(path.read_bytes()):08x}.mcap")
            kept.write_bytes(path.read_bytes())
            raise AssertionError(f"{kept}: {error!r}") from error
