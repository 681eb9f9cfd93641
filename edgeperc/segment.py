"""Label-map networks: a packet in, a class for each sensor pixel out."""

from __future__ import annotations

import time
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import ModelError
from edgeperc.infer import Session
from edgeperc.jit import kernel
from edgeperc.packet import Events, Packet, Stamp
from edgeperc.places import ModelFolder
from edgeperc.represent import RECIPES, Recipe
from edgeperc.result import LabelMap, ModelRef, Timings
from edgeperc.spiking import SpikingEngine


class Engine(Protocol):
    """Computes labels from a network input; says what it is and which provider runs it."""

    name: str
    provider: str

    def labels(self, tensor: NDArray[np.float32], /) -> NDArray[np.uint8]:
        """tensor: (C, h, w) float32 network input. Returns (h, w) uint8 class indices."""


class OnnxEngine:
    """The whole network as one ONNX file in onnxruntime."""

    name = "onnxruntime"

    def __init__(self, session: Session, *, classes: int) -> None:
        self._session = session
        self._classes = classes
        self.provider = session.provider

    def labels(self, tensor: NDArray[np.float32], /) -> NDArray[np.uint8]:
        """tensor: (C, h, w) float32. Returns (h, w) uint8: the class of the largest logit.

        Raises ModelError if the network does not answer with a logit a class and pixel.
        """
        logits = self._session.run(tensor[None])[0]
        expected = (1, self._classes, *tensor.shape[1:])
        if logits.shape != expected:
            raise ModelError(f"the network's output is {logits.shape}, expected logits {expected}")
        labels: NDArray[np.uint8] = _argmax(logits[0])
        return labels


class Segmenter:
    """A semantic network with its packet-to-tensor recipe and an engine.

    Raises ModelError if the card's files are missing, damaged or do not fit the wanted engine.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        engine: Literal["auto", "onnx", "spiking"] = "auto",
        threads: int = 2,
    ) -> None:
        self._card = model.card
        if model.card.task != "semantic":
            raise ModelError(f"model '{model.card.name}' does {model.card.task}, not label maps")
        if model.card.input.represent not in RECIPES:
            raise ModelError(
                f"model '{model.card.name}': unknown recipe '{model.card.input.represent}'",
                hint=f"[input] represent is one of {', '.join(sorted(RECIPES))}",
            )
        self._engine = open_engine(model, engine, threads)
        self._recipe: tuple[tuple[int, int], Recipe] | None = None
        role = "spiking" if isinstance(self._engine, SpikingEngine) else "network"
        self.ref = ModelRef(
            name=model.card.name,
            sha256=next(entry.sha256 for entry in model.card.files if entry.role == role),
            engine=self._engine.name,
            provider=self._engine.provider,
        )
        self._warm_up()

    def __call__(self, packet: Packet, /) -> LabelMap:
        """Label the pixels of a window of events; (H, W) is the sensor's own size."""
        if not isinstance(packet, Events):
            raise ModelError(f"model '{self._card.name}' takes events, got a frame")
        started_ns = time.perf_counter_ns()
        recipe = self._recipe_for(packet)
        tensor = recipe(packet)
        represented_ns = time.perf_counter_ns()
        labels = recipe.labels_to_sensor(self._engine.labels(tensor))
        inferred_ns = time.perf_counter_ns()
        return LabelMap(
            stamp=packet.stamp,
            labels=labels,
            classes=self._card.classes,
            model=self.ref,
            timings=Timings(
                represent_ns=represented_ns - started_ns,
                infer_ns=inferred_ns - represented_ns,
            ),
        )

    def _recipe_for(self, events: Events) -> Recipe:
        size_px = (events.width_px, events.height_px)
        if self._recipe is None or self._recipe[0] != size_px:
            make = RECIPES[self._card.input.represent]
            self._recipe = (size_px, make(*size_px, self._card.input))
        return self._recipe[1]

    def _warm_up(self) -> None:
        """Compile the kernels and fill the caches before the first real packet."""
        rng = np.random.default_rng(0)
        width_px, height_px = self._card.input.width_px, self._card.input.height_px
        count = 1000
        self(
            Events(
                stamp=Stamp(source="warm-up", seq=0, start_ns=0, end_ns=count * 1000),
                t=np.arange(count, dtype=np.int64),
                x=rng.integers(0, width_px, count, dtype=np.uint16),
                y=rng.integers(0, height_px, count, dtype=np.uint16),
                p=rng.random(count) < 0.5,
                width_px=width_px,
                height_px=height_px,
            )
        )


def open_engine(
    model: ModelFolder, wanted: Literal["auto", "onnx", "spiking"], threads: int
) -> Engine:
    """Open the wanted engine on a model's files. Raises ModelError if it cannot run them."""
    network = model.file("network")
    if network is None:
        raise ModelError(f"model '{model.card.name}': its card names no file of role 'network'")
    spiking = model.file("spiking")
    if wanted != "onnx" and spiking is not None:
        return SpikingEngine(spiking, threads=threads)
    if wanted == "spiking":
        raise ModelError(
            f"model '{model.card.name}' has no file of role 'spiking'",
            hint='use engine = "onnx", or export the model again',
        )
    return OnnxEngine(Session(network, threads=threads), classes=len(model.card.classes))


@kernel()
def _argmax(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """logits: (C, h, w). Returns (h, w) uint8; the first of equals wins, as in numpy."""
    classes, height, width = logits.shape
    labels = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            best = logits[0, y, x]
            for k in range(1, classes):
                if logits[k, y, x] > best:
                    best = logits[k, y, x]
                    labels[y, x] = k
    return labels
