"""What the promptable network learns from, and what it is checked on, as an endless draw of clips.

Photographs with segments (BSDS500, CamVid, the twin's wide camera) and videos (DAVIS) where their
folders are there; a part of each is held out (see their modules) and only drawn for validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgeperc.offline import bsds, camvid
from edgeperc.offline.bsds import open_bsds
from edgeperc.offline.camvid import components, open_camvid
from edgeperc.offline.clips import (
    SMALLEST_SHARE,
    Clip,
    Cutout,
    Rng,
    Stills,
    Videos,
    paste,
    recolour,
)
from edgeperc.offline.davis import open_davis
from edgeperc.offline.sights import WIDE, cached_sights

Source: TypeAlias = Stills | Videos
TRAINING_AVENUES, HELD_OUT_AVENUES = range(11_000, 11_006), range(21_000, 21_001)
PASTE, HIDE = 0.7, 0.25
"""How often something moves through a clip: to be followed, and to hide what is."""


class Mixture:
    """Sources of clips and how often each is drawn from, one mixture for stills, one for videos."""

    def __init__(
        self,
        stills: Sequence[tuple[Source, float]],
        videos: Sequence[tuple[Source, float]],
        side_px: int,
    ) -> None:
        self._stills, self._videos, self._side_px = stills, videos, side_px

    def clips(self, rng: Rng, *, count: int, frames: int, objects: int) -> list[Clip]:
        """`count` clips of at most `objects` objects each, all of them in the first picture."""
        found: list[Clip] = []
        while len(found) < count:
            clip = self._clip(rng, frames, objects)
            if clip is not None:
                found.append(recolour(clip, rng))
        return found

    def _clip(self, rng: Rng, frames: int, objects: int) -> Clip | None:
        source = _pick(rng, self._videos if frames > 1 else self._stills)
        clip = source.draw(rng, frames=frames, side_px=self._side_px, objects=objects)
        if clip is None:
            return None
        chance = PASTE if frames > 1 else PASTE / 2
        for share, follow in ((chance, True), (HIDE, False)):
            cutout = self._cutout(rng) if rng.random() < share else None
            if cutout is not None:
                clip = paste(clip, cutout, rng, follow=follow)
        there = np.flatnonzero(clip.masks[:, 0].mean((1, 2)) > SMALLEST_SHARE / 2)
        if not len(there):
            return None
        chosen = there[: max(1, objects)]
        return Clip(pictures=clip.pictures, masks=clip.masks[chosen])

    def _cutout(self, rng: Rng) -> Cutout | None:
        return _pick(rng, self._videos).cutout(rng)


class ClipData:
    """Training and held-out mixtures of a data folder, and a detector's file if it is there.

    folder: with any of bsds500, camvid, davis and models/yolox_nano.onnx. cache: for pictures of
    the twin. Raises DataError for files that are there and damaged.
    """

    def __init__(self, folder: Path, *, side_px: int, cache: Path) -> None:
        self.training = _mixture(folder, cache, side_px, training=True)
        self.held_out = _mixture(folder, cache, side_px, training=False)
        detector = folder / "models" / "yolox_nano.onnx"
        self.detector = detector if detector.is_file() else None


def _mixture(folder: Path, cache: Path, side_px: int, *, training: bool) -> Mixture:
    stills: list[tuple[Source, float]] = [(_twin(cache, training=training), 0.12)]
    videos: list[tuple[Source, float]] = []
    if (folder / "bsds500").is_dir():
        stills.append((_bsds(folder / "bsds500", training=training), 0.6))
    if (folder / "camvid").is_dir():
        stills.append((_camvid(folder / "camvid", training=training), 0.28))
    if (folder / "davis").is_dir():
        videos.append((_davis(folder / "davis", training=training), 0.45))
    videos += [(source, share * 0.55) for source, share in stills]
    stills += [(source, share / 3) for source, share in videos[:1] if isinstance(source, Videos)]
    return Mixture(stills, videos, side_px)


def _twin(cache: Path, *, training: bool) -> Stills:
    avenues = TRAINING_AVENUES if training else HELD_OUT_AVENUES
    sights = cached_sights(avenues, cache, looks=1, cuts=48)
    wide = np.flatnonzero(sights.sensors == WIDE)
    pictures = [np.repeat(sights.images[i][..., None], 3, axis=2) for i in wide]
    return Stills(pictures, [[components(sights.regions[i])] for i in wide])


def _bsds(folder: Path, *, training: bool) -> Stills:
    """People disagree about what is one thing; which one is asked is drawn anew each time."""
    shelf = open_bsds(folder, split="train" if training else bsds.HELD_OUT)
    photographs = list(shelf)
    return Stills([p.picture for p in photographs], [p.maps for p in photographs])


def _camvid(folder: Path, *, training: bool) -> Stills:
    shelf = open_camvid(folder, split="train" if training else camvid.HELD_OUT)
    streets = list(shelf)
    return Stills([s.picture for s in streets], [[components(s.labels)] for s in streets])


def _davis(folder: Path, *, training: bool) -> Videos:
    footage = open_davis(folder, split="train" if training else "held-out")
    return Videos(
        [
            (np.stack(list(each.pictures)), np.stack([labels == 1 for labels in each.labels]))
            for each in footage
        ]
    )


def _pick(rng: Rng, sources: Sequence[tuple[Source, float]]) -> Source:
    shares = np.array([share for _, share in sources])
    return sources[int(rng.choice(len(sources), p=shares / shares.sum()))][0]
