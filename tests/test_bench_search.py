from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from edgeperc.bench import run, search
from edgeperc.bench.figures import Figures
from edgeperc.bench.search import interval
from edgeperc.bench.search_compare import SCENES, Settings, compare
from edgeperc.cli import app
from edgeperc.errors import ConfigError

KEYS = {
    "base_ttd_ratio", "base_age_ratio", "noinfo_ttd_ratio", "noinfo_age_ratio",
    "bound_share_250ms", "bound_share_500ms", "bound_share_1s", "bound_share_2s",
    "wrong_found8s_minus_raster", "wrong_ttd_ratio_raster",
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[dict, Figures, str]:
    """A run over two worlds: the file, the figures and what was printed."""
    folder = tmp_path_factory.mktemp("bench")
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    settings = Settings(
        first_seed=0, last_seed=1, schedulers=("oracle",), plot=folder / "found.png", processes=1
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "TIMED_SEEDS", 1)
        figures = run("search", folder / "out.json", console=console, settings=settings)
    picture = cv2.imread(str(folder / "found.png"))
    assert picture is not None
    assert picture.std() > 10
    return json.loads((folder / "out.json").read_text()), figures, console.export_text()


def test_all_figures_are_written_with_their_intervals(written) -> None:
    metrics = written[0]["metrics"]
    assert {*KEYS, "decision_us_p50", "decision_us_p99"} <= set(metrics)
    for key in KEYS:
        assert metrics[f"{key}_lo"] <= metrics[key] + 1e-9
        assert metrics[key] <= metrics[f"{key}_hi"] + 1e-9


def test_the_figures_are_of_the_runs(written) -> None:
    metrics, tables = written[0]["metrics"], written[0]["tables"]
    rows = {row["scheduler"]: row for row in tables[f"base: {SCENES['base']}"]}
    assert set(rows) == {"paper", "raster", "raster_region", "bayes", "oracle"}
    ttd_ratio = float(rows["bayes"]["TTD"]) / float(rows["paper"]["TTD"])
    assert metrics["base_ttd_ratio"] == pytest.approx(ttd_ratio, rel=0.02)
    static = {row["scheduler"]: row for row in tables[f"static: {SCENES['static']}"]}
    share = float(static["bayes"]["1s"]) / float(static["bound"]["1s"])
    assert metrics["bound_share_1s"] == pytest.approx(share, rel=0.03)
    assert float(static["whole looks"]["0.25s"]) < float(static["bound"]["0.25s"])
    bad = {row["scheduler"]: row for row in tables[f"bad_prior: {SCENES['bad_prior']}"]}
    gain = float(bad["bayes"]["8s"]) - float(bad["raster"]["8s"])
    assert metrics["wrong_found8s_minus_raster"] == pytest.approx(gain, abs=0.011)


def test_tables_of_all_scenes_are_printed(written) -> None:
    for scene, title in SCENES.items():
        assert f"{scene}: {title}" in written[2]
    assert "raster_region" in written[2]


def test_the_regression_gates_hold(written) -> None:
    """search.md, section 6, with the slack of two worlds; `bench search` measures in earnest."""
    metrics = written[0]["metrics"]
    assert metrics["base_ttd_ratio"] < 0.5
    assert metrics["noinfo_ttd_ratio"] < 0.6
    assert metrics["base_age_ratio"] < 0.4
    assert metrics["bound_share_500ms"] > 0.7


def test_the_interval_of_a_mean_is_that_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(5, 1, 100)
    low, high = interval(lambda seeds: float(values[seeds].mean()), 100)
    assert low == pytest.approx(values.mean() - 1.96 * values.std() / 10, abs=0.03)
    assert high == pytest.approx(values.mean() + 1.96 * values.std() / 10, abs=0.03)


def test_processes_change_nothing() -> None:
    worlds = Settings(first_seed=3, last_seed=4)
    alone, spread = (
        compare(("raster",), settings, lambda _: None, scenes=("bad_prior",))
        for settings in (Settings(**{**vars_of(worlds), "processes": 1}), worlds)
    )
    for one, other in zip(
        alone.outcomes["bad_prior", "raster"], spread.outcomes["bad_prior", "raster"], strict=True
    ):
        np.testing.assert_array_equal(one.ttd_s, other.ttd_s)


def vars_of(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["search", "--seeds", "9-3"], "above the last"),
        (["search", "--seeds", "ten"], "two numbers"),
        (["search", "--scheduler", "psychic"], "psychic"),
        (["search", "--pd", "1.5"], "--pd 1.5"),
        (["search", "--targets", "0"], "--targets 0"),
        (["search", "--plot", "no/such/folder/x.png"], "no such folder"),
        (["search", "--recording", "x.raw"], "worlds of its own"),
        (["events", "--seeds", "1-2"], "is for bench search"),
    ],
)
def test_mistakes_are_config_errors(arguments, complaint) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(result.exception, ConfigError)
    assert complaint in str(result.exception)
