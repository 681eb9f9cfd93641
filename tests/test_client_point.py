"""`edgeperc point` against a daemon of this process."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from edgeperc.client.point import point
from edgeperc.errors import ConfigError, DeviceError

from .grey_daemon import Daemon, eventually


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.stop()


def test_what_is_pointed_at_is_printed_and_dropped_at_the_end(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    point(["1,1", "0,34,60,40"], daemon.address, duration_s=0.1)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("wide #")
    assert line.endswith(": 1 at 0,0,60,40, 2,292 px; 2 at 0,0,60,40, 2,292 px")
    assert eventually(lambda: daemon.sessions == 0)


def test_programs_get_every_picture(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    point(["1,1"], daemon.address, source="wide", as_json=True, duration_s=0.2)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    seen = [line for line in lines if line["instances"]]
    assert [each["seq"] for each in seen] == list(range(seen[0]["seq"], seen[0]["seq"] + len(seen)))
    assert seen[0]["instances"][0]["id"] == 1
    assert seen[0]["instances"][0]["mask"]["size"] == [40, 60]


def test_what_is_no_place_or_lies_outside_is_said(daemon: Daemon) -> None:
    for place in ("3", "a,b", "1,2,3", ""):
        with pytest.raises(ConfigError, match="is no place in a picture") as caught:
            point([place], daemon.address)
        assert "box around it" in caught.value.hint
    with pytest.raises(ConfigError, match="outside the picture of 60"):
        point(["1,1", "70,1"], daemon.address)
    with pytest.raises(ConfigError, match="no source 'tail'"):
        point(["1,1"], daemon.address, source="tail")
    assert eventually(lambda: daemon.sessions == 0)


def test_without_a_daemon_it_says_so() -> None:
    with pytest.raises(DeviceError, match="no daemon at"):
        point(["1,1"], "127.0.0.1:1")
