"""What fusing buys: a network of frames and events against the same of one of them, by condition.

    settings = Settings(folder=Path("out/fusion-accuracy"), seeds=3)
    fill(settings, cells_of(settings), console)      # hours; goes on where it was stopped
    measure(figures, settings)                       # at once then

Figures are mIoU in percent on held-out streets, and means over seeds, which draw the first weights
and the order of the data. The spread is from the least to the largest seed; a difference that is
not larger than that is said to be none.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console

from edgeperc.bench.figures import Figures
from edgeperc.errors import DataError
from edgeperc.fusion import FusionSegmenter
from edgeperc.offline import train_fusion
from edgeperc.offline.datasets import HELD_OUT_STREETS, TWIN_WINDOWS_A_STREET
from edgeperc.offline.evaluate_fusion import Without, pair_of
from edgeperc.offline.export_fusion import import_checkpoint
from edgeperc.offline.fusion_conditions import CONDITIONS, TRAINED
from edgeperc.offline.fusion_pairs import cached_pairs, drawn_by
from edgeperc.offline.score import Confusion, confusion_matrix, score
from edgeperc.offline.training_run import progress_bar
from edgeperc.places import find_card, find_model

BOTH, SINGLE = "mambaseg-nano", ("mambaseg-nano-frames", "mambaseg-nano-events")
HARD = ("night", "fast", "night-fast")
"""Where fusing should help: in the dark, and where frames are blurred."""
WAYS: dict[str, dict[str, tuple[Without, Without]]] = {
    BOTH: {
        "all": ("nothing", "nothing"),
        "half the frames": ("nothing", "frames"),
        "no frames": ("frames", "frames"),
        "no events": ("events", "events"),
    },
    SINGLE[0]: {"all": ("events", "events")},
    SINGLE[1]: {"all": ("frames", "frames")},
}
"""Network -> way of looking -> what is left out of even and of odd windows."""
SHOWN = {BOTH: "both", SINGLE[0]: "only frames", SINGLE[1]: "only events"}
"""Network -> what it was trained with, in the tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """folder: where networks, pairs and cells are kept. streets, windows_a_street, conditions: of
    the pairs that are scored. training: instead of what `train_fusion` has for each network, but
    for its blindness.
    """

    folder: Path
    seeds: int = 3
    steps: int = 1000
    threads: int = 2
    streets: Sequence[int] = HELD_OUT_STREETS
    windows_a_street: int = TWIN_WINDOWS_A_STREET
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    training: train_fusion.Settings | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A network of `train_fusion.SETTINGS`, trained with a seed."""

    network: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder, and of its file."""
        return f"{self.network}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the same figure for all seeds: mean, least and largest."""

    mean: float
    least: float
    largest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """values: one a seed."""
        return cls(fmean(values), min(values), max(values))

    @property
    def width(self) -> float:
        """From the least to the largest."""
        return self.largest - self.least


def cells_of(settings: Settings) -> list[Cell]:
    """All of the first seed, then all of the next."""
    return [Cell(name, seed) for seed in range(settings.seeds) for name in WAYS]


def fill(settings: Settings, cells: Sequence[Cell], console: Console) -> None:
    """Train and score whatever of the cells is not there yet.

    Weights that lie in `folder/NETWORK-SEED/weights.pt` are taken as they are; a run that was
    stopped goes on from the checkpoint beside them. Raises ConfigError, ModelError.
    """
    for cell in cells:
        weights = settings.folder / cell.name / "weights.pt"
        if not weights.exists():
            console.print(f"training {cell.name}")
            _train(settings, cell, console)
        if _read(settings, cell) is None:
            console.print(f"scoring {cell.name}")
            page = {"of": _identity(settings, cell), "miou": _scored(settings, cell, console)}
            path = _path(settings, cell)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(page, indent=1))
            part.replace(path)


def measure(figures: Figures, settings: Settings) -> None:
    """Add the figures and the table; does first what is not there yet."""
    cells = cells_of(settings)
    for number, cell in enumerate(cells, 1):
        figures.progress(f"{cell.name}, {number} of {len(cells)}")
        fill(settings, [cell], Console(quiet=True))
    found = {
        (network, way): _by_condition(settings, network, way)
        for network, ways in WAYS.items()
        for way in ways
    }
    for condition in settings.conditions:
        _compare(figures, settings, condition, {n: found[n, "all"][condition] for n in WAYS})
    figures.tables.append(("mIoU %, mean of the seeds", _rows(found, lambda s: f"{s.mean:.1f}")))
    if settings.seeds > 1:
        ends = _rows(found, lambda s: f"{s.least:.1f}-{s.largest:.1f}")
        figures.tables.append(("the least and the largest seed", ends))
    pairs = len(settings.streets) * settings.windows_a_street
    figures.note(
        f"{pairs} pairs of {len(settings.streets)} held-out streets a condition, {settings.seeds} "
        f"seeds; trained by day, at night, in glare and in fast motion, not on what is marked *."
    )


