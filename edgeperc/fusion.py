"""Networks that fuse a frame with the events around it: a pair in, a class for each pixel out."""

from __future__ import annotations

import time

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeperc.config import ModelCard
from edgeperc.errors import ModelError
from edgeperc.inference.providers import Providers
from edgeperc.jit import kernel
from edgeperc.packet import Events, Frame, ModelInput, Pair, Stamp
from edgeperc.places import ModelFolder
from edgeperc.represent import RECIPES, Taps
from edgeperc.result import LabelMap, ModelRef, Timings
from edgeperc.scan.graph import open_graph
from edgeperc.segment import largest_class

Floats = NDArray[np.float32]


class FusionInput:
    """Turns pairs of one sensor size into a network's two inputs, in buffers that are reused.

    The events go through the card's recipe; the frame, normalised, through the same resizing, cut
    and padding, so that both lie on the same pixels. Raises ModelError for a card without [frames],
    or of an unknown recipe.
    """

    def __init__(self, width_px: int, height_px: int, card: ModelCard) -> None:
        if card.frames is None:
            raise ModelError(f"model '{card.name}' takes no frames: its card has no [frames]")
        if card.input.represent not in RECIPES:
            raise ModelError(
                f"model '{card.name}': unknown recipe '{card.input.represent}'",
                hint=f"[input] represent is one of {', '.join(sorted(RECIPES))}",
            )
        self._recipe = RECIPES[card.input.represent](width_px, height_px, card.input)
        self._sensor_px = (height_px, width_px)
        self._grey = card.frames.channels == "grey"
        self._order = (2, 1, 0) if card.frames.channels == "bgr" else (0, 1, 2)
        count = 1 if self._grey else 3
        if len(card.frames.mean) not in (1, count) or len(card.frames.std) not in (1, count):
            raise ModelError(f"[frames] mean and std need 1 or {count} values for its channels")
        scale = 1.0 / np.broadcast_to(np.asarray(card.frames.std, np.float64), count)
        self._scale = scale.astype(np.float32)
        self._shift = (-np.asarray(card.frames.mean, np.float64) * scale).astype(np.float32)
        self._frame = np.zeros((count, *self._recipe.shape[1:]), np.float32)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(bins, height, width) of the events' input."""
        return self._recipe.shape

    def __call__(self, pair: Pair) -> tuple[Floats, Floats]:
        """Return frame (C, h, w) and voxel grid (bins, h, w), float32, read-only.

        Without a frame, its tensor is zeros; without events, the grid is. Raises ModelError for a
        frame or events of another size than the object's.
        """
        voxels = self._recipe(pair.events)
        if pair.frame is None:
            self._frame[:] = 0
        else:
            self._take(pair.frame.image)
        view: Floats = self._frame.view()
        view.flags.writeable = False
        return view, voxels

    def labels_to_sensor(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring network labels (h, w) uint8 to sensor pixels (H, W), nearest; 255 = not seen."""
        return self._recipe.labels_to_sensor(labels)

    def _take(self, image: NDArray[np.uint8]) -> None:
        if image.shape[:2] != self._sensor_px:
            (height, width), (rows, columns) = self._sensor_px, image.shape[:2]
            raise ModelError(
                f"the frame is {columns} × {rows} px, the events are {width} × {height} px"
            )
        if self._grey and image.ndim == 3:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
        for channel, plane in enumerate(self._frame):
            source = image if image.ndim == 2 else image[..., self._order[channel]]
            pixels = np.ascontiguousarray(source)
            pixels.flags.writeable = False  # one layout, one compilation
            _resize(pixels, self._recipe.taps, self._scale[channel], self._shift[channel], plane)


class FusionSegmenter:
    """A semantic network for pairs, with its step from a pair to tensors.

    whole: run the file in one session even where the processor computes, instead of cut at its
    scans. Raises ModelError if the card's files are missing, damaged, hold a weight that is not
    finite, or do not fit the card.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        threads: int = 2,
        providers: Providers = (),
        whole: bool = False,
    ) -> None:
        self._card = model.card
        if model.card.task != "semantic" or model.card.frames is None:
            raise ModelError(f"model '{model.card.name}' labels no pairs of frames and events")
        network = model.file("network")
        if network is None:
            raise ModelError(f"model '{model.card.name}': its card names no file of role 'network'")
        self._graph = open_graph(network, threads=threads, providers=providers, whole=whole)
        self._input: tuple[tuple[int, int], FusionInput] | None = None
        self.ref = ModelRef(
            name=model.card.name,
            sha256=next(entry.sha256 for entry in model.card.files if entry.role == "network"),
            engine=self._graph.name,
            provider=self._graph.provider,
            precision=self._graph.precision,
        )
        self._warm_up()

    def __call__(self, packet: ModelInput, /) -> LabelMap:
        """Label the pixels of a pair; (H, W) is the sensors' own size.

        Raises ModelError for anything but a pair.
        """
        started_ns = time.perf_counter_ns()
        if not isinstance(packet, Pair):
            got = "a frame" if isinstance(packet, Frame) else "events"
            raise ModelError(
                f"model '{self._card.name}' takes pairs of a frame and events, got {got} alone"
            )
        step = self._step_for(packet.events)
        frame, voxels = step(packet)
        represented_ns = time.perf_counter_ns()
        labels = step.labels_to_sensor(self._labels(frame, voxels))
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

    def close(self) -> None:
        """Free the network; may be called twice."""
        self._graph.close()

    def logits(self, frame: Floats, voxels: Floats) -> Floats:
        """Frame (C, h, w) and voxel grid (bins, h, w) to logits (classes, h, w).

        Raises ModelError if they, or the answer, do not have the shapes that card and file say.
        """
        logits = self._graph(frame[None], voxels[None])
        expected = (1, len(self._card.classes), *voxels.shape[1:])
        if logits.shape != expected:
            raise ModelError(f"the network's output is {logits.shape}, expected logits {expected}")
        answer: Floats = logits[0]
        return answer

    def _labels(self, frame: Floats, voxels: Floats) -> NDArray[np.uint8]:
        return largest_class(self.logits(frame, voxels))

    def _step_for(self, events: Events) -> FusionInput:
        size_px = (events.width_px, events.height_px)
        if self._input is None or self._input[0] != size_px:
            self._input = size_px, FusionInput(*size_px, self._card)
        return self._input[1]

    def _warm_up(self) -> None:
        """Compile the kernels and fill the caches before the first real pair."""
        width_px, height_px = self._card.input.width_px, self._card.input.height_px
        stamp = Stamp(source="warm-up", seq=0, start_ns=0, end_ns=1_000_000)
        rng = np.random.default_rng(0)
        count = 1000
        events = Events(
            stamp=stamp,
            t=np.arange(count, dtype=np.int64),
            x=rng.integers(0, width_px, count, dtype=np.uint16),
            y=rng.integers(0, height_px, count, dtype=np.uint16),
            p=rng.random(count) < 0.5,
            width_px=width_px,
            height_px=height_px,
        )
        frame = Frame(stamp=stamp, image=np.zeros((height_px, width_px), np.uint8))
        self(Pair(stamp=stamp, frame=frame, events=events))


@kernel(fastmath={"contract"})
def _resize(
    source: NDArray[np.uint8],
    taps: tuple[Taps, Taps],
    scale: np.float32,
    shift: np.float32,
    out: Floats,
) -> None:
    """Normalise and resize a plane; `out` beyond the taps becomes zero."""
    (row0, row1, row_share), (column0, column1, column_share) = taps
    out[:] = np.float32(0)
    for y in range(row0.size):
        above, below = source[row0[y]], source[row1[y]]
        for x in range(column0.size):
            a, b = column0[x], column1[x]
            share = column_share[x]
            upper = np.float32(above[a]) + share * (np.float32(above[b]) - np.float32(above[a]))
            lower = np.float32(below[a]) + share * (np.float32(below[b]) - np.float32(below[a]))
            out[y, x] = (upper + row_share[y] * (lower - upper)) * scale + shift
