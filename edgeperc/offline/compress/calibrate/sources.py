"""What a network is calibrated with: real pictures, noise, or pictures made by the network itself.

    samples, held_out = draw("real", subject, data=Path("clips"), count=32, held_out=8, seed=0)

A new source is one line in SOURCES. Only `real` opens any file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from rich.progress import Progress

from edgeperc.drivers.formats.pictures import picture_files, read_picture
from edgeperc.errors import ConfigError, DataError
from edgeperc.offline.compress.adapters import Sample, Subject
from edgeperc.offline.compress.adapters.prompts import pointed
from edgeperc.offline.compress.adapters.sltnet import SltnetSubject
from edgeperc.offline.compress.calibrate.evolve import ellipses
from edgeperc.offline.compress.calibrate.synthetic import OBJECTS, synthesise
from edgeperc.offline.davis import is_davis
from edgeperc.offline.examples import OPENERS, Example
from edgeperc.offline.shelf import Shelf


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many samples of what, for which subject. work: see `draw`."""

    subject: Subject
    data: str | None
    count: int
    seed: int
    progress: Progress | None
    work: Path | None


Draw: TypeAlias = Callable[[Wanted], list[Sample]]


def _real(wanted: Wanted) -> list[Sample]:
    if wanted.data is None:
        raise ConfigError(
            "source 'real' looks at pictures: where are they?",
            hint="--data FOLDER, or --source noise or synthetic, which need none",
        )
    if isinstance(wanted.subject, SltnetSubject):
        return wanted.subject.windows(wanted.data, wanted.count)
    pictures = open_pictures(wanted.data).thinned(wanted.count)
    return wanted.subject.samples(pictures, seed=wanted.seed)


def _noise(wanted: Wanted) -> list[Sample]:
    """The control of `synthetic`: white noise, prompted for what that begins with."""
    drawn = wanted.subject.noise(wanted.count, seed=wanted.seed)
    return [
        _pointed_anywhere(sample, np.random.default_rng((wanted.seed, index)))
        for index, sample in enumerate(drawn)
    ]


def _pointed_anywhere(sample: Sample, rng: np.random.Generator) -> Sample:
    """With a click and a box for each of some ellipses, if the network takes prompts at all."""
    if "points" not in sample:
        return sample
    masks = ellipses(OBJECTS, sample["picture"].shape[-1], rng)
    points, labels = pointed(torch.from_numpy(masks))
    return {**sample, "points": points, "labels": labels}


def _synthetic(wanted: Wanted) -> list[Sample]:
    keep = wanted.work / "synthetic.pt" if wanted.work else None
    return synthesise(wanted.subject, wanted.count, wanted.seed, wanted.progress, keep=keep)


SOURCES: dict[str, Draw] = {"real": _real, "noise": _noise, "synthetic": _synthetic}
"""Name in a recipe -> what draws samples."""


def draw(
    source: str,
    subject: Subject,
    *,
    data: str | None = None,
    count: int,
    held_out: int,
    seed: int,
    progress: Progress | None = None,
    work: Path | None = None,
) -> tuple[list[Sample], list[Sample]]:
    """Samples to calibrate with and other ones to judge with, from one source.

    work: a folder where a source that takes long keeps how far it is; None keeps nothing.
    Of fewer pictures than count + held_out, a quarter judges; of one alone both are the same.
    Raises ConfigError for an unknown source, or data that it needs and has not; DataError for a
    folder without pictures, or one that cannot be read.
    """
    if source not in SOURCES:
        raise ConfigError(f"unknown source '{source}'", hint=f"one of {', '.join(SOURCES)}")
    drawn = SOURCES[source](
        Wanted(
            subject=subject,
            data=data,
            count=count + held_out,
            seed=seed,
            progress=progress,
            work=work,
        )
    )
    if not drawn:
        raise DataError(f"{data or source}: no samples to calibrate with")
    if len(drawn) == 1:
        return drawn, drawn
    judges = max(1, held_out if len(drawn) >= count + held_out else min(held_out, len(drawn) // 4))
    # Every so many-th: neighbours in a folder are alike, and the judges should be of all kinds.
    chosen = {int((i + 0.5) * len(drawn) / judges) for i in range(judges)}
    kept = [sample for i, sample in enumerate(drawn) if i not in chosen]
    return kept, [drawn[i] for i in sorted(chosen)]


def open_pictures(where: str) -> Shelf[Example]:
    """Pictures, with the masks of their objects where the folder has them.

    where: a folder of pictures, a folder as BSDS500 or DAVIS has it, or `KIND:FOLDER` as in
    `edgeperc evaluate --data`; of data sets, what is there to learn from. Raises ConfigError,
    DataError.
    """
    kind, _, rest = where.partition(":")
    if rest and kind in OPENERS:
        return OPENERS[kind](Path(rest), "train")
    folder = Path(where)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if (found := _kind_of(folder)) is not None:
        return OPENERS[found](folder, "train")
    paths = {path.name: path for path in picture_files(folder)}
    if not paths:
        raise DataError(f"{folder}: has no pictures", hint="JPEG, PNG, BMP, TIFF and WebP are")
    return Shelf(
        tuple(paths), lambda name: Example(name=name, picture=read_picture(paths[name]), maps=())
    )


def _kind_of(folder: Path) -> str | None:
    below = folder / "data" if (folder / "data" / "images").is_dir() else folder
    if (below / "images").is_dir() and (below / "groundTruth").is_dir():
        return "bsds500"
    return "davis-frames" if is_davis(folder) else None


def names_of(samples: Sequence[Sample]) -> str:
    """In a few words what there is."""
    pointed = sum(len(sample["labels"]) for sample in samples if "labels" in sample)
    prompts = f", {pointed} prompts" if pointed else ""
    return f"{len(samples)} samples{prompts}"
