from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from edgeperc.detect import Detector
from edgeperc.errors import ConfigError
from edgeperc.offline import evaluate_sights
from edgeperc.offline.evaluate import evaluate
from edgeperc.packet import Frame, Packet
from edgeperc.places import ModelFolder
from edgeperc.result import Detections, ModelRef
from edgeperc.twin.avenue import Avenue
from edgeperc.twin.rig import Mount
from edgeperc.twin.views import SearchView

from .test_detect import write_model, yolox_output

SEED = 5


class Oracle:
    """Knows the truth of the pictures that the evaluation draws, in the order it draws them."""

    def __init__(self, folder: ModelFolder, *, threads: int, score: float = 0.3) -> None:
        self.score, self.ref = 0.3, ModelRef(name="oracle", sha256="0" * 64)
        self._pictures = evaluate_sights._pictures([SEED])
        self._classes = folder.card.classes

    def __call__(self, packet: Packet, /) -> Detections:
        assert isinstance(packet, Frame)
        _, image, truth = next(self._pictures)
        np.testing.assert_array_equal(image, packet.image)
        seen = truth.visible > 0.5
        return Detections(
            stamp=packet.stamp,
            boxes=truth.boxes[seen],
            scores=np.ones(seen.sum(), np.float32),
            class_ids=1 - truth.class_ids[seen],
            classes=self._classes,
            model=self.ref,
        )


@pytest.fixture
def model(tmp_path: Path) -> ModelFolder:
    """Other names, in another order."""
    return write_model(
        tmp_path / "model", yolox_output(), decode="yolox", classes=["car", "person"]
    )


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate_sights, "LOOKS", 30)
    monkeypatch.setattr(evaluate_sights, "PICTURES", 2)


def test_who_knows_the_truth_has_full_marks(
    model: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_sights, "Detector", Oracle)
    done = []
    found = evaluate(
        str(model.folder), f"twin:{SEED}", on_window=lambda k, total: done.append((k, total))
    )
    assert done[-1] == (32, 32)
    assert isinstance(found, evaluate_sights.SightEvaluation)
    for camera in ("search", "wide"):
        scores = found.scores[camera]
        assert set(scores.ap50.values()) <= {1.0, None}  # type: ignore[union-attr]
        expected = 1.0 if camera == "search" else None
        assert scores.pd == expected  # type: ignore[union-attr]
        assert scores.false_per_look == 0  # type: ignore[union-attr]
    shown = Console(record=True, width=100)
    shown.print(found.table())
    assert "search camera, score from 0.30" in shown.export_text()
    json.dumps(found.as_json())


def test_who_finds_nothing_has_none(model: ModelFolder) -> None:
    found = evaluate(str(model.folder), f"twin:{SEED}")
    wide = found.scores["wide"]  # type: ignore[union-attr, index]
    assert (wide.recall["vehicle"], wide.false_per_look) == (0, 0)
    assert wide.things["vehicle"] > 0


def test_networks_and_data_that_do_not_fit_are_refused(model: ModelFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scored on `twin` or `twin:SEED`"):
        evaluate(str(model.folder), str(tmp_path))
    write_model(tmp_path / "other", yolox_output(), decode="yolox", classes=["cat", "dog"])
    with pytest.raises(ConfigError, match="constant finds neither of person, vehicle"):
        evaluate(str(tmp_path / "other"), f"twin:{SEED}")


def test_held_out_pictures_are_those_of_a_search(model: ModelFolder) -> None:
    """Each look is what the search camera of that avenue's own rig would see."""
    camera, image, truth = next(evaluate_sights._pictures([SEED]))
    view = SearchView(Avenue(SEED), Mount.drawn(SEED))
    assert (camera, image.shape) == (0, (view.height_px, view.width_px))
    assert len(truth.boxes) == len(truth.visible)
    assert isinstance(Detector(model), Detector)


def test_the_bundled_networks_know_an_avenue_that_they_were_not_trained_on() -> None:
    """Far below what the cards say, which is measured on more pictures."""
    boxes = evaluate("finder-twin", f"twin:{SEED}")
    search = boxes.scores["search"]  # type: ignore[union-attr, index]
    assert search.pd > 0.7
    assert search.false_per_look < 0.3
    assert 0.3 < search.variance_ratio < 2
    assert boxes.scores["wide"].ap50["vehicle"] > 0.8  # type: ignore[union-attr, index]
    regions = evaluate("regions-twin", f"twin:{SEED}")
    wide = regions.scores["wide"]  # type: ignore[union-attr, index]
    assert wide.accuracy > 0.8
    assert wide.iou["road"] > 0.5
