"""What a person or a detector points at: clicks, a box, a mask.

Prompt(points=[(412, 230)], labels=[1])
Prompt(box=(300, 120, 520, 400), points=[(310, 130)], labels=[0])
prompts = from_detections(detections)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeperc.errors import DataError
from edgeperc.result import Detections

OUTSIDE, INSIDE, LEFT_UPPER, RIGHT_LOWER, PADDING, ABSENT = 0.0, 1.0, 2.0, 3.0, -1.0, -2.0
"""Labels of the decoder's tokens. PADDING stands where SAM wants a token though nothing was asked;
ABSENT takes no part at all."""


_TO_CENTRE_PX = 0.5  # the network itself moves a point to the centre of its pixel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """What is meant, in pixels of the picture. The centre of the upper left pixel is (0.5, 0.5).

    points: (N, 2) x, y. labels: (N,) 1 on the object, 0 beside it; left out, all are on it. box:
    (4,) xyxy. mask: (H, W) bool. Anything that numpy takes as such is taken. Raises DataError if
    the shapes are others, or a number is none.
    """

    points: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))
    labels: NDArray[np.float32] | None = None
    box: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        points = _numbers("points", self.points)
        points = points.reshape(-1, 2) if points.size == 0 else np.atleast_2d(points)
        if points.ndim != 2 or points.shape[1] != 2:
            raise DataError(f"points of a prompt are {points.shape}, must be (N, 2)")
        labels = np.ones(len(points)) if self.labels is None else self.labels
        labels = np.atleast_1d(_numbers("labels", labels))
        if labels.shape != (len(points),):
            raise DataError(f"a prompt has {len(points)} points and {labels.size} labels")
        if not np.isin(labels, (OUTSIDE, INSIDE)).all():
            raise DataError("labels of a prompt are 1 (on the object) or 0 (beside it)")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "labels", labels)
        if self.box is not None:
            box = _numbers("box", self.box)
            if box.shape != (4,):
                raise DataError(f"the box of a prompt is {box.shape}, must be 4 numbers: x y x y")
            object.__setattr__(self, "box", box)
        if self.mask is not None:
            mask = np.asarray(self.mask)
            if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
                raise DataError(
                    f"the mask of a prompt is {mask.dtype} {mask.shape}, must be (H, W) bool"
                )
            object.__setattr__(self, "mask", mask != 0)

    def check(self, width_px: int, height_px: int) -> None:
        """Hold the prompt to a picture. Raises DataError that says what does not fit."""
        picture = f"the picture of {width_px} × {height_px} px"
        if not len(self.points) and self.box is None and self.mask is None:
            raise DataError("a prompt asks for nothing", hint="give it a point, a box or a mask")
        limits = np.array([width_px, height_px])
        for x, y in self.points[((self.points < 0) | (self.points > limits)).any(axis=1)][:1]:
            raise DataError(f"point ({x:g}, {y:g}) of a prompt is outside {picture}")
        if self.box is not None:
            corners = self.box.reshape(2, 2)
            text = ", ".join(f"{value:g}" for value in self.box)
            if (corners[0] >= corners[1]).any():
                raise DataError(
                    f"the box ({text}) of a prompt is empty",
                    hint="give left, upper, right and lower edge in this order",
                )
            if (corners < 0).any() or (corners > limits).any():
                raise DataError(f"the box ({text}) of a prompt is not within {picture}")
        if self.mask is not None:
            height, width = self.mask.shape
            if (width, height) != (width_px, height_px):
                raise DataError(
                    f"the mask of a prompt has {width} × {height} px, not those of {picture}"
                )
            if not self.mask.any():
                raise DataError("the mask of a prompt is empty")


def from_detections(found: Detections) -> tuple[Prompt, ...]:
    """A prompt for each box, cut at the picture's edges; boxes without area are left out."""
    boxes = found.boxes
    if found.picture_px != (0, 0):
        boxes = boxes.clip(0, np.tile(np.array(found.picture_px, np.float32), 2))
    whole = np.isfinite(boxes).all(axis=1) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    return tuple(Prompt(box=box) for box in boxes[whole])


def check_all(prompts: Mapping[int, Prompt], width_px: int, height_px: int) -> None:
    """Hold prompts of several objects to a picture. Raises DataError that names the object."""
    for object_id, prompt in prompts.items():
        with naming(object_id):
            prompt.check(width_px, height_px)


@contextmanager
def naming(object_id: int) -> Iterator[None]:
    """Put the object before what a DataError about its prompt says."""
    try:
        yield
    except DataError as error:
        raise DataError(f"object {object_id}: {error}", hint=error.hint) from None


def tokens(prompt: Prompt, zoom: NDArray[np.float64], *, count: int, padded: bool) -> Tokens:
    """A prompt as the decoder's `count` tokens: the corners of the box, the points, the padding.

    zoom: network px in a px of the picture, along x and y. padded: a token of PADDING follows, as
    SAM 2 has it always, and SAM where there are points and no box. Raises DataError if there are
    more points than tokens.
    """
    assert prompt.labels is not None
    points, labels = [prompt.points], [prompt.labels]
    if prompt.box is not None:
        points.insert(0, prompt.box.reshape(2, 2))
        labels.insert(0, np.array([LEFT_UPPER, RIGHT_LOWER], np.float32))
    at = np.concatenate(points) * zoom - _TO_CENTRE_PX
    label = np.concatenate(labels)
    room = count - padded - (0 if prompt.box is None else 2)
    if len(prompt.points) > room:
        raise DataError(
            f"a prompt has {len(prompt.points)} points, the model takes {room} with it",
            hint="leave out points, or export the model for more",
        )
    return _filled(at, np.append(label, PADDING) if padded else label, count)


def no_tokens(count: int, *, padding: int) -> Tokens:
    """Tokens where nothing is asked: so many of PADDING."""
    return _filled(np.empty((0, 2)), np.full(padding, PADDING), count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What the decoder takes: points (1, P, 2) float32 in network px, labels (1, P) float32."""

    points: NDArray[np.float32]
    labels: NDArray[np.float32]


def _filled(points: NDArray[Any], labels: NDArray[Any], count: int) -> Tokens:
    filled = Tokens(
        points=np.zeros((1, count, 2), np.float32),
        labels=np.full((1, count), ABSENT, np.float32),
    )
    filled.points[0, : len(points)] = points
    filled.labels[0, : len(labels)] = labels
    return filled


def _numbers(name: str, values: ArrayLike) -> NDArray[np.float32]:
    try:
        numbers = np.asarray(values, np.float32)
    except (TypeError, ValueError):
        raise DataError(f"{name} of a prompt: not an array of numbers") from None
    if not np.isfinite(numbers).all():
        raise DataError(f"{name} of a prompt: a number is not finite")
    return numbers
