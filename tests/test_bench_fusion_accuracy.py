from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from edgeperc.bench import fusion_accuracy
from edgeperc.bench.figures import Figures
from edgeperc.cli import app
from edgeperc.errors import ConfigError
from edgeperc.offline import bench_fusion_accuracy, evaluate_fusion, train_fusion
from edgeperc.offline.bench_fusion_accuracy import (
    BOTH,
    SINGLE,
    WAYS,
    Cell,
    Settings,
    Spread,
    cells_of,
    fill,
    measure,
    sentence,
)
from edgeperc.packet import Pair

TINY = train_fusion.Settings(
    batch=1,
    crop_px=48,
    warm_up_steps=1,
    settle_batches=1,
    streets=1,
    windows_a_street=2,
    validation_streets=1,
)


class Guess:
    """In place of a trained network: bright pixels are of one class, those with events of another.

    It answers otherwise where an input is left out.
    """

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, pair: Pair) -> SimpleNamespace:
        labels = np.zeros((pair.events.height_px, pair.events.width_px), np.uint8)
        if pair.frame is not None:
            labels[pair.frame.image.reshape(*labels.shape, -1).mean(-1) > 128] = 1
        labels[pair.events.y, pair.events.x] = 2
        return SimpleNamespace(labels=labels)

    def close(self) -> None:
        pass


def no_training(network: str, folder: Path, *, seed: int, **_: object) -> None:
    folder.mkdir(parents=True)
    (folder / "weights.pt").write_text(f"{network} {seed}")


@pytest.fixture(scope="module", params=["made up", pytest.param("trained", marks=pytest.mark.slow)])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """One seed of each network, after one step, or of what answers as a network does."""
    settings = Settings(
        folder=tmp_path_factory.mktemp("cells"),
        seeds=1,
        steps=1,
        threads=1,
        streets=[20_001],
        windows_a_street=2,
        conditions=("day", "night-fast"),
        training=TINY,
    )
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "made up":
            patch.setattr(train_fusion, "train", no_training)
            patch.setattr(bench_fusion_accuracy, "import_checkpoint", lambda *_: None)
            patch.setattr(bench_fusion_accuracy, "find_model", lambda name: name)
            patch.setattr(bench_fusion_accuracy, "FusionSegmenter", Guess)
        fill(settings, cells_of(settings), Console(quiet=True))
        yield settings


def test_each_network_is_scored_under_each_condition(filled: Settings) -> None:
    figures = Figures()
    measure(figures, filled)
    assert [each.key for each in figures.shown] == ["ahead_day", "ahead_night_fast"]
    found = figures.metrics
    best = max(found[f"{name}_day"] for name in SINGLE)
    assert found["ahead_day"] == pytest.approx(found[f"{BOTH}_day"] - best, abs=1e-3)
    ((_, rows),) = figures.tables
    ways = ["both", "half the frames", "no frames", "no events", "only frames", "only events"]
    assert [row["inputs"] for row in rows] == ways
    assert set(rows[0]) == {"inputs", "day", "night-fast*"}
    assert "2 pairs of 1 held-out streets" in figures.notes[-1]


def test_what_is_there_is_not_done_again(filled: Settings) -> None:
    shown = io.StringIO()
    fill(filled, cells_of(filled), Console(file=shown))
    assert not shown.getvalue()
    path = filled.folder / f"{SINGLE[0]}-0.json"
    before = json.loads(path.read_bytes())
    path.write_text(json.dumps({**before, "of": "something else"}))
    fill(filled, [Cell(SINGLE[0], 0)], Console(file=shown))
    assert shown.getvalue().startswith("scoring")
    assert "training" not in shown.getvalue()
    assert json.loads(path.read_bytes()) == before


def test_a_single_network_never_sees_the_other_input() -> None:
    for name in SINGLE:
        kept = train_fusion.SETTINGS[name].blind.modality
        ((left_out, _),) = WAYS[name].values()
        assert {kept, left_out} == {"frames", "events"}


def test_the_spread_decides_what_is_said() -> None:
    assert Spread.of([50.0, 53.0, 52.0]) == Spread(mean=155 / 3, least=50.0, largest=53.0)
    assert Spread.of([50.0, 53.0]).width == 3
    assert sentence(2.0, 1.0, 3).startswith("both inputs are ahead of the better single one by 2.0")
    assert sentence(-2.0, 1.0, 3).startswith("both inputs are behind")
    assert sentence(1.0, 1.0, 3).startswith("no measurable effect of fusing")
    assert "not known" in sentence(9.0, 0.0, 1)


def test_seeds_are_counted_and_a_folder_is_needed(tmp_path: Path) -> None:
    settings = Settings(folder=tmp_path, seeds=2)
    assert len(cells_of(settings)) == len(set(cells_of(settings))) == 6
    assert len(cells_of(replace(settings, seeds=3))) == 9
    answer = CliRunner().invoke(
        app, ["bench", "fusion-accuracy", "--networks", str(tmp_path), "--seeds", "1-3"]
    )
    assert "must be a number" in str(answer.exception)
    with pytest.raises(ConfigError, match="needs a folder"):
        fusion_accuracy.measure(Figures())


def test_half_the_frames_are_the_even_ones(
    filled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even windows of it are those of all, odd ones those of no frames."""
    counts: list[tuple[int, str]] = []
    real = evaluate_fusion.pair_of

    def counting(sample: object, without: str) -> object:
        counts.append((id(sample), without))
        return real(sample, without)  # type: ignore[arg-type]

    monkeypatch.setattr(bench_fusion_accuracy, "pair_of", counting)
    one = replace(filled, conditions=("day",))
    scored = bench_fusion_accuracy._scored(one, Cell(BOTH, 0), Console(quiet=True))
    assert sorted(without for _, without in counts) == sorted(2 * ["nothing", "frames", "events"])
    assert set(scored) == set(WAYS[BOTH])
    assert all(np.isfinite(found["day"]) for found in scored.values())
