from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeperc import cli


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["edgeperc", *args])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory and home: only what ships with the package is there."""
    monkeypatch.setenv("EDGEPERC_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


VERBS = [
    ["serve"],
    ["replay"],
    ["segment"],
    ["track"],
    ["check"],
    ["watch"],
    ["point"],
    ["devices"],
    ["apps"],
    ["models", "list"],
    ["models", "show"],
    ["models", "import"],
    ["models", "pull"],
    ["train"],
    ["evaluate"],
    ["export"],
    ["compress"],
    ["roofline"],
    ["bench"],
    ["calibrate"],
    ["simulate", "mirror"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *verb, "--help") == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["serve", "evnts"], "unknown app 'evnts'; did you mean 'events'?"),
        (["serve", "gone.toml"], "gone.toml: no such file"),
        (["serve", "./gone"], "gone: is no TOML file"),
        (["serve", "--set", "pipelines.0.model=./gone"], "gone: no such folder"),
        (["models", "show", "./"], "is no folder with a model.toml"),
        (["replay", "gone.aedat4", "--model", "sltnet-twin"], "gone.aedat4: no such file"),
        (["replay", ".", "--speed", "fast", "--model", "x"], "--speed fast"),
        (["replay", "."], "either a model or an app"),
        (["models", "import", "fastestdet"], "needs --file or --checkpoint, one of them"),
        (["models", "show", "sltnet-tvin"], "did you mean 'sltnet-twin'?"),
        (["replay"], "name a recording, or an app"),
        (["replay", "--app", "search-rig"], "is live and cannot be replayed"),
        (["sreve"], "sreve"),
        (["point", "3,4,5"], "'3,4,5' is no place in a picture"),
        (["replay", ".", "--wdith-px", "3"], "--wdith-px"),
        (["replay", ".", "--width-px", "0"], "--width-px"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    args: list[str],
    expected: str,
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *args) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[0].startswith("error: ")
    assert expected in lines[0]
    assert all(line.startswith("hint: ") for line in lines[1:])


@pytest.mark.parametrize(
    ("verb", "expected"),
    [(["apps"], "events"), (["models", "list"], "sltnet-twin"), (["devices"], "twin")],
)
def test_lists_are_for_people_and_for_programs(
    verb: list[str],
    expected: str,
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert run(monkeypatch, *verb) == 0
    said = capsys.readouterr().out
    assert expected in [line.partition(" ")[0] for line in said.splitlines()], "a name was cut"
    assert run(monkeypatch, *verb, "--json") == 0
    assert json.loads(capsys.readouterr().out)


def test_the_hint_of_a_misspelt_option_names_the_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "models", "list", "--jsn") == 2
    assert "see edgeperc models list --help" in capsys.readouterr().err


def test_a_models_card_can_be_read(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "models", "show", "sltnet-twin", "--json") == 0
    card = json.loads(capsys.readouterr().out)
    assert card["name"] == "sltnet-twin"
    assert card["ready"]
    assert run(monkeypatch, "models", "show", "sltnet-ddd17") == 0
    assert "vehicle" in capsys.readouterr().out


def test_a_config_error_in_brackets_is_printed_as_it_is(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "mine.toml").write_text('rig = "twin"\n[[pipelines]]\nname = "a"\n')
    assert run(monkeypatch, "serve", "mine.toml") == 2
    assert "mine.toml [[pipelines]] #1: key 'input' is missing" in capsys.readouterr().err
