"""A mailbox is bounded, keeps the newest and accounts for every result that it loses."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeperc.packet import Stamp
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.result import LabelMap, ModelRef
from edgeperc.sinks.mailbox import Mailbox, Published

# What happens to a mailbox: a result of a source arrives, or (None) one is taken.
happenings = st.lists(st.sampled_from(["left", "right", None]), max_size=60)


def published(seq: int, source: str = "left", at_s: float | None = None) -> Published:
    item = Published(
        LabelMap(
            stamp=Stamp(source=source, seq=seq, start_ns=0, end_ns=1),
            labels=np.full((2, 3), seq % 256, np.uint8),
            classes=(),
            model=ModelRef(name="m"),
        )
    )
    if at_s is not None:
        item.monotonic_ns = int(at_s * 1e9) + 10**12
    return item


def drain(mailbox: Mailbox) -> list[tuple[str, int, int]]:
    """(source, seq, lost) of all that waits."""
    taken = []
    while (next_one := mailbox.take(timeout_s=0)) is not None:
        item, lost = next_one
        taken.append((item.result.stamp.source, item.result.stamp.seq, lost))
    return taken


def run(mailbox: Mailbox, happening: Sequence[str | None]) -> list[tuple[str, int, int]]:
    taken = []
    seq = {"left": 0, "right": 0}
    for number, source in enumerate(happening):
        if source is None:
            if (next_one := mailbox.take(timeout_s=0)) is not None:
                item, lost = next_one
                taken.append((item.result.stamp.source, item.result.stamp.seq, lost))
        else:
            mailbox.put(published(seq[source], source, at_s=number * 0.01))
            seq[source] += 1
    return taken + drain(mailbox)


@given(
    happening=happenings,
    depth=st.none() | st.integers(1, 5),
    max_rate_hz=st.sampled_from([0.0, 10.0, 60.0]),
)
def test_every_gap_in_seq_is_accounted_for(
    happening: list[str | None], depth: int | None, max_rate_hz: float
) -> None:
    taken = run(Mailbox(depth=depth, max_rate_hz=max_rate_hz), happening)
    for source in ("left", "right"):
        expected = 0
        for name, seq, lost in taken:
            if name == source:
                assert seq == expected + lost
                expected = seq + 1


@given(happening=happenings)
def test_latest_keeps_exactly_the_newest_of_each_stream(happening: list[str | None]) -> None:
    arrivals = [source for source in happening if source]
    taken = run(Mailbox(), arrivals)
    newest = {(source, arrivals.count(source) - 1) for source in set(arrivals)}
    assert {(source, seq) for source, seq, _ in taken} == newest
    assert len(taken) == len(newest)


@given(count=st.integers(0, 20), depth=st.integers(1, 8))
def test_queue_keeps_the_newest_in_order(count: int, depth: int) -> None:
    mailbox = Mailbox(depth=depth)
    for seq in range(count):
        mailbox.put(published(seq))
    kept = list(range(max(0, count - depth), count))
    assert [seq for _, seq, _ in drain(mailbox)] == kept


@pytest.mark.parametrize(("rate_hz", "limit_hz"), [(30, 20), (100, 30), (20, 30), (25, 25)])
def test_rate_is_thinned_on_average_to_the_limit(rate_hz: int, limit_hz: int) -> None:
    mailbox = Mailbox(depth=1, max_rate_hz=limit_hz)
    seconds, received = 20, 0
    for seq in range(rate_hz * seconds):
        mailbox.put(published(seq, at_s=seq / rate_hz))
        received += len(drain(mailbox))
    assert received == pytest.approx(min(rate_hz, limit_hz) * seconds, abs=2)


def test_after_a_pause_at_most_two_come_close_together() -> None:
    mailbox = Mailbox(depth=100, max_rate_hz=1.0)
    for seq, at_s in enumerate([0.0, 0.1, 50.0, 50.1, 50.2, 50.3]):
        mailbox.put(published(seq, at_s=at_s))
    assert drain(mailbox) == [("left", 0, 0), ("left", 2, 1), ("left", 3, 0)]


def test_slow_taker_at_a_limited_rate_still_gets_the_newest() -> None:
    mailbox = Mailbox(max_rate_hz=1.0)
    mailbox.put(published(0, at_s=0.0))
    mailbox.put(published(1, at_s=0.1))
    assert drain(mailbox) == [("left", 1, 1)]


def test_close_wakes_a_waiting_taker_and_takes_nothing_more_in() -> None:
    mailbox = Mailbox()
    answers: list[object] = []
    taker = threading.Thread(target=lambda: answers.append(mailbox.take()))
    taker.start()
    mailbox.close()
    taker.join(timeout=10)
    mailbox.put(published(0))
    assert answers == [None]
    assert mailbox.take() is None


def test_what_waits_at_close_is_still_delivered() -> None:
    mailbox = Mailbox(depth=4)
    mailbox.put(published(0))
    mailbox.put(published(1))
    mailbox.close()
    assert [seq for _, seq, _ in drain(mailbox)] == [0, 1]


def test_each_encoding_is_made_once() -> None:
    item = published(3)
    raw = item.message(pb.MASK_ENCODING_RAW)
    assert item.message(pb.MASK_ENCODING_RAW) is raw
    assert item.message(pb.MASK_ENCODING_RLE).label_map.encoding == pb.MASK_ENCODING_RLE
    assert raw.label_map.data == bytes([3] * 6)
