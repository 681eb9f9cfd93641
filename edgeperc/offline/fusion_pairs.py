"""Frames with their events and the class of each pixel, from the twin, for networks that fuse them.

for sample in pairs(HELD_OUT_STREETS, ["night"]):        # drawn as they are asked for
    ...                                                  # sample.frame, .events, .labels
data = cached_pairs(TRAINING_STREETS, TRAINED, folder)   # drawn once, kept, then in memory

The window lies around the middle of the exposure, of which the labels are. The same streets,
conditions and windows give the same samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeperc.errors import ConfigError
from edgeperc.offline import fusion_conditions
from edgeperc.offline.datasets import (
    HELD_OUT_STREETS,
    TWIN_CAMERA,
    TWIN_WINDOW_US,
    TWIN_WINDOWS_A_STREET,
    save_arrays,
    twin_hash,
)
from edgeperc.offline.fusion_conditions import CONDITIONS, Circumstances
from edgeperc.offline.samples import Dataset, Sample
from edgeperc.packet import Events, Frame, Stamp, join
from edgeperc.twin.drive import WARM_UP_US, StreetEye
from edgeperc.twin.event_sensor import EventSensor
from edgeperc.twin.scene import CLASSES

STRIDE_US = 1_500_000
"""Between the windows of a street, in time of the world."""
SHORT_EXPOSURE_US = 2_000
NAME = "twin"


def pairs(
    streets: Sequence[int],
    conditions: Sequence[str],
    *,
    windows_a_street: int = TWIN_WINDOWS_A_STREET,
) -> Dataset:
    """Windows along streets, under the conditions in turn. Raises ConfigError."""
    check(conditions)

    def read(index: int) -> Sample:
        street, window = divmod(index, windows_a_street)
        return draw(streets[street], window, _in_turn(conditions, street, window))

    return Dataset(name=NAME, classes=CLASSES, size=len(streets) * windows_a_street, read=read)


def open_pairs(where: str) -> Dataset | None:
    """`twin` or `twin:SEED` by day, `twin-CONDITION` or `twin-CONDITION:SEED`; None if neither."""
    name, _, seed = where.partition(":")
    if name != NAME and not name.startswith(f"{NAME}-"):
        return None
    if seed and not seed.isdecimal():
        raise ConfigError(f"--data {where}: the seed must be a number, as in {name}:20000")
    condition = name.removeprefix(NAME).removeprefix("-") or "day"
    return pairs([int(seed)] if seed else HELD_OUT_STREETS, [condition])


def check(conditions: Sequence[str]) -> None:
    """Raise ConfigError for a condition that is not known."""
    for name in conditions:
        if name not in CONDITIONS:
            raise ConfigError(f"unknown condition '{name}'", hint=f"known: {', '.join(CONDITIONS)}")


def draw(seed: int, window: int, condition: str) -> Sample:
    """One window of a street under a condition, with its frame and the truth at its middle."""
    terms = CONDITIONS[condition]
    shape = (TWIN_CAMERA.height_px, TWIN_CAMERA.width_px)
    rng = np.random.default_rng((seed, window, list(CONDITIONS).index(condition)))
    now = Circumstances.draw(terms, rng, shape)
    eye, begin_us = _eye(seed), STRIDE_US * window

    def look(time_us: int) -> NDArray[np.float32]:
        return eye.look((begin_us + (time_us - begin_us) * now.speed) * 1e-6)

    sensor = EventSensor(now.pixel(), rng, now.for_events(look(begin_us)))
    start_us = begin_us + WARM_UP_US
    sensor.step(now.for_events(look(start_us)), _stamp(window, begin_us, start_us))
    middle, parts, open_sum = terms.steps // 2, [], np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.uint8)
    edges = [start_us + round(k * TWIN_WINDOW_US / terms.steps) for k in range(terms.steps + 1)]
    for k in range(1, terms.steps + 1):
        seen = look(edges[k])
        if abs(k - middle) <= terms.open_steps:
            open_sum += seen
        if k == middle:
            labels = eye.labels()
        parts.append(sensor.step(now.for_events(seen), _stamp(window, edges[k - 1], edges[k])))
    open_steps = 2 * terms.open_steps + 1
    exposure_us = round(open_steps * TWIN_WINDOW_US / terms.steps) if terms.open_steps else 0
    half_us = (exposure_us or SHORT_EXPOSURE_US) // 2
    image = now.expose(open_sum / np.float32(open_steps), rng)
    return Sample(
        events=join(parts, _stamp(window, edges[0], edges[-1])),
        labels=labels,
        frame=Frame(
            stamp=_stamp(window, edges[middle] - half_us, edges[middle] + half_us), image=image
        ),
    )


def cached_pairs(
    streets: Sequence[int],
    conditions: Sequence[str],
    folder: Path,
    *,
    windows_a_street: int = TWIN_WINDOWS_A_STREET,
    processes: int = 2,
    on_street: Callable[[], None] = lambda: None,
) -> Dataset:
    """The same as `pairs`, drawn once, kept in `folder` and then held in memory.

    Files carry a hash of what drew them, so they are drawn anew when that changes. on_street is
    called after each street.
    """
    check(conditions)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{'-'.join(conditions)}-{windows_a_street}-{drawn_by()}.npz"
    turns = [k % len(conditions) for k in range(len(streets))]
    paths = [folder / f"pairs-{seed}-{k}-{name}" for seed, k in zip(streets, turns, strict=True)]
    work = partial(_draw_street, conditions=tuple(conditions), windows=windows_a_street)
    missing = [k for k, path in enumerate(paths) if not path.exists()]
    for _ in range(len(streets) - len(missing)):
        on_street()
    tasks = missing, [streets[k] for k in missing], [paths[k] for k in missing]
    if processes > 1 and missing:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(work, *tasks):
                on_street()
    else:
        for number, seed, path in zip(*tasks, strict=True):
            work(number, seed, path)
            on_street()
    shelves = [dict(np.load(path)) for path in paths]

    def read(index: int) -> Sample:
        street, window = divmod(index, windows_a_street)
        return _unpacked(shelves[street], window)

    return Dataset(name=NAME, classes=CLASSES, size=len(streets) * windows_a_street, read=read)


def _in_turn(conditions: Sequence[str], street: int, window: int) -> str:
    """Each condition equally often, at other windows in the next street."""
    return conditions[(street + window) % len(conditions)]


@lru_cache(maxsize=2)
def _eye(seed: int) -> StreetEye:
    return StreetEye(seed, TWIN_CAMERA)


def _stamp(seq: int, start_us: int, end_us: int) -> Stamp:
    return Stamp(source=NAME, seq=seq, start_ns=1000 * start_us, end_ns=1000 * end_us)


def drawn_by() -> str:
    """Of what draws pairs: changes with any source of the twin, or of the conditions."""
    sources = [Path(fusion_conditions.__file__), Path(__file__)]
    own = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    return f"{twin_hash()}-{own}"


def _draw_street(
    number: int, seed: int, path: Path, *, conditions: tuple[str, ...], windows: int
) -> None:
    """Write the windows of one street: events one after the other, `stops` where each ends."""
    drawn = [draw(seed, k, _in_turn(conditions, number, k)) for k in range(windows)]
    events = [sample.events for sample in drawn]
    frames = [sample.frame for sample in drawn if sample.frame is not None]
    starts = [window.stamp.start_ns // 1000 for window in events]
    save_arrays(
        path,
        stops=np.cumsum([len(window) for window in events]),
        start_us=np.array(starts),
        half_us=np.array([(f.stamp.end_ns - f.stamp.start_ns) // 2000 for f in frames]),
        middle_us=np.array([(f.stamp.end_ns + f.stamp.start_ns) // 2000 for f in frames]),
        t=np.concatenate([e.t - start for e, start in zip(events, starts, strict=True)]).astype(
            np.uint16
        ),
        **{name: np.concatenate([getattr(e, name) for e in events]) for name in "xyp"},
        frames=np.stack([frame.image for frame in frames]),
        labels=np.stack([sample.labels for sample in drawn]),
    )


def _unpacked(shelf: dict[str, NDArray[Any]], window: int) -> Sample:
    cut = slice(int(shelf["stops"][window - 1]) if window else 0, int(shelf["stops"][window]))
    start_us, middle_us, half_us = (
        int(shelf[name][window]) for name in ("start_us", "middle_us", "half_us")
    )
    events = Events(
        stamp=_stamp(window, start_us, start_us + TWIN_WINDOW_US),
        t=shelf["t"][cut].astype(np.int64) + start_us,
        x=shelf["x"][cut],
        y=shelf["y"][cut],
        p=shelf["p"][cut],
        width_px=TWIN_CAMERA.width_px,
        height_px=TWIN_CAMERA.height_px,
    )
    frame = Frame(
        stamp=_stamp(window, middle_us - half_us, middle_us + half_us),
        image=shelf["frames"][window],
    )
    return Sample(events=events, labels=shelf["labels"][window], frame=frame)
