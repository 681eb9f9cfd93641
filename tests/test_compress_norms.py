"""Which layers read a norm: found without tracing, checked here by tracing."""

import pytest
import torch

from edgeperc.offline.compress.norms import norms_of
from edgeperc.offline.nets.efficient import bypass_of
from edgeperc.offline.nets.prompt_encoder import LayerNorm2d
from edgeperc.offline.nets.sam import Sam
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.nets.tinyvit import TinyViT, TinyVitConfig

from .tiny_promptable import TINY, tiny_sam, tiny_sam2


@pytest.fixture(scope="module")
def sam():
    return tiny_sam()


@pytest.fixture(scope="module")
def sam2():
    return tiny_sam2()


def answers(net):
    """All that a network makes of one picture or frame."""
    torch.manual_seed(5)
    side = net.config.picture_px
    picture = torch.randn(1, 3, side, side)
    points, labels = side * torch.rand(1, 3, 2), torch.tensor([[1.0, 0.0, -1.0]])
    if isinstance(net, Sam):
        masks = net.decode(net.encode(picture), points, labels)
        return [masks.masks, masks.ious, masks.tokens]
    features = net.encode(picture)
    memory = net.encode_memory(
        features.embedding,
        torch.randn(1, 1, side, side),
        torch.ones(1, 1),
        from_points=False,
    )
    tokens = net.frame_tokens(memory)
    seen = net.attend_memory(features.embedding, tokens, net.frame_position(1)[None], 0)
    return [*net.decode(seen, features.high, points, labels)[:3], *answers_of_pointer(net, seen)]


def answers_of_pointer(net, seen):
    high = net.encode(torch.zeros(1, 3, *2 * [net.config.picture_px])).high
    return [net.decode(seen, high, torch.zeros(1, 1, 2), torch.ones(1, 1)).pointers, seen]


def with_a_norm_scaled(net, norm):
    """Answers after channel 1 of a norm was doubled, and its readers' weights for it halved."""
    before = {name: values.clone() for name, values in net.state_dict().items()}
    with torch.no_grad():
        norm.module.weight[1] *= 2
        norm.module.bias[1] *= 2
        for name in norm.consumers:
            reader = net.get_submodule(name)
            if getattr(reader, "groups", 1) == 1:
                reader.weight[:, 1] /= 2
            else:
                reader.weight[1] /= 2
        found = answers(net)
    net.load_state_dict(before)
    return found


@pytest.mark.parametrize("which", ["sam", "sam2"])
def test_every_norm_can_be_rescaled_with_its_readers(which, request):
    net = request.getfixturevalue(which)
    with torch.no_grad():
        exact = answers(net)
    norms = norms_of(net)
    assert len(norms) > 4
    for norm in norms.values():
        for found, expected in zip(with_a_norm_scaled(net, norm), exact, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=norm.name)


def test_a_missing_reader_would_be_seen(sam2):
    """The check above can fail: so it does for the shortcut of a block that gains channels."""
    norms = norms_of(sam2)
    gaining = [n for n in norms.values() if any(c.endswith(".proj") for c in n.consumers)]
    assert [len(n.consumers) for n in gaining] == [2, 2, 2]
    for norm in gaining:
        qkv = type(norm)(norm.name, norm.module, norm.consumers[:1], norm.padded)
        with torch.no_grad():
            exact = answers(sam2)
        found = with_a_norm_scaled(sam2, qkv)
        assert (found[0] - exact[0]).abs().max() > 1e-4


def test_norms_of_sam_and_where_its_windows_are_padded(sam):
    norms = norms_of(sam)
    assert list(norms) == [
        *(f"image_encoder.blocks.{block}.norm{norm}" for block in (0, 1) for norm in (1, 2)),
        "image_encoder.neck.1",
    ]
    # Windows of 3 on a grid of 4; the second block looks at the whole picture; 3 x 3 in the neck.
    assert [norm.padded for norm in norms.values()] == [True, False, False, False, True]


def test_norms_of_sam2_and_where_its_windows_are_padded(sam2):
    norms = norms_of(sam2)
    trunk = "image_encoder.trunk.blocks"
    # Sides of 16, 16, 8, 4, 4 with windows of 8, 8, 4, none, and 3; one block more than stages.
    padded = [name for name, norm in norms.items() if norm.padded]
    sides = [16, 16, 8, 4, 4]
    windows = [block.window for block in sam2.image_encoder.trunk.blocks]
    assert padded == [
        f"{trunk}.{index}.norm1"
        for index, (side, window) in enumerate(zip(sides, windows, strict=True))
        if window and side % window
    ]
    assert padded
    assert norms["memory_attention.layers.0.norm1"].consumers == tuple(
        f"memory_attention.layers.0.self_attn.{part}_proj" for part in "qkv"
    )
    assert norms["memory_encoder.fuser.layers.0.norm"].consumers == (
        "memory_encoder.fuser.layers.0.pwconv1",
    )
    assert len(norms["sam_mask_decoder.transformer.norm_final_attn"].consumers) == 7


def test_windows_that_tile_the_picture_are_not_padded():
    net = tiny_sam2(windows=(8, 4, 2, 2))
    assert not any(norm.padded for norm in norms_of(net).values())


def test_windows_are_compared_with_what_pooling_left_of_the_picture():
    """Eight tiles the 16 patches of the beginning, not the 4 where it is used."""
    norms = norms_of(tiny_sam2(windows=(8, 4, 8, 2)))
    padded = [name for name, norm in norms.items() if norm.padded]
    assert padded == ["image_encoder.trunk.blocks.4.norm1"]


@pytest.mark.parametrize("norm", ["norm1", "norm2", "norm3", "norm4"])
def test_a_norm_that_feeds_a_residual_is_left_out(sam2, norm):
    assert f"sam_mask_decoder.transformer.layers.0.{norm}" in dict(sam2.named_modules())
    assert not any(f"transformer.layers.0.{norm}" in name for name in norms_of(sam2))
    assert "memory_attention.norm" not in norms_of(sam2)


def test_other_networks_have_theirs():
    tiny = norms_of(
        TinyViT(TinyVitConfig(embeds=(8, 8, 8, 8), depths=(1, 1, 1, 1), heads=(1, 1, 1), labels=2))
    )
    assert tiny["layers.1.blocks.0.attn.norm"].consumers == ("layers.1.blocks.0.attn.qkv",)
    assert not tiny["layers.1.blocks.0.attn.norm"].padded
    assert tiny["neck.1"].padded
    spiking = norms_of(SLTNet(4, width=8, blocks=(1, 1, 1)))
    assert "transformers.0.attention.q.0.2" in spiking
    assert norms_of(bypass_of(TINY))["norm"].consumers == ("down_project",)
    assert norms_of(torch.nn.Sequential(LayerNorm2d(3), torch.nn.Conv2d(3, 3, 1))) == {}
