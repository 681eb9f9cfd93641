"""Pictures as promptable networks take them, with a click and a box for some of their objects."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeperc.config import Input
from edgeperc.offline.clicks import first_click
from edgeperc.offline.compress.adapters import Sample, Subject
from edgeperc.offline.drawn_prompts import ABSENT, CORNERS, FOREGROUND, HALF_PX, PADDING, boxes
from edgeperc.offline.examples import Example
from edgeperc.picture import IMAGENET_MEAN, IMAGENET_STD, Picture

MEAN, STD = IMAGENET_MEAN, IMAGENET_STD
OBJECTS = 4
"""At most so many objects of a picture, each with a click and a box."""
LEAST_SHARE = 0.005
"""A smaller part of its picture is no object."""
GRID = 2
"""Pictures without masks are clicked at GRID x GRID places."""


def prompted(source: Sequence[Example], side_px: int, *, represent: str, seed: int) -> list[Sample]:
    """A sample for each picture; see `Sample`. represent: `stretch` or `longest`, as in cards."""
    spec = Input(
        kind="frame", represent=represent, width_px=side_px, height_px=side_px, mean=MEAN, std=STD
    )
    picture = Picture(spec, smooth=represent == "stretch")
    samples = []
    for index, example in enumerate(source):
        rng = np.random.default_rng((seed, index))
        tensor = torch.from_numpy(picture(example.picture).copy())[None]
        inside = (picture.zoom * example.picture.shape[1::-1]).round().astype(int)
        truth = _objects(example, (int(inside[0]), int(inside[1])), side_px, rng)
        points, labels = pointed(truth) if len(truth) else grid_clicks(side_px)
        sample = {"picture": tensor, "points": points, "labels": labels}
        samples.append({**sample, "truth": truth.repeat(2, 1, 1)} if len(truth) else sample)
    return samples


def pointed(truth: Tensor) -> tuple[Tensor, Tensor]:
    """A click in the middle of each mask (B, S, S) bool, then the box of each: points (2B, 3, 2)
    px, labels (2B, 3).
    """
    clicks = [first_click(mask.numpy()) for mask in truth]
    points = torch.zeros(2 * len(truth), 3, 2)
    points[: len(truth), 0] = torch.tensor([click.point for click in clicks]) - HALF_PX
    points[len(truth) :, :2] = boxes(truth).view(-1, 2, 2) - HALF_PX
    click, box = [FOREGROUND, PADDING, ABSENT], [*CORNERS, PADDING]
    return points, torch.tensor([click] * len(truth) + [box] * len(truth))


def grid_clicks(side_px: int, count: int = GRID) -> tuple[Tensor, Tensor]:
    """Clicks in the middles of count x count cells: points (B, 3, 2), labels (B, 3)."""
    middle = (torch.arange(count) + 0.5) * side_px / count - HALF_PX
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    points = torch.zeros(count * count, 3, 2)
    points[:, 0] = torch.stack([x, y], -1).reshape(-1, 2)
    return points, torch.tensor([FOREGROUND, PADDING, ABSENT]).repeat(count * count, 1)


def noisy(count: int, side_px: int, seed: int) -> list[Sample]:
    """Pictures whose normalised pixels are N(0, 1), clicked on a grid."""
    generator = torch.Generator().manual_seed(seed)
    points, labels = grid_clicks(side_px)
    return [
        {
            "picture": torch.randn(1, 3, side_px, side_px, generator=generator),
            "points": points.clone(),
            "labels": labels.clone(),
        }
        for _ in range(count)
    ]


@torch.no_grad()
def score_masks(masks: Tensor, ious: Tensor, sample: Sample) -> dict[str, list[float]]:
    """IoUs of one sample's answers: `click_miou` and `box_miou` of the masks that a user gets,
    `click_best` and `box_best` of the best that was offered. masks: (B, 4, h, h) logits.

    A click gets the one of masks 1 to 3 that the network rates best, a box mask 0.
    """
    if "truth" not in sample:
        return {}
    truth = sample["truth"]
    large = F.interpolate(masks.float(), truth.shape[-2:], mode="bilinear") > 0
    both = (large & truth[:, None]).sum((2, 3))
    either = (large | truth[:, None]).sum((2, 3))
    reached = both / either.clamp(min=1)
    clicked = sample["labels"][:, 0] == FOREGROUND
    rated = 1 + ious[:, 1:].argmax(1)
    selected = torch.where(clicked, rated, torch.zeros_like(rated))
    got, best = reached.gather(1, selected[:, None])[:, 0], reached.amax(1)
    return {
        f"{way}_{what}": [float(v) for v in values[rows]]
        for way, rows in (("click", clicked), ("box", ~clicked))
        for what, values in (("miou", got), ("best", best))
    }


@torch.no_grad()
def scored(subject: Subject, net: nn.Module, held_out: Sequence[Sample]) -> dict[str, float]:
    """`score_masks` of what a promptable network answers, means over all objects."""
    parts = []
    for sample in held_out:
        out = subject.run(net, sample)
        parts.append(score_masks(out["masks"], out["ious"], sample))
    return means(parts)


def means(parts: Sequence[dict[str, list[float]]]) -> dict[str, float]:
    """Means over all objects of all samples."""
    names = dict.fromkeys(name for part in parts for name in part)
    gathered = {name: [v for part in parts for v in part.get(name, [])] for name in names}
    return {name: float(np.mean(values)) for name, values in gathered.items() if values}


def _objects(
    example: Example, inside_px: tuple[int, int], side_px: int, rng: np.random.Generator
) -> Tensor:
    """Masks (B, S, S) bool of some objects of one of the maps, in the network's picture."""
    if not example.maps:
        return torch.zeros(0, side_px, side_px, dtype=torch.bool)
    numbers = example.maps[int(rng.integers(len(example.maps)))]
    small = _shrunk(numbers, inside_px, side_px)
    found, counts = np.unique(small, return_counts=True)
    large = found[(found > 0) & (counts >= LEAST_SHARE * small.size)]
    chosen = rng.permutation(large)[:OBJECTS]
    return (
        torch.from_numpy(np.stack([small == n for n in chosen]))
        if len(chosen)
        else (torch.zeros(0, side_px, side_px, dtype=torch.bool))
    )


def _shrunk(
    numbers: NDArray[np.int32], inside_px: tuple[int, int], side_px: int
) -> NDArray[np.int32]:
    shrunk = cv2.resize(numbers, inside_px, interpolation=cv2.INTER_NEAREST)
    full = np.zeros((side_px, side_px), np.int32)
    full[: inside_px[1], : inside_px[0]] = shrunk
    return full
