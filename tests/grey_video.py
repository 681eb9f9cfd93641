"""A small model that follows whatever has the grey value it was shown: no network, no weights.

An object is the pixels of one grey value: that under the first point, in the middle of the box, or
the most frequent under the mask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from edgeperc import masks
from edgeperc.errors import DataError, ModelError
from edgeperc.packet import Frame, Stamp
from edgeperc.prompt import Prompt
from edgeperc.result import Instances, ModelRef


class GreyVideo:
    """As `edgeperc.tracker.Video`.

    steps: number of the picture and prompts of each run. wrong: the grey value it breaks at.
    during: called while it runs.
    """

    def __init__(
        self, *, wrong: int | None = None, during: Callable[[], object] = lambda: None
    ) -> None:
        self.during = during
        self.ref = ModelRef(name="grey")
        self.greys: dict[int, int] = {}
        self.steps: list[tuple[int, dict[int, Prompt]]] = []
        self.wrong = wrong
        self.threads: set[int] = set()

    @property
    def objects(self) -> tuple[int, ...]:
        return tuple(self.greys)

    def step(self, frame: Frame, prompts: Mapping[int, Prompt]) -> Instances:
        self.threads.add(threading.get_ident())
        self.during()
        height_px, width_px = frame.image.shape[:2]
        shown = {key: _grey(frame.image, prompt) for key, prompt in prompts.items()}
        if self.wrong in shown.values():
            raise DataError(f"grey {self.wrong} is no object")
        if self.wrong is not None and (frame.image == self.wrong).all():
            raise ModelError("the network broke")
        self.greys |= shown
        self.steps.append((frame.stamp.seq, dict(prompts)))
        pixels = [frame.image == grey for grey in self.greys.values()]
        rles = tuple(masks.encode(each) for each in pixels)
        return Instances(
            stamp=frame.stamp,
            ids=np.array(list(self.greys), np.int64),
            masks=rles,
            boxes=np.array([masks.box(rle) for rle in rles], np.float32).reshape(-1, 4),
            scores=np.full(len(rles), 0.5, np.float32),
            visible=np.array([each.any() for each in pixels], np.float32),
            picture_px=(width_px, height_px),
            model=self.ref,
        )

    def remove(self, object_id: int) -> None:
        del self.greys[object_id]

    def reset(self) -> None:
        self.greys.clear()


def _grey(image: NDArray[np.uint8], prompt: Prompt) -> int:
    if len(prompt.points):
        x, y = np.minimum(prompt.points[0], (image.shape[1] - 1, image.shape[0] - 1))
        return int(image[int(y), int(x)])
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        return int(image[int(y0 + y1) // 2, int(x0 + x1) // 2])
    assert prompt.mask is not None
    return int(np.bincount(image[prompt.mask]).argmax())


def street(seq: int, *, size_px: tuple[int, int] = (60, 40), source: str = "wide") -> Frame:
    """A dark picture with three squares of 6 px, grey 100, 150, 200, that move right by 1 px."""
    width_px, height_px = size_px
    image = np.full((height_px, width_px), 20, np.uint8)
    for row, grey in enumerate((100, 150, 200)):
        left = seq % (width_px - 6)
        image[4 + 10 * row : 10 + 10 * row, left : left + 6] = grey
    stamp = Stamp(source=source, seq=seq, start_ns=seq * 10**8, end_ns=seq * 10**8 + 1000)
    return Frame(stamp=stamp, image=image)


def on(row: int, seq: int) -> tuple[float, float]:
    """The middle of the square in `row` of the picture `seq`."""
    return seq + 3.0, 7.0 + 10 * row


def streets() -> Iterator[Frame]:
    seq = 0
    while True:
        yield street(seq)
        seq += 1
