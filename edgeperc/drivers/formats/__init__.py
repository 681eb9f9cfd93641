"""Recorded formats: told apart by their first bytes, each read by one module here.

A reader is a function `read(path, options) -> Iterator[Packet]`. It yields what it can, in the
order of the file, with stamps whose source and seq are blank, then raises DataError (or whatever
its library raises) where the file breaks. Readers run in a process of their own, see `worker`.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeperc.errors import ConfigError, DataError


@dataclass(frozen=True)
class Format:
    """A kind of recording. libraries: what its reader imports. frames: it may hold pictures.

    exact: its packets are those that were recorded, and are left as they are.
    """

    name: str
    module: str
    libraries: tuple[str, ...] = ()
    frames: bool = False
    exact: bool = False


AEDAT4 = Format("AEDAT4", "aedat4", ("aedat",), frames=True)
RAW = Format("Prophesee RAW", "prophesee_raw")
DAT = Format("Prophesee DAT", "prophesee_dat")
ES = Format("Event Stream", "event_stream")
HDF5 = Format("HDF5", "hdf5", ("h5py", "hdf5plugin"))
ROS1 = Format("ROS 1 bag", "ros", ("rosbags",), frames=True)
ROS2 = Format("ROS 2 bag", "ros", ("rosbags",), frames=True)
TEXT = Format("text", "text")
VIDEO = Format("video", "video", ("cv2",), frames=True)
OURS = Format("recording of edgeperc", "recording", frames=True, exact=True)
FOLDER = Format("folder of pictures", "pictures", ("cv2",), frames=True)

KNOWN = (
    "AEDAT4, Prophesee RAW (EVT2, EVT3) and DAT, Event Stream, DSEC and MVSEC HDF5,"
    " 't x y p' text, ROS 1 bags, ROS 2 bags (folder, .db3, .mcap), video files,"
    " folders of pictures, recordings of edgeperc"
)
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
"""How the names of pictures in a folder end."""

_MAGIC = (
    (b"#!AER-DAT4", AEDAT4),
    (b"Event Stream", ES),
    (b"\x89HDF\r\n\x1a\n", HDF5),
    (b"#ROSBAG V2.0\n", ROS1),
    (b"\x89MCAP0\r\n", ROS2),
    (b"SQLite format 3\x00", ROS2),
    (b"\x1aE\xdf\xa3", VIDEO),  # Matroska, WebM
)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader may be told.

    width_px, height_px: the sensor, where the file does not say; what a camera should deliver.
    start_s: what comes earlier than this after the first packet may be skipped. sensor: of a
    recording of several.
    """

    width_px: int | None = None
    height_px: int | None = None
    rate_hz: float | None = None
    topics: tuple[str, ...] = ()
    start_s: float = 0.0
    sensor: str = ""

    def sensor_px(
        self, in_file: tuple[int, int] | None = None, *, usual: tuple[int, int]
    ) -> tuple[int, int]:
        """Width and height: the file's, else what was asked for, else what the format usually has.

        Raises ConfigError if file and options contradict each other.
        """
        asked = (self.width_px, self.height_px)
        if in_file is None:
            return asked[0] or usual[0], asked[1] or usual[1]
        for want, have in zip(asked, in_file, strict=True):
            if want not in (None, have):
                raise ConfigError(
                    f"the sensor is {in_file[0]} × {in_file[1]} px in the file,"
                    f" {asked[0] or '-'} × {asked[1] or '-'} as configured"
                )
        return in_file


def sniff(path: Path) -> Format:
    """Tell a recording's format. Raises DataError if it is none of ours or needs a library."""
    found = _folder(path) if path.is_dir() else _by_content(path)
    missing = [name for name in found.libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(
            f"{path}: reading {found.name} needs {' and '.join(missing)}:"
            " pip install 'edgeperc[recordings]'"
        )
    return found


def _folder(path: Path) -> Format:
    from edgeperc.recording.reader import files_of

    if files_of(path):
        return OURS
    if (path / "metadata.yaml").is_file():
        return ROS2
    is_pictures = any(each.suffix.lower() in PICTURES for each in path.iterdir())
    return FOLDER if is_pictures else ROS2


def _by_content(path: Path) -> Format:
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return OURS if found is ROS2 and _is_ours(head) else found
    if head.startswith(b"% "):
        return DAT if re.search(rb"^% (Version|Data file)", head, re.MULTILINE) else RAW
    if head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:11] == b"AVI"):
        return VIDEO
    if _is_text(head):
        return TEXT
    raise DataError(f"{path}: {_what_else(head)}", hint=f"edgeperc reads {KNOWN}")


def _is_ours(head: bytes) -> bool:
    from edgeperc.recording.reader import is_ours

    return is_ours(head)


def _is_text(head: bytes) -> bool:
    """Lines of numbers, perhaps below a comment."""
    lines = [line for line in head.splitlines() if line.strip() and not line.startswith(b"#")]
    return bool(lines) and re.fullmatch(rb"[-+.,\deE\s]+", lines[0]) is not None


def _what_else(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head.startswith(b"#!AER-DAT"):
        version = head[9:12].decode("ascii", "replace")
        return f"AEDAT {version} is not read, only AEDAT 4; DV converts it"
    return f"not a recording that edgeperc knows; it starts with {head[:8]!r}"
