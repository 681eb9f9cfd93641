from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgeperc.errors import DataError
from edgeperc.packet import Events, Frame, Packet, Pair, Stamp
from edgeperc.pairing import Pairing
from edgeperc.pairs import KINDS, Kind, PairCounters, Rules, middle_us, pair

RULES = Rules()
SOURCES = ("camera", "dvs")
OF_KIND: dict[Kind, type] = {"frames": Frame, "events": Events}
MS = 1000


def frame(
    at_us: int, *, seq: int = 0, exposure_us: int = 0, size_px: tuple[int, int] = (8, 6)
) -> Frame:
    start_ns = at_us * 1000 - exposure_us * 500
    stamp = Stamp(source="camera", seq=seq, start_ns=start_ns, end_ns=start_ns + exposure_us * 1000)
    image = np.full(size_px[::-1], at_us % 251, np.uint8)
    image[0, 0] = 251 if at_us % 7 else at_us % 251
    return Frame(stamp=stamp, image=image)


def events(
    times_us: Sequence[int], *, until_us: int = 0, size_px: tuple[int, int] = (8, 6)
) -> Events:
    t = np.array(times_us, np.int64)
    ends = (int(t[0]), max(int(t[-1]), until_us)) if t.size else (until_us, until_us)
    return Events(
        stamp=Stamp(source="dvs", seq=0, start_ns=ends[0] * 1000, end_ns=ends[1] * 1000),
        t=t,
        x=(t % size_px[0]).astype(np.uint16),
        y=(t % size_px[1]).astype(np.uint16),
        p=t % 2 == 1,
        width_px=size_px[0],
        height_px=size_px[1],
    )


def run(pairing: Pairing, packets: Sequence[Packet], *, end_at_once: bool = False) -> list[Pair]:
    found: list[Pair] = []
    left = {kind: sum(isinstance(each, cls) for each in packets) for kind, cls in OF_KIND.items()}
    for packet in packets:
        found += pairing.push(packet)
        kind: Kind = "frames" if isinstance(packet, Frame) else "events"
        left[kind] -= 1
        if end_at_once and not left[kind]:
            found += pairing.end(kind)
    for kind in KINDS:
        found += pairing.end(kind)
    return found


def as_bytes(pairs: Iterable[Pair]) -> list[tuple[object, ...]]:
    return [
        (
            each.stamp,
            each.frame and (each.frame.stamp, each.frame.image.tobytes()),
            each.events.stamp,
            (each.events.width_px, each.events.height_px),
            *(getattr(each.events, name).tobytes() for name in "txyp"),
        )
        for each in pairs
    ]


class Recording:
    """Random streams of about a second with pauses in either, and an order in which they come."""

    def __init__(self, seed: int) -> None:
        rng = self.rng = np.random.default_rng(seed)
        self.start_us = int(rng.choice([0, 1_600_000_000_000_000]))
        middles = self.start_us + rng.integers(0, 40 * MS) + np.cumsum(rng.integers(1, 60 * MS, 30))
        middles = self._paused(np.repeat(middles, rng.choice([1, 1, 1, 2], 30)))
        self.frames = [
            frame(int(at), seq=k, exposure_us=2 * int(rng.integers(0, 10 * MS)))
            for k, at in enumerate(middles)
        ]
        t = self._paused(self.start_us + np.sort(rng.integers(0, 1_000_000, rng.integers(0, 3000))))
        self.events = self._packets(t)

    def _paused(self, times: np.ndarray) -> np.ndarray:
        """Without what lies in some pauses, and perhaps without all after some time."""
        for _ in range(self.rng.integers(0, 3)):
            begin = self.start_us + self.rng.integers(0, 1_000_000)
            times = times[(times < begin) | (times > begin + self.rng.integers(0, 600_000))]
        end = self.start_us + self.rng.choice([300_000, 2_000_000])
        return times[times < end]

    def _packets(self, t: np.ndarray) -> list[Events]:
        packets, start = [], 0
        while start < t.size:
            stop = int(np.searchsorted(t, t[start] + self.rng.integers(1, 10 * MS)))
            until_us = int(t[stop - 1] + self.rng.choice([0, 500]))
            until_us = min(until_us, int(t[stop])) if stop < t.size else until_us
            packets.append(events(t[start:stop].tolist(), until_us=until_us))
            start = stop
        return packets

    def arrivals(self, delay_us: int) -> list[Packet]:
        """Both streams, each in its order, each packet up to `delay_us` after it was complete."""
        timed: list[tuple[int, int, Packet]] = []
        for stream in (self.frames, self.events):
            latest = 0
            for packet in stream:
                due = packet.stamp.end_ns // 1000 + int(self.rng.integers(0, delay_us))
                latest = max(latest, due)
                timed.append((latest, len(timed), packet))
        return [packet for _, _, packet in sorted(timed, key=lambda each: each[:2])]


