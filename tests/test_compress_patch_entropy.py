from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edgeperc.errors import ModelError
from edgeperc.offline.compress.calibrate.patch_entropy import PatchTaps, patch_entropy, patches_of
from edgeperc.offline.nets.hiera import partition
from edgeperc.offline.nets.taps import Attention

from .tiny_promptable import tiny_sam, tiny_sam2


def plain(patches: NDArray[np.float64]) -> float:
    """As the paper writes it, pair by pair and point by point."""
    likeness = []
    for i in range(len(patches)):
        for j in range(i):
            lengths = np.linalg.norm(patches[i]) * np.linalg.norm(patches[j])
            likeness.append(float(patches[i] @ patches[j]) / lengths)
    places = np.linspace(min(likeness), max(likeness), 10)
    integrand = []
    for place in places:
        kernels = [math.exp(-(((each - place) / 0.01) ** 2) / 2) for each in likeness]
        density = sum(kernels) / (len(likeness) * 0.01 * math.sqrt(2 * math.pi)) + 1e-4
        integrand.append(density * math.log(density))
    return -sum((a + b) / 2 for a, b in pairwise(integrand)) * (places[1] - places[0])


@pytest.mark.parametrize("count", [2, 3, 17])
def test_as_written_out(count):
    patches = torch.randn(3, count, 5, generator=torch.Generator().manual_seed(count)).double()
    expected = [plain(each.numpy()) for each in patches]
    assert patch_entropy(patches).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_each_picture_by_itself():
    patches = torch.randn(2, 12, 8)
    alone = torch.cat([patch_entropy(patches[:1]), patch_entropy(patches[1:])])
    assert torch.allclose(patch_entropy(patches), alone, atol=1e-5)


def test_likeness_of_many_kinds_is_higher_than_of_one():
    generator = torch.Generator().manual_seed(0)
    noise = 1 + 0.1 * torch.randn(1, 64, 32, generator=generator)
    groups = torch.randn(1, 4, 32, generator=generator).repeat_interleave(16, 1)
    strength = torch.rand(1, 64, 1, generator=generator)
    assert patch_entropy(groups * strength + noise) > patch_entropy(noise) + 0.5


def test_rises_along_its_gradient():
    patches = torch.randn(2, 24, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    before = patch_entropy(patches)
    adam = torch.optim.Adam([patches], lr=0.03)
    for _ in range(60):
        adam.zero_grad()
        (-patch_entropy(patches).sum()).backward()
        adam.step()
    assert (patch_entropy(patches) > before + 0.1).all()


def test_equal_patches_are_no_division_by_zero():
    patches = torch.ones(1, 6, 4, requires_grad=True)
    entropy = patch_entropy(patches)
    entropy.sum().backward()
    assert entropy.abs().max() < 1e-3
    assert torch.isfinite(patches.grad).all()


@pytest.mark.parametrize(("side", "window"), [(8, 4), (8, 3), (8, 8), (8, 14), (64, 14), (32, 7)])
def test_windows_come_together_without_what_is_beyond_the_edge(side, window):
    whole = torch.randn(2, side, side, 3)
    rows = partition(whole, window).flatten(1, 2)
    heads = torch.stack([rows - 1, rows + 1], 1)
    patches = patches_of(heads, 2, picture_px=16 * side)
    assert torch.allclose(patches, whole.flatten(1, 2), atol=1e-6)


def test_windows_that_are_no_square():
    with pytest.raises(ModelError, match="6 windows of 4 tokens"):
        patches_of(torch.zeros(6, 1, 4, 2), 2, picture_px=64)
    with pytest.raises(ModelError, match="no square"):
        patches_of(torch.zeros(2, 1, 5, 2), 2, picture_px=64)


@pytest.mark.parametrize(
    ("make", "expected"), [(tiny_sam2, [256, 64, 16, 16, 4]), (tiny_sam, [16, 16])]
)
def test_networks_with_windows_that_do_not_fit(make, expected):
    net = make()
    pictures = torch.randn(3, 3, 64, 64)
    apart = net.encode(pictures)
    with PatchTaps(net.image_encoder, picture_px=64) as taps:
        together = net.encode(pictures)
    seen = [patches_of(each.seen, 3, 64).shape[:2] for each in taps._recorders]
    assert seen == [(3, count) for count in expected]
    for one, other in zip(_tensors(apart), _tensors(together), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_the_mean_over_attentions_of_drawn_patches():
    net = tiny_sam2()
    with PatchTaps(net.image_encoder, picture_px=64) as taps:
        net.encode(torch.randn(2, 3, 64, 64))
    all_of_them = [patch_entropy(patches_of(each.seen, 2, 64)) for each in taps._recorders]
    whole = taps.entropy(2, torch.Generator(), patches=10_000)
    assert torch.allclose(whole, torch.stack(all_of_them).mean(0), atol=1e-3)
    few = [taps.entropy(2, torch.Generator().manual_seed(k), patches=64) for k in range(8)]
    assert (few[0] - few[1]).abs().min() > 1e-4, "of other patches, not of all in another order"
    assert torch.allclose(torch.stack(few).mean(0), whole, atol=0.15)


def test_taps_are_left_as_they_were():
    net = tiny_sam()
    attentions = [m for m in net.image_encoder.modules() if isinstance(m, Attention)]
    attentions[0].tap_out.work = other = nn.Identity()
    with pytest.raises(ZeroDivisionError), PatchTaps(net.image_encoder, picture_px=64):
        raise ZeroDivisionError
    assert [each.tap_out.work for each in attentions] == [other, None]


def test_an_encoder_without_attention():
    with pytest.raises(ModelError, match="no attention"):
        PatchTaps(nn.Linear(2, 2), picture_px=64)


def _tensors(features):
    return [features] if torch.is_tensor(features) else [features.embedding, *features.high]
