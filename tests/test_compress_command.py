"""`edgeperc compress`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from edgeperc.cli import app
from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress import command
from edgeperc.offline.compress.adapters import open_subject
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.ledger import Ledger, Row
from edgeperc.offline.compress.recipe import Accept, Calibration, Recipe, Step, load_recipe, presets
from edgeperc.offline.nets.sltnet import SLTNet

from .tiny_promptable import tiny_sam, tiny_sam2

STEP = Step(kind="quantize", at=("*.blocks.0.mlp",), role="quantize", options={})
QUICK = Recipe(
    name="quick", passes=(STEP,), calibration=Calibration(source="noise", take=2, held_out=1)
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    net = tiny_sam2()
    torch.save({"config": asdict(net.config), "net": net.state_dict()}, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Ledger, Path]]:
    """What was handed to be written, in place of writing it."""
    calls: list[tuple[Any, Ledger, Path]] = []
    monkeypatch.setattr(
        "edgeperc.offline.compress.artifact.write",
        lambda ctx, ledger, folder, **_: calls.append((ctx, ledger, folder)),
    )
    return calls


def test_a_run_hands_on_a_checked_network(
    weights: Path, written: list[tuple[Any, Ledger, Path]], tmp_path: Path
) -> None:
    ledger = command.compress(open_subject(str(weights)), QUICK, tmp_path / "out", seed=4)
    ((ctx, handed, folder),) = written
    ctx.sim.check()
    assert handed is ledger
    assert folder == tmp_path / "out"
    assert (ledger.seed, ledger.source, ledger.samples, ledger.held_out) == (4, "noise", 2, 1)


def test_dry_run_shows_every_layer_and_writes_nothing(weights: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(
        app,
        ["compress", str(weights), "--recipe", "w8a8", "--dry-run", "--out", str(tmp_path / "o")],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    assert "image_encoder.trunk.blocks.0.attn.qkv" in result.stdout
    assert "memory_encoder.fuser.layers.0.pwconv1" in result.stdout
    assert sorted(tmp_path.iterdir()) == before
    subject = open_subject(str(weights))
    for name in presets():
        assert command.resolved(subject, load_recipe(name)).row_count > 80
    table = command.resolved(subject, load_recipe("w8a8"))
    rows = list(zip(*(list(column.cells) for column in table.columns), strict=True))
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["image_encoder.trunk.blocks.0.attn.qkv"] == ("uniform8c", "uniform8", "")
    assert by_name["image_encoder.trunk.patch_embed.proj"] == ("float", "float", "kept")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[passes]]\nkind = 'quantize'\nat = 'image_encodre.*'", "fits no site"),
        ("[[passes]]\nkind = 'quantise'", "unknown pass"),
        ("[[passes]]\nkind = 'quantize'\nkind = 'quantize'\n", "line 3"),
    ],
)
def test_a_bad_recipe_ends_before_anything_is_read_or_written(
    weights: Path, tmp_path: Path, text: str, complaint: str
) -> None:
    recipe = tmp_path / "bad.recipe.toml"
    recipe.write_text(text)
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, ["compress", str(weights), "--recipe", str(recipe), "--out", str(out)]
    )
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code == 2
    assert complaint in str(result.exception)
    assert str(recipe) in str(result.exception)
    assert not out.exists()


def test_what_a_recipe_does_not_accept_is_not_written(
    weights: Path, written: list[Any], tmp_path: Path
) -> None:
    subject = open_subject(str(weights))
    strict = Recipe(**{**_fields(QUICK), "accept": Accept(max_error=1e-9)})
    with pytest.raises(ModelError, match="the recipe accepts 1e-09"):
        command.compress(subject, strict, tmp_path / "out")
    assert written == []
    ledger = Ledger("m", "r", "", 0, "real", 1, 1)
    ledger.rows = []
    ledger.scores = {"full precision": {"box_miou": 0.7}, "compressed": {"box_miou": 0.6}}
    with pytest.raises(ModelError, match=r"box_miou fell by 10\.00 points"):
        command.refuse_bad(
            ledger, Recipe(**{**_fields(QUICK), "accept": Accept(max_miou_drop=0.05)})
        )


@pytest.mark.parametrize("kept", [True, False])
def test_the_error_of_a_pass_that_was_undone_does_not_count(kept: bool) -> None:
    ledger = Ledger("m", "r", "", 0, "real", 1, 1)
    ledger.rows = [
        Row(
            kind="reconstruct",
            role="solve",
            at=("*",),
            sites=1,
            error_before=0.01,
            error_after=0.3,
            seconds=1.0,
            kept=kept,
        )
    ]
    recipe = Recipe(**{**_fields(QUICK), "accept": Accept(max_error=0.1)})
    if not kept:
        command.refuse_bad(ledger, recipe)
        return
    with pytest.raises(ModelError, match=r"the error is 0\.3"):
        command.refuse_bad(ledger, recipe)


@pytest.mark.parametrize(
    "accept", [pytest.param({}, marks=pytest.mark.slow), {"min_agreement": 0.95}]
)
def test_only_a_recipe_lowers_what_files_must_agree_by(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accept: dict[str, float]
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "edgeperc.offline.compress.artifact.write", lambda *_, **options: told.append(options)
    )
    recipe = Recipe(**{**_fields(QUICK), "accept": Accept(**accept)})
    command.compress(open_subject(str(weights)), recipe, tmp_path / "out")
    (options,) = told
    assert {key: options[key] for key in options if key == "min_agreement"} == accept


def test_a_network_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    subject = subject_for(SLTNet(6, width=8, blocks=(1, 1, 1)))
    every = Step(kind="quantize", at=("*",), role="quantize", options={})
    recipe = Recipe(**{**_fields(QUICK), "passes": (every,)})
    with pytest.raises(ModelError, match="only promptable networks, and SLTNet folded"):
        command.compress(subject, recipe, tmp_path / "out")
    assert not any("quantizer" in name for name, _ in subject.net.named_modules())
    assert list(tmp_path.iterdir()) == []


def test_an_agreement_is_a_share(tmp_path: Path) -> None:
    path = tmp_path / "loose.recipe.toml"
    path.write_text("[[passes]]\nkind = 'quantize'\n[accept]\nmin_agreement = 1.5\n")
    with pytest.raises(ConfigError, match="min_agreement"):
        load_recipe(str(path))


def test_weights_are_told_by_what_is_in_them(weights: Path, tmp_path: Path) -> None:
    assert open_subject(str(weights)).name == "tiny"
    net = SLTNet(6, width=8, blocks=(1, 1, 1))
    torch.save({"state": net.state_dict()}, tmp_path / "events.pth")
    assert open_subject(str(tmp_path / "events.pth")).name == "events"
    assert subject_for(tiny_sam()).name == "tiny-sam"
    with pytest.raises(ConfigError, match="no file of weights") as error:
        open_subject("sam-vit-b")
    assert "--weights" in error.value.hint
    (tmp_path / "text.pt").write_text("nothing")
    with pytest.raises(ModelError, match=r"text\.pt"):
        open_subject(str(tmp_path / "text.pt"))
    with pytest.raises(ConfigError, match="knows no such network"):
        subject_for(torch.nn.Linear(1, 1))


def _fields(recipe: Recipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in recipe.__struct_fields__}
