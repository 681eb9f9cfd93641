"""One onnxruntime session: provider order, threads, and what really runs. Never imports torch."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgeperc.errors import ModelError
from edgeperc.inference.engines import Engine, engine_for
from edgeperc.inference.providers import Provider, Providers, chosen, why_not

log = logging.getLogger("edgeperc")
ort.set_default_logger_severity(4)  # what it would print is in our errors, as `why_not` finds out


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A network that was loaded. engine: what its provider built, None if it builds none.

    The engine of a network whose inputs have any length is built as it runs; whoever is told of it
    runs it with what it will see, and keeps it.
    """

    path: Path
    provider: str
    seconds: float
    engine: Engine | None = None


_told: ContextVar[Callable[[Opened | Path], None] | None] = ContextVar("told", default=None)


@contextmanager
def telling(tell: Callable[[Opened | Path], None]) -> Iterator[None]:
    """Tell of each network that this thread loads: its path when it begins, then an Opened."""
    before = _told.set(tell)
    try:
        yield
    finally:
        _told.reset(before)


class Session:
    """A network that onnxruntime has loaded.

    providers: names or tables, as in a pipeline. The first must start and take operators, those
    after it take what it cannot; without "cpu" among them, none may be left to the processor.
    Where none is named, the best one that starts runs it, and the log names those that did not.

    `provider` is who really runs it, with shares of the operators if there are several (onnxruntime
    1.24 and newer tell); `precision` what floats are computed in. Raises ModelError if the file is
    missing or is not a network, or a provider that was asked for does not start; ConfigError for
    providers that cannot be meant.
    """

    def __init__(self, path: Path, *, threads: int = 2, providers: Providers = ()) -> None:
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        self._path = path
        self._engine: Engine | None = None
        wanted = chosen(providers)
        tell = _told.get()
        if tell:
            tell(path)
        began_s = time.monotonic()
        session, fault = self._open(wanted, threads, strict=bool(providers))
        while session is None or fault:
            first = wanted[0]
            if providers or len(wanted) == 1:
                because = why_not(first.execution)
                if because and because not in fault:
                    fault = f"{fault.rstrip('.')}: {because}"
                raise ModelError(
                    f"{path}: provider '{first.table.name}' {fault}", hint=first.install
                )
            log.warning("%s: provider '%s' %s", path.name, first.table.name, fault)
            wanted = wanted[1:]
            session, fault = self._open(wanted, threads, strict=False)
        self._session: ort.InferenceSession | None = session
        self.provider = _who(session)
        self.precision = wanted[0].precision
        self.input_shapes = {node.name: tuple(node.shape) for node in session.get_inputs()}
        self.output_shapes = {node.name: tuple(node.shape) for node in session.get_outputs()}
        self.input_types = {node.name: str(node.type) for node in session.get_inputs()}
        self.output_types = {node.name: str(node.type) for node in session.get_outputs()}
        engine = self._engine
        if engine and not (self._any_length and engine.grows):
            engine.keep()
            self._engine = None
        if tell:
            seconds = time.monotonic() - began_s
            tell(Opened(path=path, provider=self.provider, seconds=seconds, engine=engine))
            self._engine = None
        log.info("%s: %s", path.name, self.provider)

    def close(self) -> None:
        """Free the network and its memory; may be called twice."""
        self._session = None
        self._forget_engine()

    def _open(
        self, wanted: list[Provider], threads: int, *, strict: bool
    ) -> tuple[ort.InferenceSession | None, str]:
        """As `_open`, with the engine that the first provider has kept, or builds now."""
        first = wanted[0]
        self._forget_engine()
        with engine_for(self._path, first.execution, first.options(threads=threads)) as engine:
            kept = engine.options if engine else {}
            session, fault = _open(self._path, wanted, threads, strict=strict, kept=kept)
            if engine and fault:
                was_there = engine.built
                engine.drop()
                if was_there:  # it may be the engine's fault; then build it anew
                    return self._open(wanted, threads, strict=strict)
            elif engine:
                self._engine = engine
        return session, fault

    @property
    def _any_length(self) -> bool:
        shapes = self.input_shapes.values()
        return not all(isinstance(length, int) for shape in shapes for length in shape)

    def _forget_engine(self) -> None:
        """Leave nothing of an engine that was not finished."""
        if self._engine and not self._engine.built:
            self._engine.drop()
        self._engine = None

    def run(self, *inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run the network on its inputs in order; outputs are in the order of `output_shapes`.

        Raises ModelError if a shape does not fit, it is closed, or onnxruntime fails: an operator
        that cannot do what it is given, no memory.
        """
        if self._session is None:
            raise ModelError("the network is closed")
        if len(inputs) != len(self.input_shapes):
            raise ModelError(
                f"the network takes {len(self.input_shapes)} inputs, not {len(inputs)}"
            )
        for (name, shape), given in zip(self.input_shapes.items(), inputs, strict=True):
            if not fits(given.shape, shape):
                raise ModelError(f"input '{name}' is {given.shape}, the network takes {shape}")
        try:
            outputs: list[NDArray[np.float32]] = self._session.run(
                None, dict(zip(self.input_shapes, inputs, strict=True))
            )
        except Exception as error:  # onnxruntime's own exception types share no base class
            raise ModelError(
                f"{self._path}: it cannot be run: {_plain(error)}", hint=_hint(error)
            ) from error
        if self._engine:
            if not self._engine.built:
                log.warning(
                    "%s: its engine is built at every start: edgeperc prepare", self._path.name
                )
            self._forget_engine()
        return outputs


def _open(
    path: Path, wanted: list[Provider], threads: int, *, strict: bool, kept: Mapping[str, str]
) -> tuple[ort.InferenceSession | None, str]:
    """A session, and why the first provider does not run it; empty if it does.

    onnxruntime goes on with another provider, and no error, where one does not start: what it says
    it has is compared with what was asked. strict: all that are wanted must start. Raises
    ModelError if the file is no network. kept: options of the first that say where its engine is.
    """
    providers = [(each.execution, each.options(threads=threads)) for each in wanted]
    providers[0][1].update(kept)
    options = _session_options(wanted, threads, strict=strict)
    try:
        session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's own exception types share no base class
        if wanted[0].table.name == "cpu" or _NO_NETWORK.search(str(error)):
            raise ModelError(f"{path}: onnxruntime cannot load it: {_plain(error)}") from error
        return None, f"cannot run it: {_plain(error)}"
    runs, took = session.get_providers(), _operators(session)
    late = [each.table.name for each in wanted if each.execution not in runs]
    if not late and runs[0] != wanted[0].execution:
        late = [wanted[0].table.name]
    if late and (strict or late[0] == wanted[0].table.name):
        return session, "does not start" if late[0] == wanted[0].table.name else (
            f"starts, but '{late[0]}' after it does not"
        )
    if took and not took[wanted[0].execution]:
        return session, "takes none of its operators"
    return session, ""


def _session_options(wanted: list[Provider], threads: int, *, strict: bool) -> ort.SessionOptions:
    names = [each.table.name for each in wanted]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what matters comes as an exception
    # Spinning workers would take the cores from the sensor threads between two frames.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if names != ["cpu"]:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if strict and "cpu" not in names:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if names[0] == "openvino":
        # It optimises by itself, and wants the graph as it was exported; but weights that are kept
        # in a byte each must be folded to floats first, or its 2025.4 computes nonsense.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return options


def _operators(session: ort.InferenceSession) -> Mapping[str, int]:
    """How many operators each provider took; empty where nobody recorded it."""
    took = Counter[str]()
    try:
        for part in session.get_provider_graph_assignment_info():
            took[part.ep_name] += len(part.get_nodes())
    except Exception:  # it was not asked to, or is older than 1.24
        took.clear()
    return took


def _who(session: ort.InferenceSession) -> str:
    """Who runs it: one provider, or several with the operators of each."""
    took = _operators(session)
    if len(took) < 2:
        name: str = session.get_providers()[0]
        return name
    total = sum(took.values())
    return ", ".join(f"{name} ({count} of {total} operators)" for name, count in took.items())


_NO_NETWORK = re.compile("INVALID_PROTOBUF|INVALID_GRAPH|NO_SUCHFILE|NO_MODEL")
_NOISE = (
    (r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", ""),
    (r"Non-zero status code returned while running (\S+) node\. Name:'(.*?)' ", r"\1 '\2': "),
    (r"Status Message: ", ""),
    (r"\S+\.(?:h|cc|cpp|cu):\d+ (?:\S+ )?\S+::[^(]*\(.*?\) (?:const )?", ""),
    (r"(?<=: )[^:]* was false\. ", ""),
)


def _plain(error: Exception) -> str:
    """What onnxruntime complains of, as one line without the names of its own files."""
    text = " ".join(str(error).split()) or type(error).__name__
    for pattern, instead in _NOISE:
        text = re.sub(pattern, instead, text)
    return text if len(text) < _LONGEST else f"{text[:_LONGEST]} ..."


_LONGEST = 400


def _hint(error: Exception) -> str:
    short = isinstance(error, MemoryError) or re.search(
        "allocate memory|bad_alloc|bad allocation|out of memory", str(error), re.IGNORECASE
    )
    return "there is not enough memory for it: take a smaller model or input" if short else ""


def fits(given: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> bool:
    """Whether an array has a network's shape, in which a name or None stands for any length."""
    return len(given) == len(wanted) and all(
        length == n or not isinstance(n, int) for length, n in zip(given, wanted, strict=True)
    )