@pytest.mark.parametrize("skip_single", [False, True])
def test_streams_are_paired_as_if_all_were_known_whoever_is_faster(skip_single: bool) -> None:
    kinds = PairCounters()
    for seed in range(100):
        recording = Recording(seed)
        rules = replace(RULES, skip_single=skip_single, before_us=[25, 50][seed % 2] * MS)
        wanted, counts = pair(recording.frames, recording.events, rules, sources=SOURCES)
        for delay_us in (1, 80 * MS):
            pairing = Pairing(rules, sources=SOURCES)
            found = run(pairing, recording.arrivals(delay_us), end_at_once=seed % 3 == 0)
            assert as_bytes(found) == as_bytes(wanted), seed
            assert pairing.counters == counts, seed
        for name in ("duplicated", "frame_gaps", "event_gaps", "without_frame", "without_events"):
            setattr(kinds, name, getattr(kinds, name) + getattr(counts, name))
    assert min(kinds.duplicated, kinds.frame_gaps, kinds.event_gaps) > 10
    assert min(kinds.without_frame, kinds.without_events) > 100


def test_a_window_is_half_open_around_the_middle_of_the_exposure() -> None:
    times = [74_999, 75_000, 100_000, 124_999, 125_000, 300_000]
    (found,), _ = pair([frame(100_000, exposure_us=8_000)], [events(times)], RULES)
    assert found.events.t.tolist() == [75_000, 100_000, 124_999]
    assert found.events.stamp == Stamp(source="", seq=0, start_ns=75_000_000, end_ns=125_000_000)


def test_a_pair_is_there_as_soon_as_its_window_is_over() -> None:
    pairing = Pairing(RULES)
    assert not list(pairing.push(frame(100_000)))
    assert not list(pairing.push(events([90_000, 124_999])))
    assert len(list(pairing.push(events([], until_us=125_000)))) == 1
    assert not list(pairing.push(frame(140_000)))
    assert len(list(pairing.push(events([165_000])))) == 1


