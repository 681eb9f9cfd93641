"""The method that the page on compression adds is about forty lines, and works as it stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.engine import run_recipe
from edgeperc.offline.compress.recipe import load_recipe, presets
from edgeperc.offline.compress.simulate import Simulated

from .tiny_promptable import tiny_sam2

PAGE = (Path(__file__).parents[1] / "docs" / "compression.md").read_text()
QUANTIZE = """
version = 1
[calibration]
source = "noise"
[[passes]]
kind = "quantize"
at = "image_encoder.*"
weight = "uniform3c"
act = "uniform8"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (source,) = re.findall(r'```python\n("""my_bias.*?)```', PAGE, re.DOTALL)
    path = tmp_path / "my_bias.py"
    path.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop("my_bias", None)


def test_it_is_about_forty_lines(module: Path) -> None:
    lines = [line for line in module.read_text().splitlines() if line.strip()]
    assert len(lines) <= 40


def test_its_recipe_lowers_the_error_of_rounded_weights(module: Path, tmp_path: Path) -> None:
    (table,) = re.findall(r"```toml\n(\[\[passes\]\]\nkind = \"my_bias.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "mine.toml"
    path.write_text(QUANTIZE + table)
    subject = subject_for(tiny_sam2())
    context = Context(subject, Simulated(subject.net), subject.noise(4), subject.noise(2, seed=1))
    plain, mine = run_recipe(context, load_recipe(str(path))).rows
    assert mine.kind == "my_bias:correct"
    assert mine.notes[0].startswith("image_encoder.")
    assert mine.kept
    assert mine.error_after < 0.9 * plain.error_after


def test_the_page_names_every_preset_and_no_other() -> None:
    (table,) = re.findall(r"\| preset \|.*?\n\n", PAGE, re.DOTALL)
    cells = [row.split("|")[1] for row in table.splitlines()[2:] if row]
    assert sorted(re.findall("`(.*?)`", " ".join(cells))) == sorted(presets())
