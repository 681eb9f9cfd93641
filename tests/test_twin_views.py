from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeperc.packet import Gaze
from edgeperc.twin.avenue import KINDS, PERSON, VEHICLE, Avenue
from edgeperc.twin.plots import BEHIND_ALL, BUILDING, REGIONS
from edgeperc.twin.rig import Mount, upright
from edgeperc.twin.truth import Truth
from edgeperc.twin.views import SearchView, UprightView

SEED = 4
WIDE_FOCAL_PX = 480 / math.tan(math.radians(30))
SEARCH_PX_RAD = math.radians(2.81) / 224
EYE_M = 25.0
DOWN_RAD = math.atan(448 / 6 / WIDE_FOCAL_PX)

finite = st.floats(-0.5, 0.5)


@pytest.fixture(scope="module")
def wide() -> UprightView:
    return UprightView(Avenue(SEED))


@pytest.fixture(scope="module")
def search() -> SearchView:
    return SearchView(Avenue(SEED))


def gaze_of(truth: Truth, row: int) -> Gaze:
    pan_rad, tilt_rad = truth.gaze_rad[row].tolist()
    return Gaze(pan_rad=pan_rad, tilt_rad=tilt_rad)


def box_of(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)


def staged(view: Any, rank: int, movers: Callable[[float], NDArray[Any]]) -> Any:
    """The view with other movers, behind one wall that is farther than `rank` tracks."""

    class Stage(Avenue):
        def movers(self, time_s: float) -> NDArray[Any]:
            return movers(time_s)

    copy = object.__new__(type(view))
    copy.__dict__.update(view.__dict__)
    copy.avenue = Stage(SEED)
    copy._backdrop = replace(
        view._backdrop, codes=np.full_like(view._backdrop.codes, 8 * rank + BUILDING)
    )
    return copy


def alone(view: Any, identity: int) -> Any:
    """The view with one mover and nothing that could hide it."""

    def one(time_s: float) -> NDArray[Any]:
        everybody = view.avenue.movers(time_s)
        return everybody[everybody["identity"] == identity]

    return staged(view, BEHIND_ALL, one)


def settled(inside_px: float, size: tuple[int, int], box: NDArray[np.float32]) -> bool:
    """Whether a box keeps clear of the picture's edges."""
    return bool(np.all(box[:2] > inside_px) and np.all(box[2:] < np.array(size) - inside_px))


# The mirror's geometry.


@given(pan=finite, tilt=st.floats(-0.25, 0.25), seed=st.integers(0, 50))
def test_gazes_and_directions_are_inverse(pan: float, tilt: float, seed: int) -> None:
    mount, gaze = Mount.drawn(seed), np.array([pan, tilt])
    assert np.allclose(mount.gaze_to(mount.direction(gaze)), gaze, atol=1e-9)


def test_a_mount_is_nearly_but_not_quite_straight() -> None:
    """Scale, bend, turn and offset of both axes are each worth finding, and none is gross."""

    def error_px(mount: Mount, pan_deg: float, tilt_deg: float) -> NDArray[np.float64]:
        gaze = np.radians([pan_deg, tilt_deg])
        return (mount.direction(gaze) - gaze + [0, DOWN_RAD]) / SEARCH_PX_RAD

    mount = Mount()
    middle, pan, tilt = (error_px(mount, *gaze) for gaze in ((0, 0), (28, 0), (0, 14)))
    assert np.abs(middle).min() > 10
    assert abs(pan - middle)[0] > 10
    assert abs(tilt - middle)[1] > 5
    assert min(abs(pan - middle)[1], abs(tilt - middle)[0]) > 10
    bend_pan = pan - middle - 2 * (error_px(mount, 14, 0) - middle)
    bend_tilt = tilt - middle - 2 * (error_px(mount, 0, 7) - middle)
    assert abs(bend_pan[0]) > 3
    assert abs(bend_tilt[1]) > 1
    for seed in range(20):
        for gaze in ((0, 0), (28, 14), (-28, 14), (28, -14)):
            assert np.abs(error_px(Mount.drawn(seed), *gaze)).max() < 300
    assert Mount.drawn(1) != Mount.drawn(2)


# What is where.


