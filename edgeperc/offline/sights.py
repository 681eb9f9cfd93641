"""Pictures of the twin's avenues, as the search camera and the wide camera see them, with truth.

    sights = cached_sights(range(10_000, 10_080), Path("out/cache"))
    sights.images[k], sights.regions[k], sights.things(k)

All are 224 x 224 px: whole pictures of the search camera, and cuts out of wide pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.offline.datasets import save_arrays, twin_hash
from edgeperc.packet import Gaze
from edgeperc.twin.avenue import PERSON, VEHICLE, Avenue
from edgeperc.twin.rig import SEARCH_FIELD_RAD, Mount
from edgeperc.twin.truth import Truth
from edgeperc.twin.views import SearchView, UprightView

SIDE_PX = 224
SEARCH, WIDE = 0, 1
SENSORS = ("search", "wide")
TRAINING_AVENUES = range(10_000, 10_080)
VALIDATION_AVENUES = range(15_000, 15_006)
HELD_OUT_AVENUES = range(20_000, 20_012)
"""Seeds; the avenue of a rig file is in none of them."""
LOOKS, CUTS = 192, 64
"""Of the search and the wide camera, of each avenue."""
CUTS_A_PICTURE = 4
LIFE_S = 600.0
"""Times are drawn from so long a piece of an avenue's life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sights:
    """Pictures and what is in them.

    images, regions: (N, 224, 224) uint8; regions are 255 where nobody asked (the search camera's).
    sensors: (N,) index into SENSORS. first: (N + 1,) where each picture's rows begin in boxes
    (M, 4) float32 xyxy px, class_ids (M,) and visible (M,), the share that the picture shows.
    """

    images: NDArray[np.uint8]
    regions: NDArray[np.uint8]
    sensors: NDArray[np.int64]
    first: NDArray[np.int64]
    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    visible: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)

    def things(
        self, index: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Boxes, class_ids and visible of one picture."""
        rows = slice(self.first[index], self.first[index + 1])
        return self.boxes[rows], self.class_ids[rows], self.visible[rows]


def cached_sights(
    avenues: Sequence[int],
    folder: Path,
    *,
    looks: int = LOOKS,
    cuts: int = CUTS,
    processes: int = 1,
    on_avenue: Callable[[], None] = lambda: None,
) -> Sights:
    """Sights of several avenues, drawn once and kept in `folder`; a changed twin is drawn anew."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"avenue-{seed}-{looks}-{cuts}-{twin_hash()}.npz" for seed in avenues]
    draw = partial(_draw, looks=looks, cuts=cuts)
    if processes > 1:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(draw, avenues, paths):
                on_avenue()
    else:
        for seed, path in zip(avenues, paths, strict=True):
            draw(seed, path)
            on_avenue()
    return _joined([Sights(**np.load(path)) for path in paths])


def draw_sights(seed: int, *, looks: int = LOOKS, cuts: int = CUTS) -> Sights:
    """`looks` pictures of the search camera and `cuts` of wide pictures of one avenue."""
    avenue, mount = Avenue(seed), Mount.drawn(seed)
    rng = np.random.default_rng((seed, 31))
    rows = [*_search_looks(avenue, mount, rng, looks), *_wide_cuts(avenue, mount, rng, cuts)]
    images, regions, sensors, boxes, class_ids, visible = zip(*rows, strict=True)
    return Sights(
        images=np.stack(images),
        regions=np.stack(regions),
        sensors=np.array(sensors, np.int64),
        first=np.cumsum([0, *(len(box) for box in boxes)]),
        boxes=np.concatenate(boxes),
        class_ids=np.concatenate(class_ids),
        visible=np.concatenate(visible).astype(np.float32),
    )


def gaze_near(truth: Truth, rng: np.random.Generator, *, aimed: float) -> Gaze:
    """A gaze within half a field of a random mover, with chance `aimed`, else anywhere near them.

    truth: of the wide picture.
    """
    if len(truth) == 0:
        return Gaze(pan_rad=0.0, tilt_rad=0.0)
    low, high = truth.gaze_rad.min(axis=0), truth.gaze_rad.max(axis=0)
    if rng.random() < aimed:
        target = truth.gaze_rad[rng.integers(len(truth))]
        pan, tilt = target + rng.uniform(-0.5, 0.5, 2) * SEARCH_FIELD_RAD
    else:
        pan, tilt = rng.uniform(low - SEARCH_FIELD_RAD, high + SEARCH_FIELD_RAD)
    return Gaze(pan_rad=float(pan), tilt_rad=float(tilt))


def _search_looks(
    avenue: Avenue, mount: Mount, rng: np.random.Generator, count: int
) -> Iterator[tuple[Any, ...]]:
    wide, search = UprightView(avenue, mount=mount), SearchView(avenue, mount)
    nothing = np.full((SIDE_PX, SIDE_PX), 255, np.uint8)
    for number in range(count):
        time_s = float(rng.uniform(0, LIFE_S))
        around = wide.truth(time_s)
        gaze = _gaze_at_one(around, rng) if rng.random() < 0.85 else gaze_near(around, rng, aimed=0)
        image = search.image(time_s, _smeared(gaze, rng), noise=number)
        truth = search.truth(time_s, gaze)
        yield (image, nothing, SEARCH, truth.boxes, truth.class_ids, truth.visible)


def _gaze_at_one(truth: Truth, rng: np.random.Generator) -> Gaze:
    """A gaze within half a field of somebody who is seen; people, who are smaller, more often."""
    chosen = _one_of(truth, rng)
    if chosen is None:
        return gaze_near(truth, rng, aimed=0)
    pan, tilt = truth.gaze_rad[chosen] + rng.uniform(-0.5, 0.5, 2) * SEARCH_FIELD_RAD
    return Gaze(pan_rad=float(pan), tilt_rad=float(tilt))


def _one_of(truth: Truth, rng: np.random.Generator) -> int | None:
    """A row of somebody who is at least half visible, a person two times out of three."""
    seen = truth.visible > 0.5
    wanted = truth.class_ids == (PERSON if rng.random() < 2 / 3 else VEHICLE)
    rows = np.flatnonzero(seen & wanted)
    return int(rng.choice(rows)) if len(rows) else None


def _smeared(gaze: Gaze, rng: np.random.Generator) -> list[Gaze]:
    """The mirror of one picture in six has not come to rest: up to 3 px during the exposure."""
    if rng.random() > 1 / 6:
        return [gaze]
    pan, tilt = rng.uniform(-1.5, 1.5, 2) * SEARCH_FIELD_RAD / SIDE_PX
    return [
        Gaze(pan_rad=gaze.pan_rad + part * pan, tilt_rad=gaze.tilt_rad + part * tilt)
        for part in (-1, -0.33, 0.33, 1)
    ]


def _wide_cuts(
    avenue: Avenue, mount: Mount, rng: np.random.Generator, count: int
) -> Iterator[tuple[Any, ...]]:
    view = UprightView(avenue, mount=mount)
    for number in range(count // CUTS_A_PICTURE):
        time_s = float(rng.uniform(0, LIFE_S))
        image = view.image(time_s, noise=number)
        regions, truth = view.regions(time_s), view.truth(time_s)
        for cut in range(CUTS_A_PICTURE):
            x, y = _corner(truth, rng, image.shape, near=cut > 0)
            window = np.s_[y : y + SIDE_PX, x : x + SIDE_PX]
            boxes, visible = cut_boxes(
                truth.boxes - np.array([x, y, x, y], np.float32), truth.visible
            )
            yield (image[window], regions[window], WIDE, boxes, truth.class_ids, visible)


def cut_boxes(
    boxes: NDArray[np.float32], visible: NDArray[Any], side_px: int = SIDE_PX
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes cut at a picture's edges, and how much of each thing is visible then."""
    inside = boxes.clip(0, side_px)
    whole = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    return inside, (visible * (inside[:, 2:] - inside[:, :2]).prod(axis=1) / whole).astype(
        np.float32
    )


def _corner(
    truth: Truth, rng: np.random.Generator, shape: tuple[int, ...], *, near: bool
) -> tuple[int, int]:
    """Upper left corner of a cut, somewhere around a mover or anywhere."""
    height_px, width_px = shape
    chosen = _one_of(truth, rng) if near else None
    if chosen is not None:
        box = truth.boxes[chosen]
        middle = (box[:2] + box[2:]) / 2
        x, y = middle - rng.uniform(0.1, 0.9, 2) * SIDE_PX
    else:
        x, y = rng.uniform(0, [width_px - SIDE_PX, height_px - SIDE_PX])
    return int(np.clip(x, 0, width_px - SIDE_PX)), int(np.clip(y, 0, height_px - SIDE_PX))


def _draw(seed: int, path: Path, looks: int, cuts: int) -> None:
    if not path.exists():
        sights = draw_sights(seed, looks=looks, cuts=cuts)
        save_arrays(path, **{field.name: getattr(sights, field.name) for field in fields(sights)})


def _joined(parts: Sequence[Sights]) -> Sights:
    counts = np.concatenate([np.diff(part.first) for part in parts])
    names = [field.name for field in fields(Sights) if field.name != "first"]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Sights(first=np.concatenate(([0], np.cumsum(counts))), **arrays)
