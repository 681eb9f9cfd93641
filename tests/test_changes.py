"""`--set`: an app's file as it is, but for what the command line says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeperc import cli
from edgeperc.changes import changed
from edgeperc.errors import ConfigError
from edgeperc.plan import Plan
from edgeperc.replay import replay_plan

TABLE = {"rig": "twin", "pipelines": [{"name": "a"}, {"name": "b", "prompt": {"ttl_s": 60.0}}]}


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("rig=./mine.toml", ["rig"], "./mine.toml"),
        ("rig = search-rig ", ["rig"], "search-rig"),
        ('rig="a = b"', ["rig"], "a = b"),
        ("rig=a=b", ["rig"], "a=b"),
        ("rig=", ["rig"], ""),
        ("pipelines.1.name=7", ["pipelines", 1, "name"], 7),
        ("pipelines.0.rate_hz=2.5", ["pipelines", 0, "rate_hz"], 2.5),
        ("pipelines.1.prompt.ttl_s=5.0", ["pipelines", 1, "prompt", "ttl_s"], 5.0),
        ("pipelines.0.detect.score=0.5", ["pipelines", 0, "detect", "score"], 0.5),
        ('pipelines.0.providers=["cpu"]', ["pipelines", 0, "providers"], ["cpu"]),
        ("sinks=[]", ["sinks"], []),
        ("sinks.+={kind = 'null'}", ["sinks", 0, "kind"], "null"),
        ("pipelines.+={name = 'c'}", ["pipelines", 2, "name"], "c"),
        ("rig=1\nb = 2", ["rig"], "1\nb = 2"),
    ],
)
def test_a_value_comes_where_its_path_leads(change: str, path: list[Any], value: Any) -> None:
    at: Any = changed(TABLE, [change])
    for part in path:
        at = at[part]
    assert at == value
    assert type(at) is type(value)
    assert "detect" not in TABLE["pipelines"][0]  # what was given is as it was


def test_the_last_of_two_wins() -> None:
    assert changed(TABLE, ["rig=a", "rig=b"])["rig"] == "b"
    both = changed(TABLE, ["pipelines=[{}, {}, {}]", "pipelines.2.name=c"])
    assert both["pipelines"] == [{}, {}, {"name": "c"}]


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ("rig", "--set rig: must be PATH=VALUE", "pipelines.0.model"),
        ("=x", "must be PATH=VALUE", ""),
        ("pipelines..model=x", "must be PATH=VALUE", ""),
        ("pipelines.2.model=x", "--set pipelines.2.model=x: pipelines has no '2'", "are 0 to 1"),
        ("pipelines.-1.model=x", "pipelines has no '-1'", "are 0 to 1"),
        ("pipelines.model=x", "pipelines has no 'model'", "are 0 to 1"),
        ("pipelines.9=x", "pipelines has no '9'", ""),
        ("rig.name=x", "--set rig.name=x: rig is 'twin', there is no 'name' in it", ""),
        ("pipelines.0.name.x=1", "pipelines.0.name is 'a'", ""),
    ],
)
def test_a_path_that_leads_nowhere_says_what_is_there(change: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(TABLE, [change])
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_an_empty_array_has_no_index() -> None:
    with pytest.raises(ConfigError) as caught:
        changed({"sinks": []}, ["sinks.0.kind=null"])
    assert caught.value.hint == "its indexes are none: it is empty"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("pipelines.0.modle=x", "unknown key 'modle'; did you mean 'model'?"),
        ("pipeline.0.model=x", "unknown key 'pipeline'; did you mean 'pipelines'?"),
        ("pipelines.0.rate_hz=fast", "[[pipelines]] #1 rate_hz: expected"),
        ("rig=search-rgi", "rig: unknown rig 'search-rgi'; did you mean 'search-rig'?"),
    ],
)
def test_what_the_check_of_an_app_says_names_the_change(change: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Plan.load("prompt", [change])
    assert f"prompt.toml --set {change}" in str(caught.value)
    assert message in str(caught.value)


def test_a_plan_has_the_changes_and_says_so() -> None:
    plan = Plan.load("prompt", ["pipelines.0.threads=1", "pipelines.0.prompt.max_objects=2"])
    table, where = plan.pipeline("prompt")
    assert (table.threads, table.prompt.max_objects, table.prompt.max_sessions) == (1, 2, 4)
    assert where.endswith("--set pipelines.0.prompt.max_objects=2 [[pipelines]] #1")


def app_with_model(folder: Path, model: str) -> str:
    folder.mkdir(parents=True)
    table = f'rig = "twin"\n[[pipelines]]\nname = "a"\ninput = "dvs"\nmodel = "{model}"\n'
    (folder / "app.toml").write_text(table)
    return str(folder / "app.toml")


def test_check_runs_the_model_of_the_command_line_from_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = app_with_model(tmp_path / "apps", "nowhere")
    shipped = Path(__file__).parents[1] / "models/sltnet-twin"
    (tmp_path / "here").mkdir()
    (tmp_path / "here/small").symlink_to(shipped)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("sys.argv", ["edgeperc", "check", app, "--set", "pipelines.0.model=small"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "a: sltnet-twin on " in capsys.readouterr().out


def test_a_model_that_is_not_there_is_blamed_on_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = app_with_model(tmp_path / "apps", "sltnet-twin")
    change = "pipelines.0.model=./gone"
    monkeypatch.setattr("sys.argv", ["edgeperc", "serve", app, "--set", change])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"--set {change} [[pipelines]] #1 model: gone: no such folder" in said


def test_replay_takes_changes_of_its_app_only(tmp_path: Path) -> None:
    app = app_with_model(tmp_path / "apps", "nowhere")
    changes = ["pipelines.0.model=sltnet-twin"]

    def plan(**named: str | None) -> Plan:
        rest: dict[str, Any] = {"out": None, "listen": None, "max_gap_s": None, "sensor": {}}
        return replay_plan(tmp_path, changes=changes, **named, **rest)

    assert plan(app=app, model=None).app.pipelines[0].model == "sltnet-twin"
    with pytest.raises(ConfigError, match="--set changes an app's file"):
        plan(app=None, model="sltnet-twin")


def test_replay_of_a_rig_runs_the_changed_app(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_with_model(tmp_path / "apps", "nowhere")
    out = tmp_path / "out"
    words = ["replay", "--app", app, "--set", "pipelines.0.model=sltnet-twin", "--speed", "max"]
    monkeypatch.setattr("sys.argv", ["edgeperc", *words, "--duration-s", "0.2", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    summary = json.loads((out / "summary.json").read_text())
    assert "sltnet-twin" in json.dumps(summary)
