"""An app that changes while its daemon runs: who stays the same keeps its process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeperc.control import ControlError
from edgeperc.errors import ConfigError
from edgeperc.plan import Plan
from edgeperc.sinks.metrics import Metrics
from edgeperc.supervise.daemon import SupervisedDaemon, _check, open_daemon

from .ticking import PIPELINE, Kept, eventually, exists, write_app

NULL = '[[sinks]]\nkind = "null"\n'


class Serving:
    """A daemon at work, and its app's file."""

    def __init__(self, folder: Path) -> None:
        self.path = write_app(folder, more=NULL)
        self.daemon: SupervisedDaemon = open_daemon(Plan.load(str(self.path)))
        self.sink = Kept()
        self.daemon.run.add(self.sink)
        self.daemon.run.start()
        self.first = self.path.read_text()

    def pids(self) -> dict[str, int]:
        return {worker.name: worker.pid for worker in self.daemon.run.workers()}

    def sinks(self) -> list[int]:
        return [id(sink) for _, sink in self.daemon._sinks._open]

    def goes_on(self, *sources: str) -> None:
        before = dict(self.sink.results)
        eventually(lambda: all(self.sink.results.get(s, 0) > before.get(s, 0) + 2 for s in sources))

    def write(self, text: str) -> None:
        self.path.write_text(text)
        self.daemon.reload()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    each = Serving(tmp_path_factory.mktemp("app"))
    each.goes_on("left", "right")
    yield each
    pids = each.pids().values()
    each.daemon.run.stop()
    assert not any(exists(pid) for pid in pids)


@pytest.fixture(autouse=True)
def unchanged(serving: Serving) -> Iterator[None]:
    yield
    serving.write(serving.first)


def test_a_changed_pipeline_is_replaced_and_nobody_else_is(serving: Serving) -> None:
    before, sinks = serving.pids(), serving.sinks()
    head, rest = serving.first.split('name = "b"')
    serving.write(head + 'name = "b"\nrate_hz = 20.0' + rest)
    after = serving.pids()
    assert {name for name in after if after[name] != before[name]} == {"pipelines/b"}
    assert serving.sinks() == sinks
    eventually(lambda: not exists(before["pipelines/b"]))
    serving.goes_on("left", "right")
    assert serving.daemon.status().errors == ()


def test_a_broken_file_changes_nothing_and_is_told(serving: Serving) -> None:
    before, sinks = serving.pids(), serving.sinks()
    for broken in (
        "rig = ",
        serving.first.replace("sltnet-twin", "sltnet-twinn"),
        serving.first.replace('input = "left"', 'input = "middle"'),
        serving.first + '[[sinks]]\nkind = "nul"\n',
        serving.first + '[[sinks]]\nkind = "grpc"\nlisten = "256.0.0.1:1"\ninsecure = true\n',
    ):
        serving.write(broken)
        (told,) = (e for e in serving.daemon.status().errors if e.startswith("not reloaded"))
        assert "app.toml" in told or "256.0.0.1" in told
        assert serving.daemon.app().toml == serving.first
        assert serving.pids() == before
        assert serving.sinks() == sinks
    serving.goes_on("left", "right")
    serving.write(serving.first)
    assert serving.daemon.status().errors == ()
    assert serving.pids() == before


@pytest.mark.slow
def test_what_is_removed_ends_and_what_is_added_begins(serving: Serving) -> None:
    before = serving.pids()
    serving.write('rig = "rig.toml"\n' + PIPELINE.format(name="a", input="left"))
    assert set(serving.pids()) == {"sensors/left", "pipelines/a"}
    assert all(serving.pids()[name] == before[name] for name in serving.pids())
    eventually(lambda: not exists(before["pipelines/b"]) and not exists(before["sensors/right"]))
    assert serving.sinks() == []
    assert [source.name for source in serving.daemon._sinks.inventory.sources] == ["left", "right"]
    assert len(serving.daemon._sinks.inventory.models) == 1
    serving.goes_on("left")
    more = PIPELINE.format(name="c", input="right")
    serving.write('rig = "rig.toml"\n' + PIPELINE.format(name="a", input="left") + more + NULL)
    assert serving.pids()["pipelines/a"] == before["pipelines/a"]
    assert len(serving.sinks()) == 1
    serving.goes_on("left", "right")


