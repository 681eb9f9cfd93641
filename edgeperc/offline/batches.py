"""What a network is trained on: voxel grids and labels, cut, mirrored and stacked."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeperc.config import Input
from edgeperc.offline.datasets import TWIN_CAMERA, TWIN_WINDOW_US
from edgeperc.offline.samples import IGNORE, Dataset, Sample
from edgeperc.represent import RECIPES, Recipe
from edgeperc.twin.scene import CLASSES

INPUT = Input(
    kind="events",
    represent="voxel-grid",
    width_px=TWIN_CAMERA.width_px,
    height_px=TWIN_CAMERA.height_px,
    bins=5,
    window_us=TWIN_WINDOW_US,
)


def crops(data: Dataset, key: tuple[int, int], count: int, width_px: int) -> tuple[Tensor, Tensor]:
    """Crops of random windows, half of them mirrored: the same for the same key (seed, step).

    Returns voxels (count, bins, H, width_px) float32 and labels (count, H, width_px) int64, where
    H is that of the network's input.
    """
    rng = np.random.default_rng(key)
    voxels, labels = [], []
    for index in rng.integers(0, len(data), count):
        grid, truth = network_pair(data.read(int(index)))
        start = int(rng.integers(0, grid.shape[2] - width_px + 1))
        cut = slice(start, start + width_px)
        grid, truth = grid[:, :, cut], truth[:, cut]
        if rng.random() < 0.5:
            grid, truth = grid[:, :, ::-1], truth[:, ::-1]
        voxels.append(torch.from_numpy(np.ascontiguousarray(grid)))
        labels.append(torch.from_numpy(np.ascontiguousarray(truth)))
    stacked = torch.stack(voxels).contiguous(memory_format=torch.channels_last)
    return stacked, torch.stack(labels).long()


def network_pair(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """What the network eats and what it should say: (bins, h, w) and (h, w), padded alike."""
    grid = _recipe()(sample.events).copy()
    truth = np.full(grid.shape[1:], IGNORE, np.uint8)
    height, width = sample.labels.shape
    truth[:height, :width] = sample.labels
    return grid, truth


def class_weights(data: Dataset, balance: float, samples: int = 100) -> Tensor:
    """Loss weights, share ** -balance for each class, so that the mean pixel weighs 1."""
    counts = np.zeros(len(CLASSES))
    for sample in data.thinned(samples):
        counts += np.bincount(sample.labels.ravel(), minlength=len(CLASSES))
    shares = np.maximum(counts / counts.sum(), 1e-4)
    weights = shares**-balance
    return torch.tensor(weights / np.sum(weights * shares), dtype=torch.float32)


def whole_pictures(data: Dataset, seed: int, count: int) -> Iterator[Tensor]:
    """`count` random pairs of network inputs, (2, bins, H, W) float32 each."""
    for index in np.random.default_rng((seed, 1 << 30)).integers(0, len(data), (count, 2)):
        grids = [torch.from_numpy(network_pair(data.read(int(k)))[0]) for k in index]
        yield torch.stack(grids).contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=1)
def _recipe() -> Recipe:
    return RECIPES[INPUT.represent](INPUT.width_px, INPUT.height_px, INPUT)
