"""Clips to learn tracking from: what is followed stays where its mask says."""

import numpy as np
import pytest

from edgeperc.offline.clips import Clip, Cutout, Stills, Videos, paste, recolour

SIDE_PX = 96


def disk(height=120, width=160, centre=(80, 60), radius=25):
    rows, columns = np.mgrid[:height, :width]
    return (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < radius**2


@pytest.fixture
def stills():
    """A red disk on blue, and a map that says so."""
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[..., 2] = 200
    picture[disk()] = (200, 0, 0)
    return Stills([picture], [[disk().astype(np.uint16) + 1]])


def redness(clip, mask, frame):
    """Mean red of what the mask covers."""
    return clip.pictures[frame, ..., 0][mask[frame]].mean()


def test_the_mask_moves_with_what_it_covers(stills):
    followed = 0
    for seed in range(20):
        clip = stills.draw(np.random.default_rng(seed), frames=4, side_px=SIDE_PX, objects=2)
        for mask in clip.masks:
            red = mask[0].sum() and redness(clip, mask, 0) > 150
            if not red:
                continue
            followed += 1
            for t in range(4):
                if mask[t].any():
                    assert redness(clip, mask, t) > 170
                    rest = ~mask[t]
                    assert clip.pictures[t, ..., 0][rest].mean() < 30
    assert followed > 5


def test_a_clip_of_a_still_is_not_still(stills):
    clip = stills.draw(np.random.default_rng(3), frames=4, side_px=SIDE_PX, objects=2)
    assert clip.pictures.shape == (4, SIDE_PX, SIDE_PX, 3)
    assert clip.masks.shape[1:] == (4, SIDE_PX, SIDE_PX)
    assert (clip.pictures[0] != clip.pictures[3]).any()


def test_segments_too_small_to_point_at_are_not_drawn():
    speck = np.zeros((120, 160), np.uint16)
    speck[60, 80] = 1
    stills = Stills([np.zeros((120, 160, 3), np.uint8)], [[speck]])
    rng = np.random.default_rng(0)
    assert stills.draw(rng, frames=1, side_px=SIDE_PX, objects=3) is None
    assert stills.cutout(rng) is None


def test_a_video_is_drawn_in_order_or_backwards():
    shade = np.arange(10, dtype=np.uint8) * 20
    pictures = np.broadcast_to(shade[:, None, None, None], (10, 120, 160, 3))
    masks = np.broadcast_to(disk(), (10, 120, 160))
    videos = Videos([(np.ascontiguousarray(pictures), masks)])
    directions = set()
    for seed in range(20):
        clip = videos.draw(np.random.default_rng(seed), frames=4, side_px=SIDE_PX, objects=1)
        steps = np.diff([int(np.median(p[p > 0])) if p.any() else 0 for p in clip.pictures])
        assert (steps > 0).all() or (steps < 0).all()
        directions.add(bool(steps[0] > 0))
    assert directions == {True, False}


def test_what_is_pasted_hides_what_is_behind():
    clip = Clip(
        pictures=np.zeros((3, SIDE_PX, SIDE_PX, 3), np.uint8),
        masks=np.ones((1, 3, SIDE_PX, SIDE_PX), np.bool_),
    )
    white = Cutout(picture=np.full((40, 40, 3), 255, np.uint8), mask=np.ones((40, 40), np.bool_))
    pasted = paste(clip, white, np.random.default_rng(0))
    own, behind = pasted.masks
    assert own[0].any()
    assert not (own & behind).any()
    assert (own | behind).all()
    assert pasted.pictures[own].mean() > 200
    assert pasted.pictures[behind].mean() < 20
    assert not clip.pictures.any(), "the clip that was given is left alone"
    hidden = paste(clip, white, np.random.default_rng(0), follow=False)
    assert len(hidden.masks) == 1
    assert not hidden.masks.all()


def test_another_light_leaves_the_masks_and_the_shape(stills):
    clip = stills.draw(np.random.default_rng(3), frames=2, side_px=SIDE_PX, objects=2)
    lit = [recolour(clip, np.random.default_rng(seed)) for seed in range(30)]
    assert all(each.masks is clip.masks for each in lit)
    assert all(each.pictures.dtype == np.uint8 for each in lit)
    assert any((np.ptp(each.pictures.astype(int), axis=-1).max() <= 30) for each in lit), "grey"
