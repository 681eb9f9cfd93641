from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeperc.config import Input
from edgeperc.errors import ModelError
from edgeperc.packet import Events, Stamp
from edgeperc.represent import (
    RECIPES,
    Ddd17Voxels,
    DsecVoxels,
    VoxelGrid,
    event_count,
    time_surface,
    voxel_grid,
)

DATA = Path(__file__).parents[1] / "../shared/data"
GOLDEN = DATA / "golden/sltnet_ddd17_davis346.npz"


def make_events(t, x, y, p, *, width_px: int, height_px: int) -> Events:
    return Events(
        stamp=Stamp(source="test", seq=0, start_ns=0, end_ns=0),
        t=np.asarray(t, np.int64),
        x=np.asarray(x, np.uint16),
        y=np.asarray(y, np.uint16),
        p=np.asarray(p, np.bool_),
        width_px=width_px,
        height_px=height_px,
    )


@st.composite
def packets(draw, *, width_px: int = 9, height_px: int = 7, outside: int = 0) -> Events:
    """Any packet, from none to some hundred events; `outside` px beyond the sensor are allowed."""
    count = draw(st.integers(0, 300))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    start_us = draw(st.sampled_from([0, 10**15]))
    span_us = draw(st.sampled_from([1, 4, 1000, 10**6]))
    return make_events(
        start_us + np.sort(rng.integers(0, span_us, count)),
        rng.integers(0, width_px + outside, count),
        rng.integers(0, height_px + outside, count),
        rng.random(count) < draw(st.sampled_from([0.0, 0.5, 1.0])),
        width_px=width_px,
        height_px=height_px,
    )


def reference_voxels(events: Events, bins: int) -> NDArray[np.float64]:
    grid = np.zeros((bins, events.height_px, events.width_px))
    if len(events):
        span_us = max(int(events.t[-1] - events.t[0]), 1)
        place = (bins - 1) * (events.t - events.t[0]) / span_us
        lower = place.astype(int)
        sign = np.where(events.p, 1.0, -1.0)
        on_sensor = (events.x < events.width_px) & (events.y < events.height_px)
        for bin_, share in ((lower, 1 - (place - lower)), (lower + 1, place - lower)):
            ok = on_sensor & (bin_ < bins)
            np.add.at(grid, (bin_[ok], events.y[ok], events.x[ok]), (sign * share)[ok])
    return grid


def reference_trilinear(events: Events, rectified, shape: tuple[int, int, int]) -> NDArray:
    """The published DSEC voxeliser, event by event, with its truncation towards zero."""
    grid = np.zeros(shape)
    span_us = max(int(events.t[-1] - events.t[0]), 1)
    for t, x, y, p in zip(events.t, events.x, events.y, events.p, strict=True):
        place = (float(rectified[y, x, 0]), float(rectified[y, x, 1]))
        moment = (shape[0] - 1) * float(t - events.t[0]) / span_us
        for b in (int(moment), int(moment) + 1):
            for row in (int(place[1]), int(place[1]) + 1):
                for column in (int(place[0]), int(place[0]) + 1):
                    if 0 <= b < shape[0] and 0 <= row < shape[1] and 0 <= column < shape[2]:
                        share = (1 - abs(b - moment)) * (1 - abs(row - place[1]))
                        share *= 1 - abs(column - place[0])
                        grid[b, row, column] += share if p else -share
    return grid


def spec(represent: str, *, width_px: int = 346, height_px: int = 260, bins: int = 5) -> Input:
    return Input(
        kind="events", represent=represent, width_px=width_px, height_px=height_px, bins=bins
    )


def normalised(grid: NDArray, ddof: int) -> NDArray:
    nonzero = grid[grid != 0]
    if nonzero.size <= ddof:
        return grid
    std = nonzero.std(ddof=ddof)
    shifted = (grid - nonzero.mean()) / (std if std > 1e-6 * abs(nonzero.mean()) else 1.0)
    return np.where(grid != 0, shifted, 0)


# --- kernels ---------------------------------------------------------------------------------


@given(packets(outside=3), st.integers(1, 9))
@settings(deadline=None)
def test_voxel_grid_is_the_plain_one(events: Events, bins: int) -> None:
    np.testing.assert_allclose(
        voxel_grid(events, bins=bins), reference_voxels(events, bins), atol=2e-5
    )


@given(packets(), st.integers(1, 9))
@settings(deadline=None)
def test_sum_of_voxel_grid_is_sum_of_polarity(events: Events, bins: int) -> None:
    polarity = np.where(events.p, 1.0, -1.0).sum()
    assert voxel_grid(events, bins=bins).sum(dtype=np.float64) == pytest.approx(polarity, abs=1e-4)


@given(packets(outside=3))
@settings(deadline=None)
def test_event_count_is_a_histogram(events: Events) -> None:
    expected = np.zeros((events.height_px, events.width_px), np.int64)
    ok = (events.x < events.width_px) & (events.y < events.height_px)
    np.add.at(expected, (events.y[ok], events.x[ok]), 1)
    np.testing.assert_array_equal(event_count(events), expected)


