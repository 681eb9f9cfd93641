from __future__ import annotations

from pathlib import Path

import pytest

from edgeperc import ConfigError
from edgeperc.assemble import assemble
from edgeperc.plan import Plan

PIPELINE = '[[pipelines]]\nname = "a"\ninput = "dvs"\nmodel = "sltnet-twin"\n'


def plan(tmp_path: Path, app: str, rig: str = '[sensors.dvs]\ndriver = "twin"\n') -> Plan:
    (tmp_path / "rig.toml").write_text(rig)
    (tmp_path / "app.toml").write_text(f'rig = "rig.toml"\n{app}')
    return Plan.load(str(tmp_path / "app.toml"))


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (PIPELINE.replace('"dvs"', '"cam"'), r"\[\[pipelines\]\] #1 input: 'cam' is no sensor"),
        (PIPELINE + PIPELINE, r"\[\[pipelines\]\] #2 name: 'a' is there twice"),
        (
            PIPELINE + PIPELINE.replace('"a"', '"b"'),
            r"\[\[pipelines\]\] #2 model: 'sltnet-twin' looks at 'dvs' already",
        ),
        (
            PIPELINE.replace("sltnet-twin", "sltnet-tvin"),
            r"app.toml \[\[pipelines\]\] #1 model: unknown model 'sltnet-tvin'",
        ),
        (PIPELINE + "window_us = 1\nwindow_events = 1\n", "window_us or window_events"),
        (PIPELINE + '[[sinks]]\nkind = "carrier-pigeon"\n', "unknown sink 'carrier-pigeon'"),
        (PIPELINE + '[[sinks]]\nkind = "grpc"\nlisten = 5\n', r"\[\[sinks\]\] #1 listen"),
    ],
)
def test_a_mistake_is_found_before_anything_starts(tmp_path: Path, app: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        assemble(plan(tmp_path, app))


def test_a_mistake_in_the_rig_is_found_before_anything_starts(tmp_path: Path) -> None:
    rig = '[sensors.dvs]\ndriver = "twin"\nsede = 3\n'
    with pytest.raises(ConfigError, match=r"\[sensors.dvs\]: unknown key 'sede'"):
        assemble(plan(tmp_path, PIPELINE, rig))


def test_only_sensors_that_a_pipeline_looks_at_are_opened(tmp_path: Path) -> None:
    rig = '[sensors.dvs]\ndriver = "twin"\n[sensors.spare]\ndriver = "twin"\n'
    run = assemble(plan(tmp_path, PIPELINE, rig))
    assert [sensor.name for sensor in run.sensors()] == ["dvs"]
    run.stop()


def test_a_missing_rig_names_the_app_that_wants_it(tmp_path: Path) -> None:
    (tmp_path / "app.toml").write_text(f'rig = "gone.toml"\n{PIPELINE}')
    with pytest.raises(ConfigError, match=r"app.toml rig: gone.toml: no such file"):
        Plan.load(str(tmp_path / "app.toml"))
