from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from edgeperc.prompting.enlarge import enlarge, to_logits, to_network, to_picture


def smooth(side: int) -> NDArray[np.float32]:
    coarse = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    return F.interpolate(coarse, (side, side), mode="bicubic")[0, 0].numpy()


@pytest.mark.parametrize("size_px", [(1920, 1080), (70, 300), (33, 17), (256, 256)])
def test_a_mask_is_torchs_bilinear_one(size_px: tuple[int, int]) -> None:
    logits = smooth(64)
    width, height = size_px
    wanted = F.interpolate(torch.from_numpy(logits)[None, None], (height, width), mode="bilinear")
    found = to_picture(logits, width, height, np.array([256 / width, 256 / height]))
    assert found.shape == (height, width)
    assert found.dtype == np.bool_
    assert (found != (wanted[0, 0] > 0).numpy()).mean() < 2e-4


def test_of_a_padded_picture_only_its_own_part_is_seen() -> None:
    """As SAM's own code does it: up to the network's size, cut, then to the picture's."""
    logits, zoom = smooth(64), np.array([256 / 500, 154 / 300])
    large = F.interpolate(torch.from_numpy(logits)[None, None], (256, 256), mode="bilinear")
    wanted = F.interpolate(large[:, :, :154], (300, 500), mode="bilinear")[0, 0].numpy()
    found = to_picture(logits, 500, 300, zoom)
    assert (found != (wanted > 0)).mean() < 2e-4
    assert (found != to_picture(logits, 500, 300, np.array([256 / 500, 256 / 300]))).mean() > 0.1


def test_logits_are_enlarged_as_by_torch() -> None:
    logits = smooth(16)
    wanted = F.interpolate(torch.from_numpy(logits)[None, None], (64, 64), mode="bilinear")
    np.testing.assert_allclose(enlarge(logits, 64), wanted[0, 0].numpy(), atol=1e-5)


def test_a_mask_comes_to_the_network_by_shares_and_leaves_padding_empty() -> None:
    mask = np.zeros((100, 200), np.bool_)
    mask[:50, :100] = True
    shares = to_network(mask, 64, np.array([64 / 200, 32 / 100]))
    assert shares.shape == (64, 64)
    np.testing.assert_allclose(shares[:16, :32], 1, atol=1e-5)
    assert not shares[16:].any()
    assert not shares[:, 32:].any()
    thin = np.zeros((100, 200), np.bool_)
    thin[:, 77] = True  # a third of a network pixel wide
    assert to_network(thin, 64, np.array([0.32, 0.64])).sum() > 0
    logits = to_logits(shares, 16)
    np.testing.assert_allclose(logits[:4, :8], 10, atol=1e-4)
    np.testing.assert_allclose(logits[5:], -10, atol=1e-4)


@pytest.mark.parametrize("size_px", [(64, 64), (20, 30), (700, 500)])
def test_a_mask_survives_the_way_there_and_back(size_px: tuple[int, int]) -> None:
    width, height = size_px
    row, column = np.mgrid[:height, :width]
    mask = np.hypot((column - width / 2) / width, (row - height / 3) / height) < 0.25
    zoom = np.array([256 / width, 256 / height])
    back = to_picture(to_logits(to_network(mask, 256, zoom), 64), width, height, zoom)
    assert (back != mask).mean() < 0.01
