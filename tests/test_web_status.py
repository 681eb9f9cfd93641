"""What the page is told of the last minutes and of now."""

from __future__ import annotations

from edgeperc.result import Timings
from edgeperc.sinks.web_status import SAMPLES, History
from edgeperc.sinks.web_wire import unpack

from .web_daemon import FakeControl


def test_losses_are_those_since_the_last_sample_and_times_those_of_late() -> None:
    control = FakeControl()
    control.meter.dropped(7)
    history = History(control)  # type: ignore[arg-type]
    history.sample()
    control.meter.dropped(2)
    control.meter.failed()
    control.meter.finished(Timings(total_ns=5_000_000), 0)
    history.sample()
    history.sample()
    samples = unpack(history.past())[0]["pipelines"]["seg"]
    assert [sample[4:] for sample in samples] == [[0, 0], [2, 1], [0, 0]]
    assert samples[1][2:4] == [5.0, 5.0]
    header, _ = unpack(history.now([("frame", "wide", "")], 3))
    assert header["newest"]["seg"] == samples[-1]
    assert header["status"]["app"] == "street"
    assert header["streams"] == [["frame", "wide", ""]]
    assert header["clients"] == 3


def test_the_past_has_an_end() -> None:
    history = History(FakeControl())  # type: ignore[arg-type]
    for _ in range(SAMPLES + 5):
        history.sample()
    assert len(unpack(history.past())[0]["pipelines"]["seg"]) == SAMPLES


def test_without_a_daemon_there_is_no_status_and_no_error() -> None:
    history = History(None)
    history.sample()
    assert unpack(history.past())[0]["pipelines"] == {}
    assert unpack(history.now([], 0))[0]["status"] is None
