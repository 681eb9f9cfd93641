"""Small recordings of one made-up scene in every format, and the real ones where they are.

Also cameras that are none: pylon's emulated ones, Aravis' fake one, and a stream of pictures.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

# Tests that run in the background of a shell are born deaf to Ctrl-C, and so were their children.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared" / "data"
WIDTH, HEIGHT = 64, 48


def pytest_collection_finish() -> None:
    """What all the imports made stays to the end: no collection need look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """A verb that was run in this process writes no lines to the standard error of a later test."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)
    for handler in list(logging.root.handlers):
        if type(handler) is logging.StreamHandler:
            logging.root.removeHandler(handler)


@dataclass(frozen=True)
class Scene:
    """What was recorded: events as columns, and pictures with their exposures, all in µs."""

    t: NDArray[np.int64]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    p: NDArray[np.bool_]
    images: NDArray[np.uint8]
    exposures_us: tuple[tuple[int, int], ...]


@pytest.fixture(scope="session")
def scene() -> Scene:
    """20,000 events in 0.5 s around the time at which EVT3 wraps, and 10 grey pictures."""
    random = np.random.default_rng(7)
    count, start_us = 20_000, (1 << 24) - 200_000
    return Scene(
        t=start_us + np.sort(random.integers(0, 500_000, count)),
        x=random.integers(0, WIDTH, count).astype(np.uint16),
        y=random.integers(0, HEIGHT, count).astype(np.uint16),
        p=random.integers(0, 2, count).astype(np.bool_),
        images=random.integers(0, 255, (10, HEIGHT, WIDTH), dtype=np.uint8),
        exposures_us=tuple(
            (start_us + k * 50_000, start_us + k * 50_000 + 7_000) for k in range(10)
        ),
    )


@pytest.fixture(scope="session")
def written(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The scene as a file of a format of FORMATS, written once."""
    folder = tmp_path_factory.mktemp("recordings")

    def write(kind: str) -> Path:
        name, writer = FORMATS[kind]
        path = folder / kind / name
        if not path.parent.exists():
            path.parent.mkdir()
            writer(path, scene)
        return path

    return write


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """A file of the shared data; skips where it is not there."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"../shared/data/{name} is not here")
        return path

    return find


@pytest.fixture(scope="session")
def official(
    real: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path]:
    """The published SLTNet for DDD17 as a model folder, and what importing it told."""
    from edgeperc.offline.export import import_checkpoint
    from edgeperc.places import find_card

    checkpoint = real("models/sltnet_ddd17_official.pth")
    folder = tmp_path_factory.mktemp("models") / "sltnet-ddd17"
    return import_checkpoint(find_card("sltnet-ddd17").card, checkpoint, folder), folder


@pytest.fixture(scope="session")
def writers() -> dict[str, Callable[[Path, Scene], None]]:
    """What writes a scene in each format."""
    return {kind: writer for kind, (_, writer) in FORMATS.items()}


@pytest.fixture(scope="session")
def bags() -> type[Bags]:
    """A writer of ROS bags, for messages that FORMATS has not."""
    return Bags


@dataclass(frozen=True)
class Stream:
    """A network camera: red pictures of 64 × 48 px. `end` hangs up on who looks."""

    url: str
    rgb: tuple[int, int, int] = (250, 20, 10)
    over: threading.Event = field(default_factory=threading.Event)

    def end(self) -> None:
        self.over.set()


@pytest.fixture
def stream() -> Iterator[Stream]:
    """A live MJPEG stream, as cheap network cameras have it."""
    picture = cv2.imencode(".jpg", np.full((48, 64, 3), Stream.rgb[::-1], np.uint8))[1].tobytes()
    part = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n"

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            try:
                while not there.over.wait(0.02):
                    self.wfile.write(part % (len(picture), picture))
            except (BrokenPipeError, ConnectionResetError):
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    there = Stream(f"http://127.0.0.1:{server.server_address[1]}/live")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield there
    there.end()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cameras that pylon emulates: 0815-0000 and 0815-0001."""
    pytest.importorskip("pypylon", reason="pypylon is not here: pip install 'edgeperc[basler]'")
    monkeypatch.setenv("PYLON_CAMEMU", "2")


