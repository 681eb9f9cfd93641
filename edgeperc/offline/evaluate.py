"""Score a network's answers against the truth, through the code that the daemon runs.

Label maps of events here, what networks say of frames in `edgeperc.offline.evaluate_sights`, and
what they make of prompts in `edgeperc.offline.evaluate_prompts`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.datasets import open_dataset
from edgeperc.offline.evaluate_fusion import FusionEvaluation, Without, evaluate_fusion
from edgeperc.offline.evaluate_prompts import PromptEvaluation, evaluate_prompts, score_results
from edgeperc.offline.evaluate_sights import SightEvaluation, evaluate_sights
from edgeperc.offline.evaluate_video import is_results
from edgeperc.offline.examples import Split
from edgeperc.offline.samples import Sample
from edgeperc.offline.score import Confusion, Labels, Scores, confusion_matrix, score
from edgeperc.places import ModelFolder, find_model
from edgeperc.represent import DsecVoxels
from edgeperc.segment import Engine, Segmenter, open_engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of one model on one data set; `windows` is how many were looked at."""

    model: str
    sha256: str
    engine: str
    data: str
    split: str
    windows: int
    scores: Scores

    def as_json(self) -> dict[str, Any]:
        """JSON types, for `--json`."""
        return asdict(self)

    def table(self) -> Table:
        """One line a class, then the summary."""
        return self.scores.table(f"{self.model} on {self.data}, {self.windows} windows")


def evaluate(
    model: str,
    data: str,
    *,
    split: Split = "test",
    limit: int | None = None,
    engine: Literal["auto", "onnx", "spiking"] = "auto",
    threads: int = 2,
    detector: str | None = None,
    out: Path | None = None,
    without: Without = "nothing",
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation | FusionEvaluation | SightEvaluation | PromptEvaluation:
    """Run a model (name or folder) over a data set (see `open_dataset`) and score it.

    A model of frames is scored on the twin's avenues, and split, limit and engine mean nothing.
    For a promptable one, or a folder of results of videos, see `edgeperc.offline.evaluate_prompts`;
    detector and out are for these only. For one that fuses frames with events see
    `edgeperc.offline.evaluate_fusion`; without is for these only. on_window is called with
    (done, total) after each window. Raises ConfigError if the classes differ, ModelError for a
    model that cannot run, DataError for data that cannot be read.
    """
    if is_results(Path(model)):
        return score_results(Path(model), data, on_picture=on_window)
    folder = find_model(model)
    if folder.card.task == "promptable":
        return evaluate_prompts(
            folder,
            data,
            split=split,
            limit=limit,
            threads=threads,
            detector=detector,
            out=out,
            on_picture=on_window,
        )
    if detector is not None or out is not None:
        raise ConfigError(f"{folder.card.name} takes no prompts: --detector and --out do nothing")
    if folder.card.frames is not None:
        return evaluate_fusion(
            folder,
            data,
            split=split,
            limit=limit,
            threads=threads,
            without=without,
            on_window=on_window,
        )
    if without != "nothing":
        raise ConfigError(f"{folder.card.name} has one input: --without does nothing")
    if folder.card.input.kind == "frame":
        return evaluate_sights(folder, data, threads=threads, on_picture=on_window)
    dataset = open_dataset(data, split=split, limit=limit)
    if folder.card.classes != dataset.classes:
        raise ConfigError(
            f"{folder.card.name} has the classes {', '.join(folder.card.classes)}; "
            f"{dataset.name} has {', '.join(dataset.classes)}"
        )
    segmenter = Segmenter(folder, engine=engine, threads=threads)
    undistorted = _Undistorted(folder, open_engine(folder, engine, threads))
    confusion: Confusion = np.zeros((len(dataset.classes),) * 2, np.int64)
    for done, sample in enumerate(dataset, start=1):
        answer = (
            segmenter(sample.events).labels if sample.rectify_map is None else (undistorted(sample))
        )
        confusion += confusion_matrix(sample.labels, answer, len(dataset.classes))
        on_window(done, len(dataset))
    return Evaluation(
        model=folder.card.name,
        sha256=segmenter.ref.sha256,
        engine=segmenter.ref.engine,
        data=data,
        split=split,
        windows=len(dataset),
        scores=score(confusion, dataset.classes),
    )


class _Undistorted:
    """The network's own output for data whose labels are in undistorted pixels (DSEC)."""

    def __init__(self, folder: ModelFolder, engine: Engine) -> None:
        self._folder, self._engine = folder, engine
        self._recipe: tuple[int, DsecVoxels] | None = None

    def __call__(self, sample: Sample) -> Labels:
        assert sample.rectify_map is not None
        if self._folder.card.input.represent != "sltnet-dsec":
            raise ModelError(
                f"model '{self._folder.card.name}' does not take undistorted events",
                hint="score DSEC with a model whose [input] represent is sltnet-dsec",
            )
        if self._recipe is None or self._recipe[0] != id(sample.rectify_map):
            size_px = (sample.events.width_px, sample.events.height_px)
            recipe = DsecVoxels(*size_px, self._folder.card.input, rectify_map=sample.rectify_map)
            self._recipe = (id(sample.rectify_map), recipe)
        answer = self._engine.labels(self._recipe[1](sample.events))
        padded = np.full(sample.labels.shape, 255, np.uint8)
        height, width = answer.shape
        padded[:height, :width] = answer
        return padded
