"""A network with scans, as one ONNX file, run in one of two ways with one meaning.

    run = CutGraph(path, threads=2)                          # pieces in onnxruntime, our kernels
    run = WholeGraph(path, threads=2)                        # all of it, by any provider
    logits = run(frame, voxels)

Where the processor computes, the file is cut at its scans (`edgeperc.scan.onnx_cut`) and numba does
them; elsewhere the file is taken as it is, in which each scan is a function of plain operators.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgeperc.errors import ModelError, blame
from edgeperc.inference.providers import Providers, chosen
from edgeperc.inference.session import Session
from edgeperc.scan.cross import tables_of, walk
from edgeperc.scan.onnx_cut import Piece, Scan, check_finite, cut, read
from edgeperc.scan.selective import selective_scan

Floats = NDArray[np.float32]
LARGE_BYTES = 1 << 28
"""From here on a network goes to onnxruntime by way of temporary files, and without arenas."""


class Graph(Protocol):
    """Runs a network on its inputs, in order; says who runs it."""

    name: str
    provider: str
    precision: str

    def __call__(self, *inputs: Floats) -> Floats:
        """Returns its one output."""

    def close(self) -> None:
        """Free the network; may be called twice."""


class CutGraph:
    """Pieces in onnxruntime's CPU provider, the scans between them in numba.

    profile: folder where onnxruntime notes the time of each operator; see `operator_times`. Raises
    ModelError if the file is no network, or holds a weight that is not finite.
    """

    name = "onnxruntime, cut at its scans"
    provider = "CPUExecutionProvider"
    precision = "fp32"

    def __init__(self, path: Path, *, threads: int = 2, profile: Path | None = None) -> None:
        self._sessions: list[ort.InferenceSession | None] = []
        self.pieces: list[Piece] = []
        self._kernels: dict[str, Callable[[dict[str, Floats]], Floats]] = {}
        with _Models(path) as models:
            with blame(str(path)):
                parts = cut(read(_bytes(path)))
            for piece in parts.pieces:
                models.keep(piece)
                self._kernels |= {scan.output: _kernel(scan, threads) for scan in piece.scans}
                self.pieces.append(replace(piece, model=b""))  # the session has its own copy
                del piece
            self._inputs, self._output = parts.inputs, parts.outputs[0]
            del parts  # and with it all weights, before onnxruntime takes them
            for number, piece in enumerate(self.pieces):
                model = models.take(number) if piece.outputs else None
                self._sessions.append(model and _session(path, model, threads, profile))
        self._last = _last_uses(self.pieces, self._output)

    def __call__(self, *inputs: Floats) -> Floats:
        """inputs: float32, of the shapes that the file says. Raises ModelError if they are not."""
        if not self._sessions:
            raise ModelError("the network is closed")
        at = dict(zip(self._inputs, inputs, strict=True))
        steps = zip(self.pieces, self._sessions, self._last, strict=True)
        for piece, session, (unread, unscanned) in steps:
            if session is not None:
                at |= _run(session, piece, at)
            for name in unread:
                del at[name]
            for scan in piece.scans:
                at[scan.output] = self._kernels[scan.output](at)
            for name in unscanned:
                del at[name]
        return at[self._output]

    def operator_times(self) -> dict[str, float]:
        """Seconds by kind of operator, of all calls so far, where a profile was asked for."""
        seconds: dict[str, float] = {}
        for session in filter(None, self._sessions):
            for event in json.loads(Path(session.end_profiling()).read_text()):
                kind = event.get("args", {}).get("op_name")
                if kind and event["name"].endswith("_kernel_time"):
                    seconds[kind] = seconds.get(kind, 0.0) + event["dur"] / 1e6
        return seconds

    def close(self) -> None:
        """Free the network; may be called twice."""
        self._sessions = []


class WholeGraph:
    """The file as it is, in one session of any provider; scans are functions of plain operators.

    Raises ModelError if the file is no network, or holds a weight that is not finite.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, *, threads: int = 2, providers: Providers = ()) -> None:
        with blame(str(path)):
            check_finite(read(_bytes(path)).graph.initializer)
        self._session = Session(path, threads=threads, providers=providers)
        self.provider, self.precision = self._session.provider, self._session.precision

    def __call__(self, *inputs: Floats) -> Floats:
        """inputs: float32, of the shapes that the file says. Raises ModelError if they are not."""
        return self._session.run(*inputs)[0]

    def close(self) -> None:
        """Free the network; may be called twice."""
        self._session.close()


