"""What compressed models say of themselves, and that none runs with a file that is not its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgeperc import cli, places
from edgeperc.config import PipelineTable
from edgeperc.errors import ModelError
from edgeperc.inference.compressed import compressed, computed_in
from edgeperc.plan import open_model

SHARE = Path(__file__).parents[1] / "models"
QUANT = {
    "recipe": "w4a4-rep",
    "sites": [
        {"name": "blocks.0.qkv", "weight": {"bits": 4, "export": "int8 storage"}},
        {"name": "blocks.0.qkv", "input": {"bits": 8, "export": "int8"}},
        {"name": "blocks.0.attn.tap_softmax", "value": {"bits": 4, "export": "accuracy only"}},
    ],
}
SAID = "w4a4-rep; 4 bits × 2, 8 bits × 1; int8 storage; int8; accuracy only, no speed"


def copied(name: str, root: Path) -> Path:
    folder = root / "models" / name
    shutil.copytree(SHARE / name, folder)
    return folder


@pytest.mark.parametrize("verb", [["list"], ["show", "finder-twin"]])
def test_the_lists_say_how_a_model_is_compressed(
    verb: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDGEPERC_HOME", str(tmp_path))
    (copied("finder-twin", tmp_path) / "quant.json").write_text(json.dumps(QUANT))
    monkeypatch.setattr("sys.argv", ["edgeperc", "models", *verb, "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    told = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in (told if isinstance(told, list) else [told])}
    assert rows.pop("finder-twin")["compressed"] == SAID
    assert not any(row["compressed"] for row in rows.values())


def test_a_recipe_may_be_a_table_and_a_quant_json_damaged(tmp_path: Path) -> None:
    assert compressed(tmp_path) is None
    (tmp_path / "quant.json").write_text('{"recipe": {"name": "w8a8"}, "bits": 8, "labels": ["a"]}')
    assert str(compressed(tmp_path)) == "w8a8; 8 bits × 1; a"
    for damaged in ('{"recipe"', "[1]"):
        (tmp_path / "quant.json").write_text(damaged)
        with pytest.raises(ModelError, match="quant.json: "):
            compressed(tmp_path)


FILES = [
    (name, entry.role)
    for name in ("finder-twin", "regions-twin", "sltnet-twin", "promptable")
    for entry in places.find_card(str(SHARE / name)).card.files
    if entry.role != "golden"  # is compared with, not run
]


@pytest.mark.parametrize(("name", "role"), FILES)
def test_a_pipeline_refuses_a_file_that_is_not_the_cards(
    name: str, role: str, tmp_path: Path
) -> None:
    """One bit of any file that runs; window routing and memory retrieval included."""
    model = places.find_model(str(copied(name, tmp_path)))
    path = next(model.folder / entry.path for entry in model.card.files if entry.role == role)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    share = 0.05 if role == "memory_retrieval" else None
    routing = role in ("encoder_head", "encoder_middle", "encoder_tail")
    table = PipelineTable(
        name="p",
        input="wide",
        model=name,
        engine="onnx" if role == "network" else "auto",
        prompt={"memory_keep_share": share, "window_routing": routing},  # type: ignore[arg-type]
    )
    with pytest.raises(ModelError, match=f"{path.name}: sha256 is not the one in its model.toml"):
        open_model(model, _told(table))


def _told(table: PipelineTable) -> PipelineTable:
    """With the tables in it as an app's file gives them."""
    import msgspec

    return msgspec.convert(msgspec.to_builtins(table), PipelineTable)


def test_a_model_computes_in_integers_where_it_says_so(tmp_path: Path) -> None:
    assert computed_in(tmp_path, "fp32") == "fp32"
    (tmp_path / "quant.json").write_text(json.dumps(QUANT))
    assert computed_in(tmp_path, "bf16") == "int8+bf16"
    (tmp_path / "quant.json").write_text(json.dumps({"sites": QUANT["sites"][::2]}))
    assert computed_in(tmp_path, "fp32") == "fp32"  # int8 storage alone is none
