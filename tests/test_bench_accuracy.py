"""The accuracy figures of compressed networks, on a small network and generated pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from edgeperc.bench import compress, compress_accuracy
from edgeperc.bench.figures import Figures
from edgeperc.cli import app
from edgeperc.errors import ConfigError, DataError
from edgeperc.offline import bench_accuracy, bench_accuracy_book, bench_accuracy_cells
from edgeperc.offline.bench_accuracy import KEYS, Effect, measure, recovered, work_list
from edgeperc.offline.bench_accuracy_book import Book, Settings
from edgeperc.offline.bench_accuracy_cells import FLOAT, SETS, Cell, recipe_of
from edgeperc.offline.compress.calibrate.sources import SOURCES
from edgeperc.offline.compress.recipe import Calibration, Export, Recipe, Step, load_recipe
from edgeperc.offline.examples import OPENERS, Example, Split
from edgeperc.offline.shelf import Shelf

from .tiny_promptable import tiny_sam2

ONE = "w8a8_drop"


class KilledError(Exception):
    """In place of the real thing, which would end pytest, too."""


def disks(count: int, seed: int) -> Callable[[Path, Split], Shelf[Example]]:
    """A data set of bright disks on noise; no picture is in both parts."""

    def open_part(folder: Path, split: Split) -> Shelf[Example]:
        def read(name: str) -> Example:
            rng = np.random.default_rng([seed, *name.encode()])
            numbers = np.zeros((64, 64), np.int32)
            for number in (1, 2):
                x, y = (int(v) for v in rng.integers(12, 52, 2))
                cv2.circle(numbers, (x, y), 10, number, -1)
            picture = rng.integers(0, 90, (64, 64, 3)).astype(np.uint8)
            picture[numbers > 0] += 120
            return Example(name=name, picture=picture, maps=(numbers,))

        return Shelf([f"{split}-{k}" for k in range(count)], read)

    return open_part


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a network of random weights, and recipes that take no time."""
    net = tiny_sam2()
    weights = tmp_path / "weights.pt"
    torch.save({"config": asdict(net.config), "net": net.state_dict()}, weights)
    for number, (kind, folder) in enumerate(SETS.items()):
        (tmp_path / "data" / folder).mkdir(parents=True)
        monkeypatch.setitem(OPENERS, kind, disks(9, number))
    monkeypatch.setattr(bench_accuracy_cells, "load_recipe", quick)
    return Settings(
        weights=weights,
        data=tmp_path / "data",
        folder=tmp_path / "cells",
        only=(ONE,),
        seeds=2,
        pictures=4,
    )


def quick(name: str) -> Recipe:
    """Some sites at as many bits as the recipe's name says."""
    bits = {"w8a8": 8, "w6a6": 6}.get(name, 4)
    options = {"weight": f"uniform{bits}c-minmax", "act": f"uniform{bits}-minmax"}
    at = ("*.blocks.3.*", "*mask_decoder.transformer*")
    step = Step(kind="quantize", at=at, role="quantize", options=options)
    return Recipe(name=name, passes=(step,), calibration=Calibration(take=3, held_out=1))


def test_a_figure_is_what_its_cells_scored(settings: Settings) -> None:
    figures = Figures()
    measure(figures, replace(settings, only=("w6a6_drop",)))
    book = Book(settings)
    whole, *both = (book.scores(c) for c in [Cell(FLOAT), *(Cell("w6a6", seed=s) for s in (0, 1))])
    for way in ("click", "box"):
        name = f"{way}_miou"
        drops = [100 * (whole[name] - each[name]) for each in both]
        assert figures.metrics[f"w6a6_drop_{way}"] == pytest.approx(np.mean(drops), abs=1e-3)
    worse = max(figures.metrics["w6a6_drop_click"], figures.metrics["w6a6_drop_box"])
    assert figures.metrics["w6a6_drop"] == worse
    assert abs(worse) > 0.01, "six bits change nothing: nothing was compressed"
    ((_, rows),) = figures.tables
    assert {row["network"] for row in rows} == {"float", "w6a6 real"}
    assert "8 objects" in " ".join(figures.notes)


