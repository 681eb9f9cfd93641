from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeperc.offline import batches
from edgeperc.offline.datasets import TRAINING_STREETS, cached_twin
from edgeperc.offline.samples import IGNORE, Dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cache")
    return cached_twin(TRAINING_STREETS[:1], folder, windows_a_street=2, processes=1)


def test_batches_depend_on_seed_and_step_alone(data: Dataset) -> None:
    voxels, labels = batches.crops(data, (3, 7), 3, 64)
    again = batches.crops(data, (3, 7), 3, 64)
    other = batches.crops(data, (3, 8), 3, 64)
    assert voxels.shape == (3, 5, 264, 64)
    assert labels.shape == (3, 264, 64)
    assert torch.equal(voxels, again[0])
    assert torch.equal(labels, again[1])
    assert not torch.equal(voxels, other[0])
    assert torch.all(labels[:, 260:] == IGNORE)


def test_crops_and_mirrors_keep_voxels_and_labels_together(data: Dataset) -> None:
    """Each crop must be found in one of the pictures, voxels and labels at the same place."""
    voxels, labels = batches.crops(data, (0, 0), 8, 64)
    pairs = [batches.network_pair(data.read(k)) for k in range(len(data))]
    for grid, truth in zip(voxels.numpy(), labels.numpy(), strict=True):
        places = {
            (k, start, step)
            for k, (whole, _) in enumerate(pairs)
            for step in (1, -1)
            for start in range(352 - 64 + 1)
            if np.array_equal(whole[:, :, start : start + 64][:, :, ::step], grid)
        }
        assert len(places) == 1
        (k, start, step) = places.pop()
        assert np.array_equal(pairs[k][1][:, start : start + 64][:, ::step], truth)


def test_rare_classes_weigh_more(data: Dataset) -> None:
    weights = batches.class_weights(data, 0.75)
    counts = sum(np.bincount(s.labels.ravel(), minlength=6) for s in data)
    order = np.argsort(counts)
    assert torch.all(torch.diff(weights[torch.from_numpy(order.copy())]) <= 0)
    shares = torch.from_numpy(counts / counts.sum())
    assert torch.sum(weights * shares) == pytest.approx(1)