def open_graph(path: Path, *, threads: int, providers: Providers, whole: bool) -> Graph:
    """Cut at the scans where the processor computes, else, or if wanted, the whole file.

    Raises ConfigError for providers that cannot be meant, ModelError as either way does.
    """
    if whole or chosen(providers)[0].table.name != "cpu":
        return WholeGraph(path, threads=threads, providers=providers)
    return CutGraph(path, threads=threads)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


class _Models:
    """The models of all pieces until sessions take them: of a large network in files, since
    onnxruntime holds a model some times over while it loads it, and all others would be in memory.
    """

    def __init__(self, path: Path) -> None:
        self._large = path.exists() and path.stat().st_size >= LARGE_BYTES
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._models: list[bytes | str] = []

    def __enter__(self) -> _Models:
        if self._large:
            self._folder = tempfile.TemporaryDirectory(prefix="edgeperc-")
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder:
            self._folder.cleanup()

    def keep(self, piece: Piece) -> None:
        if self._folder is None:
            self._models.append(piece.model)
            return
        path = Path(self._folder.name) / f"{len(self._models)}.onnx"
        path.write_bytes(piece.model)
        self._models.append(str(path))

    def take(self, number: int) -> bytes | str:
        """Once: it is forgotten here."""
        model, self._models[number] = self._models[number], b""
        return model


def _last_uses(pieces: list[Piece], output: str) -> list[tuple[list[str], list[str]]]:
    """Tensors that nobody wants any more, after each piece and after the scans behind it."""
    found: list[tuple[list[str], list[str]]] = []
    later = {output}
    for piece in reversed(pieces):
        scanned = {
            name
            for scan in piece.scans
            for k, name in enumerate(scan.inputs)
            if k not in scan.tables
        }
        made = {scan.output for scan in piece.scans}
        unscanned = sorted((scanned | made) - later)
        later |= scanned
        unread = sorted((set(piece.inputs) | set(piece.outputs)) - later)
        later |= set(piece.inputs)
        found.append((unread, unscanned))
    return found[::-1]


def _session(
    path: Path, model: bytes | str, threads: int, profile: Path | None
) -> ort.InferenceSession:
    """A session for a piece, given as its bytes or its file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # An arena for each of the pieces would keep what only one of them needs at a time.
    options.enable_cpu_mem_arena = path.stat().st_size < LARGE_BYTES
    options.log_severity_level = 4  # what matters comes as an exception
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "piece")
    # Spinning workers would take the cores from the scans, and from the sensor threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception types share no base class
        raise ModelError(f"{path}: onnxruntime cannot load it: {error}") from error


def _run(session: ort.InferenceSession, piece: Piece, at: dict[str, Floats]) -> dict[str, Floats]:
    try:
        found = session.run(piece.outputs, {name: at[name] for name in piece.inputs})
    except Exception as error:  # onnxruntime's own exception types share no base class
        raise ModelError(f"the network cannot be run: {error}") from error
    return dict(zip(piece.outputs, found, strict=True))


def _kernel(scan: Scan, threads: int) -> Callable[[dict[str, Floats]], Floats]:
    """What computes a scan from the tensors at hand. Raises ModelError for an unknown kind."""
    names, tables = scan.inputs, scan.tables
    if scan.kind == "CrossScan" and tables.keys() == {2, 3, 4, 5}:
        made = tables_of(*(tables[k] for k in range(2, 6)))
        return lambda at: walk(at[names[0]], at[names[1]], made, threads=threads)
    if scan.kind == "SelectiveScan":
        softplus = bool(scan.attributes.get("softplus", 0))
        return lambda at: selective_scan(
            *(tables[k] if k in tables else at[name] for k, name in enumerate(names)),
            softplus=softplus,
            threads=threads,
        )
    raise ModelError(f"the file has a scan of unknown kind '{scan.kind}'")
