from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeperc.errors import DataError
from edgeperc.packet import Events, Frame, Packet, Stamp
from edgeperc.validate import Validator

WIDTH, HEIGHT, GAP_US = 8, 6, 1000


def events(t: list[int], x: list[int] | None = None, y: list[int] | None = None) -> Events:
    count = len(t)
    start_us, end_us = (t[0], t[-1]) if t else (0, 0)
    return Events(
        stamp=Stamp(source="dvs", seq=0, start_ns=start_us * 1000, end_ns=end_us * 1000),
        t=np.array(t, np.int64),
        x=np.array(x or [0] * count, np.uint16),
        y=np.array(y or [0] * count, np.uint16),
        p=np.ones(count, np.bool_),
        width_px=WIDTH,
        height_px=HEIGHT,
    )


def frame(end_us: int) -> Frame:
    stamp = Stamp(source="dvs", seq=0, start_ns=(end_us - 5) * 1000, end_ns=end_us * 1000)
    return Frame(stamp=stamp, image=np.zeros((HEIGHT, WIDTH), np.uint8))


def times(packets: list[Packet]) -> list[int]:
    return [int(t) for packet in packets if isinstance(packet, Events) for t in packet.t]


def run(validator: Validator, packets: list[Packet]) -> list[Packet]:
    """What gets through; the error, if any, is left in validator.fault."""
    out: list[Packet] = []
    with contextlib.suppress(DataError):
        for packet in validator.stream(packets):
            out.append(packet)
    return out


good_streams = st.lists(
    st.lists(
        st.tuples(st.integers(0, GAP_US), st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)),
        max_size=6,
    ),
    max_size=5,
)
any_streams = st.lists(
    st.lists(
        st.tuples(
            st.integers(-3 * GAP_US, 3 * GAP_US),
            st.integers(0, 2 * WIDTH),
            st.integers(0, 2 * HEIGHT),
        ),
        max_size=6,
    ),
    max_size=6,
)


def stream_of(steps: list[list[tuple[int, int, int]]]) -> list[Packet]:
    now_us, packets = 10**9, list[Packet]()
    for packet in steps:
        t: list[int] = []
        for step, _, _ in packet:
            now_us += step
            t.append(now_us)
        packets.append(events(t, [x for _, x, _ in packet], [y for _, _, y in packet]))
    return packets


@pytest.mark.parametrize("policy", ["raise", "drop", "clamp"])
@given(steps=good_streams)
def test_good_packets_pass_as_they_are(
    policy: str, steps: list[list[tuple[int, int, int]]]
) -> None:
    packets = stream_of(steps)
    validator = Validator(policy, max_gap_us=GAP_US)  # type: ignore[arg-type]
    out = list(validator.stream(packets))
    assert len(out) == len(packets)
    assert all(a is b for a, b in zip(out, packets, strict=True))
    assert validator.counters.received == sum(map(len, steps))
    assert validator.counters.dropped == validator.counters.clamped == 0


@given(steps=any_streams)
def test_raise_delivers_exactly_the_good_prefix(steps: list[list[tuple[int, int, int]]]) -> None:
    packets = stream_of(steps)
    validator = Validator("raise", max_gap_us=GAP_US)
    out = run(validator, packets)
    flat = [event for packet in steps for event in packet]
    good = 0
    for step, x, y in flat:
        in_time = good == 0 or 0 <= step <= GAP_US  # nothing comes before the first event
        if not (in_time and x < WIDTH and y < HEIGHT):
            break
        good += 1
    assert sum(len(p) for p in out if isinstance(p, Events)) == good
    assert times(out) == times(packets)[:good]
    assert (validator.fault is None) == (good == len(flat))
    if validator.fault:
        assert str(validator.fault).startswith(f"dvs: event {good:,}: ")


