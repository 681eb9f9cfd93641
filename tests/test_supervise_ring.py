"""A ring in shared memory, between threads of one process; see test_feed for real processes."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeperc.packet import Events, Frame, Gaze, Stamp
from edgeperc.supervise.ring import MIN_BYTES, Ring, RingView

STAMP = Stamp(source="a", seq=3, start_ns=5, end_ns=9)


def frame(*shape: int, gaze: Gaze | None = None) -> Frame:
    image = np.random.default_rng(1).integers(0, 255, shape, np.uint8)
    return Frame(stamp=STAMP, image=image, gaze=gaze)


def events(count: int) -> Events:
    random = np.random.default_rng(count)
    return Events(
        stamp=STAMP,
        t=np.sort(random.integers(0, 1000, count)),
        x=random.integers(0, 8, count).astype(np.uint16),
        y=random.integers(0, 8, count).astype(np.uint16),
        p=random.integers(0, 2, count).astype(np.bool_),
        width_px=8,
        height_px=8,
    )


@pytest.mark.parametrize(
    "packet",
    [
        frame(4, 6),
        frame(30, 40, 3, gaze=Gaze(pan_rad=0.1, tilt_rad=-0.2)),
        frame(0, 5),
        events(0),
        events(1),
        events(10_001),
    ],
)
def test_a_packet_comes_back_as_it_was_and_read_only(packet: Frame | Events) -> None:
    ring = Ring()
    view = RingView(ring.fd, ring.capacity)
    read = view.read(ring.write(packet))
    assert type(read) is type(packet)
    assert read.stamp == packet.stamp
    names = ("image",) if isinstance(packet, Frame) else ("t", "x", "y", "p")
    for name in names:
        was, now = getattr(packet, name), getattr(read, name)
        np.testing.assert_array_equal(was, now)
        assert was.dtype == now.dtype
        assert not now.flags.writeable
    if isinstance(packet, Frame):
        assert read.gaze == packet.gaze
    ring.close()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9_000), min_size=1, max_size=60),
    lag=st.integers(0, 30),
)
def test_what_is_read_late_is_as_it_was_written_or_nothing(sizes: list[int], lag: int) -> None:
    ring = Ring(32_768)
    views = {0: RingView(ring.fd, ring.capacity)}
    written = []
    for number, size in enumerate(sizes):
        values = np.full(size, number % 251, np.uint8)
        written.append((ring.write(values), values))
        if ring.number not in views:
            views[ring.number] = RingView(ring.fd, ring.capacity)
        if number >= lag:
            block, wanted = written[number - lag]
            read = views[block.ring].read(block)
            if lag < 1:  # the newest is always there
                assert read is not None
            if read is not None:
                np.testing.assert_array_equal(read, wanted)
    ring.close()


def test_what_was_overwritten_is_nothing() -> None:
    ring = Ring(65_536)
    view = RingView(ring.fd, ring.capacity)
    blocks = [ring.write(np.full(10_000, k, np.uint8)) for k in range(20)]
    found = [view.read(block) for block in blocks]
    assert all(each is None for each in found[:14])
    assert found[-1] is not None
    assert found[-1][0] == 19
    ring.close()


def test_it_grows_for_a_packet_that_is_too_large_and_old_views_stay_readable() -> None:
    ring = Ring(65_536)
    old = RingView(ring.fd, ring.capacity)
    small = ring.write(b"small")
    large = ring.write(frame(1000, 1000))
    assert large.ring == ring.number == small.ring + 1
    assert ring.capacity >= 8_000_000
    assert old.read(small) == b"small"
    read = RingView(ring.fd, ring.capacity).read(large)
    np.testing.assert_array_equal(read.image, frame(1000, 1000).image)
    ring.close()


def test_nothing_is_left_behind_and_nothing_has_a_name() -> None:
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    opened = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        ring = Ring(MIN_BYTES)
        view = RingView(ring.fd, ring.capacity)
        assert view.read(ring.write(frame(100, 100))) is not None
        ring.close()
    del ring, view
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= opened + 1
    if before:
        assert not {name for name in set(os.listdir("/dev/shm")) - before if "edgeperc" in name}
