from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edgeperc.config import FrameInput, ModelCard
from edgeperc.errors import ConfigError, DataError, ModelError
from edgeperc.fusion import FusionInput, FusionSegmenter
from edgeperc.offline import dsec, evaluate_fusion, fusion_pairs
from edgeperc.offline.datasets import open_dataset
from edgeperc.offline.evaluate import evaluate
from edgeperc.offline.score import confusion_matrix, score
from edgeperc.packet import Pair
from edgeperc.places import find_model
from edgeperc.segment import largest_class

from .test_ddd17 import events as ddd17_events
from .test_ddd17 import picture as ddd17_picture
from .test_ddd17 import write_preprocessed
from .test_dsec_frames import write_pictures, write_sequence
from .tiny_fusion import CARD, write_model

Made = Callable[[str], Path]


def card(represent: str) -> ModelCard:
    """The tiny card with another input; that of DSEC with its classes and colour."""
    spec = msgspec.structs.replace(CARD.input, represent=represent)
    if represent == "sltnet-dsec":
        spec = msgspec.structs.replace(spec, width_px=640, height_px=480)
        return msgspec.structs.replace(
            CARD, input=spec, classes=dsec.CLASSES, frames=FrameInput(channels="rgb")
        )
    return msgspec.structs.replace(CARD, input=spec)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Tiny models by the way in which they take events, written once."""
    root = tmp_path_factory.mktemp("models")

    def write(represent: str) -> Path:
        folder = root / represent
        return folder if folder.exists() else write_model(folder, card(represent))

    return write


def test_the_twin_is_scored_as_the_daemon_would_label_it(made: Made) -> None:
    model = made("sltnet-ddd17")
    found = evaluate(str(model), "twin-night:20001", limit=2, threads=1)
    segmenter = FusionSegmenter(find_model(str(model)), threads=1)
    confusion = np.zeros((6, 6), np.int64)
    for window in (0, 15):
        sample = fusion_pairs.draw(20_001, window, "night")
        assert sample.frame is not None
        pair = Pair(stamp=sample.frame.stamp, frame=sample.frame, events=sample.events)
        confusion += confusion_matrix(sample.labels, segmenter(pair).labels, 6)
    assert found.scores == score(confusion, CARD.classes)
    assert found.scores.pixels == 2 * 346 * 200
    assert found.as_json()["without"] == "nothing"


def test_an_input_may_be_left_out(made: Made) -> None:
    scores = {
        without: evaluate(
            str(made("sltnet-ddd17")), "twin:20001", limit=1, threads=1, without=without
        ).scores
        for without in ("nothing", "frames", "events")
    }
    assert len({found.accuracy for found in scores.values()}) == 3
    sample = fusion_pairs.draw(20_001, 0, "day")
    blind = evaluate_fusion.pair_of(sample, "frames")
    assert blind.frame is None
    assert len(blind.events) == len(sample.events)
    still = evaluate_fusion.pair_of(sample, "events")
    assert still.frame is sample.frame
    assert len(still.events) == 0
    with pytest.raises(ConfigError, match="has one input"):
        evaluate("sltnet-twin", "twin:20001", limit=1, without="frames")


def test_ddd17_is_scored_with_its_pictures(tmp_path: Path, made: Made) -> None:
    write_preprocessed(tmp_path / "dir0", ddd17_events(), [5])
    with pytest.raises(DataError, match=r"dir0: there is no picture beside the events"):
        evaluate(str(made("sltnet-ddd17")), str(tmp_path / "dir0"), threads=1)
    (tmp_path / "dir0" / "imgs").mkdir()
    found = []
    for seed in (5, 6):
        cv2.imwrite(str(tmp_path / "dir0" / "imgs" / "img_00000005.png"), ddd17_picture(seed))
        result = evaluate(str(made("sltnet-ddd17")), str(tmp_path / "dir0"), threads=1)
        assert result.windows == 1
        found.append(result.scores)
    (sample,) = open_dataset(str(tmp_path / "dir0"))
    assert found[0].pixels == (sample.labels != 255).sum()
    assert found[0] != found[1]  # the picture matters


def test_dsec_is_scored_in_undistorted_pixels(tmp_path: Path, made: Made) -> None:
    folder = write_sequence(tmp_path)
    write_pictures(folder / "images" / "left" / "ev_inf", (640, 480))
    model = made("sltnet-dsec")
    found = evaluate(str(model), str(tmp_path), limit=1, threads=1)

    sample = open_dataset(str(tmp_path)).read(0)
    assert sample.frame is not None
    assert sample.rectify_map is not None
    segmenter = FusionSegmenter(find_model(str(model)), threads=1)
    recipe = evaluate_fusion.DsecVoxels(
        640, 480, segmenter._card.input, rectify_map=sample.rectify_map
    )
    pair = evaluate_fusion.pair_of(sample)
    frame, straight = FusionInput(640, 480, segmenter._card)(pair)
    voxels = recipe(sample.events)
    assert not np.array_equal(straight, voxels)
    # The frame lies where it is: plain pixels, cut after row 440.
    expected = sample.frame.image[:440].transpose(2, 0, 1).astype(np.float32) / 255
    assert np.allclose(frame, expected, atol=1e-6)
    answer = largest_class(segmenter.logits(frame, voxels))
    confusion = confusion_matrix(sample.labels[:440], answer, 11)
    assert found.scores == score(confusion, dsec.CLASSES)


def test_what_does_not_fit_is_said(tmp_path: Path, made: Made) -> None:
    folder = write_sequence(tmp_path)
    write_pictures(folder / "images" / "left" / "ev_inf", (640, 480))
    with pytest.raises(ConfigError, match="has the classes flat, background"):
        evaluate(str(made("sltnet-ddd17")), str(tmp_path))
    other = msgspec.structs.replace(card("sltnet-ddd17"), classes=dsec.CLASSES)
    model = write_model(tmp_path / "other", other)
    with pytest.raises(ModelError, match="does not take undistorted events"):
        evaluate(str(model), str(tmp_path), limit=1, threads=1)