@pytest.mark.parametrize("time_s", [0.0, 31.7])
def test_things_are_where_pinhole_and_mirror_put_them(
    wide: UprightView, search: SearchView, time_s: float
) -> None:
    """Written out once more, for the middle of the feet, without the painter's own functions."""
    sprites = wide.avenue.movers(time_s)
    truth = wide.truth(time_s)
    for row, identity in enumerate(truth.identities):
        (sprite,) = sprites[sprites["identity"] == identity]
        x, z = (sprite["x0"] + sprite["x1"]) / 2, sprite["z"]
        column = 480 + WIDE_FOCAL_PX * x / z
        ground = 224 - 448 / 6 + WIDE_FOCAL_PX * EYE_M / z
        if settled(2, (960, 448), truth.boxes[row]):
            assert abs(truth.boxes[row, 3] - ground) < 0.5
            assert truth.boxes[row, 0] < column < truth.boxes[row, 2]
        gaze = gaze_of(truth, row)
        seen = search.truth(time_s, gaze)
        box = seen.boxes[seen.identities == identity][0]
        azimuth, elevation = search.mount.direction(truth.gaze_rad[row])
        x, height = x - search.mount.x_m, EYE_M + search.mount.y_m
        assert math.atan2(x, z) == pytest.approx(azimuth, abs=1e-7)
        if truth.class_ids[row] == VEHICLE and settled(1, (224, 224), box):  # as wide as its quad
            for edge_m, edge_px in ((sprite["x0"], box[0]), (sprite["x1"], box[2])):
                off_rad = math.atan2(edge_m - search.mount.x_m, z) - azimuth
                assert edge_px == pytest.approx(112 + off_rad / SEARCH_PX_RAD, abs=0.5)
        feet_rad = math.atan2(-height, math.hypot(x, z))
        feet_px = 112 + (elevation - feet_rad) / SEARCH_PX_RAD
        slope_px = (box[2] - box[0]) / 2 * abs(math.sin(azimuth)) * height / z
        assert feet_px - 1 < box[3] < feet_px + slope_px + 1


def test_a_gaze_at_a_thing_centres_it(wide: UprightView, search: SearchView) -> None:
    truth = wide.truth(12.0)
    for row in range(len(truth)):
        seen = search.truth(12.0, gaze_of(truth, row))
        box = seen.boxes[seen.identities == truth.identities[row]][0]
        if settled(1, (224, 224), box):
            tolerance_px = 0.12 * max(box[2] - box[0], box[3] - box[1])  # of outline and quad
            assert np.abs((box[:2] + box[2:]) / 2 - 112).max() < max(tolerance_px, 2)


def test_both_cameras_picture_the_same_scenery(wide: UprightView, search: SearchView) -> None:
    """A search picture shrunk to the wide camera's scale is found there, to a wide pixel."""
    picture = wide.image(3.0).astype(np.float32)
    found = 0
    for pan_deg in (-24.0, -11.0, 0.0, 13.0, 25.0):
        for tilt_deg in (-11.0, -6.0, -2.0, 1.5):
            gaze = Gaze(pan_rad=math.radians(pan_deg), tilt_rad=math.radians(tilt_deg))
            azimuth, elevation = search.mount.direction(np.array([gaze.pan_rad, gaze.tilt_rad]))
            column = 479.5 + WIDE_FOCAL_PX * math.tan(azimuth)
            row = 223.5 - 448 / 6 - WIDE_FOCAL_PX * math.tan(elevation) / math.cos(azimuth)
            rows, columns = (
                np.mgrid[-12:13, -12:13] + np.array([row, column]).round()[:, None, None]
            )
            x, y = (columns - 479.5) / WIDE_FOCAL_PX, (rows - 223.5 + 448 / 6) / WIDE_FOCAL_PX
            across = (np.arctan(x) - azimuth) / SEARCH_PX_RAD + 111.5
            down = (elevation + np.arctan(y / np.hypot(1, x))) / SEARCH_PX_RAD + 111.5
            looked = cv2.GaussianBlur(search.image(3.0, gaze).astype(np.float32), (0, 0), 2.0)
            patch = cv2.remap(
                looked, across.astype(np.float32), down.astype(np.float32), cv2.INTER_LINEAR
            )
            if patch.std() < 8:  # sky or a plain lawn
                continue
            left, top = round(column) - 18, round(row) - 18
            around = picture[top : top + 37, left : left + 37]
            match = cv2.matchTemplate(around, patch, cv2.TM_CCOEFF_NORMED)
            _, best, _, (shift_x, shift_y) = cv2.minMaxLoc(match)
            assert best > 0.8
            assert max(abs(shift_x - 6), abs(shift_y - 6)) <= 1
            found += 1
    assert found >= 8


# Boxes, masks and what is hidden.


def test_boxes_fit_the_painted_pixels(wide: UprightView, search: SearchView) -> None:
    checked = dict.fromkeys([(view, kind) for view in ("wide", "search") for kind in KINDS], 0)
    for time_s in (2.0, 40.0):
        truth = wide.truth(time_s)
        views: list[tuple[Any, tuple[Any, ...], tuple[int, int], float]]
        views = [(wide, (time_s,), (960, 448), 1.0)]
        for ask in range(len(truth)):
            views.append((search, (time_s, gaze_of(truth, ask)), (224, 224), 1.5))
        for view, asked, size, tolerance_px in views:
            ids, there = view.instances(*asked), view.truth(*asked)
            for row in np.flatnonzero(there.visible > 0.999):
                if not settled(2, size, there.boxes[row]):
                    continue
                painted = box_of(ids == there.identities[row])
                kind = KINDS[there.class_ids[row]]
                beyond = (painted - there.boxes[row]) * (-1, -1, 1, 1)
                assert beyond.max() <= tolerance_px
                if view is search or kind == "vehicle":  # else a limb is thinner than a pixel
                    assert beyond.min() >= -tolerance_px
                checked["wide" if view is wide else "search", kind] += 1
    assert min(checked.values()) >= 5


