from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeperc import places, plugin
from edgeperc.clock import ReplayClock
from edgeperc.drivers.twin import Twin
from edgeperc.errors import ConfigError
from edgeperc.packet import Events, Frame, Packet, Stamp
from edgeperc.twin.avenue import Avenue
from edgeperc.twin.drive import Drive, samples
from edgeperc.twin.event_sensor import DARK, EventSensor, Pixel
from edgeperc.twin.render import Painter
from edgeperc.twin.rig import DVS_X_M, upright
from edgeperc.twin.scene import CLASSES, FLAT, HUMAN, QUAD, VEHICLE, Camera, Pose, Scene
from edgeperc.twin.stock import stock
from edgeperc.twin.street import Street
from edgeperc.twin.views import UprightView
from edgeperc.validate import Validator

CAMERA = Camera(width_px=346, height_px=260, focal_px=300.0)
SMALL = Camera(width_px=96, height_px=72, focal_px=83.0)
IDEAL = Pixel(mismatch=0.0, leak_rate_hz=0.0, shot_rate_hz=0.0)


def twin(**options: object) -> Twin:
    defaults = {"name": "dvs", "clock": ReplayClock(None), "width_px": 96, "height_px": 72}
    return Twin(**{**defaults, "focal_px": 83.0, "duration_s": 0.2, **options})  # type: ignore[arg-type]


def same(a: Packet, b: Packet) -> bool:
    if isinstance(a, Frame) or isinstance(b, Frame):
        return a.stamp == b.stamp and np.array_equal(a.image, b.image)  # type: ignore[union-attr]
    columns = zip((a.t, a.x, a.y, a.p), (b.t, b.x, b.y, b.p), strict=True)
    return a.stamp == b.stamp and all(np.array_equal(u, v) for u, v in columns)


# The sensor, as the pipeline sees it.


def test_packets_follow_each_other_on_one_clock_from_zero() -> None:
    packets = list(twin(frame_rate_hz=30.0, duration_s=0.5).packets())
    events = [p for p in packets if isinstance(p, Events)]
    frames = [p for p in packets if isinstance(p, Frame)]

    assert len(frames) == 15
    assert events[0].stamp.start_ns == 0
    for before, after in pairwise(events):
        assert before.stamp.end_ns == after.stamp.start_ns
        assert after.stamp.seq == before.stamp.seq + 1
    for packet in events:
        assert packet.stamp.end_ns - packet.stamp.start_ns <= 10_000_000
        assert len(packet) > 0
        assert np.all(np.diff(packet.t) >= 0)
        assert packet.t[0] * 1000 >= packet.stamp.start_ns
        assert packet.t[-1] * 1000 < packet.stamp.end_ns
        assert packet.x.max() < packet.width_px
        assert packet.y.max() < packet.height_px
    ends = [p.stamp.end_ns for p in packets]
    assert ends == sorted(ends)
    assert [f.stamp.seq for f in frames] == list(range(15))


def test_the_validator_finds_nothing_wrong() -> None:
    validator = Validator(policy="raise", max_gap_us=100_000)
    passed = list(validator.stream(twin().packets()))
    assert passed


def test_the_same_seed_gives_the_same_packets_at_any_speed() -> None:
    fast = list(twin(seed=5).packets())
    paced = list(twin(seed=5, clock=ReplayClock(20.0)).packets())
    assert len(fast) == len(paced)
    assert all(same(a, b) for a, b in zip(fast, paced, strict=True))


def test_another_seed_is_another_street() -> None:
    a, b = (list(twin(seed=seed).packets())[-1] for seed in (1, 2))
    assert isinstance(a, Frame)
    assert isinstance(b, Frame)
    assert not np.array_equal(a.image, b.image)


@pytest.mark.parametrize("stop", ["close", "clock"])
def test_it_ends_when_it_is_told_to(stop: str) -> None:
    clock = ReplayClock(1.0)
    sensor = twin(clock=clock, duration_s=None)
    packets = sensor.packets()
    next(packets)
    threading.Timer(0.05, sensor.close if stop == "close" else clock.stop).start()
    for _ in packets:
        pass
    sensor.close()


