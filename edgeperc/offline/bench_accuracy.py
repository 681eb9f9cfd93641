"""How well compressed networks answer: the accuracy figures of `edgeperc bench compress-accuracy`.

    settings = Settings(weights=..., data=..., folder=..., seeds=3)
    run_cells(settings, progress)        # hours; goes on where it was stopped
    measure(figures, settings)           # at once then

Figures are points of mIoU (100 is all) unless they are shares, and means over seeds. The spread is
from the least to the largest seed; a difference smaller than that is said to be none.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from rich.progress import Progress

from edgeperc.bench.figures import Figures
from edgeperc.errors import ConfigError
from edgeperc.offline.bench_accuracy_book import Book, Settings
from edgeperc.offline.bench_accuracy_cells import FLOAT, Cell

__all__ = ["KEYS", "Effect", "Settings", "measure", "run_cells", "work_list"]

WAYS = {
    "click": "1 click, the mask that a user gets",
    "click_best": "1 click, the best mask that is offered",
    "box": "box, the mask that a user gets",
    "box_best": "box, the best mask that is offered",
    "selected": "mean of click and box, the masks that a user gets",
}
Scores: TypeAlias = dict[str, float]
"""Points by name of WAYS."""
NO_DATA_SAMPLES = 12
"""As in the preset no-data, so that its pictures serve four bits, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A figure. cells: what it is made of, by seed. value: of their scores, in the same order; None
    where it makes no sense. worst: the worse of click and box counts, not their mean. share: of 1,
    not in points.
    """

    name: str
    what: str
    aim: float
    cells: Callable[[int], tuple[Cell, ...]]
    value: Callable[..., float | None] = lambda one, other: one - other
    worst: bool = False
    share: bool = False


def recovered(whole: float, plain: float, better: float) -> float | None:
    """The part of what `plain` loses that `better` keeps; None where it loses nothing."""
    return (better - plain) / (whole - plain) if whole > plain else None


def _drop(name: str, recipe: str, aim: float) -> Key:
    return Key(
        name=name,
        what=f"points lost by {recipe}, the worse of 1 click and box",
        aim=aim,
        cells=lambda seed: (Cell(FLOAT), Cell(recipe, seed=seed)),
        worst=True,
    )


def _ahead(name: str, what: str, aim: float, one: Cell, other: Cell) -> Key:
    return Key(
        name=name,
        what=what,
        aim=aim,
        cells=lambda seed: (one.with_seed(seed), other.with_seed(seed)),
    )


_PROMPT = Cell("w4a4-prompt")
_REP = "w4a4-rep"
KEYS: tuple[Key, ...] = (
    _drop("w8a8_drop", "w8a8", 0.5),
    _drop("w6a6_drop", "w6a6", 2.0),
    Key(
        name="w4a4_recovered_share",
        what="of what plain rounding to 4 bits loses, the share that w4a4-prompt keeps",
        aim=2 / 3,
        cells=lambda seed: (
            Cell(FLOAT),
            Cell("w4a4-nearest", seed=seed),
            _PROMPT.with_seed(seed),
        ),
        value=recovered,
        share=True,
    ),
    _ahead(
        "w4a4_minus_ptq4sam",
        "points that w4a4-prompt is ahead of PTQ4SAM",
        0.0,
        _PROMPT,
        Cell("w4a4-ptq4sam"),
    ),
    _ahead(
        "w4a4_minus_qdrop",
        "points that w4a4-prompt is ahead of QDrop",
        0.0,
        _PROMPT,
        Cell("w4a4-qdrop"),
    ),
    _ahead(
        "pcc_minus_mse_outliers",
        "points that clipping by focus is ahead of least squared error, decoder outliers; the "
        "two-way transformer at 4 bits, all else at 6",
        5.0,
        Cell("w6a6", decoder=4, outliers=True, focus=True),
        Cell("w6a6", decoder=4, outliers=True),
    ),
    _ahead(
        "pcc_minus_mse_outliers_w6a6",
        "the same, all at 6 bits",
        0.0,
        Cell("w6a6", outliers=True, focus=True),
        Cell("w6a6", outliers=True),
    ),
    Key(
        name="pcc_recovered_outliers",
        what="of what those outliers cost at 4 bits, the share that clipping by focus keeps",
        aim=0.0,
        cells=lambda seed: (
            Cell("w6a6", seed=seed, decoder=4),
            Cell("w6a6", seed=seed, decoder=4, outliers=True),
            Cell("w6a6", seed=seed, decoder=4, outliers=True, focus=True),
        ),
        value=recovered,
        share=True,
    ),
    _ahead(
        "dfq_minus_real_w6a6",
        "points that pictures made by the network are ahead of real ones, 6 bits",
        -1.0,
        Cell("no-data", "synthetic"),
        Cell("no-data", "real"),
    ),
    _ahead(
        "dfq_minus_noise_w4a4",
        "points that pictures made by the network are ahead of noise, 4 bits",
        0.0,
        Cell(_REP, "synthetic", take=NO_DATA_SAMPLES),
        Cell(_REP, "noise", take=NO_DATA_SAMPLES),
    ),
)


@dataclass(frozen=True, slots=True)
class Effect:
    """Of several seeds. spread: the largest minus the least, None for one seed."""

    mean: float
    spread: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Effect:
        """values: one a seed."""
        return cls(fmean(values), max(values) - min(values) if len(values) > 1 else None)

    def sentence(self, name: str, unit: str) -> str:
        """What may be said of it."""
        if self.spread is None:
            return f"{name}: {self.mean:.2f}{unit}; one seed, so how far seeds differ is not known."
        told = f"{self.mean:.2f}{unit} with seeds {self.spread:.2f} apart"
        if abs(self.mean) < self.spread:
            return f"{name}: no measurable effect, {told}."
        return f"{name}: {told}."


def keys_of(only: Sequence[str]) -> tuple[Key, ...]:
    """The keys of these names, all for none. Raises ConfigError for an unknown one."""
    known = {key.name: key for key in KEYS}
    for name in only:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=1)
            raise ConfigError(
                f"--only {name}: no such figure" + (f"; did you mean {near[0]}?" if near else ""),
                hint=f"one of {', '.join(known)}",
            )
    return tuple(key for key in KEYS if not only or key.name in only)


def work_list(settings: Settings) -> list[Cell]:
    """Each cell once; all of the first seed, then all of the next. Raises ConfigError."""
    keys, seeds = keys_of(settings.only), range(settings.seeds)
    return list(dict.fromkeys(c for seed in seeds for key in keys for c in key.cells(seed)))


def run_cells(settings: Settings, progress: Progress | None = None) -> None:
    """Compress and score whatever is not there yet. Raises ConfigError, DataError, ModelError."""
    cells = work_list(settings)
    Book(settings).fill(cells, progress)


def measure(figures: Figures, settings: Settings) -> None:
    """Add the figures, and a table of all cells; does first what is not there yet."""
    cells = work_list(settings)
    book = Book(settings)
    for number, cell in enumerate(cells, 1):
        figures.progress(f"{cell.name}, {number} of {len(cells)}")
        book.fill([cell])
    scores = {cell: points(book.scores(cell)) for cell in cells}
    for key in keys_of(settings.only):
        _add(figures, key, scores, settings.seeds)
    figures.tables.append(("mIoU %, mean of the seeds ± half their spread", _rows(book, cells)))
    figures.note(
        f"{book.page(cells[0])['objects']} objects of held-out pictures, a click and a box each; "
        f"{settings.seeds} seeds draw calibration pictures and rounding."
    )
    if len({book.page(cell).get("toolbox") for cell in cells}) > 1:
        figures.note(
            f"The toolbox has changed since some of {settings.folder} was measured: remove it to "
            "measure all anew."
        )


def points(scores: Mapping[str, float]) -> Scores:
    """Of 100, by WAYS. scores: as a promptable subject has them."""
    found = {name.removesuffix("_miou"): 100 * value for name, value in scores.items()}
    return {**found, "selected": (found["click"] + found["box"]) / 2}


def _add(figures: Figures, key: Key, scores: Mapping[Cell, Scores], seeds: int) -> None:
    effects: dict[str, Effect] = {}
    for way in WAYS:
        values = [
            key.value(*(scores[cell][way] for cell in key.cells(seed))) for seed in range(seeds)
        ]
        known = [value for value in values if value is not None]
        if len(known) == seeds:
            effects[way] = Effect.of(known)
            figures.detail(f"{key.name}_{way}", effects[way].mean)
    shown = [way for way in (("click", "box") if key.worst else ("selected",)) if way in effects]
    if not shown:
        figures.note(f"{key.name}: not known, since nothing is lost that could be kept.")
        return
    effect = max((effects[way] for way in shown), key=lambda each: each.mean)
    figures.add(key.name, effect.mean, key.what, aim=key.aim)
    if effect.spread is not None:
        figures.detail(f"{key.name}_spread", effect.spread)
    figures.note(effect.sentence(key.name, "" if key.share else " points"))


def _rows(book: Book, cells: Sequence[Cell]) -> list[dict[str, str]]:
    rows = []
    for what in dict.fromkeys(cell.what for cell in cells):
        pages = [book.page(cell) for cell in cells if cell.what == what]
        row = {"network": what}
        for way in WAYS:
            effect = Effect.of([points(page["scores"])[way] for page in pages])
            half = "" if effect.spread is None else f" ± {effect.spread / 2:.2f}"
            row[way.replace("_", " ")] = f"{effect.mean:.2f}{half}"
        row["CPU min"] = f"{fmean(page['cpu_seconds'] for page in pages) / 60:.1f}"
        rows.append(row)
    return rows
