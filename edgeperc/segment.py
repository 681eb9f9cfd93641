"""Label-map networks: a packet in, a class for each sensor pixel out."""

from __future__ import annotations

import time
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import ConfigError, ModelError
from edgeperc.inference.compressed import computed_in
from edgeperc.inference.providers import Providers
from edgeperc.inference.session import Session
from edgeperc.jit import kernel
from edgeperc.packet import Events, Frame, ModelInput, Stamp
from edgeperc.picture import Picture
from edgeperc.places import ModelFolder
from edgeperc.represent import RECIPES, Recipe
from edgeperc.result import LabelMap, ModelRef, Timings
from edgeperc.spiking import SpikingEngine


class Engine(Protocol):
    """Computes labels from a network input; says what it is and which provider runs it."""

    name: str
    provider: str
    precision: str

    def labels(self, tensor: NDArray[np.float32], /) -> NDArray[np.uint8]:
        """tensor: (C, h, w) float32 network input. Returns (h, w) uint8 class indices."""


class OnnxEngine:
    """The whole network as one ONNX file in onnxruntime."""

    name = "onnxruntime"

    def __init__(self, session: Session, *, classes: int, any_stride: bool = False) -> None:
        """any_stride: the network may answer for blocks of pixels instead of each."""
        self._session = session
        self._classes = classes
        self._any_stride = any_stride
        self.provider = session.provider
        self.precision = session.precision

    def labels(self, tensor: NDArray[np.float32], /) -> NDArray[np.uint8]:
        """tensor: (C, h, w) float32. Returns (h, w) uint8: the class of the largest logit.

        h and w are divided by the stride, if the network may have one. Raises ModelError if it does
        not answer with a logit a class and place.
        """
        logits = self._session.run(tensor[None])[0]
        height, width = tensor.shape[1:]
        stride = 1
        if self._any_stride and logits.ndim == 4:
            stride = max(height // max(logits.shape[2], 1), 1)
        expected = (1, self._classes, height // stride, width // stride)
        if logits.shape != expected:
            raise ModelError(f"the network's output is {logits.shape}, expected logits {expected}")
        labels: NDArray[np.uint8] = largest_class(logits[0])
        return labels


class Segmenter:
    """A semantic network with its step from events or a frame to a tensor, and an engine.

    Raises ModelError if the card's files are missing, damaged or do not fit the wanted engine.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        engine: Literal["auto", "onnx", "spiking"] = "auto",
        threads: int = 2,
        providers: Providers = (),
    ) -> None:
        self._card = model.card
        if model.card.task != "semantic":
            raise ModelError(f"model '{model.card.name}' does {model.card.task}, not label maps")
        self._picture = Picture(model.card.input) if model.card.input.kind == "frame" else None
        if self._picture is None and model.card.input.represent not in RECIPES:
            raise ModelError(
                f"model '{model.card.name}': unknown recipe '{model.card.input.represent}'",
                hint=f"[input] represent is one of {', '.join(sorted(RECIPES))}",
            )
        self._engine = open_engine(model, engine, threads, providers)
        self._recipe: tuple[tuple[int, int], Recipe] | None = None
        role = "spiking" if isinstance(self._engine, SpikingEngine) else "network"
        self.ref = ModelRef(
            name=model.card.name,
            sha256=next(entry.sha256 for entry in model.card.files if entry.role == role),
            engine=self._engine.name,
            provider=self._engine.provider,
            precision=computed_in(model.folder, self._engine.precision),
        )
        self._warm_up()

    def __call__(self, packet: ModelInput, /) -> LabelMap:
        """Label the pixels of a window of events or of a frame; (H, W) is the sensor's own size.

        Raises ModelError for a packet of the other kind, or a frame without pixels.
        """
        started_ns = time.perf_counter_ns()
        step: Recipe | Picture
        if isinstance(packet, Events) and self._picture is None:
            step = self._recipe_for(packet)
            tensor = step(packet)
        elif isinstance(packet, Frame) and self._picture is not None:
            step = self._picture
            tensor = step(packet.image)
        else:
            wanted, got = ("frames", "events") if self._picture else ("events", "a frame")
            raise ModelError(f"model '{self._card.name}' takes {wanted}, got {got}")
        represented_ns = time.perf_counter_ns()
        labels = step.labels_to_sensor(self._engine.labels(tensor))
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
        width_px, height_px = self._card.input.width_px, self._card.input.height_px
        stamp = Stamp(source="warm-up", seq=0, start_ns=0, end_ns=1_000_000)
        if self._picture is not None:
            self(Frame(stamp=stamp, image=np.zeros((height_px, width_px), np.uint8)))
            return
        rng = np.random.default_rng(0)
        count = 1000
        self(
            Events(
                stamp=stamp,
                t=np.arange(count, dtype=np.int64),
                x=rng.integers(0, width_px, count, dtype=np.uint16),
                y=rng.integers(0, height_px, count, dtype=np.uint16),
                p=rng.random(count) < 0.5,
                width_px=width_px,
                height_px=height_px,
            )
        )


def open_engine(
    model: ModelFolder,
    wanted: Literal["auto", "onnx", "spiking"],
    threads: int,
    providers: Providers = (),
) -> Engine:
    """Open the wanted engine on a model's files. Raises ModelError if it cannot run them.

    providers: where some are named, "auto" is onnxruntime. Raises ConfigError for the spike-driven
    one with them.
    """
    if wanted == "spiking" and providers:
        raise ConfigError(
            "providers: are of onnxruntime, not of the spike-driven engine",
            hint='leave them out, or use engine = "onnx"',
        )
    network = model.file("network")
    if network is None:
        raise ModelError(f"model '{model.card.name}': its card names no file of role 'network'")
    spiking = model.file("spiking")
    if wanted != "onnx" and spiking is not None and not providers:
        return SpikingEngine(spiking, threads=threads)
    if wanted == "spiking":
        raise ModelError(
            f"model '{model.card.name}' has no file of role 'spiking'",
            hint='use engine = "onnx", or export the model again',
        )
    return OnnxEngine(
        Session(network, threads=threads, providers=providers),
        classes=len(model.card.classes),
        any_stride=model.card.input.kind == "frame",
    )


@kernel()
def largest_class(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
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