def test_the_bundled_rig_opens(tmp_path: Path) -> None:
    rig, path = places.find_rig("twin")
    name, table = next(iter(rig.sensors.items()))
    injected = {"name": name, "clock": ReplayClock(None)}
    make = plugin.prepare(
        table, kind="driver", where=str(path), folder=path.parent, injected=injected
    )
    assert len(list(islice(make().packets(), 5))) == 5
    with pytest.raises(ConfigError, match="frame_rate_hz"):
        plugin.prepare(
            {"driver": "twin", "frame_rate_hz": -1.0},
            kind="driver",
            where="rig.toml [sensors.dvs]",
            folder=tmp_path,
            injected=injected,
        )


# The event pixel.


def picture(value: float, shape: tuple[int, int] = (4, 6)) -> NDArray[np.float32]:
    return np.full(shape, value, np.float32)


def stamp(start_us: int, end_us: int) -> Stamp:
    return Stamp(source="dvs", seq=0, start_ns=start_us * 1000, end_ns=end_us * 1000)


def by_pixel(events: Events) -> Iterator[NDArray[np.intp]]:
    place = events.y.astype(int) * events.width_px + events.x
    return (np.flatnonzero(place == k) for k in range(events.width_px * events.height_px))


@given(
    before=st.floats(0.02, 1.0),
    after=st.floats(0.02, 1.0),
    threshold=st.floats(0.1, 0.8),
    duration_us=st.integers(3_000, 60_000),
)
@settings(deadline=None, max_examples=60)
def test_a_pixel_fires_once_a_threshold(
    before: float, after: float, threshold: float, duration_us: int
) -> None:
    pixel = Pixel(
        threshold=threshold, mismatch=0.0, leak_rate_hz=0.0, shot_rate_hz=0.0, refractory_us=50.0
    )
    sensor = EventSensor(pixel, np.random.default_rng(0), picture(before))
    events = sensor.step(picture(after), stamp(0, duration_us))

    change = math.log((after + DARK) / (before + DARK))
    blind = abs(change) / duration_us * 50 / threshold  # share of the way lost to refractory time
    most = abs(change) / threshold + 1
    assert np.all(events.p == (change > 0))
    for fired in by_pixel(events):
        assert len(fired) <= most
        assert len(fired) >= (abs(change) / threshold - 1) / (1 + blind) - 1


