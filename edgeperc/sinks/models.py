"""Installed models, loaded for clients: Segment and the Open Inference Protocol ask them.

models = LoadedModels(app=lambda: ["regions-twin"])   # loaded when somebody asks for them
labels = models.get("regions-twin").answer(frame)
models.load("yolox-nano").network.run(tensor)     # others on order only

They are apart from the pipelines' own: a client's request never waits in a pipeline, nor a pipeline
for it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from edgeperc import places
from edgeperc.errors import ModelError
from edgeperc.packet import Frame
from edgeperc.places import ModelFolder
from edgeperc.result import Detections, LabelMap, ModelRef
from edgeperc.sessions import RefusedError

if TYPE_CHECKING:
    from edgeperc.detect import Detector
    from edgeperc.inference.session import Session
    from edgeperc.segment import Segmenter
    from edgeperc.sinks.prompted import PromptedPictures

MOST_LOADED = 8
LOAD_S = 2.0
"""Who asks for a model that somebody else has it load waits for so long: engines take minutes."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_LONGEST_NAME = 64


class LoadedModel:
    """A model as a whole, for pictures, and its bare network, for tensors; each loaded on use.

    lock: of whoever runs it; both serve one caller at a time.
    """

    def __init__(self, folder: ModelFolder, *, threads: int) -> None:
        self.name = folder.card.name
        self.lock = threading.Lock()
        self._folder, self._threads = folder, threads

    @property
    def ref(self) -> ModelRef:
        """What runs. Raises ModelError where it cannot be loaded."""
        if self.takes_pictures:
            return self.picture_model.ref
        if self.takes_prompts:
            return self.prompted.ref
        entry = next((e for e in self._folder.card.files if e.role == "network"), None)
        return ModelRef(
            name=self.name,
            sha256=entry.sha256 if entry else "",
            engine="onnxruntime",
            provider=self.network.provider,
            precision=self.network.precision,
        )

    @property
    def has_network(self) -> bool:
        """Whether it has a network of one piece."""
        return any(entry.role == "network" for entry in self._folder.card.files)

    @property
    def takes_pictures(self) -> bool:
        """Whether it answers for one picture alone."""
        card = self._folder.card
        return card.task in ("semantic", "detection") and card.input.kind == "frame"

    @property
    def takes_prompts(self) -> bool:
        """Whether it answers for a picture with prompts."""
        return self._folder.card.task == "promptable"

    @cached_property
    def prompted(self) -> PromptedPictures:
        """The model that answers what prompts mean in a picture. Raises ModelError."""
        from edgeperc.sinks.prompted import PromptedPictures  # numba, which others do without

        return PromptedPictures(self._folder, threads=self._threads)

    @cached_property
    def picture_model(self) -> Segmenter | Detector:
        """The model with the steps from a picture and to a result. Raises ModelError."""
        if not self.takes_pictures:
            hint = "give it prompts" if self.takes_prompts else ""
            raise ModelError(f"model '{self.name}' does not answer for a picture alone", hint=hint)
        from edgeperc.detect import Detector
        from edgeperc.segment import Segmenter

        if self._folder.card.task == "detection":
            return Detector(self._folder, threads=self._threads)
        return Segmenter(self._folder, threads=self._threads)

    @cached_property
    def network(self) -> Session:
        """The network in onnxruntime. Raises ModelError."""
        path = self._folder.file("network")
        if path is None:
            raise ModelError(
                f"model '{self.name}' has no network of one piece",
                hint="promptable models are asked by edgeperc.v1: Segment and TrackingService",
            )
        from edgeperc.inference.session import Session

        return Session(path, threads=self._threads)

    def answer(self, frame: Frame) -> LabelMap | Detections:
        """What it says of a picture. Raises ModelError."""
        return self.picture_model(frame)


class LoadedModels:
    """Models by name. app: says which are loaded when they are asked for; others by `load`.

    Raises RefusedError for names that are none, or are not there, beyond MOST_LOADED, and ("later")
    while a model is being loaded.
    """

    def __init__(self, app: Callable[[], Iterable[str]], *, threads: int = 1) -> None:
        self._app = app
        self._threads = threads
        self._models: dict[str, LoadedModel] = {}
        self._loading: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of those that are in memory."""
        with self._lock:
            return tuple(sorted(self._models))

    def has_network(self, name: str) -> bool:
        """Whether `get` gives a model with a network, as far as can be told without loading it."""
        with self._lock:
            if found := self._models.get(name):
                return found.has_network
        if not (name in self._app() and is_name(name) and name in installed()):
            return False
        return LoadedModel(_installed(name), threads=self._threads).has_network

    def load(self, name: str) -> LoadedModel:
        """Load an installed model, or find it loaded. Raises RefusedError, ModelError."""
        folder = _installed(name)
        return self._open(name, lambda: LoadedModel(folder, threads=self._threads))

    def get(self, name: str) -> LoadedModel:
        """A model of the app's, or one that was loaded. Raises RefusedError, ModelError."""
        with self._lock:
            if found := self._models.get(name):
                return found
        if name in self._app():
            return self.load(name)
        _check_name(name)
        raise RefusedError(
            f"model '{name}' is not loaded",
            why="unknown",
            hint=f"there are: {', '.join(sorted({*self._app(), *self.loaded})) or 'none'};"
            " ControlService.LoadModel loads others",
        )

    def unload(self, name: str) -> None:
        """Free one. Raises RefusedError where it is not loaded."""
        _check_name(name)
        with self._lock:
            if self._models.pop(name, None) is None:
                raise RefusedError(f"model '{name}' is not loaded", why="unknown")

    def _open(self, name: str, construct: Callable[[], LoadedModel]) -> LoadedModel:
        """Load it, which one caller at a time does; the others wait for a while."""
        with self._lock:
            if found := self._models.get(name):
                return found
            is_loaded = self._loading.get(name)
            if is_loaded is None:
                if len(self._models) + len(self._loading) >= MOST_LOADED:
                    raise RefusedError(
                        f"{MOST_LOADED} models are loaded already", why="full", hint="unload one"
                    )
                mine = self._loading[name] = threading.Event()
        if is_loaded is not None:
            if not is_loaded.wait(LOAD_S):
                raise RefusedError(
                    f"model '{name}' is being loaded",
                    why="later",
                    hint="it takes a while; ask again",
                )
            return self._open(name, construct)
        try:
            model = construct()
            _ = model.ref  # loads it, or raises
            with self._lock:
                self._models[name] = model
            return model
        finally:
            with self._lock:
                del self._loading[name]
            mine.set()


def installed() -> frozenset[str]:
    """Names of the models whose cards are here."""
    return frozenset(places.names("models"))


def is_name(name: str) -> bool:
    """Whether it can be the name of a model, and of nothing else: no path, no code."""
    return len(name) <= _LONGEST_NAME and bool(_NAME.fullmatch(name))


def _check_name(name: str) -> None:
    if not is_name(name):
        raise RefusedError(
            f"{name[:_LONGEST_NAME]!r} is not the name of a model",
            hint="names of installed models only; edgeperc models ls lists them",
        )


def _installed(name: str) -> ModelFolder:
    _check_name(name)
    if name not in installed():
        raise RefusedError(f"no model '{name}' is installed", why="unknown")
    return places.find_model(name)
