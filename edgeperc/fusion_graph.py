"""A network with scans, as one ONNX file, run in one of two ways with one meaning.

    run = CutGraph(path, threads=2)                          # pieces in onnxruntime, our kernels
    run = WholeGraph(path, threads=2)                        # all of it, by any provider
    logits = run(frame, voxels)

Where the processor computes, the file is cut at its scans (`edgeperc.onnx_cut`) and numba does
them; elsewhere the file is taken as it is, in which each scan is a function of plain operators.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgeperc.cross_scan import tables_of, walk
from edgeperc.errors import ModelError, blame
from edgeperc.infer import Session
from edgeperc.onnx_cut import Piece, Scan, check_finite, cut, read
from edgeperc.providers import Providers, chosen
from edgeperc.selective_scan import selective_scan

Floats = NDArray[np.float32]


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
        with blame(str(path)):
            parts = cut(read(_bytes(path)))
        self._inputs, self._output = parts.inputs, parts.outputs[0]
        self._sessions: list[ort.InferenceSession | None] = []
        self.pieces: list[Piece] = []
        self._kernels: dict[str, Callable[[dict[str, Floats]], Floats]] = {}
        for piece in parts.pieces:
            self._sessions.append(_session(path, piece, threads, profile))
            self._kernels |= {scan.output: _kernel(scan, threads) for scan in piece.scans}
            self.pieces.append(replace(piece, model=b""))  # the session has its own copy

    def __call__(self, *inputs: Floats) -> Floats:
        """inputs: float32, of the shapes that the file says. Raises ModelError if they are not."""
        if not self._sessions:
            raise ModelError("the network is closed")
        at = dict(zip(self._inputs, inputs, strict=True))
        for piece, session in zip(self.pieces, self._sessions, strict=True):
            if session is not None:
                at |= _run(session, piece, at)
            for scan in piece.scans:
                at[scan.output] = self._kernels[scan.output](at)
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


def _session(
    path: Path, piece: Piece, threads: int, profile: Path | None
) -> ort.InferenceSession | None:
    """A session for a piece; None if it has nothing to do."""
    if not piece.outputs:
        return None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what matters comes as an exception
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile / "piece")
    # Spinning workers would take the cores from the scans, and from the sensor threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(piece.model, options, providers=["CPUExecutionProvider"])
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