@pytest.mark.slow
def test_a_changed_sensor_takes_its_pipelines_along(serving: Serving) -> None:
    before = serving.pids()
    rig = serving.path.with_name("rig.toml")
    text = rig.read_text()
    try:
        rig.write_text(text + "count = 900_000\n")  # of the right one
        serving.daemon.reload()
        after = serving.pids()
        changed = {name for name in after if after[name] != before[name]}
        assert changed == {"sensors/right", "pipelines/b"}
        serving.goes_on("left", "right")
    finally:
        rig.write_text(text)


def test_an_app_is_applied_from_afar_and_written_to_its_file(serving: Serving) -> None:
    daemon, before = serving.daemon, serving.pids()
    read = daemon.app()
    assert (read.name, read.toml) == ("app", serving.first)
    wanted = read.toml + NULL
    daemon.validate(wanted)
    applied = daemon.apply(wanted, read.etag)
    assert (applied.toml, serving.path.read_text()) == (wanted, wanted)
    assert applied.etag != read.etag
    assert len(serving.sinks()) == 2
    assert serving.pids() == before
    with pytest.raises(ControlError, match="has changed") as refused:
        daemon.apply(read.toml, read.etag)
    assert refused.value.why == "conflict"
    with pytest.raises(ConfigError, match="is none of those that run"):
        daemon.apply(wanted + '[[sinks]]\nkind = "os:system"\n', applied.etag)
    with pytest.raises(ConfigError, match="unknown key"):
        daemon.apply("colour = 3\n" + wanted, applied.etag)
    assert serving.path.read_text() == wanted


Counts = dict[tuple[str, ...], float]


def counted(url: str) -> Counts:
    """All counters of sensors and pipelines, as Prometheus reads them."""
    with urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        if family.type == "counter" and "_sink" not in family.name
        for sample in family.samples
        if sample.name.startswith(("edgeperc_pipeline", "edgeperc_sensor"))
    }


def test_no_counter_falls_while_processes_die_and_are_replaced(serving: Serving) -> None:
    metrics = Metrics(daemon=serving.daemon, listen="127.0.0.1:0")
    results, packets = ("edgeperc_pipeline_results_total", "a"), ("edgeperc_sensor_packets_total",)
    seen: list[Counts] = []

    def grows(key: tuple[str, ...], by: float = 3.0) -> bool:
        seen.append(counted(metrics.where))
        falls = {each for each in seen[-2] if seen[-1][each] < seen[-2][each]}
        assert not falls
        return seen[-1][key] >= seen[first][key] + by

    try:
        seen.append(counted(metrics.where))
        first = 0
        eventually(lambda: grows(results, 10))
        for name in ("pipelines/a", "sensors/left"):
            os.kill(serving.pids()[name], signal.SIGKILL)
            first = len(seen) - 1
            eventually(lambda: grows(results))
            eventually(lambda: grows((*packets, "left")))
        first = len(seen) - 1
        serving.write(serving.first.replace('"a"', '"a"\nrate_hz = 20.0'))
        eventually(lambda: grows(results))
        assert seen[-1][results] >= 10
    finally:
        metrics.close()


def test_a_pipeline_that_was_started_anew_is_well_once_it_gives_results(serving: Serving) -> None:
    run = serving.daemon.run
    eventually(lambda: not run.waiting())
    os.kill(serving.pids()["pipelines/a"], signal.SIGKILL)
    eventually(lambda: run.waiting() == {"a"})
    run.report()
    assert serving.sink.well["pipelines/a"] is False
    assert serving.sink.well["pipelines/b"] is True
    eventually(lambda: not run.waiting())
    run.report()
    assert serving.sink.well["pipelines/a"] is True
    eventually(lambda: serving.daemon.status().state == "serving")


def test_a_scheduler_is_looked_for_before_anything_ends() -> None:
    _check(Plan.load("search"))
    with pytest.raises(ConfigError, match="unknown scheduler 'guess'"):
        _check(Plan.load("search", ["search.scheduler=guess"]))
