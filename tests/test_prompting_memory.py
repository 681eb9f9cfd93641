from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.prompt_parts import constants
from edgeperc.packet import Frame
from edgeperc.prompt import Prompt, VideoSession
from edgeperc.prompting.memory import Constants, pixels_to_mask_input
from edgeperc.prompting.seam import F32, Features, Wish

from .tiny_promptable import card_of, exported, film, frame, tiny_sam2


def constants_of(net: Sam2) -> Constants:
    table = card_of(net).prompt
    assert table is not None
    return Constants(**constants(net, table))


@pytest.mark.parametrize("version_21", [True, False])
def test_pointers_are_placed_by_their_age_as_by_the_network(version_21: bool) -> None:
    net = tiny_sam2(2, version_21=version_21)
    ages = np.array([1, 7, 15, 4000], np.float32)
    with torch.no_grad():
        wanted = net.pointer_position(torch.from_numpy(ages)).numpy()[:: net.config.pieces]
    np.testing.assert_allclose(constants_of(net).ages(ages, 16), wanted, atol=1e-4)
    assert wanted.any() == version_21


def test_frames_are_placed_by_their_age_as_by_the_network() -> None:
    net = tiny_sam2(2)
    held = constants_of(net)
    for age in range(7):
        wanted = net.frame_position(age).detach().numpy()
        np.testing.assert_allclose(held.position + held.temporal[age - 1], wanted, atol=1e-6)


def test_a_drawn_mask_is_shown_to_the_decoder_as_by_the_network() -> None:
    net = tiny_sam2(2)
    pixels = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    with torch.no_grad():
        wanted = net.mask_downsample(torch.from_numpy(pixels)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(pixels_to_mask_input(pixels, constants_of(net)), wanted, atol=1e-5)


def test_the_encoder_is_told_what_was_seen_and_when_to_look_everywhere(tmp_path: Path) -> None:
    session = VideoSession(exported(tiny_sam2(3), tmp_path / "m"), threads=1)
    dense, told = session._encoder, []

    def listening(tensor: F32, wish: Wish) -> Features:
        told.append(wish)
        return dense(tensor, wish)

    session._encoder = listening  # type: ignore[assignment]
    pictures: list[Frame] = [frame(picture, index) for index, picture in enumerate(film(5))]
    session.step(pictures[0], {1: Prompt(points=[(40, 20)])})
    session.step(pictures[1])
    session.step(pictures[2], {2: Prompt(points=[(10, 10)])})
    session.step(pictures[3])
    session.reset()
    session.step(pictures[4], {2: Prompt(points=[(10, 10)])})
    assert [(wish.whole, len(wish.last)) for wish in told] == [
        (True, 0),
        (False, 1),
        (True, 1),
        (False, 2),
        (True, 0),
    ]
    last = told[3].last[0]
    assert (last.masks.shape, last.ious.shape) == ((4, 16, 16), (4,))
    session._encoder = SimpleNamespace(close=dense.close)  # type: ignore[assignment]
    session.close()


def test_constants_are_all_that_the_session_reads() -> None:
    held = constants_of(tiny_sam2(2))
    assert {field.name for field in dataclasses.fields(held)} == set(
        constants(tiny_sam2(2), card_of(tiny_sam2(2)).prompt)  # type: ignore[arg-type]
    )