def test_when_events_stop_frames_go_on_and_the_other_way_round() -> None:
    pairing = Pairing(RULES, sources=SOURCES)
    found = [*pairing.push(events([0, 10_000])), *pairing.push(frame(20_000))]
    for k in range(1, 20):
        found += pairing.push(frame(20_000 + k * 40_000, seq=k))
    assert [each.stamp.seq for each in found] == list(range(16))  # 100 + 25 ms behind
    assert pairing.silent() == ("events",)
    assert pairing.counters.without_events == 15
    found += pairing.end("events")
    assert len(found) == 20

    pairing = Pairing(RULES, sources=SOURCES)
    found = list(pairing.push(frame(0, seq=7)))
    for at_us in range(10_000, 1_000_000, 10_000):
        found += pairing.push(events([at_us]))
    first, *alone = found
    assert first.frame is not None
    assert all(each.frame is None for each in alone)
    assert [each.stamp.start_ns // 1_000_000 for each in alone] == list(range(200, 900, 50))
    assert [each.stamp.seq for each in alone] == list(range(8, 8 + len(alone)))
    assert {len(each.events) for each in alone} == {5}
    assert pairing.silent() == ("frames",)
    assert alone[0].stamp.source == "camera"


def test_covered_lenses_and_empty_windows_are_counted_and_told() -> None:
    blank, looking = frame(0), frame(1)
    assert pair([blank, looking], [], RULES)[1].constant_frames == 1
    pairing = Pairing(RULES)
    for at_ms in range(0, 2_000, 7):
        dark = replace(looking, stamp=frame(at_ms * MS).stamp, image=blank.image)
        for packet in (dark, events([at_ms * MS])):
            list(pairing.push(packet))
    assert pairing.silent() == ("frames",)
    assert pairing.counters.constant_frames == pairing.counters.pairs + 4

    pairing = Pairing(RULES)
    for at_ms in range(0, 2_000, 10):
        for packet in (frame(at_ms * MS + 1), events([], until_us=at_ms * MS)):
            list(pairing.push(packet))
    assert pairing.silent() == ("events",)
    assert pairing.counters.without_events == pairing.counters.pairs > 150


def test_a_lost_camera_is_not_waited_for() -> None:
    pairing = Pairing(RULES)
    assert not list(pairing.push(frame(0)))
    assert len(list(pairing.end("events"))) == 1
    assert len(list(pairing.push(frame(40_000)))) == 1
    pairing.restart("events")
    assert pairing.silent() == ()
    assert not list(pairing.push(frame(80_000)))
    assert len(list(pairing.push(events([80_000, 105_000])))) == 1


def test_late_and_duplicated_frames_are_left_out_and_counted() -> None:
    pairing = Pairing(RULES)
    found = run(pairing, [frame(0), frame(40_000), frame(40_000), frame(10_000), events([100_000])])
    assert [middle_us(each.frame) for each in found if each.frame] == [0, 40_000]
    assert (pairing.counters.duplicated, pairing.counters.late) == (1, 1)


def test_a_frame_after_its_time_was_answered_without_it_is_late() -> None:
    pairing = Pairing(RULES)
    found = [*pairing.push(events([0])), *pairing.push(events([190_000, 500_000]))]
    assert [each.frame for each in found] == [None]
    assert not list(pairing.push(frame(190_000)))
    assert pairing.counters.late == 1


def test_events_that_come_after_their_pair_are_counted() -> None:
    pairing = Pairing(RULES)
    found = [each for at in range(0, 200_000, 40_000) for each in pairing.push(frame(at))]
    assert len(found) == 1
    list(pairing.push(events([10_000, 20_000, 26_000])))
    assert pairing.counters.late_events == 2


def test_sensors_of_different_size_are_refused_by_both_names() -> None:
    pairing = Pairing(RULES, sources=("wide", "dvs"))
    pairing.push(frame(0, size_px=(960, 448)))
    with pytest.raises(DataError, match=r"'dvs' are 346 × 260 px.*'wide' 960 × 448 px") as raised:
        pairing.push(events([0], size_px=(346, 260)))
    assert "same pixels" in raised.value.hint


def test_sensors_of_different_clocks_are_refused_by_both_names() -> None:
    for first, second in (
        (events([1_600_000_000_000_000]), frame(0)),
        (frame(1_600_000_000_000_000), events([0])),
    ):
        pairing = Pairing(RULES, sources=("wide", "dvs"))
        list(pairing.push(first))
        with pytest.raises(DataError, match=r"'(wide|dvs)' are at 0\.000 s .*'(dvs|wide)' are at"):
            pairing.push(second)


def test_a_camera_that_comes_back_after_long_is_no_other_clock() -> None:
    pairing = Pairing(RULES)
    found = [*pairing.push(events([0])), *pairing.push(frame(0))]
    for at in range(40_000, 20_000_000, 40_000):
        found += pairing.push(frame(at))
    found += pairing.push(events([20_000_000]))
    assert len(found) == 500


def test_a_jump_of_days_does_not_walk_through_them() -> None:
    day_us = 86_400_000_000
    pairing = Pairing(replace(RULES, max_offset_us=1 << 62))
    found = [*pairing.push(frame(0)), *pairing.push(events([0, 30_000]))]
    found += pairing.push(events([9 * day_us, 9 * day_us + 500_000]))
    assert [each.frame is None for each in found] == [False, True]
    assert abs(found[1].stamp.start_ns // 1000 - 9 * day_us) <= 25_000


def test_what_is_held_stays_small() -> None:
    """Events that no pair can want any more are let go, whichever stream goes on."""
    pairing = Pairing(RULES)
    for at in range(0, 20_000_000, 10_000):
        list(pairing.push(events([at])))
        if at < 5_000_000 and at % 40_000 == 0:
            list(pairing.push(frame(at)))
        assert len(pairing._parts) < 60
        assert len(pairing._frames) < 10
