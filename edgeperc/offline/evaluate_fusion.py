"""Score a network that fuses frames with events, through the code that the daemon runs.

On the twin by day, at night, in glare and in fast motion (`twin-night` and so on), and on data sets
that have pictures beside their events. One of the two inputs may be left out, as where a sensor
died: what that costs is the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from rich.table import Table

from edgeperc.errors import ConfigError, DataError, ModelError
from edgeperc.fusion import FusionInput, FusionSegmenter
from edgeperc.offline.datasets import open_dataset
from edgeperc.offline.fusion_pairs import open_pairs
from edgeperc.offline.samples import Sample
from edgeperc.offline.score import Confusion, Labels, Scores, confusion_matrix, score
from edgeperc.packet import Pair
from edgeperc.places import ModelFolder
from edgeperc.represent import DsecVoxels
from edgeperc.segment import largest_class

Without = Literal["nothing", "frames", "events"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionEvaluation:
    """Scores of one model on one data set; without: the input that was left out."""

    model: str
    sha256: str
    engine: str
    data: str
    split: str
    without: Without
    windows: int
    scores: Scores

    def as_json(self) -> dict[str, Any]:
        """JSON types, for `--json`."""
        return asdict(self)

    def table(self) -> Table:
        """One line a class, then the summary."""
        less = "" if self.without == "nothing" else f" without {self.without}"
        return self.scores.table(f"{self.model} on {self.data}{less}, {self.windows} pairs")


def evaluate_fusion(
    folder: ModelFolder,
    data: str,
    *,
    split: Literal["train", "valid", "test", "all"] = "test",
    limit: int | None = None,
    threads: int = 2,
    without: Without = "nothing",
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> FusionEvaluation:
    """Run a model over pairs and score it.

    Raises ConfigError if the classes differ, DataError for data without pictures, ModelError for a
    model that cannot run.
    """
    twin = open_pairs(data)
    dataset = open_dataset(data, split=split, limit=limit) if twin is None else twin.thinned(limit)
    if folder.card.classes != dataset.classes:
        raise ConfigError(
            f"{folder.card.name} has the classes {', '.join(folder.card.classes)}; "
            f"{dataset.name} has {', '.join(dataset.classes)}"
        )
    segmenter = FusionSegmenter(folder, threads=threads)
    undistorted = _Undistorted(folder, segmenter)
    confusion: Confusion = np.zeros((len(dataset.classes),) * 2, np.int64)
    for done, sample in enumerate(dataset, start=1):
        pair = pair_of(sample, without)
        answer = segmenter(pair).labels if sample.rectify_map is None else undistorted(pair, sample)
        confusion += confusion_matrix(sample.labels, answer, len(dataset.classes))
        on_window(done, len(dataset))
    segmenter.close()
    return FusionEvaluation(
        model=folder.card.name,
        sha256=segmenter.ref.sha256,
        engine=segmenter.ref.engine,
        data=data,
        split=split,
        without=without,
        windows=len(dataset),
        scores=score(confusion, dataset.classes),
    )


def pair_of(sample: Sample, without: Without = "nothing") -> Pair:
    """A sample as the daemon would have paired it. Raises DataError for one without a picture."""
    if sample.frame is None:
        raise DataError(
            f"{sample.events.stamp.source}: there is no picture beside the events",
            hint="docs/models.md shows where pictures of DDD17 and DSEC are looked for",
        )
    events = sample.events
    if without == "events":
        events = events.slice(0, 0, events.stamp)
    frame = None if without == "frames" else sample.frame
    return Pair(stamp=sample.frame.stamp, frame=frame, events=events)


class _Undistorted:
    """The network's own output for data whose pictures and labels are in undistorted pixels."""

    def __init__(self, folder: ModelFolder, segmenter: FusionSegmenter) -> None:
        self._card, self._segmenter = folder.card, segmenter
        self._steps: tuple[int, FusionInput, DsecVoxels] | None = None

    def __call__(self, pair: Pair, sample: Sample) -> Labels:
        assert sample.rectify_map is not None
        if self._card.input.represent != "sltnet-dsec":
            raise ModelError(
                f"model '{self._card.name}' does not take undistorted events",
                hint="score DSEC with a model whose [input] represent is sltnet-dsec",
            )
        if self._steps is None or self._steps[0] != id(sample.rectify_map):
            size_px = (pair.events.width_px, pair.events.height_px)
            voxels = DsecVoxels(*size_px, self._card.input, rectify_map=sample.rectify_map)
            self._steps = id(sample.rectify_map), FusionInput(*size_px, self._card), voxels
        _, whole, undistort = self._steps
        nothing = replace(pair, events=pair.events.slice(0, 0, pair.events.stamp))
        frame, _ = whole(nothing)
        answer = largest_class(self._segmenter.logits(frame, undistort(pair.events)))
        padded = np.full(sample.labels.shape, 255, np.uint8)
        height, width = answer.shape
        padded[:height, :width] = answer
        return padded
