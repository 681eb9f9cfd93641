from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeperc import masks
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.nets.sam2_video import Clicks, Drawn, Found, TorchVideo
from edgeperc.offline.nets.sam2_video import Prompt as TorchPrompt
from edgeperc.picture import Picture
from edgeperc.places import ModelFolder
from edgeperc.prompt import Prompt, VideoSession
from edgeperc.prompting.enlarge import to_network, to_picture

from .tiny_promptable import card_of, exported, film, frame, tiny_sam2

ZOOM = np.array([64 / 90, 64 / 50])


@pytest.fixture(scope="module")
def net() -> Sam2:
    return tiny_sam2(presence=1.2)


@pytest.fixture(scope="module")
def model(net: Sam2, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return exported(net, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def session(model: ModelFolder) -> VideoSession:
    return VideoSession(model, threads=1)


def disc(x: float, y: float, radius: float) -> NDArray[np.bool_]:
    row, column = np.mgrid[:50, :90]
    return np.asarray((column - x) ** 2 + (row - y) ** 2 < radius**2)


PLAN: dict[int, dict[int, Prompt]] = {
    0: {5: Prompt(points=[(40, 20)], labels=[1])},
    2: {9: Prompt(box=(10, 5, 40, 45))},
    3: {9: Prompt(box=(12, 6, 40, 44), points=[(20, 20), (70, 10)], labels=[1, 0])},
    4: {5: Prompt(points=[(60, 30)], labels=[0])},
    6: {5: Prompt(mask=disc(30, 25, 12)), 9: Prompt(points=[(30, 20), (80, 4)], labels=[1, 0])},
}
"""A click, a box in mid-stream, corrections by a box, a click, a drawn mask and two clicks."""


def as_torch(prompt: Prompt) -> TorchPrompt:
    if prompt.mask is not None:
        return Drawn(torch.from_numpy(to_network(prompt.mask, 64, ZOOM)))
    points, labels = [prompt.points], [prompt.labels]
    if prompt.box is not None:
        points.insert(0, prompt.box.reshape(2, 2))
        labels.insert(0, np.array([2, 3], np.float32))
    at = np.concatenate(points) * ZOOM - 0.5
    label = np.concatenate(labels)  # type: ignore[arg-type]
    return Clicks(torch.from_numpy(at.astype(np.float32)), torch.from_numpy(label))


def tensors(net: Sam2, pictures: list[NDArray[np.uint8]]) -> list[Tensor]:
    make = Picture(card_of(net).input)
    return [torch.from_numpy(make(picture).copy()) for picture in pictures]


def agree(found: Found, mask: NDArray[np.bool_]) -> float:
    wanted = to_picture(found.logits.numpy(), 90, 50, ZOOM)
    return float((wanted == mask).mean())


@pytest.mark.parametrize(
    ("version_21", "seed", "presence", "open_memory"),
    [(True, 14, 1.0, False), (False, 23, -1.3, False), (True, 10, -3.0, True)],
)
def test_objects_are_followed_as_by_the_network_itself(
    tmp_path: Path, version_21: bool, seed: int, presence: float, open_memory: bool
) -> None:
    net = tiny_sam2(seed, presence=presence, version_21=version_21)
    model = exported(net, tmp_path / "m", open_memory=open_memory)
    session, reference = VideoSession(model, threads=1), TorchVideo(net, prompt_frames=2)
    pictures = film(10)
    shown = []
    for index, (picture, tensor) in enumerate(zip(pictures, tensors(net, pictures), strict=True)):
        prompts = PLAN.get(index, {})
        if index == 8:
            session.remove(5)
            reference.remove(5)
        found = session.step(frame(picture, index), prompts)
        wanted = reference.step(tensor, {key: as_torch(each) for key, each in prompts.items()})
        assert found.ids.tolist() == list(wanted) == list(session.objects)
        for place, (object_id, each) in enumerate(wanted.items()):
            drawn = object_id in prompts and prompts[object_id].mask is not None
            assert found.scores[place] == pytest.approx(each.iou, abs=1e-4)
            visible = torch.tensor(each.object_logit).sigmoid().item()
            assert found.visible[place] == pytest.approx(visible, abs=1e-4)
            mask = masks.decode(found.masks[place])
            assert agree(each, mask) > (0.98 if drawn else 0.999)
            np.testing.assert_array_equal(found.boxes[place], masks.box(found.masks[place]))
            shown.append((mask.mean(), each.object_logit > 0))
    assert found.stamp.seq == 9
    covered = np.array([share for share, there in shown if there])
    assert ((covered > 0.02) & (covered < 0.98)).sum() > 5  # else the comparison says nothing
    assert not all(there for _, there in shown)  # and it loses sight of them now and then