@pytest.mark.parametrize("policy", ["drop", "clamp"])
@given(steps=any_streams)
def test_what_is_mended_keeps_the_rules(
    policy: str, steps: list[list[tuple[int, int, int]]]
) -> None:
    packets = stream_of(steps)
    before = [(p.t.copy(), p.x.copy()) for p in packets if isinstance(p, Events)]
    validator = Validator(policy, max_gap_us=GAP_US)  # type: ignore[arg-type]
    out = [p for p in run(validator, packets) if isinstance(p, Events)]
    assert (np.diff(times(list(out))) >= 0).all()
    assert all((p.x < WIDTH).all() and (p.y < HEIGHT).all() for p in out)
    assert all(p.stamp.end_ns == p.t[-1] * 1000 for p in out if len(p))
    counters = validator.counters
    assert counters.received == sum(map(len, steps)) == sum(map(len, out)) + counters.dropped
    if policy == "clamp":
        assert counters.dropped == 0
        assert (np.diff(times(list(out))) <= GAP_US).all()
    for (t, x), packet in zip(before, packets, strict=True):  # the input is never changed
        assert isinstance(packet, Events)
        assert (packet.t == t).all()
        assert (packet.x == x).all()


def test_raise_says_what_is_wrong_and_where() -> None:
    cases = {
        "event 2: pixel (9, 0) is not on the sensor of 8 × 6": events([1, 2, 3], [0, 0, 9]),
        "event 1: time goes back from 50 to 49 µs": events([50, 49]),
        "event 1: time jumps ahead from 50 to 1051 µs": events([50, 1051]),
    }
    for message, packet in cases.items():
        validator = Validator(max_gap_us=GAP_US)
        run(validator, [packet])
        assert str(validator.fault) == f"dvs: {message}"


def test_raise_also_across_packets_and_again_on_the_next_call() -> None:
    validator = Validator(max_gap_us=GAP_US)
    assert validator.check(events([10, 20])) is not None
    assert validator.check(events([19, 30])) is None
    assert "event 2: time goes back from 20 to 19 µs" in str(validator.fault)
    with pytest.raises(DataError):
        validator.check(events([40]))


def test_drop_leaves_out_a_spike_and_what_is_late() -> None:
    validator = Validator("drop", max_gap_us=GAP_US)
    out = run(validator, [events([10, 20, 99_999, 30, 25, 40])])
    assert times(out) == [10, 20, 30, 40]
    assert (validator.counters.gaps, validator.counters.backwards) == (1, 1)


def test_drop_accepts_a_pause_that_lasts_and_a_clock_set_back() -> None:
    validator = Validator("drop", max_gap_us=GAP_US)
    paused = [events([10]), events([5_000, 5_100]), events([5_200]), events([5_300])]
    assert times(run(validator, paused)) == [10, 5_200, 5_300]
    reset = [events([0, 10]), events([20, 30]), events([40, 50])]
    assert times(run(validator, reset)) == [5_310, 5_320]


def test_clamp_runs_on_evenly_after_a_jump_in_either_direction() -> None:
    validator = Validator("clamp", max_gap_us=GAP_US)
    out = run(validator, [events([10, 20, 50_000, 50_010], [0, 99, 0, 0]), events([5, 15])])
    assert times(out) == [10, 20, 1_020, 1_030, 1_030, 1_040]
    assert isinstance(out[0], Events)
    assert out[0].x.tolist() == [0, WIDTH - 1, 0, 0]
    assert validator.counters.clamped == 3


def test_frames_keep_their_own_order_on_the_events_clock() -> None:
    validator = Validator("drop", max_gap_us=GAP_US)
    packets = [frame(100), events([90, 150]), frame(140), frame(130), frame(9_000), frame(200)]
    out = run(validator, packets)
    assert [p.stamp.end_ns // 1000 for p in out] == [100, 150, 140, 200]
    assert (validator.counters.backwards, validator.counters.gaps) == (1, 1)
    strict = Validator("raise", max_gap_us=GAP_US)
    assert len(run(strict, [frame(100), frame(90)])) == 1
    assert "frame 1: time goes back from 100 to 90 µs" in str(strict.fault)


def test_frames_bridge_a_pause_of_the_events() -> None:
    validator = Validator("raise", max_gap_us=GAP_US)
    run(validator, [events([0]), frame(900), frame(1_800), events([2_500])])
    assert validator.fault is None


def test_clamp_moves_a_frame_by_its_stamp() -> None:
    validator = Validator("clamp", max_gap_us=GAP_US)
    out = run(validator, [frame(100), frame(50_000), frame(50_010)])
    assert [p.stamp.end_ns // 1000 for p in out] == [100, 1_100, 1_110]
    assert {p.stamp.end_ns - p.stamp.start_ns for p in out} == {5_000}


def test_an_empty_packet_passes() -> None:
    packet = events([])
    assert Validator().check(packet) is packet