@given(refractory_us=st.integers(50, 5_000), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_a_pixel_is_blind_for_the_refractory_time(refractory_us: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixel = Pixel(refractory_us=float(refractory_us), leak_rate_hz=0.0, shot_rate_hz=0.0)
    sensor = EventSensor(pixel, rng, picture(0.5))
    parts = [
        sensor.step(
            rng.uniform(0.01, 1, (4, 6)).astype(np.float32), stamp(k * 7000, k * 7000 + 7000)
        )
        for k in range(4)
    ]
    t = np.concatenate([part.t for part in parts])
    place = np.concatenate([part.y.astype(int) * 6 + part.x for part in parts])
    assert len(t) > 0
    for k in range(24):
        assert np.all(np.diff(t[place == k]) >= refractory_us - 1)  # times are whole µs


@given(seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_times_do_not_depend_on_where_steps_are_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start, end = rng.uniform(0.02, 1, (2, 4, 6)).astype(np.float32)
    half = np.sqrt((start + DARK) * (end + DARK)) - np.float32(DARK)
    whole = EventSensor(IDEAL, np.random.default_rng(1), start).step(end, stamp(0, 8000))
    cut = EventSensor(IDEAL, np.random.default_rng(1), start)
    parts = [cut.step(half, stamp(0, 4000)), cut.step(end, stamp(4000, 8000))]

    assert sum(map(len, parts)) == len(whole)
    t = np.concatenate([part.t for part in parts])
    assert np.max(np.abs(np.sort(t) - np.sort(whole.t)), initial=0) <= 1


def test_a_still_picture_is_silent_but_for_noise() -> None:
    still = picture(0.3, (50, 50))

    def count(**noise: float) -> Events:
        pixel = Pixel(**{"mismatch": 0.0, "leak_rate_hz": 0.0, "shot_rate_hz": 0.0, **noise})
        sensor = EventSensor(pixel, np.random.default_rng(3), still)
        steps = [sensor.step(still, stamp(k * 50_000, (k + 1) * 50_000)) for k in range(40)]
        return max(steps, key=len) if not noise else _joined(steps)

    assert len(count()) == 0
    shots = count(shot_rate_hz=2.0)  # expects 50 * 50 * 2 s * 2 Hz = 10,000
    assert abs(len(shots) - 10_000) < 500
    assert 0.45 < shots.p.mean() < 0.55
    leaks = count(leak_rate_hz=2.0)  # one event less in every second pixel: the first has to come
    assert leaks.p.all()
    assert abs(len(leaks) - 8_750) < 200
    assert len(np.unique(leaks.t)) > 8_000  # spread over time, not in bursts


def _joined(parts: list[Events]) -> Events:
    columns = (np.concatenate([getattr(part, name) for part in parts]) for name in "txyp")
    t, x, y, p = columns
    return Events(
        stamp=parts[0].stamp, t=t, x=x, y=y, p=p, width_px=parts[0].width_px, height_px=50
    )


def test_a_step_of_no_time_or_too_long_is_refused() -> None:
    sensor = EventSensor(IDEAL, np.random.default_rng(0), picture(0.5))
    for end_us in (0, 70_000):
        with pytest.raises(ValueError, match="step"):
            sensor.step(picture(0.5), stamp(0, end_us))


# The painter.


def scene_of(quads: list[tuple[object, ...]], yaw: float = 0.0) -> Scene:
    blank = Street(0).scene(0.0)
    return Scene(
        pose=Pose(x=0.0, y=1.5, z=0.0, yaw=yaw, pitch=0.0),
        ground=blank.ground,
        quads=np.array(quads, QUAD),
        haze_m=1e6,
        sky=0.9,
    )


def board(x: float, z: float, width: float, height: float, kind: int) -> tuple[object, ...]:
    half = width / 2
    return (x - half, z, x + half, z, 0.0, height, 0, 1, 1, 1.0, stock().lamp, kind, 2)


@given(x=st.floats(-2, 2), z=st.floats(4, 30), width=st.floats(0.5, 2), height=st.floats(0.5, 3))
@settings(deadline=None, max_examples=40)
def test_a_board_is_where_a_pinhole_puts_it(
    x: float, z: float, width: float, height: float
) -> None:
    painter = Painter(CAMERA, stock().atlas, stock().noise)
    painter.paint(scene_of([board(x, z, width, height, HUMAN)]))
    rows, columns = np.nonzero(painter.labels() == HUMAN)

    left, right = (172.5 + 300 * (x + side * width / 2) / z for side in (-1, 1))
    top, bottom = (129.5 - 300 * (y - 1.5) / z for y in (height, 0.0))
    left, right = (min(max(edge, -0.5), 345.5) for edge in (left, right))
    top, bottom = (min(max(edge, -0.5), 259.5) for edge in (top, bottom))
    if right - left < 2 or bottom - top < 2:
        return
    assert abs(columns.min() - left) <= 1
    assert abs(columns.max() - right) <= 1
    assert abs(rows.min() - top) <= 1
    assert abs(rows.max() - bottom) <= 1


def test_the_nearer_hides_the_farther_in_any_order() -> None:
    far, near = board(0, 20, 8, 4, VEHICLE), board(0, 10, 1, 2, HUMAN)
    pictures = []
    for quads in ([far, near], [near, far]):
        painter = Painter(CAMERA, stock().atlas, stock().noise)
        pictures.append((painter.paint(scene_of(quads)), painter.labels()))
    (light, labels), (other_light, other_labels) = pictures
    assert np.array_equal(light, other_light)
    assert np.array_equal(labels, other_labels)
    assert labels[140, 172] == HUMAN
    assert labels[140, 140] == VEHICLE
    assert labels[255, 172] == FLAT


# The street.


def test_a_moment_does_not_depend_on_what_was_asked_before() -> None:
    wandering, straight = Street(7), Street(7)
    for time_s in (0.0, 30.0, 3.0):
        wandering.scene(time_s)
    a, b = wandering.scene(12.5), straight.scene(12.5)
    assert np.array_equal(a.quads, b.quads)
    assert a.pose == b.pose


def test_streets_show_all_classes_where_they_belong() -> None:
    counts = np.zeros(len(CLASSES), int)
    for seed in range(4):
        for sample in samples(seed, count=4, camera=CAMERA):
            labels = sample.labels
            assert labels.shape == (260, 346)
            counts += np.bincount(labels.ravel(), minlength=len(CLASSES))
            assert (labels[-20:] == FLAT).mean() > 0.5  # the road is below
            assert (labels[:20] == FLAT).mean() == 0  # and never above
    shares = counts / counts.sum()
    assert np.all(shares > 0.001)
    assert shares[:2].min() > 0.25


def test_nobody_is_run_over() -> None:
    """No person or vehicle stands in the camera's path within three metres."""
    for seed in range(5):
        street = Street(seed)
        for time_s in np.arange(0, 20, 0.25):
            scene = street.scene(time_s)
            moving = scene.quads[np.isin(scene.quads["kind"], (HUMAN, VEHICLE))]
            ahead = moving["z0"] - scene.pose.z
            x = (moving["x0"] + moving["x1"]) / 2 - scene.pose.x
            assert not np.any((ahead > 0) & (ahead < 3) & (np.abs(x) < 0.7))


def test_a_sample_is_the_same_alone_and_in_a_row() -> None:
    row = list(samples(3, count=3, camera=SMALL))
    (alone,) = samples(3, count=1, first=2, camera=SMALL)
    assert same(row[2].events, alone.events)
    assert np.array_equal(row[2].labels, alone.labels)


def test_labels_and_frame_are_of_the_window_s_end() -> None:
    (sample,) = samples(3, count=1, camera=SMALL)
    end_us = sample.events.stamp.end_ns // 1000
    there = Drive(3, camera=SMALL, pixel=IDEAL, start_us=end_us)
    assert np.array_equal(sample.labels, there.labels())
    assert np.array_equal(sample.frame.image, there.frame().image)


def test_events_mark_what_moves_across_the_picture() -> None:
    """Where brightness changed most between two pictures, most events are."""
    drive = Drive(2, camera=CAMERA, pixel=IDEAL)
    before = np.log(drive.frame().image.astype(float) + 5)
    events = [drive.step(10_000 * (k + 1)) for k in range(5)]
    change = np.abs(np.log(drive.frame().image.astype(float) + 5) - before)
    counts = np.zeros(change.shape)
    for packet in events:
        np.add.at(counts, (packet.y, packet.x), 1)
    strong = change > np.quantile(change, 0.98)
    assert counts[strong].mean() > 5 * counts[~strong].mean()


# The avenue.


def test_events_of_the_avenue_are_where_its_movers_are() -> None:
    avenue = Avenue(4)
    lens = upright(346, 260, 300.0, x=DVS_X_M)
    drive = Drive(4, camera=CAMERA, pixel=IDEAL, world="avenue", start_us=1_000_000)
    near, total = 0, 0
    for k in range(8):
        events = drive.step(1_000_000 + 10_000 * (k + 1))
        truth = UprightView(avenue, lens).truth(drive.time_us * 1e-6)
        inside = np.zeros(len(events), np.bool_)
        for x0, y0, x1, y1 in truth.boxes:
            columns = (events.x > x0 - 4) & (events.x < x1 + 4)
            inside |= columns & (events.y > y0 - 3) & (events.y < y1 + 3)
        near, total = near + int(inside.sum()), total + len(events)
    assert total > 100
    assert near > 0.98 * total


def test_the_avenue_has_the_classes_of_the_event_networks() -> None:
    drive = Drive(4, camera=CAMERA, pixel=IDEAL, world="avenue", start_us=1_500_000)
    labels = drive.labels()
    drive.step(1_550_000)
    assert not np.array_equal(labels, drive.labels())  # of the present time
    assert labels.shape == drive.frame().image.shape
    shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    assert np.all(shares > 0)
    assert shares[FLAT] > 0.05
    assert shares[CLASSES.index("background")] > 0.3


def test_the_same_seed_gives_the_same_avenue_at_any_speed() -> None:
    fast = list(twin(seed=5, world="avenue").packets())
    paced = list(twin(seed=5, world="avenue", clock=ReplayClock(20.0)).packets())
    street = list(twin(seed=5).packets())
    assert all(same(a, b) for a, b in zip(fast, paced, strict=True))
    assert not same(fast[-1], street[-1])


def test_another_world_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="world"):
        plugin.prepare(
            {"driver": "twin", "world": "moon"},
            kind="driver",
            where="rig.toml [sensors.dvs]",
            folder=tmp_path,
            injected={"name": "dvs", "clock": ReplayClock(None)},
        )