class FakeGige:
    """Aravis' fake camera of 2048 × 2048 px on the loopback interface, in a process of its own."""

    program = "arv-fake-gv-camera-0.8"
    id = "Aravis-Fake-GVTEST"
    process: subprocess.Popen[bytes] | None = None

    def start(self, *, lost_per_thousand: int = 0) -> None:
        lost = ["-r", str(lost_per_thousand)]
        self.process = subprocess.Popen([self.program, "-i", "lo", "-s", "GVTEST", *lost])
        port = f":{3956:04X} "
        while port not in Path("/proc/net/udp").read_text():
            assert self.process.poll() is None
            time.sleep(0.01)

    def pull(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def aravis() -> None:
    """Skips where Debian's packages of Aravis are not."""
    look = [sys.executable, "-c", "import edgeperc.drivers.formats.aravis as a; a.library()"]
    there = shutil.which(FakeGige.program)
    if not there or subprocess.run(look, capture_output=True, check=False).returncode:
        pytest.skip("not here: apt-get install aravis-tools gir1.2-aravis-0.8 python3-gi")


@pytest.fixture
def fake_gige(aravis: None) -> Iterator[FakeGige]:
    """A camera that plays as soon as it is started; there is one at a time on a machine."""
    with (Path(tempfile.gettempdir()) / "edgeperc-fake-gige.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        camera = FakeGige()
        yield camera
        camera.pull()


def evt2_words(scene: Scene) -> NDArray[np.uint32]:
    high, low = scene.t >> 6, scene.t & 63
    words = (scene.p << 28) | (low << 22) | (scene.x.astype(np.int64) << 11) | scene.y
    at = np.flatnonzero(np.diff(high, prepend=-1))
    return np.insert(words, at, (8 << 28) | (high[at] & 0xFFF_FFFF)).astype("<u4")


def evt3_words(scene: Scene) -> NDArray[np.uint16]:
    """Runs of equal time and row become vectors where they can, single events else."""
    words: list[int] = []
    high = low = row = -1
    for t, x, y, p in zip(scene.t, scene.x, scene.y, scene.p, strict=True):
        if t >> 12 != high:
            high, low = t >> 12, -1
            words.append(8 << 12 | (int(high) & 0xFFF))
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(6 << 12 | int(low))
        if y != row:
            row = y
            words.append(int(row))
        if x % 3:
            words.append(2 << 12 | int(p) << 11 | int(x))
        else:  # as the last bit of a vector of 12, or the first of one of 8
            base, bit = (int(x) - 11, 11) if x >= 11 and x % 2 else (int(x), 0)
            words.append(3 << 12 | int(p) << 11 | base)
            words.append((4 << 12 | 1 << bit) if bit else (5 << 12 | 1))
    return np.array(words, "<u2")


def _raw(version: int, words: Callable[[Scene], NDArray[Any]]) -> Callable[[Path, Scene], None]:
    def write(path: Path, scene: Scene) -> None:
        header = f"% evt {version}.0\n% format EVT{version};height={HEIGHT};width={WIDTH}\n% end\n"
        path.write_bytes(header.encode() + words(scene).tobytes())

    return write


def _dat(version: int, x_bits: int, y_bits: int) -> Callable[[Path, Scene], None]:
    def write(path: Path, scene: Scene) -> None:
        address = scene.x | scene.y.astype(np.int64) << x_bits | scene.p << (x_bits + y_bits)
        header = f"% Data file containing CD events\n% Version {version}\n"
        header += f"% Width {WIDTH}\n% Height {HEIGHT}\n"
        body = np.stack([scene.t, address], axis=1).astype("<u4").tobytes()
        path.write_bytes(header.encode() + b"\x0c\x08" + body)

    return write


def _es(path: Path, scene: Scene) -> None:
    faery = pytest.importorskip("faery")
    table = np.zeros(scene.t.size, faery.EVENTS_DTYPE)
    for name, column in zip(table.dtype.names, (scene.t, scene.x, scene.y, scene.p), strict=True):
        table[name] = column
    faery.events_stream_from_array(table, (WIDTH, HEIGHT)).to_file(path)


def _aedat4(path: Path, scene: Scene) -> None:
    """Events in packets of 10 ms; a picture behind events that are up to 30 ms younger."""
    dv = pytest.importorskip("dv_processing")
    config = dv.io.MonoCameraWriter.Config("made-up", dv.CompressionType.LZ4)
    config.addEventStream((WIDTH, HEIGHT))
    config.addFrameStream((WIDTH, HEIGHT))
    writer = dv.io.MonoCameraWriter(str(path), config)
    late = [(end_us + 30_000, k) for k, (_, end_us) in enumerate(scene.exposures_us)]
    for start in range(0, 500_000, 10_000):
        store = dv.EventStore()
        lower, upper = scene.t.min() + start, scene.t.min() + start + 10_000
        for k in np.flatnonzero((scene.t >= lower) & (scene.t < upper)):
            store.push_back(*(int(c[k]) for c in (scene.t, scene.x, scene.y)), bool(scene.p[k]))
        writer.writeEvents(store)
        while late and (late[0][0] <= upper or start == 490_000):
            _, k = late.pop(0)
            begin_us, end_us = scene.exposures_us[k]
            exposure_us, sensor = end_us - begin_us, dv.FrameSource.SENSOR
            writer.writeFrame(dv.Frame(begin_us, exposure_us, 0, 0, scene.images[k], sensor))
    del writer  # closes the file


def _dsec(path: Path, scene: Scene) -> None:
    h5py, hdf5plugin = pytest.importorskip("h5py"), pytest.importorskip("hdf5plugin")
    offset_us = int(scene.t[0]) - 5_000
    t = (scene.t - offset_us).astype(np.uint32)
    blosc = hdf5plugin.Blosc(cname="zstd", clevel=1, shuffle=hdf5plugin.Blosc.SHUFFLE)
    with h5py.File(path, "w") as file:
        for name, column in (("x", scene.x), ("y", scene.y), ("t", t), ("p", scene.p)):
            data = column.astype(np.uint8) if name == "p" else column
            file.create_dataset(f"events/{name}", data=data, chunks=(4096,), **blosc)
        file["t_offset"] = np.int64(offset_us)
        file["ms_to_idx"] = np.searchsorted(t, np.arange(510) * 1000).astype(np.uint64)


def _mvsec(path: Path, scene: Scene) -> None:
    h5py = pytest.importorskip("h5py")
    table = np.stack([scene.x, scene.y, scene.t * 1e-6, np.where(scene.p, 1, -1)], axis=1)
    with h5py.File(path, "w") as file:
        file.create_dataset("davis/left/events", data=table, chunks=(4096, 4))
        file["davis/left/image_raw"] = scene.images
        file["davis/left/image_raw_ts"] = np.array([end for _, end in scene.exposures_us]) * 1e-6


def _text(line: str) -> Callable[[Path, Scene], None]:
    def write(path: Path, scene: Scene) -> None:
        rows = zip(scene.t.tolist(), scene.x, scene.y, scene.p, strict=True)
        lines = (line.format(t=t, s=t * 1e-6, x=x, y=y, p=int(p)) for t, x, y, p in rows)
        path.write_text(f"# a comment\n{WIDTH} {HEIGHT}\n" + "\n".join(lines) + "\n")

    return write


EVENT_PACKET = """std_msgs/Header header
uint32 height
uint32 width
uint64 seq
uint64 time_base
string encoding
bool is_bigendian
uint8[] events
"""
EVENT_ARRAY = """std_msgs/Header header
uint32 height
uint32 width
dvs_msgs/Event[] events
"""
EVENT = "uint16 x\nuint16 y\nbuiltin_interfaces/Time ts\nbool polarity\n"


class Bags:
    """Writes messages with rosbags' own serialisation, for ROS 1 or ROS 2."""

    def __init__(self, path: Path, *, ros1: bool = False, storage: str = "mcap") -> None:
        rosbags = pytest.importorskip("rosbags.typesys")
        from rosbags.rosbag1 import Writer as Writer1
        from rosbags.rosbag2 import StoragePlugin
        from rosbags.rosbag2 import Writer as Writer2

        stores = rosbags.Stores
        self.ros1 = ros1
        self.store = rosbags.get_typestore(stores.ROS1_NOETIC if ros1 else stores.ROS2_HUMBLE)
        for name, text in (
            ("event_camera_msgs/msg/EventPacket", EVENT_PACKET),
            (
                "dvs_msgs/msg/Event",
                EVENT.replace("builtin_interfaces/Time", "time") if ros1 else EVENT,
            ),
            ("dvs_msgs/msg/EventArray", EVENT_ARRAY),
        ):
            self.store.register(rosbags.get_types_from_msg(text, name))
        plugin = getattr(StoragePlugin, storage.upper())
        self.writer = Writer1(path) if ros1 else Writer2(path, version=9, storage_plugin=plugin)
        self.connections: dict[str, Any] = {}

    def __enter__(self) -> Bags:
        self.writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def message(self, kind: str, **fields: Any) -> Any:
        return self.store.types[kind](**fields)

    def header(self, time_us: int, frame_id: str = "cam") -> Any:
        stamp = self.time(time_us)
        seq = {"seq": 0} if self.ros1 else {}
        return self.message("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id, **seq)

    def time(self, time_us: int) -> Any:
        sec, us = divmod(int(time_us), 1_000_000)
        return self.message("builtin_interfaces/msg/Time", sec=sec, nanosec=us * 1000)

    def write(self, topic: str, time_us: int, message: Any) -> None:
        kind = message.__msgtype__
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        serialize = self.store.serialize_ros1 if self.ros1 else self.store.serialize_cdr
        self.writer.write(self.connections[topic], int(time_us) * 1000, serialize(message, kind))


def write_event_packets(bag: Bags, scene: Scene, *, words_each: int = 1000) -> None:
    words = evt3_words(scene)
    for seq, start in enumerate(range(0, words.size, words_each)):
        now_us = int(scene.t[0]) + seq * 1000
        packet = bag.message(
            "event_camera_msgs/msg/EventPacket",
            header=bag.header(now_us),
            height=HEIGHT,
            width=WIDTH,
            seq=seq,
            time_base=0,
            encoding="evt3",
            is_bigendian=False,
            events=words[start : start + words_each].view(np.uint8),
        )
        bag.write("/camera/events", now_us, packet)


def write_event_arrays(bag: Bags, scene: Scene) -> None:
    for start in range(0, scene.t.size, 500):
        each = slice(start, start + 500)
        columns = (scene.t[each], scene.x[each], scene.y[each], scene.p[each])
        events = [
            bag.message("dvs_msgs/msg/Event", x=int(x), y=int(y), ts=bag.time(t), polarity=bool(p))
            for t, x, y, p in zip(*columns, strict=True)
        ]
        now_us = int(scene.t[each][-1])
        array = bag.message(
            "dvs_msgs/msg/EventArray",
            header=bag.header(now_us),
            height=HEIGHT,
            width=WIDTH,
            events=events,
        )
        bag.write("/dvs/events", now_us, array)


def write_images(bag: Bags, scene: Scene, *, encoding: str = "mono8") -> None:
    for image, (_, end_us) in zip(scene.images, scene.exposures_us, strict=True):
        message = bag.message(
            "sensor_msgs/msg/Image",
            header=bag.header(end_us),
            height=HEIGHT,
            width=WIDTH,
            encoding=encoding,
            is_bigendian=0,
            step=WIDTH,
            data=image.ravel(),
        )
        bag.write("/dvs/image_raw", end_us, message)


def _bag(*contents: Callable[[Bags, Scene], None], **how: Any) -> Callable[[Path, Scene], None]:
    def write(path: Path, scene: Scene) -> None:
        with Bags(path, **how) as bag:
            for content in contents:
                content(bag, scene)

    return write


def _bag_file(
    content: Callable[[Bags, Scene], None], storage: str
) -> Callable[[Path, Scene], None]:
    """The one file of a ROS 2 bag, without its folder and metadata."""

    def write(path: Path, scene: Scene) -> None:
        with Bags(path.with_name("folder"), storage=storage) as bag:
            content(bag, scene)
        next(path.with_name("folder").glob(f"*{path.suffix}")).rename(path)

    return write


FORMATS: dict[str, tuple[str, Callable[[Path, Scene], None]]] = {
    "evt2": ("scene.raw", _raw(2, evt2_words)),
    "evt3": ("scene.raw", _raw(3, evt3_words)),
    "dat1": ("scene.dat", _dat(1, 9, 8)),
    "dat2": ("scene.dat", _dat(2, 14, 14)),
    "es": ("scene.es", _es),
    "aedat4": ("scene.aedat4", _aedat4),
    "dsec": ("events.h5", _dsec),
    "mvsec": ("scene.hdf5", _mvsec),
    "text_s": ("events.txt", _text("{s:.6f} {x} {y} {p}")),
    "text_us": ("events.csv", _text("{t} {x} {y} {p}")),
    "ros1_packets": ("scene.bag", _bag(write_event_packets, ros1=True)),
    "ros1_dvs": ("scene.bag", _bag(write_event_arrays, write_images, ros1=True)),
    "ros2_sqlite": ("scene", _bag(write_event_packets, storage="sqlite3")),
    "ros2_db3": ("scene.db3", _bag_file(write_event_packets, "sqlite3")),
    "ros2_mcap": ("scene", _bag(write_event_packets)),
    "mcap": ("scene.mcap", _bag_file(write_event_packets, "mcap")),
    "mcap_dvs": ("scene.mcap", _bag_file(write_event_arrays, "mcap")),
}
"""File name and writer of each format."""
