"""Engines that a provider builds for a network, kept on disk so that the next start is quick.

    with engine_for(network, provider, threads=2) as engine:   # builds, or finds what was built
        session = InferenceSession(network, providers=[(name, options | engine.options)])
    engine.keep()                                              # it works

TensorRT and OpenVINO build; the others have nothing to keep. Each engine has a folder of its own,
named by all that it depends on: the network's sha256, the versions of onnxruntime and TensorRT, the
GPU, the options. Another of any is another folder, so an old engine is never loaded. It is built
beside its place, under a lock, and moved there whole: a process that is killed leaves nothing that
would be taken for an engine, and another process that wants the same one waits for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from edgeperc import places
from edgeperc.inference.gpu import Versions, versions_of

log = logging.getLogger("edgeperc")

TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
BUILDING = ".building-"
_KEY, _LOCK = "key.json", "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """All that an engine depends on. options: of the provider, as onnxruntime gets them."""

    network: str
    sha256: str
    provider: str
    runtime: str
    device: str
    options: Mapping[str, str]

    @property
    def folder(self) -> str:
        """A name that differs where anything else does."""
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{Path(self.network).stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """An engine that somebody builds right now. seconds: so far. bytes: on disk so far.

    pid: of the process that builds it, in its own count of processes.
    """

    network: str
    provider: str
    seconds: float
    bytes: int
    pid: int = 0


@dataclass(slots=True)
class Engine:
    """Where a provider keeps the engine of a network. options: that say so to onnxruntime.

    built: it was there already. grows: of a network whose inputs have any length, it is built when
    they first come, and anew when others come.
    """

    place: Path
    options: dict[str, str]
    built: bool
    grows: bool = False
    _building: Path | None = None
    _locks: list[IO[str]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where its files lie now."""
        return self._building or self.place

    def keep(self) -> None:
        """It works: move it to its place, whole or not at all. May be called often."""
        building = self._building
        if building is None:
            return
        files = {p.name: p.stat().st_size for p in building.iterdir() if p.name not in _OWN}
        if not files:
            self.drop()
            return
        key = json.loads((building / _KEY).read_text())
        (building / _KEY).write_text(json.dumps({**key, "files": files}))
        try:
            for path in (*building.iterdir(), building):
                _sync(path)
            building.rename(self.place)
            (self.place / _LOCK).unlink()
            _sync(self.place.parent)
        except OSError as error:  # a full disk, or another process was faster
            if not _whole(self.place):
                log.warning("%s: the engine is not kept: %s", self.place, error)
            shutil.rmtree(building, ignore_errors=True)
        self._building = None
        self._release()

    def drop(self) -> None:
        """Forget what is not finished, or was there and is of no use; may be called often."""
        if self.built:
            shutil.rmtree(self.place, ignore_errors=True)
            self.built = False
        if self._building is not None:
            shutil.rmtree(self._building, ignore_errors=True)
            self._building = None
        self._release()

    def _release(self) -> None:
        while self._locks:
            self._locks.pop().close()


_OWN = (_KEY, _LOCK)


@contextmanager
def engine_for(network: Path, provider: str, options: Mapping[str, str]) -> Iterator[Engine | None]:
    """The place of an engine while its session is made; None where nothing can be kept.

    provider: by onnxruntime's name. Waits while another process builds the same one. A session that
    could not be made leaves nothing.
    """
    versions = versions_of(provider, options)
    engine = None
    if versions is not None:
        try:
            engine = _open(_key(network, provider, options, versions))
        except OSError as error:
            log.warning("%s: its engine is not kept: %s", network.name, error)
    try:
        yield engine
    except BaseException:
        if engine and not engine.built:
            engine.drop()
        raise
    if engine and engine._locks:
        engine._locks.pop(0).close()  # others may look now; the second lock says who builds


def building() -> tuple[Build, ...]:
    """What is being built now, by any process that uses this cache."""
    return tuple(_builds(root()))


def root() -> Path:
    """The folder of all engines."""
    return places.cache_home() / "engines"


def size_bytes(folder: Path) -> int:
    """What the files of a folder take; 0 if it is not there."""
    total = 0
    with suppress(OSError):
        for path in folder.rglob("*"):
            with suppress(OSError):
                total += path.stat().st_size
    return total


def _open(key: Key) -> Engine:
    place, grows = root() / key.folder, key.provider == TENSORRT
    place.parent.mkdir(parents=True, exist_ok=True)
    alone = _lock(place.parent / f".{key.folder}.lock")
    if _whole(place, key):
        alone.close()
        return Engine(place, _cache_options(key, place), built=True, grows=grows)
    with _lock(place.parent / ".lock"):  # nobody sweeps a folder whose lock is still to come
        _sweep(place.parent)
        shutil.rmtree(place, ignore_errors=True)
        folder = place.parent / f"{BUILDING}{key.folder}-{os.getpid()}-{time.monotonic_ns()}"
        folder.mkdir()
        (folder / _KEY).write_text(json.dumps({**asdict(key), **_begun()}))
        mine = _lock(folder / _LOCK)
    log.info("building engine for %s", key.network)
    return Engine(place, _cache_options(key, folder), False, grows, folder, [alone, mine])


def _key(network: Path, provider: str, options: Mapping[str, str], versions: Versions) -> Key:
    return Key(
        network=network.name,
        sha256=places.sha256(network),
        provider=provider,
        runtime=versions.runtime,
        device=versions.device,
        options=dict(options),
    )


def _cache_options(key: Key, folder: Path) -> dict[str, str]:
    """What tells onnxruntime to keep the engine in a folder."""
    if key.provider == OPENVINO:
        return {"cache_dir": str(folder)}
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_engine_cache_prefix": Path(key.network).stem,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
    }


def _whole(place: Path, key: Key | None = None) -> bool:
    """Whether an engine is there as it was kept, and is the one of `key`."""
    try:
        said = json.loads((place / _KEY).read_text())
        same = key is None or all(said.get(name) == value for name, value in asdict(key).items())
        sizes = {name: (place / name).stat().st_size for name in said["files"]}
    except (OSError, ValueError, KeyError):
        return False
    return same and sizes == said["files"]


def _builds(folder: Path) -> Iterator[Build]:
    for path in sorted(folder.glob(f"{BUILDING}*")):
        with suppress(OSError, ValueError, KeyError):  # it may be done by now
            if _is_free(path / _LOCK):
                continue
            said = json.loads((path / _KEY).read_text())
            seconds = time.monotonic() - said["began_s"]
            yield Build(
                network=said["network"],
                provider=said["provider"],
                seconds=max(seconds, 0.0),
                bytes=size_bytes(path),
                pid=said["pid"],
            )


def _begun() -> dict[str, float]:
    """Who begins a build, and when, on the clock that nobody sets: all is over with a reboot."""
    return {"began_s": time.monotonic(), "pid": os.getpid()}


def _sweep(folder: Path) -> None:
    """Remove what processes that are no more were building."""
    for path in folder.glob(f"{BUILDING}*"):
        with suppress(FileNotFoundError):
            if (path / _LOCK).exists() and not _is_free(path / _LOCK):
                continue
        shutil.rmtree(path, ignore_errors=True)


def _lock(path: Path) -> IO[str]:
    """Wait for a lock and take it, until the file is closed or the process ends."""
    file = path.open("a")
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)  # a signal may end the wait
            else:
                return file
    except BaseException:
        file.close()
        raise


def _is_free(path: Path) -> bool:
    """Whether nobody holds a lock. Raises FileNotFoundError."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _sync(path: Path) -> None:
    """Bring a file or folder to the disk: after a power cut it is there as it was."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
