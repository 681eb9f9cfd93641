from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgeperc import masks
from edgeperc.offline.score_coco import PrecisionScores, PrecisionTally, Things, precision_table

SIDE = 200


def blob(rng: np.random.Generator, box: np.ndarray) -> masks.Rle:
    """An ellipse in a box, with ragged pixels."""
    y, x = np.indices((SIDE, SIDE)) + 0.5
    middle, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, 1)
    inside = ((x - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2 <= 1
    return masks.encode(inside & (rng.random((SIDE, SIDE)) < 0.95))


def scene(rng: np.random.Generator) -> tuple[Things, Things]:
    """Objects of all sizes, some crowds; finds near them, twice on some, and on nothing."""
    count = int(rng.integers(0, 7))
    corner = rng.uniform(0, 120, (count, 2))
    size = rng.choice([14, 50, 110], (count, 1)) * rng.uniform(0.6, 1, (count, 2))
    boxes = np.concatenate([corner, np.minimum(corner + size, SIDE)], 1).astype(np.float32)
    class_ids = rng.integers(0, 3, count)
    shapes = tuple(blob(rng, box) for box in boxes)
    truth = Things(
        boxes=boxes,
        class_ids=class_ids,
        masks=shapes,
        areas=np.array([float(masks.area(m)) for m in shapes]),
        crowd=rng.random(count) < 0.2,
    )
    near = np.concatenate([boxes, boxes[::2]]) + rng.normal(0, 3, (count + (count + 1) // 2, 4))
    wild = np.sort(rng.uniform(0, SIDE, (3, 2, 2)), axis=1).reshape(3, 4)
    found_boxes = np.concatenate([near, wild]).clip(0, SIDE).astype(np.float32)
    found_boxes[:, 2:] = np.maximum(found_boxes[:, 2:], found_boxes[:, :2] + 1)
    ids = np.concatenate([class_ids, class_ids[::2], rng.integers(0, 3, 3)])
    found = Things(
        boxes=found_boxes,
        class_ids=ids,
        masks=tuple(blob(rng, box) for box in found_boxes),
        scores=rng.choice([0.2, 0.5, 0.5, 0.9, 0.95], len(ids)) * 1.0,
    )
    return truth, found


def oracle(scenes: list[tuple[Things, Things]], kind: str) -> list[float]:
    """The twelve figures of pycocotools."""
    coco_api = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")

    def entry(things: Things, k: int, image: int) -> dict[str, Any]:
        x0, y0, x1, y1 = things.boxes[k].astype(np.float64)
        assert things.masks is not None
        segmentation = {"size": [SIDE, SIDE], "counts": things.masks[k].counts}
        box = {"bbox": [x0, y0, x1 - x0, y1 - y0]}
        shape = {"segmentation": segmentation} if things.areas is not None or kind == "segm" else {}
        return {
            "image_id": image,
            "category_id": int(things.class_ids[k]) + 1,
            **(box if kind == "bbox" or things.areas is not None else {}),
            **shape,
        }

    truths, finds = [], []
    for image, (truth, found) in enumerate(scenes, start=1):
        assert truth.areas is not None
        assert truth.crowd is not None
        assert found.scores is not None
        truths += [
            {
                **entry(truth, k, image),
                "area": truth.areas[k],
                "iscrowd": int(truth.crowd[k]),
            }
            for k in range(len(truth.boxes))
        ]
        finds += [
            {**entry(found, k, image), "score": found.scores[k]} for k in range(len(found.boxes))
        ]
    coco = coco_api.COCO()
    coco.dataset = {
        "images": [{"id": k, "width": SIDE, "height": SIDE} for k in range(1, len(scenes) + 1)],
        "categories": [{"id": k, "name": str(k)} for k in (1, 2, 3)],
        "annotations": [{"id": k, **t} for k, t in enumerate(truths, start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        run = evaluation.COCOeval(coco, coco.loadRes(finds), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return list(run.stats)


def ours(scenes: list[tuple[Things, Things]], kind: str) -> PrecisionScores:
    tally = PrecisionTally(("a", "b", "c"))
    for truth, found in scenes:
        if kind == "bbox":
            tally.add(truth, replace(found, masks=None))
        else:
            tally.add(truth, found)
    return tally.scores()


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(6))
def test_it_agrees_with_pycocotools(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [scene(rng) for _ in range(12)]
    expected = oracle(scenes, kind)
    found = ours(scenes, kind)
    figures = [found.ap, found.ap50, found.ap75, found.ap_small, found.ap_medium, found.ap_large]
    known = [-1 if value is None else value for value in [*figures, found.recall]]
    assert known == pytest.approx([*expected[:6], expected[8]], abs=1e-9)
    assert 0.1 < expected[0] < 0.95


def test_of_objects_that_fit_equally_the_last_is_found() -> None:
    """The first find lies between two objects, the second one is nearer to the last."""
    nothing = (masks.encode(np.zeros((SIDE, SIDE))),) * 2
    truth = Things(
        boxes=np.array([[10, 10, 50, 50], [20, 10, 60, 50]], np.float32),
        class_ids=np.array([0, 0]),
        masks=nothing,
        areas=np.array([1600.0, 1600.0]),
        crowd=np.zeros(2, np.bool_),
    )
    found = Things(
        boxes=np.array([[15, 10, 55, 50], [24, 10, 64, 50]], np.float32),
        class_ids=np.array([0, 0]),
        masks=nothing,
        scores=np.array([0.9, 0.8]),
    )
    scores = ours([(truth, found)], "bbox")
    assert scores.ap == pytest.approx(oracle([(truth, found)], "bbox")[0])
    assert scores.recall == pytest.approx(oracle([(truth, found)], "bbox")[8])


def test_the_truth_itself_is_perfect_and_nothing_is_nothing() -> None:
    truth = Things(
        boxes=np.array([[0, 0, 10, 10], [20, 20, 60, 60]], np.float32), class_ids=np.array([0, 1])
    )
    found = Things(boxes=truth.boxes, class_ids=truth.class_ids, scores=np.array([0.3, 0.9]))
    tally = PrecisionTally(("a", "b", "c"))
    tally.add(truth, found)
    scores = tally.scores()
    assert (scores.ap, scores.recall, scores.ap_large) == (1, 1, None)
    assert scores.by_class == {"a": 1, "b": 1, "c": None}
    assert (scores.pictures, scores.objects) == (1, 2)
    tally = PrecisionTally(("a", "b", "c"))
    nothing = Things(
        boxes=np.zeros((0, 4), np.float32), class_ids=np.zeros(0, np.int64), scores=np.zeros(0)
    )
    tally.add(truth, nothing)
    assert (tally.scores().ap, tally.scores().recall) == (0, 0)
    tally = PrecisionTally(("a",))
    tally.add(nothing, nothing)
    assert tally.scores().ap is None


def test_only_so_many_finds_of_a_class_count() -> None:
    truth = Things(boxes=np.array([[0, 0, 10, 10]], np.float32), class_ids=np.array([0]))
    boxes = np.tile(np.array([50, 50, 60, 60], np.float32), (101, 1))
    boxes[100] = truth.boxes[0]
    ids = np.zeros(101, np.int64)
    for last, expected in ((0.1, 0.0), (0.9, 1.0)):
        scores = np.full(101, 0.5)
        scores[100] = last
        tally = PrecisionTally(("a",))
        tally.add(truth, Things(boxes=boxes, class_ids=ids, scores=scores))
        assert tally.scores().recall == expected


def test_the_table_has_a_column_for_boxes_and_masks(capsys: pytest.CaptureFixture[str]) -> None:
    scenes = [scene(np.random.default_rng(3))]
    columns = {"box": ours(scenes, "bbox"), "mask": ours(scenes, "segm")}
    Console(width=90).print(precision_table(columns))
    shown = capsys.readouterr().out
    assert "AP50" in shown
    assert "mask %" in shown