def test_event_count_stops_at_its_maximum() -> None:
    many = np.zeros(70_000, np.int64)
    assert event_count(make_events(many, many, many, many, width_px=1, height_px=1)) == 65_535


@given(packets(outside=3), st.sampled_from([1.0, 500.0, 1e6]))
@settings(deadline=None)
def test_time_surface_fades_the_latest_event(events: Events, tau_us: float) -> None:
    expected = np.zeros((events.height_px, events.width_px))
    for t, x, y in zip(events.t, events.x, events.y, strict=True):
        if x < events.width_px and y < events.height_px:
            expected[y, x] = np.exp((t - events.t[-1]) / tau_us)
    np.testing.assert_allclose(time_surface(events, tau_us=tau_us), expected, atol=1e-6)


@pytest.mark.parametrize("kernel", [
    lambda events, out=None: voxel_grid(events, bins=5, out=out),
    lambda events, out=None: event_count(events, out=out),
    lambda events, out=None: time_surface(events, tau_us=100.0, out=out),
])  # fmt: skip
@given(events=packets())
@settings(deadline=None, max_examples=20)
def test_out_is_filled_whatever_it_held_and_input_is_kept(kernel, events: Events) -> None:
    fresh = kernel(events)
    before = [column.copy() for column in (events.t, events.x, events.y, events.p)]
    out = np.full_like(fresh, 77)
    assert kernel(events, out) is out
    np.testing.assert_array_equal(out, fresh)
    for column, kept in zip((events.t, events.x, events.y, events.p), before, strict=True):
        np.testing.assert_array_equal(column, kept)
    with pytest.raises(ValueError, match="out is"):
        kernel(events, np.zeros((1, 1), np.float64))


def test_strided_columns_are_read_as_they_are() -> None:
    """Drivers may hand out fields of a packed array."""
    packed = np.zeros(5, [("t", "i8"), ("x", "u2"), ("y", "u2"), ("p", "?")])
    packed["t"], packed["x"], packed["y"], packed["p"] = range(5), range(5), 1, True
    strided = make_events(
        packed["t"], packed["x"], packed["y"], packed["p"], width_px=9, height_px=7
    )
    plain = make_events(range(5), range(5), [1] * 5, [True] * 5, width_px=9, height_px=7)
    np.testing.assert_array_equal(voxel_grid(strided, bins=3), voxel_grid(plain, bins=3))


# --- recipes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(RECIPES))
@pytest.mark.parametrize("count", [0, 1, 2, 50])
@pytest.mark.parametrize("span_us", [0, 1, 3, 1000])
def test_degenerate_packets_give_finite_input(name: str, count: int, span_us: int) -> None:
    recipe = RECIPES[name](346, 260, spec(name))
    t = np.sort(np.linspace(0, span_us, count).astype(int))
    events = make_events(t, [5] * count, [4] * count, [True] * count, width_px=346, height_px=260)
    tensor = recipe(events)
    assert tensor.shape == recipe.shape
    assert tensor.dtype == np.float32
    assert np.isfinite(tensor).all()
    if count == 0:
        assert not tensor.any()


@given(packets(width_px=346, height_px=260))
@settings(deadline=None, max_examples=25)
def test_ddd17_follows_the_published_steps(events: Events) -> None:
    torch = pytest.importorskip("torch")
    grid = normalised(reference_voxels(events, 5).astype(np.float32), ddof=0)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(grid.astype(np.float32))[None], (260, 352),
        mode="bilinear", align_corners=True,
    )  # fmt: skip
    recipe = Ddd17Voxels(346, 260, spec("sltnet-ddd17"))
    np.testing.assert_allclose(recipe(events), resized[0, :, :200].numpy(), atol=1e-3, rtol=1e-4)


@pytest.mark.skipif(not GOLDEN.exists(), reason="../shared/data is not here")
def test_ddd17_agrees_with_the_published_code_on_a_recording() -> None:
    """Tolerance 1e-4, the issue's; float32 sums in another order."""
    aedat = pytest.importorskip("aedat")
    decoder = aedat.Decoder(str(DATA / "events/davis346.aedat4"))
    all_events = np.concatenate([packet["events"] for packet in decoder if "events" in packet])
    golden = np.load(GOLDEN)
    recipe = Ddd17Voxels(346, 260, spec("sltnet-ddd17"))
    for start_us, end_us, voxel in zip(
        golden["t_start_us"], golden["t_end_us"], golden["voxel"], strict=True
    ):
        window = all_events[(all_events["t"] >= start_us) & (all_events["t"] < end_us)]
        events = make_events(
            window["t"].astype(np.int64), window["x"], window["y"], window["on"],
            width_px=346, height_px=260,
        )  # fmt: skip
        np.testing.assert_allclose(recipe(events), voxel, atol=1e-4)