def _train(settings: Settings, cell: Cell, console: Console) -> None:
    usual = train_fusion.SETTINGS[cell.network]
    given = replace(settings.training or usual, blind=usual.blind)
    train_fusion.train(
        cell.network,
        settings.folder / cell.name,
        seed=cell.seed,
        steps=settings.steps,
        threads=settings.threads,
        settings=replace(given, validate_every=settings.steps, tested_windows=1),
        cache=settings.folder / "cache",
        console=console,
    )


def _scored(settings: Settings, cell: Cell, console: Console) -> dict[str, dict[str, float]]:
    """MIoU in percent by way and condition, through the code that the daemon runs."""
    card = find_card(BOTH).card
    found: dict[str, dict[str, float]] = {way: {} for way in WAYS[cell.network]}
    with tempfile.TemporaryDirectory() as name, progress_bar(console) as progress:
        folder = Path(name) / card.name
        import_checkpoint(card, settings.folder / cell.name / "weights.pt", folder)
        segmenter = FusionSegmenter(find_model(str(folder)), threads=settings.threads)
        total = len(settings.conditions) * len(settings.streets) * settings.windows_a_street
        task = progress.add_task("score", total=total, note="")
        for condition in settings.conditions:
            progress.update(task, note=condition)
            counted = {
                (without, odd): np.zeros((len(card.classes),) * 2, np.int64)
                for pair in WAYS[cell.network].values()
                for odd, without in enumerate(pair)
            }
            for number, sample in enumerate(_pairs(settings, condition)):
                for without, odd in counted:
                    if number % 2 == odd:
                        answer = segmenter(pair_of(sample, without)).labels
                        seen = confusion_matrix(sample.labels, answer, len(card.classes))
                        counted[without, odd] += seen
                progress.advance(task)
            for way, pair in WAYS[cell.network].items():
                both: Confusion = counted[pair[0], 0] + counted[pair[1], 1]
                found[way][condition] = 100 * score(both, card.classes).miou
        segmenter.close()
    return found


def _pairs(settings: Settings, condition: str) -> Any:
    return cached_pairs(
        settings.streets,
        [condition],
        settings.folder / "cache",
        windows_a_street=settings.windows_a_street,
        processes=settings.threads,
    )


def _path(settings: Settings, cell: Cell) -> Path:
    return settings.folder / f"{cell.name}.json"


def _identity(settings: Settings, cell: Cell) -> dict[str, Any]:
    """What a file of scores must be of: these weights on these pairs."""
    weights = (settings.folder / cell.name / "weights.pt").read_bytes()
    return {
        "weights": hashlib.sha256(weights).hexdigest(),
        "drawn_by": drawn_by(),
        "streets": list(settings.streets),
        "windows_a_street": settings.windows_a_street,
        "conditions": list(settings.conditions),
    }


def _read(settings: Settings, cell: Cell) -> dict[str, dict[str, float]] | None:
    """Scores by way and condition; None where there are none, or they are of something else."""
    try:
        page: dict[str, Any] = json.loads(_path(settings, cell).read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    same = page.get("of") == _identity(settings, cell)
    found: dict[str, dict[str, float]] = page["miou"]
    return found if same else None


def _by_condition(settings: Settings, network: str, way: str) -> dict[str, Spread]:
    pages = []
    for seed in range(settings.seeds):
        page = _read(settings, Cell(network, seed))
        if page is None:
            raise DataError(f"{_path(settings, Cell(network, seed))}: not there, or of others")
        pages.append(page[way])
    return {name: Spread.of([page[name] for page in pages]) for name in settings.conditions}


def _compare(
    figures: Figures, settings: Settings, condition: str, found: Mapping[str, Spread]
) -> None:
    """Both inputs against the better of the single ones, and what may be said of it."""
    key = f"ahead_{condition.replace('-', '_')}"
    best = max(SINGLE, key=lambda name: found[name].mean)
    ahead = found[BOTH].mean - found[best].mean
    spread = max(found[BOTH].width, found[best].width)
    figures.add(key, ahead, f"{condition}: points of mIoU that both inputs are ahead of {best}")
    figures.detail(f"{key}_spread", spread)
    for name, each in found.items():
        figures.detail(f"{name}_{condition}", each.mean)
    if condition in HARD:
        figures.note(f"{condition}: {sentence(ahead, spread, settings.seeds)}")


def sentence(ahead: float, spread: float, seeds: int) -> str:
    """What may be said of points ahead of the better single input, with seeds so far apart."""
    told = f"{abs(ahead):.1f} points, seeds are up to {spread:.1f} apart"
    if seeds < 2:
        return f"{ahead:+.1f} points, one seed: how far seeds differ is not known."
    if abs(ahead) <= spread:
        return f"no measurable effect of fusing ({ahead:+.1f} points, seeds {spread:.1f} apart)."
    way = "ahead of" if ahead > 0 else "behind"
    return f"both inputs are {way} the better single one by {told}."


def _rows(
    found: Mapping[tuple[str, str], Mapping[str, Spread]], say: Callable[[Spread], str]
) -> list[dict[str, str]]:
    rows = []
    for (network, way), scores in found.items():
        row = {"inputs": SHOWN[network] if way == "all" else way}
        row |= {c + "*" * (c not in TRAINED): say(each) for c, each in scores.items()}
        rows.append(row)
    return rows
