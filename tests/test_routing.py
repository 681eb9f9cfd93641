"""Which windows are looked at, and that looking at all of them is the whole encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgeperc import places
from edgeperc.config import Input
from edgeperc.errors import ModelError
from edgeperc.offline.export_efficient import add_efficient
from edgeperc.offline.nets.efficient import Bypass, Routed, bypass_of
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.places import ModelFolder
from edgeperc.prompt import Efficient, Prompt, VideoSession
from edgeperc.prompting.networks import DenseEncoder, Network
from edgeperc.prompting.routing import Glance, RoutedEncoder
from edgeperc.prompting.seam import Decoded, Wish
from edgeperc.prompting.windows import choose, merge, partition, salient, touched

from .tiny_promptable import exported, film, frame, tiny_sam2

GRID, MASK = 8, 32
SIZES = {"padded": 6, "unpadded": 2}


def network(window: int) -> tuple[Sam2, Bypass]:
    net = tiny_sam2(
        1, picture_px=128, stages=(1, 1, 5, 1), global_blocks=(4, 6), windows=(8, 4, window, 2)
    )
    bypass = bypass_of(net.config).eval()
    torch.nn.init.normal_(bypass.up_project.weight, std=0.5)
    return net.requires_grad_(False), bypass.requires_grad_(False)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(SIZES["padded"], id="padded"),
        pytest.param(SIZES["unpadded"], id="unpadded", marks=pytest.mark.slow),
    ],
)
def routed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelFolder, Routed]:
    """A model folder, and the network that its files are held to."""
    net, bypass = network(request.param)
    folder = tmp_path_factory.mktemp("routed") / "model"
    exported(net, folder)
    add_efficient(folder, net, bypass, keep_share=0.25)
    return places.find_model(str(folder)), Routed(net, bypass)


@pytest.fixture
def tensor() -> NDArray[np.float32]:
    smooth = torch.nn.functional.interpolate(
        torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(2)), (128, 128)
    )
    return smooth[0].numpy()


def decoded(
    *, at: tuple[slice, slice] | None = None, logit: float = 9.0, look: tuple[int, int] = (0, 0)
) -> Decoded:
    """A mask where `at` is, and attention on one token."""
    masks = np.full((4, MASK, MASK), -1.0, np.float32)
    masks[0] = 1.0  # the one for a clear prompt does not count
    if at is not None:
        masks[2][at] = 1.0
    saliency = np.zeros((GRID, GRID), np.float32)
    saliency[look] = 1.0
    return Decoded(masks=masks, ious=np.ones(4, np.float32), object_logit=logit, saliency=saliency)


UPPER_LEFT = (slice(0, 4), slice(0, 4))


@pytest.mark.parametrize("window", SIZES.values())
def test_windows_put_together_again(window: int) -> None:
    x = np.random.default_rng(0).random((GRID, GRID, 5), np.float32)
    cut = partition(x, window)
    assert cut.shape == ((-(-GRID // window)) ** 2, window, window, 5)
    np.testing.assert_array_equal(merge(cut, GRID), x)
    np.testing.assert_array_equal(cut[1, :, :2], x[:window, window : window + 2])
    assert cut.sum() == pytest.approx(x.sum(), rel=1e-5), "zeros beyond the edge"


def test_a_mask_touches_windows_within_two_pixels() -> None:
    logits = np.full((MASK, MASK), -1.0, np.float32)
    logits[3, 5] = 1.0  # two pixels before the second window of 2 * 4 px
    assert np.flatnonzero(touched(logits, 2)).tolist() == [0]
    logits[3, 6] = 1.0
    assert np.flatnonzero(touched(logits, 2)).tolist() == [0, 1]
    logits[7, 0] = 1.0
    assert np.flatnonzero(touched(logits, 2)).tolist() == [0, 1, 4]


def test_the_fewest_windows_that_hold_most_of_the_attention() -> None:
    saliency = np.zeros((GRID, GRID), np.float32)
    saliency[0, 0], saliency[0, 2], saliency[7, 7], saliency[4, 4] = 0.5, 0.25, 0.15, 0.1
    assert np.flatnonzero(salient(saliency, 2)).tolist() == [0, 1]
    assert np.flatnonzero(salient(saliency, 2, theta=0.45)).tolist() == [0]
    assert np.flatnonzero(salient(saliency, 2, theta=0.85)).tolist() == [0, 1, 15]


def test_a_sure_mask_decides_alone() -> None:
    last = (decoded(at=UPPER_LEFT, look=(7, 7)),)
    assert np.flatnonzero(choose(last, GRID, 2)).tolist() == [0]


def test_attention_counts_where_an_object_is_not_sure() -> None:
    unsure = decoded(at=UPPER_LEFT, logit=4.9, look=(7, 7))
    assert np.flatnonzero(choose((unsure,), GRID, 2)).tolist() == [0, 15]


def test_attention_counts_where_there_is_no_mask() -> None:
    assert np.flatnonzero(choose((decoded(look=(0, 7)),), GRID, 2)).tolist() == [3]


def test_windows_of_all_objects() -> None:
    last = (decoded(at=UPPER_LEFT), decoded(at=(slice(28, 32), slice(28, 32))))
    assert np.flatnonzero(choose(last, GRID, 2)).tolist() == [0, 15]


def test_without_attention_and_mask_nothing_is_known() -> None:
    assert not choose((replace(decoded(), saliency=None),), GRID, 2).any()


# The encoder.


def test_a_whole_frame_is_the_dense_encoders(
    routed: tuple[ModelFolder, Routed], tensor: NDArray[np.float32]
) -> None:
    model, _ = routed
    encoder, dense = RoutedEncoder(model, threads=1), DenseEncoder(model, threads=1)
    found, wanted = encoder(tensor, Wish()), dense(tensor, Wish())
    np.testing.assert_allclose(found.embedding, wanted.embedding, atol=3e-5)
    for ours, theirs in zip(found.high, wanted.high, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert encoder.sizes == dense.sizes
    assert encoder.counters["dense_frames"] == 1


def test_routed_frames_are_the_networks(
    routed: tuple[ModelFolder, Routed], tensor: NDArray[np.float32]
) -> None:
    model, net = routed
    encoder = RoutedEncoder(model, threads=1)
    encoder(tensor, Wish())
    last = (decoded(at=UPPER_LEFT),)
    encoder(tensor, Wish(whole=False, last=last))
    assert encoder.counters["dense_frames"] == 2, "the first one after a prompt is whole"
    spread = (decoded(at=(slice(2, 30), slice(10, 12))), decoded(at=UPPER_LEFT))
    for last in ((decoded(at=UPPER_LEFT),), spread):
        chosen = np.flatnonzero(choose(last, GRID, net.route.window))
        assert 0 < len(chosen) < net.route.windows
        found = encoder(tensor, Wish(whole=False, last=last))
        wanted = net(torch.from_numpy(tensor)[None], torch.from_numpy(chosen))
        np.testing.assert_allclose(found.embedding, wanted.embedding, atol=3e-5)
    assert encoder.counters["routed_frames"] == 2
    assert encoder.counters["windows"] == 1 + len(chosen)


class Watched:
    """A network that notes how many windows it is run for."""

    def __init__(self, network: Network) -> None:
        self.network, self.counts = network, list[int]()

    def run(self, *inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        self.counts.append(len(inputs[0]))
        return self.network.run(*inputs)


def test_buckets_fill_up_with_nothing(
    routed: tuple[ModelFolder, Routed], tensor: NDArray[np.float32]
) -> None:
    model, net = routed
    answers = []
    for buckets in (None, (3,)):
        encoder = RoutedEncoder(model, threads=1, buckets=buckets)
        watched = Watched(encoder._middle)
        encoder._middle = watched  # type: ignore[assignment]
        for whole in (True, True, False, False):
            found = encoder(tensor, Wish(whole=whole, last=(decoded(at=UPPER_LEFT),)))
        answers.append(found.embedding)
        every = net.route.windows
        assert watched.counts == [every, every, every, 1 if buckets is None else 3]
    np.testing.assert_allclose(answers[1], answers[0], atol=3e-5)


def test_guards(routed: tuple[ModelFolder, Routed], tensor: NDArray[np.float32]) -> None:
    model, _ = routed
    encoder = RoutedEncoder(model, threads=1)
    for _ in range(2):
        encoder(tensor, Wish())
    there, gone = decoded(at=UPPER_LEFT), decoded(at=UPPER_LEFT, logit=-0.1)

    def counted(picture: NDArray[np.float32], *last: Decoded) -> dict[str, int]:
        before = encoder.counters
        encoder(picture, Wish(whole=False, last=last))
        return {k: v - before[k] for k, v in encoder.counters.items() if v != before[k]}

    assert counted(tensor, there)["dense_frames"] == 1  # the first one after a prompt
    assert counted(tensor, there) == {"routed_frames": 1, "windows": 1}
    assert counted(tensor, there, gone) == {"dense_frames": 1, "lost_frames": 1}
    assert counted(tensor, there) == {"routed_frames": 1, "windows": 1}
    assert counted(tensor + 2, there) == {"dense_frames": 1, "scene_cuts": 1}
    assert counted(tensor + 2, there) == {"routed_frames": 1, "windows": 1}
    upset = np.roll(tensor + 2, 64, axis=1)
    assert counted(upset, there) == {"dense_frames": 1, "fast_frames": 1}
    assert counted(upset) == {"dense_frames": 1}, "nothing was tracked"


def test_glance_takes_pixels_as_the_card_has_them() -> None:
    rng = np.random.default_rng(1)
    first, other = rng.random((2, 3, 64, 64), np.float32)
    mean, std = np.array([120.0, 110, 100]), np.array([58.0, 57, 56])
    for card in (
        Input(kind="frame", represent="stretch", width_px=64, height_px=64),
        Input(
            kind="frame",
            represent="stretch",
            width_px=64,
            height_px=64,
            mean=tuple(mean),
            std=tuple(std),
        ),
    ):
        glance = Glance(card)
        shift, scale = (np.array(each)[..., None, None] for each in (card.mean, card.std))
        views = [((255 * each - shift) / scale).astype(np.float32) for each in (first, other)]
        dark = ((25 * first - shift) / scale).astype(np.float32)
        assert glance(views[0]) == (False, False)
        assert glance(views[1]) == (False, False), "noise is neither"
        assert glance(dark) == (True, True)
        assert glance(dark) == (False, False)


def test_a_session_routes(routed: tuple[ModelFolder, Routed]) -> None:
    model, _ = routed
    pictures = film(5)
    prompts = {1: Prompt(points=np.array([[40, 20]], np.float32))}
    scores = {}
    for switch in (False, True):
        session = VideoSession(model, threads=1, efficient=Efficient(window_routing=switch))
        found = [
            session.step(frame(picture, index), prompts if index == 0 else {})
            for index, picture in enumerate(pictures)
        ]
        scores[switch] = [each.scores[0] for each in found]
        assert ("routed_frames" in session.counters) == switch
        session.close()
        session.close()
    np.testing.assert_allclose(scores[True][:2], scores[False][:2], atol=1e-5)


def test_the_card_decides_unless_asked(routed: tuple[ModelFolder, Routed]) -> None:
    model, _ = routed
    assert model.card.prompt is not None
    table = msgspec.structs.replace(model.card.prompt, window_routing=True)
    switched = ModelFolder(msgspec.structs.replace(model.card, prompt=table), model.folder)
    assert "routed_frames" in VideoSession(switched, threads=1).counters
    off = Efficient(window_routing=False)
    assert "routed_frames" not in VideoSession(switched, threads=1, efficient=off).counters


def test_without_its_files(tmp_path: Path) -> None:
    plain = exported(tiny_sam2(1), tmp_path / "plain")
    with pytest.raises(ModelError, match="encoder_head"):
        VideoSession(plain, threads=1, efficient=Efficient(window_routing=True))
