from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeperc.packet import Events, Stamp
from edgeperc.window import CountWindows, TimeWindows, Windows


def packet(t: list[int], end_us: int | None = None) -> Events:
    last_us = end_us if end_us is not None else (t[-1] if t else 0)
    count = len(t)
    return Events(
        stamp=Stamp(source="dvs", seq=0, start_ns=0, end_ns=last_us * 1000),
        t=np.array(t, np.int64),
        x=np.arange(count, dtype=np.uint16),
        y=np.zeros(count, np.uint16),
        p=np.ones(count, np.bool_),
        width_px=640,
        height_px=480,
    )


def cut(windows: Windows, packets: list[Events]) -> list[Events]:
    return [window for each in packets for window in windows.push(each)]


@given(
    st.lists(st.integers(0, 2_000), min_size=1, max_size=200).map(sorted),
    st.integers(1, 300),
    st.lists(st.integers(0, 200), max_size=5).map(sorted),
)
def test_time_windows_do_not_depend_on_how_the_stream_was_cut(
    t: list[int], window_us: int, cuts: list[int]
) -> None:
    edges = [0, *[min(c, len(t)) for c in cuts], len(t)]
    pieces = [packet(t[a:b]) for a, b in itertools.pairwise(edges)]
    found = cut(TimeWindows(window_us), pieces)
    first_us = t[0]
    full = (t[-1] - first_us) // window_us
    assert len(found) == full
    for k, window in enumerate(found):
        start_us = first_us + k * window_us
        assert window.stamp.seq == k
        assert window.stamp.start_ns == start_us * 1000
        assert window.stamp.end_ns == (start_us + window_us) * 1000
        assert window.t.tolist() == [u for u in t if start_us <= u < start_us + window_us]


@given(st.lists(st.integers(0, 2_000), max_size=200).map(sorted), st.integers(1, 40))
def test_count_windows_are_exact_and_leave_a_partial_last_one(t: list[int], count: int) -> None:
    pieces = [packet(t[i : i + 7]) for i in range(0, len(t), 7)]
    found = cut(CountWindows(count), pieces)
    assert [len(window) for window in found] == [count] * (len(t) // count)
    assert [u for window in found for u in window.t] == t[: len(t) // count * count]
    assert [window.stamp.seq for window in found] == list(range(len(found)))


def test_a_silent_sensor_completes_windows_by_its_stamp() -> None:
    windows = TimeWindows(100)
    assert cut(windows, [packet([5], end_us=104)]) == []
    found = cut(windows, [packet([], end_us=305)])
    assert [len(window) for window in found] == [1, 0, 0]


def test_windows_wait_for_the_first_event() -> None:
    assert cut(TimeWindows(100), [packet([], end_us=1_000)]) == []


def test_restart_forgets_the_old_clock_but_keeps_counting() -> None:
    windows = TimeWindows(100)
    assert len(cut(windows, [packet([5_000, 5_100])])) == 1
    windows.restart()
    (found,) = cut(windows, [packet([10, 20, 110])])
    assert found.t.tolist() == [10, 20]
    assert found.stamp.seq == 1


def test_the_input_is_not_changed_and_the_output_is_read_only() -> None:
    events = packet([0, 50, 100, 150])
    before = events.t.copy()
    (window,) = cut(TimeWindows(100), [events])
    assert (events.t == before).all()
    assert not window.t.flags.writeable