@given(packets(width_px=12, height_px=10), st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_dsec_spreads_over_rectified_pixels(events: Events, seed: int) -> None:
    if len(events) == 0:
        return
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:10, :12]
    rectified = np.stack([x, y], -1) + rng.uniform(-1.5, 1.5, (10, 12, 2))
    rectified = rectified.astype(np.float32)
    grid = np.zeros((5, 10, 12), np.float32)
    recipe = DsecVoxels(12, 10, spec("sltnet-dsec"), rectify_map=rectified)
    recipe._fill(events, grid)
    np.testing.assert_allclose(grid, reference_trilinear(events, rectified, grid.shape), atol=1e-4)


@given(packets(width_px=640, height_px=480))
@settings(deadline=None, max_examples=15)
def test_dsec_normalises_by_the_unbiased_deviation_and_cuts(events: Events) -> None:
    recipe = DsecVoxels(640, 480, spec("sltnet-dsec", width_px=640, height_px=480))
    expected = normalised(reference_voxels(events, 5).astype(np.float32), ddof=1)
    np.testing.assert_allclose(recipe(events), expected[:, :440], atol=1e-3, rtol=1e-4)


def test_identity_rectification_changes_nothing() -> None:
    y, x = np.mgrid[:480, :640].astype(np.float32)
    rng = np.random.default_rng(0)
    events = make_events(
        np.sort(rng.integers(0, 1000, 500)), rng.integers(0, 640, 500), rng.integers(0, 480, 500),
        rng.random(500) < 0.5, width_px=640, height_px=480,
    )  # fmt: skip
    card = spec("sltnet-dsec", width_px=640, height_px=480)
    straight = DsecVoxels(640, 480, card)
    mapped = DsecVoxels(640, 480, card, rectify_map=np.stack([x, y], -1))
    np.testing.assert_allclose(mapped(events), straight(events), atol=1e-5)
    labels = rng.integers(0, 11, (440, 640), dtype=np.uint8)
    np.testing.assert_array_equal(
        mapped.labels_to_sensor(labels), straight.labels_to_sensor(labels)
    )
    with pytest.raises(ModelError, match="rectify_map has shape"):
        DsecVoxels(640, 480, card, rectify_map=np.zeros((1, 1, 2), np.float32))


@given(packets(width_px=20, height_px=11))
@settings(deadline=None, max_examples=25)
def test_voxel_grid_recipe_pads_right_and_below(events: Events) -> None:
    recipe = VoxelGrid(20, 11, spec("voxel-grid", width_px=20, height_px=11))
    tensor = recipe(events)
    assert tensor.shape == (5, 16, 24)
    assert not tensor[:, 11:].any()
    assert not tensor[:, :, 20:].any()
    expected = normalised(reference_voxels(events, 5).astype(np.float32), ddof=0)
    np.testing.assert_allclose(tensor[:, :11, :20], expected, atol=1e-3, rtol=1e-4)
    labels = np.arange(16 * 24, dtype=np.int64).reshape(16, 24).astype(np.uint8)
    np.testing.assert_array_equal(recipe.labels_to_sensor(labels), labels[:11, :20])


def test_the_input_is_read_only_and_repeatable() -> None:
    recipe = VoxelGrid(20, 11, spec("voxel-grid", width_px=20, height_px=11))
    one = make_events([0, 9], [3, 4], [2, 1], [True, False], width_px=20, height_px=11)
    other = make_events([0, 5], [7, 7], [7, 7], [True, True], width_px=20, height_px=11)
    first = recipe(one).copy()
    recipe(other)
    tensor = recipe(one)
    np.testing.assert_array_equal(tensor, first)
    with pytest.raises(ValueError, match="read-only"):
        tensor[0] = 1


def test_labels_come_back_to_the_sensor_pixel_they_stand_for() -> None:
    """Corners meet corners; rows that the network did not see are unknown."""
    recipe = Ddd17Voxels(346, 260, spec("sltnet-ddd17"))
    column_label = np.tile((np.arange(352) // 2).astype(np.uint8), (200, 1))
    labels = recipe.labels_to_sensor(column_label)
    assert labels.shape == (260, 346)
    assert (labels[200:] == 255).all()
    np.testing.assert_array_equal(labels[0], np.rint(np.arange(346) * 351 / 345).astype(int) // 2)


def test_another_sensor_is_resized_to_the_canvas() -> None:
    recipe = Ddd17Voxels(640, 480, spec("sltnet-ddd17"))
    assert recipe.shape == (5, 200, 352)
    labels = recipe.labels_to_sensor(np.zeros((200, 352), np.uint8))
    assert labels.shape == (480, 640)
    assert (labels[: int(199 * 479 / 259)] == 0).all()
    assert (labels[-100:] == 255).all()
    with pytest.raises(ModelError, match="346 × 260 px sensor reached a recipe for 640 × 480"):
        recipe(make_events([], [], [], [], width_px=346, height_px=260))