def test_an_effect_is_of_all_seeds(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    ways, ahead = ("click_miou", "click_best", "box_miou", "box_best"), (0.06, 0.02)

    def page(_: Book, cell: Cell) -> dict[str, object]:
        scores = dict.fromkeys(ways, 0.5 + ahead[cell.seed] * cell.focus)
        return {"scores": scores, "objects": 8, "cpu_seconds": 1.0}

    monkeypatch.setattr(Book, "fill", lambda *_: None)
    monkeypatch.setattr(Book, "page", page)
    figures = Figures()
    measure(figures, replace(settings, only=("pcc_minus_mse_outliers",)))
    assert figures.metrics["pcc_minus_mse_outliers"] == pytest.approx(4)
    assert figures.metrics["pcc_minus_mse_outliers_spread"] == pytest.approx(4)
    ((_, rows),) = figures.tables
    assert {row["network"] for row in rows} == {
        "w6a6 real decoder4 outliers",
        "w6a6 real decoder4 outliers focus",
    }


@pytest.mark.slow
def test_outliers_and_clipping_are_measured(settings: Settings) -> None:
    figures = Figures()
    measure(figures, replace(settings, only=("pcc_minus_mse_outliers",)))
    assert {"pcc_minus_mse_outliers", "pcc_minus_mse_outliers_spread"} <= set(figures.metrics)


def test_seeds_draw_other_pictures_and_score_on_the_same(settings: Settings) -> None:
    book = Book(settings)
    cells = [Cell("w8a8", seed=0), Cell("w8a8", seed=1)]
    book.fill(cells)
    first, second = (book.page(cell) for cell in cells)
    assert first["scores"] != second["scores"]
    assert first["of"]["pictures"] == second["of"]["pictures"]
    assert all(name.startswith("test") for name in first["of"]["pictures"])
    train = bench_accuracy_cells.shelves(settings.data, "train")
    drawn = [[each.name for each in bench_accuracy_cells.some(train, 4, seed)] for seed in (0, 1)]
    assert sorted(drawn[0]) != sorted(drawn[1])
    assert all(name.startswith("train") for name in drawn[0])


def test_a_killed_run_goes_on_behind_the_last_cell(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = bench_accuracy_cells.compressed, list[str]()

    def dying(subject: object, cell: Cell, *args: object, **more: object) -> object:
        if len(done) == 2:
            raise KilledError
        done.append(cell.name)
        return real(subject, cell, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(bench_accuracy_book, "compressed", dying)
    with pytest.raises(KilledError):
        measure(Figures(), settings)
    assert sorted(path.stem for path in settings.folder.glob("*.json")) == sorted(done)
    before = {path: path.read_bytes() for path in settings.folder.glob("*.json")}
    done.clear()
    measure(Figures(), settings)
    assert done == ["w8a8-real-1"]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not list(settings.folder.glob("*.part"))


def test_cells_of_other_pictures_or_weights_are_filled_anew(settings: Settings) -> None:
    cell = Cell("w8a8")
    Book(settings).fill([cell])
    with pytest.raises(DataError, match="other weights or pictures"):
        Book(replace(settings, pictures=6)).page(cell)
    state = torch.load(settings.weights, weights_only=True)
    state["net"]["no_mem_embed"] += 1
    torch.save(state, settings.weights)
    with pytest.raises(DataError, match="other weights or pictures"):
        Book(settings).page(cell)
    path = settings.folder / f"{cell.name}.json"
    path.write_text(path.read_text()[:50])
    Book(settings).fill([cell])
    assert json.loads(path.read_bytes())["scores"] == Book(settings).scores(cell)


def test_a_cell_hangs_on_what_becomes_of_the_network_not_on_how_it_is_written() -> None:
    recipe = quick("w8a8")
    others = {
        "export": msgspec.structs.replace(recipe, export=Export(opset=17), summary="other words"),
        "calibration": msgspec.structs.replace(recipe, calibration=Calibration(take=4)),
        "passes": msgspec.structs.replace(recipe, passes=quick("w6a6").passes),
        "keep_fp": msgspec.structs.replace(recipe, keep_fp=("*.neck.*",)),
    }
    mine = bench_accuracy_cells.fingerprint(recipe)
    same = [name for name, r in others.items() if bench_accuracy_cells.fingerprint(r) == mine]
    assert same == ["export"]


def test_effects_smaller_than_what_seeds_differ_by_are_none() -> None:
    assert Effect.of([1.0, -0.5, 0.4]) == Effect(pytest.approx(0.3), 1.5)  # type: ignore[arg-type]
    assert "no measurable effect" in Effect.of([1.0, -0.5, 0.4]).sentence("it", " points")
    assert "no measurable effect" not in Effect.of([2.0, 2.5, 2.4]).sentence("it", " points")
    assert "not known" in Effect.of([2.0]).sentence("it", " points")


def test_the_share_that_is_kept() -> None:
    assert recovered(60, 40, 55) == pytest.approx(0.75)
    assert recovered(60, 60, 55) is None


def test_nothing_lost_is_a_sentence_not_a_figure(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Book,
        "scores",
        lambda self, cell: dict.fromkeys(("click_miou", "click_best", "box_miou", "box_best"), 0.5),
    )
    figures = Figures()
    measure(figures, replace(settings, only=("w4a4_recovered_share",), seeds=1))
    assert "w4a4_recovered_share" not in figures.metrics
    assert any("nothing is lost" in note for note in figures.notes)


def test_every_cell_is_a_recipe_that_comes_with_the_toolbox(tmp_path: Path) -> None:
    cells = work_list(Settings(weights=tmp_path, data=tmp_path, folder=tmp_path))
    assert len(set(cells)) == len(cells)
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        if cell.recipe != FLOAT:
            assert recipe_of(cell).calibration.source == cell.source
            assert cell.source in SOURCES
    no_data = load_recipe("no-data").calibration
    small = recipe_of(Cell("w4a4-rep", "synthetic", take=bench_accuracy.NO_DATA_SAMPLES))
    assert (small.calibration.take, small.calibration.held_out) == (no_data.take, no_data.held_out)
    assert {key.name for key in KEYS} >= {"w8a8_drop", "w6a6_drop", "dfq_minus_real_w6a6"}


def test_plain_rounding_is_the_same_sites_and_bits_as_the_others() -> None:
    (plain,), (_, other, *_) = (load_recipe(n).passes for n in ("w4a4-nearest", "w4a4-prompt"))
    assert plain.at == other.at
    assert {name: plain.options[name] for name in ("weight", "act")} == {
        name: f"{other.options[name].removesuffix('-percentile')}-minmax"
        for name in ("weight", "act")
    }


def test_what_is_compared_starts_from_the_same_grids_and_learns_as_long() -> None:
    names = ("w4a4-prompt", "w4a4-ptq4sam", "w4a4-qdrop")
    steps = [{each.kind: each.options for each in load_recipe(name).passes} for name in names]
    for each in steps[1:]:
        for option in ("weight", "act"):
            assert each["quantize"][option] == steps[0]["quantize"][option]
        assert each["reconstruct"]["iters"] == steps[0]["reconstruct"]["iters"]


def test_a_decoder_of_other_bits_is_quantized_once_more() -> None:
    plain, other = (recipe_of(Cell("w6a6", decoder=bits, focus=True)) for bits in (0, 4))
    assert [each.kind for each in plain.passes] == ["quantize", "clip.pcc"]
    assert [each.kind for each in other.passes] == ["quantize", "quantize", "clip.pcc"]
    assert other.passes[1].at == ("*mask_decoder.transformer.*",)
    assert other.passes[1].options["act"] == "uniform4"


def test_the_keys_are_known_without_torch() -> None:
    assert tuple(key.name for key in KEYS) == compress_accuracy.KEYS


def test_compress_measures_accuracy_where_it_has_weights(
    settings: Settings, tmp_path: Path
) -> None:
    figures = Figures()
    wanted = compress.Settings(only=(ONE,), accuracy=replace(settings, only=(), seeds=1))
    compress.measure(figures, None, wanted)
    assert ONE in figures.metrics
    assert not [name for name in figures.metrics if name.startswith("w6a6")]
    with pytest.raises(ConfigError, match=f"'{ONE}' needs --weights FILE --data FOLDER"):
        compress.measure(Figures(), None, compress.Settings(only=(ONE,)))
    call = ["bench", "compress", "--only", ONE, "--seeds", "1", "--pictures", "4"]
    places = {"--weights": settings.weights, "--data": settings.data, "--networks": settings.folder}
    call += [str(part) for pair in places.items() for part in pair]
    out = CliRunner().invoke(app, [*call, "--json", str(tmp_path / "a.json")])
    assert out.exit_code == 0, out.output
    written = json.loads((tmp_path / "a.json").read_bytes())
    assert written["suite"] == "compress"
    assert written["metrics"][ONE] == pytest.approx(figures.metrics[ONE])
    alone = CliRunner().invoke(app, ["bench", "compress", "--data", str(settings.data)])
    assert isinstance(alone.exception, ConfigError)
    assert "needs --weights" in str(alone.exception)


def test_missing_data_and_unknown_figures_are_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="did you mean w8a8_drop"):
        measure(Figures(), replace(settings, only=("w8a8_dorp",)))
    with pytest.raises(DataError, match="bsds500: no such folder"):
        measure(Figures(), replace(settings, data=settings.data / "away"))
    assert not settings.folder.exists()


def test_on_the_command_line(settings: Settings, tmp_path: Path) -> None:
    call = ["bench", "compress-accuracy", "--only", ONE, "--seeds", "1", "--pictures", "4"]
    places = {"--weights": settings.weights, "--data": settings.data, "--networks": settings.folder}
    call += [str(part) for pair in places.items() for part in pair]
    report = tmp_path / "figures.json"
    result = CliRunner().invoke(app, [*call, "--json", str(report)], catch_exceptions=False)
    assert result.exit_code == 0
    assert ONE in result.stdout
    assert {ONE, f"{ONE}_click_best", f"{ONE}_box_best"} <= set(
        json.loads(report.read_bytes())["metrics"]
    )
    refused = CliRunner().invoke(app, ["bench", "compress-accuracy", "--data", "x"])
    assert "--weights" in str(refused.exception)
    refused = CliRunner().invoke(app, ["bench", "sam", "--pictures", "4"])
    assert "compress-accuracy" in str(refused.exception)