def test_visible_is_the_share_of_the_pixels_that_are_seen(
    wide: UprightView, search: SearchView
) -> None:
    partly = 0
    for time_s in (5.0, 25.0, 45.0):
        truth = wide.truth(time_s)
        for row, identity in enumerate(truth.identities):
            gaze = gaze_of(truth, row)
            whole = np.count_nonzero(alone(search, identity).instances(time_s, gaze) == identity)
            seen = np.count_nonzero(search.instances(time_s, gaze) == identity)
            there = search.truth(time_s, gaze)
            at = int(np.flatnonzero(there.identities == identity)[0])
            if not settled(1, (224, 224), there.boxes[at]):
                continue
            assert there.visible[at] == pytest.approx(seen / whole, abs=0.05)
            partly += 0.1 < there.visible[at] < 0.9
    assert partly >= 5


def test_what_the_edge_cuts_off_is_not_visible(wide: UprightView, search: SearchView) -> None:
    truth = wide.truth(5.0)
    row = int(np.argmax(truth.visible * (truth.class_ids == PERSON)))
    gaze, identity = gaze_of(truth, row), truth.identities[row]
    aside = replace(gaze, tilt_rad=gaze.tilt_rad + 112 * SEARCH_PX_RAD)
    whole, half = search.truth(5.0, gaze), search.truth(5.0, aside)
    (uncut,) = whole.visible[whole.identities == identity]
    (cut,) = half.visible[half.identities == identity]
    assert cut == pytest.approx(uncut / 2, abs=0.1)
    box = half.boxes[half.identities == identity][0]
    assert box[3] == 224


def test_scenery_and_others_hide_movers_within_a_minute() -> None:
    """And they come out again: of each, somebody is seen whole before or after."""
    hidden, other = set(), set()
    for seed in range(3):
        view = UprightView(Avenue(seed))
        seen: dict[int, list[float]] = {}
        for time_s in np.arange(0, 60, 1.0):
            truth = view.truth(time_s)
            for identity, visible in zip(truth.identities, truth.visible, strict=True):
                seen.setdefault(int(identity), []).append(float(visible))
        for identity, course in seen.items():
            if min(course) < 0.2 and max(course) > 0.95:
                hidden.add((seed, identity))
            if len(course) < 40:
                other.add((seed, identity))
    assert len(hidden) > 15
    assert len(other) > 15  # came or went meanwhile


def test_movers_change_nothing_outside_their_boxes(wide: UprightView) -> None:
    empty = alone(wide, -1)
    empty._backdrop = wide._backdrop
    for time_s in (1.0, 33.0):
        changed = wide.image(time_s) != empty.image(time_s)
        truth = wide.truth(time_s)
        assert changed.sum() > 500
        for x0, y0, x1, y1 in truth.boxes:
            columns = slice(max(math.floor(x0) - 2, 0), math.ceil(x1) + 2)
            changed[max(math.floor(y0) - 2, 0) : math.ceil(y1) + 2, columns] = False
        assert not changed.any()


def test_a_wall_hides_the_tracks_beyond_it(wide: UprightView) -> None:
    tracks_m = wide.avenue.tracks_m
    for rank in (0, 5, len(tracks_m) - 1, len(tracks_m)):
        truth = staged(wide, rank, wide.avenue.movers).truth(3.0)
        nearer = np.isin(truth.depth_m, tracks_m[:rank])
        assert np.all(truth.visible[~nearer] == 0)
        assert nearer.sum() == 0 or truth.visible[nearer].max() > 0.99


def test_the_nearer_of_two_hides_the_farther(wide: UprightView) -> None:
    """A big car stands before a small one, then beside it."""
    lorry = wide.avenue.movers(3.0)
    lorry = lorry[lorry["kind"] == VEHICLE][:1]
    pair = np.concatenate([lorry, lorry])
    pair["x0"], pair["x1"], pair["y1"] = -3, 3, 4
    pair["track"], pair["z"], pair["identity"] = [1, 2], [100, 101], [1, 2]
    pair[1]["x0"], pair[1]["x1"], pair[1]["y1"] = -0.5, 0.5, 0.8
    before = staged(wide, BEHIND_ALL, lambda _time_s: pair).truth(0.0)
    assert before.visible[0] == pytest.approx(1.0)
    assert before.visible[1] < 0.1
    aside = pair.copy()
    aside["x0"][1] += 10
    aside["x1"][1] += 10
    beside = staged(wide, BEHIND_ALL, lambda _time_s: aside).truth(0.0)
    assert np.allclose(beside.visible, 1.0)


