"""Box detectors: a frame in, boxes in its own pixels out.

detector = Detector(places.find_model("fastestdet"), threads=1)
found = detector(frame)
found = Detector(places.find_model("yolox-nano"), tile_px=(320, 640))(large_frame)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeperc.detection.decode import DECODERS, Candidates
from edgeperc.detection.merge import merge_tiles, suppress
from edgeperc.detection.tiles import tile_views
from edgeperc.errors import ModelError
from edgeperc.inference.providers import Providers
from edgeperc.inference.session import Session
from edgeperc.packet import Frame, ModelInput
from edgeperc.picture import Picture
from edgeperc.places import ModelFolder
from edgeperc.result import Detections, ModelRef, Timings

T = TypeVar("T")
SCORE, IOU, OVERLAP = 0.5, 0.45, 0.2
"""Where neither the card nor the caller says."""


class Detector:
    """A detection network with its picture-to-tensor step, decoder and suppression.

    score, iou, tile_px, overlap: as in [detect] of the card, which counts where they are None.
    With tiles, every tile costs a run of the network. Serves one thread: it owns its buffers.
    Raises ModelError if the card's file is missing, damaged, or does not answer as its decoder
    needs it.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        threads: int = 1,
        providers: Providers = (),
        score: float | None = None,
        iou: float | None = None,
        tile_px: Sequence[int] | None = None,
        overlap: float | None = None,
    ) -> None:
        card = model.card
        table = card.detect
        if card.task != "detection" or table is None:
            raise ModelError(f"model '{card.name}' does {card.task}, not boxes")
        if table.decode not in DECODERS:
            raise ModelError(
                f"model '{card.name}': unknown decoder '{table.decode}'",
                hint=f"[detect] decode is one of {', '.join(sorted(DECODERS))}",
            )
        network = model.file("network")
        if network is None:
            raise ModelError(f"model '{card.name}': its card names no file of role 'network'")
        self.score = _first(score, table.score, SCORE)
        self.iou = _first(iou, table.iou, IOU)
        self.tile_px: Sequence[int] = _first(tile_px, table.tile_px, ())
        self.overlap = _first(overlap, table.overlap, OVERLAP)
        self._card, self._decoder = card, DECODERS[table.decode]
        self._picture = Picture(card.input)
        self._session = Session(network, threads=threads, providers=providers)
        self._views: tuple[tuple[int, ...], NDArray[np.int64]] = ((), np.empty((0, 4), np.int64))
        self.ref = ModelRef(
            name=card.name,
            sha256=next(entry.sha256 for entry in card.files if entry.role == "network"),
            engine="onnxruntime",
            provider=self._session.provider,
            precision=self._session.precision,
        )
        self._warm_up()

    def __call__(self, packet: ModelInput, /) -> Detections:
        """Find boxes in a frame, best first. Raises ModelError for events or a frame of no area."""
        if not isinstance(packet, Frame):
            raise ModelError(f"model '{self._card.name}' takes frames, got events")
        started_ns = time.perf_counter_ns()
        views = self._views_of(packet.image)
        parts, represent_ns = [], 0
        for view in views:
            found, spent_ns = self._look(packet.image, view)
            parts.append(found)
            represent_ns += spent_ns
        found = parts[0] if len(parts) == 1 else self._merged(parts, views)
        boxes = _clipped(found.boxes, packet.image.shape[1], packet.image.shape[0])
        return Detections(
            stamp=packet.stamp,
            boxes=_read_only(boxes),
            scores=_read_only(found.scores),
            class_ids=_read_only(found.class_ids),
            variance=None if found.variance is None else _read_only(found.variance),
            classes=self._card.classes,
            model=self.ref,
            picture_px=(packet.image.shape[1], packet.image.shape[0]),
            timings=Timings(
                represent_ns=represent_ns,
                infer_ns=time.perf_counter_ns() - started_ns - represent_ns,
            ),
        )

    def _look(self, image: NDArray[np.uint8], view: NDArray[np.int64]) -> tuple[Candidates, int]:
        """Boxes of one tile in the frame's pixels, and the ns spent on its tensor."""
        x0, y0, x1, y1 = view
        started_ns = time.perf_counter_ns()
        tensor = self._picture(image[y0:y1, x0:x1])
        represent_ns = time.perf_counter_ns() - started_ns
        height_px, width_px = tensor.shape[1:]
        output = self._session.run(tensor[None])[0]
        expected = self._decoder.shape(len(self._card.classes), height_px, width_px)
        if output.shape != expected:
            raise ModelError(
                f"model '{self._card.name}': its output is {output.shape}, expected {expected}"
            )
        found = self._decoder.decode(output, self.score, height_px, width_px)
        found = suppress(found, iou=self.iou)
        boxes = self._picture.to_frame(found.boxes)
        boxes += np.array([x0, y0, x0, y0], np.float32)
        variance = found.variance
        if variance is not None:
            variance = self._picture.variance_to_frame(variance)
        return (
            Candidates(
                boxes=boxes, scores=found.scores, class_ids=found.class_ids, variance=variance
            ),
            represent_ns,
        )

    def _merged(self, parts: list[Candidates], views: NDArray[np.int64]) -> Candidates:
        tile_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return merge_tiles(_joined(parts), views.astype(np.float32), tile_of, iou=self.iou)

    def _views_of(self, image: NDArray[np.uint8]) -> NDArray[np.int64]:
        if image.size == 0:
            raise ModelError(f"a frame of {image.shape[1]} × {image.shape[0]} px has no pixels")
        if self._views[0] != image.shape[:2]:
            height_px, width_px = image.shape[:2]
            views = tile_views(width_px, height_px, self.tile_px, overlap=self.overlap)
            self._views = (image.shape[:2], views)
        return self._views[1]

    def _warm_up(self) -> None:
        """Compile the kernels, fill the caches and check the output's shape before a real frame."""
        spec = self._card.input
        self._look(
            np.zeros((spec.height_px, spec.width_px), np.uint8),
            np.array([0, 0, spec.width_px, spec.height_px]),
        )


def _first(given: T | None, card: T | None, default: T) -> T:
    return next(value for value in (given, card, default) if value is not None)


def _joined(parts: Sequence[Candidates]) -> Candidates:
    variances = [part.variance for part in parts if part.variance is not None]
    return Candidates(
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        class_ids=np.concatenate([part.class_ids for part in parts]),
        variance=np.concatenate(variances) if variances else None,
    )


def _clipped(boxes: NDArray[np.float32], width_px: int, height_px: int) -> NDArray[np.float32]:
    limits = np.array([width_px, height_px, width_px, height_px], np.float32)
    return boxes.clip(0, limits)


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    values.flags.writeable = False
    return values
