"""Each decoder against the plain sum written out in numpy, on random outputs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeperc.detection.decode import DECODERS, Candidates

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def fastestdet(output: Array, score: float, height: int, width: int) -> tuple[Array, Array, Array]:
    maps = output[0]
    rows, columns = maps.shape[1:]
    y, x = np.mgrid[:rows, :columns]
    scores = maps[0] ** 0.6 * maps[5:].max(0) ** 0.4
    cx, cy = (x + np.tanh(maps[1])) / columns, (y + np.tanh(maps[2])) / rows
    w, h = sigmoid(maps[3]), sigmoid(maps[4])
    boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)
    boxes *= [width, height, width, height]
    return select(boxes, scores, maps[5:].argmax(0), score)


def yolox(output: Array, score: float, height: int, width: int) -> tuple[Array, Array, Array]:
    cells, strides = [], []
    for stride in (8, 16, 32):
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x, y], -1).reshape(-1, 2))
        strides.append(np.full((len(cells[-1]), 1), stride))
    p, cell, stride = output[0], np.concatenate(cells), np.concatenate(strides)
    centre, size = (p[:, :2] + cell) * stride, np.exp(p[:, 2:4]) * stride
    boxes = np.concatenate([centre - size / 2, centre + size / 2], -1)
    return select(boxes, p[:, 4] * p[:, 5:].max(1), p[:, 5:].argmax(1), score)


def finder(output: Array, score: float, height: int, width: int) -> tuple[Array, Array, Array]:
    maps = output[0]
    classes = len(maps) - 8
    y, x = np.mgrid[: height // 8, : width // 8]
    centre = np.stack([x, y, x, y], -1) * 8.0 + 4
    reach = np.moveaxis(maps[classes : classes + 4], 0, -1) * 8
    boxes = centre + reach * [-1, -1, 1, 1]
    return select(boxes, sigmoid(maps[:classes].max(0)), maps[:classes].argmax(0), score)


def select(
    boxes: Array, scores: Array, ids: NDArray[np.int64], least: float
) -> tuple[Array, Array, Array]:
    kept = scores.ravel() >= least
    return boxes.reshape(-1, 4)[kept], scores.ravel()[kept], ids.ravel()[kept]


REFERENCE = {"fastestdet": fastestdet, "yolox": yolox, "finder": finder}
NEAR_ONE = {"fastestdet": (0, *range(5, 11)), "yolox": range(4, 11)}


def random_output(name: str, height: int, width: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(4)
    shape = DECODERS[name].shape(6, height, width)
    output = rng.normal(0, 1, shape)
    channels = list(NEAR_ONE.get(name, ()))
    where = np.index_exp[:, :, channels] if name == "yolox" else np.index_exp[:, channels]
    output[where] = rng.uniform(0, 1, output[where].shape)
    if name == "finder":
        output[:, 6:10] = rng.uniform(0.1, 4, output[:, 6:10].shape)
    return output.astype(np.float32)


@pytest.mark.parametrize("score", [0.0, 0.3, 0.65, 1.0])
@pytest.mark.parametrize("name", sorted(DECODERS))
def test_decoders_do_the_plain_sum(name: str, score: float) -> None:
    height, width = 96, 160
    output = random_output(name, height, width)
    found = DECODERS[name].decode(output, score, height, width)
    boxes, scores, ids = REFERENCE[name](output.astype(np.float64), score, height, width)
    assert len(found) == len(boxes)
    assert (len(found) > 0) == (score < 1)
    np.testing.assert_allclose(found.boxes, boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
    np.testing.assert_array_equal(found.class_ids, ids)


def test_only_the_finder_states_variances() -> None:
    stated = {}
    for name in DECODERS:
        found = DECODERS[name].decode(random_output(name, 32, 32), 0.2, 32, 32)
        stated[name] = found.variance
    assert stated["fastestdet"] is None
    assert stated["yolox"] is None
    variance = stated["finder"]
    assert variance is not None
    assert (variance > 0).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", sorted(DECODERS))
def test_poisoned_outputs_give_only_finite_boxes(name: str, poison: float) -> None:
    output = random_output(name, 64, 64)
    rng = np.random.default_rng(0)
    output[rng.random(output.shape) < 0.2] = poison
    found = DECODERS[name].decode(output, 0.1, 64, 64)
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.scores).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    if found.variance is not None:
        assert np.isfinite(found.variance).all()


def test_candidates_are_taken_with_all_that_belongs_to_them() -> None:
    found = Candidates(
        boxes=np.arange(8, dtype=np.float32).reshape(2, 4),
        scores=np.array([0.1, 0.2], np.float32),
        class_ids=np.array([3, 4]),
        variance=np.ones((2, 4), np.float32) * [[1], [2]],
    )
    one = found.take(np.array([1]))
    assert (len(one), one.class_ids.tolist()) == (1, [4])
    assert one.variance is not None
    assert one.variance.tolist() == [[2, 2, 2, 2]]