def test_regions_and_instances_agree(wide: UprightView) -> None:
    regions = np.array(REGIONS)
    for time_s in (1.0, 33.0):
        ids, labels = wide.instances(time_s), wide.regions(time_s)
        truth = wide.truth(time_s)
        kinds = dict(zip(truth.identities, truth.class_ids, strict=True))
        for identity in np.unique(ids[ids >= 0]):
            assert set(regions[labels[ids == identity]]) == {KINDS[kinds[identity]]}
        assert not np.isin(regions[labels[ids < 0]], KINDS).any()


def test_regions_lie_as_in_a_street(wide: UprightView) -> None:
    labels = wide.regions(0.0)
    shares = np.bincount(labels.ravel(), minlength=len(REGIONS)) / labels.size
    by_name = dict(zip(REGIONS, shares, strict=True))
    for name in ("sky", "building", "tree", "road", "sidewalk", "grass"):
        assert by_name[name] > 0.02
    assert np.all(labels[:40] == REGIONS.index("sky"))
    assert not np.any(labels[200:] == REGIONS.index("sky"))
    assert not np.any(labels[:150] == REGIONS.index("road"))


# Pictures.


def test_pictures_do_not_depend_on_what_was_asked_before(
    wide: UprightView, search: SearchView
) -> None:
    gaze = Gaze(pan_rad=0.1, tilt_rad=-0.1)
    picture, looked = wide.image(8.0, noise=3), search.image(8.0, gaze, noise=3)
    for time_s in (100.0, 1.0):
        wide.image(time_s)
        search.image(time_s, Gaze(pan_rad=-0.3, tilt_rad=0.1))
    assert np.array_equal(UprightView(Avenue(SEED)).image(8.0, noise=3), picture)
    assert np.array_equal(SearchView(Avenue(SEED)).image(8.0, gaze, noise=3), looked)
    assert picture.shape == (448, 960)
    assert looked.shape == (224, 224)


def test_noise_differs_from_picture_to_picture_and_is_small(search: SearchView) -> None:
    gaze = Gaze(pan_rad=0.1, tilt_rad=-0.1)
    clean = search.image(8.0, gaze).astype(float)
    first, second = (search.image(8.0, gaze, noise=k) - clean for k in (1, 2))
    for noise in (first, second):
        assert 1.0 < noise.std() < 2.0
        assert abs(noise.mean()) < 0.1
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05


def test_a_moving_mirror_blurs(search: SearchView) -> None:
    gazes = [Gaze(pan_rad=0.1 + k * SEARCH_PX_RAD, tilt_rad=-0.12) for k in range(8)]
    sharp = [search.image(4.0, gaze).astype(float) for gaze in gazes]
    blurred = search.image(4.0, gazes).astype(float)
    light = np.mean([(picture / 255) ** 2 for picture in sharp], axis=0)
    assert np.abs(blurred - 255 * np.sqrt(light)).max() < 2
    across, down = (np.abs(np.diff(blurred, axis=k)).mean() for k in (1, 0))
    sharply, sheer = (np.abs(np.diff(sharp[4], axis=k)).mean() for k in (1, 0))
    assert across < 0.6 * sharply
    assert down / sheer > across / sharply


@given(pan=st.floats(-2, 2), tilt=st.floats(-2, 2))
@settings(deadline=None, max_examples=25)
def test_no_gaze_leaves_the_world(pan: float, tilt: float) -> None:
    view = SearchView(Avenue(SEED))
    picture = view.image(0.0, Gaze(pan_rad=pan, tilt_rad=tilt))
    assert picture.std() > 0


def test_the_field_s_corners_are_reached(search: SearchView) -> None:
    """At the ends of 60° × 30° the picture still moves with the gaze: nothing is clamped."""
    for pan_deg in (-30.0, 30.0):
        for tilt_deg in (-15.0, 15.0):
            gaze = Gaze(pan_rad=math.radians(pan_deg), tilt_rad=math.radians(tilt_deg))
            wanted = search.mount.direction(np.array([gaze.pan_rad, gaze.tilt_rad]))
            assert np.allclose(search._direction(gaze), wanted)


def test_a_smaller_wide_camera_sees_the_same(wide: UprightView) -> None:
    small = UprightView(Avenue(SEED), upright(480, 224, WIDE_FOCAL_PX / 2))
    shrunk = cv2.resize(wide.image(6.0), (480, 224), interpolation=cv2.INTER_AREA)
    difference = np.abs(small.image(6.0).astype(float) - shrunk)
    assert difference.mean() < 4
