"""Leaving windows and tokens out: nothing changes where nothing is left out."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch

from edgeperc.errors import ConfigError
from edgeperc.offline.nets.efficient import (
    Bypass,
    Routed,
    SaliencyTaps,
    bypass_of,
    route_of,
)
from edgeperc.offline.nets.efficient_memory import (
    PrunedAttention,
    kept_tokens,
    strongest,
)
from edgeperc.offline.nets.sam2 import VARIANTS, Sam2, Sam2Config

from .retrieval_oracle import masked_attention

PADDED = Sam2Config(
    name="like B+",
    picture_px=256,
    embed=16,
    heads=1,
    stages=(1, 2, 7, 1),
    global_blocks=(5, 7, 9),
    windows=(8, 4, 7, 4),
    width=64,
    memory_width=32,
    memory_layers=2,
    feed_forward=64,
    decoder_feed_forward=64,
    decoder_heads=2,
    iou_hidden=32,
)
UNPADDED = replace(PADDED, name="like L", windows=(8, 4, 4, 8))


def network(config: Sam2Config) -> Sam2:
    """Random weights, the biases too: a bias of norm1 is what padding must not let through."""
    torch.manual_seed(3)
    net = Sam2(config).eval()
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3)
            if "norm" in name and name.endswith("weight"):
                parameter.data += 1
    return net.requires_grad_(False)


@pytest.fixture(params=(PADDED, UNPADDED), ids=("padded", "unpadded"))
def net(request: pytest.FixtureRequest) -> Sam2:
    return network(request.param)


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))


def routed(net: Sam2) -> Routed:
    return Routed(net, bypass_of(net.config).eval()).requires_grad_(False)


def test_all_windows_is_the_whole_encoder(net: Sam2, picture: torch.Tensor) -> None:
    model = routed(net)
    every = torch.arange(model.route.windows)
    found, dense = model(picture, every), net.encode(picture)
    torch.testing.assert_close(found.embedding, dense.embedding, atol=2e-5, rtol=1e-5)
    for ours, theirs in zip(found.high, dense.high, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_pyramid_beside_the_trunk_is_in_the_head_as_well(picture: torch.Tensor) -> None:
    net = network(replace(UNPADDED, pyramid=True))
    model = routed(net)
    found = model(picture, torch.arange(model.route.windows))
    dense = net.encode(picture)
    torch.testing.assert_close(found.embedding, dense.embedding, atol=2e-5, rtol=1e-5)
    trunk = net.image_encoder.trunk
    for level, join in enumerate(trunk.joins):
        kept = join.weight.detach().clone()
        join.weight.zero_()
        moved = (net.encode(picture).embedding - dense.embedding).abs().max()
        assert moved > 1e-4, f"the map of level {level} reaches nothing"
        join.weight.copy_(kept)


def test_order_of_windows_does_not_matter(net: Sam2, picture: torch.Tensor) -> None:
    model = routed(net)
    some = torch.tensor([0, 3, 5])
    there, back = model(picture, some), model(picture, some.flip(0))
    torch.testing.assert_close(there.embedding, back.embedding, atol=2e-5, rtol=1e-5)


def test_middle_does_not_see_windows_that_are_left_out(net: Sam2) -> None:
    model = routed(net)
    valid = model.route.valid()
    some = torch.tensor([1, 2, model.route.windows - 1])
    size, width = model.route.window, 4 * net.config.embed
    tokens = torch.randn(model.route.windows, size, size, width)
    alone = model.middle(tokens[some], valid[some])
    filled = torch.cat([tokens[some], torch.randn(2, size, size, width)])
    zeros = torch.cat([valid[some], torch.zeros(2, size, size, 1)])
    inside = valid[some].expand_as(alone) > 0
    torch.testing.assert_close(
        model.middle(filled, zeros)[:3][inside], alone[inside], atol=2e-5, rtol=1e-5
    )


def test_tokens_beyond_the_edge_do_not_matter() -> None:
    model = routed(network(PADDED))
    valid = model.route.valid()
    tokens = torch.randn(model.route.windows, 7, 7, 64)
    other = torch.where(valid > 0, tokens, torch.randn_like(tokens))
    inside = valid.expand_as(tokens) > 0
    found, same = model.middle(tokens, valid), model.middle(other, valid)
    torch.testing.assert_close(found[inside], same[inside], atol=2e-5, rtol=1e-5)


def test_what_is_left_out_is_bypassed(net: Sam2, picture: torch.Tensor) -> None:
    model = routed(net)
    tokens = model.head(picture)[0]
    seen: list[torch.Tensor] = []
    block = net.image_encoder.trunk.blocks[model.route.stop]
    handle = block.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.from_head(tokens, torch.tensor([0]))
    handle.remove()
    size = model.route.window
    expected = model.tail.bypass(tokens)
    torch.testing.assert_close(seen[0][:, size:], expected[:, size:])
    torch.testing.assert_close(seen[0][:, :, size:], expected[:, :, size:])
    assert not torch.allclose(seen[0][:, :size, :size], expected[:, :size, :size])


@pytest.mark.parametrize(
    ("name", "first", "stop", "windows"),
    [
        ("sam2.1-hiera-base-plus", 6, 20, 25),
        ("sam2.1-hiera-large", 9, 43, 16),
        ("sam2.1-hiera-tiny", 4, 9, 25),
    ],
)
def test_published_routes(name: str, first: int, stop: int, windows: int) -> None:
    route = route_of(VARIANTS[name])
    assert (route.first, route.stop, route.windows) == (first, stop, windows)


def test_nothing_to_route() -> None:
    with pytest.raises(ConfigError, match="cannot be routed"):
        route_of(replace(PADDED, stages=(1, 2, 2, 1), global_blocks=(4,)))
    with pytest.raises(ConfigError, match="only one window"):
        route_of(replace(PADDED, windows=(8, 4, 16, 8)))


@pytest.mark.parametrize(
    ("name", "width", "bytes_"),
    [("sam2.1-hiera-base-plus", 448, 812_222), ("sam2.1-hiera-large", 576, 1_338_302)],
)
def test_layout_of_the_published_adapters(name: str, width: int, bytes_: int) -> None:
    layout = {
        "down_project.weight": (width // 2, width),
        "down_project.bias": (width // 2,),
        "up_project.weight": (width, width // 2),
        "up_project.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    state = {key: torch.randn(shape) for key, shape in layout.items()}
    bypass = bypass_of(VARIANTS[name])
    bypass.load_state_dict(state, strict=True)
    numbers = sum(values.numel() for values in state.values())
    assert 0 < bytes_ - 4 * numbers < 4096  # what torch.save puts around them
    x = torch.randn(2, width)
    normed = torch.nn.functional.layer_norm(
        x, (width,), state["norm.weight"], state["norm.bias"], 1e-6
    )
    down = (normed @ state["down_project.weight"].T + state["down_project.bias"]).relu()
    expected = x + down @ state["up_project.weight"].T + state["up_project.bias"]
    torch.testing.assert_close(bypass.eval()(x), expected, atol=1e-3, rtol=1e-5)


def test_a_new_adapter_hardly_changes_a_token() -> None:
    x = torch.randn(50, 64)
    assert (Bypass(64).eval()(x) - x).abs().max() < 0.1


# Memory retrieval.

GRID, POINTERS = 16 * 16, 4


@pytest.fixture(scope="module")
def remembered() -> dict[str, torch.Tensor]:
    """A prompt frame, five older frames, the newest, and two pointers of two tokens each."""
    generator = torch.Generator().manual_seed(5)
    tokens = 7 * GRID + POINTERS
    return {
        "embedding": torch.randn(1, 64, 16, 16, generator=generator),
        "memory": torch.randn(1, tokens, 32, generator=generator),
        "memory_position": torch.randn(1, tokens, 32, generator=generator),
    }


OLDER, NEWEST = slice(GRID, 6 * GRID), slice(6 * GRID, 7 * GRID)


def as_tokens(net: Sam2, embedding: torch.Tensor) -> torch.Tensor:
    return (embedding + 0.1 * cast(torch.Tensor, net.position)).flatten(2).transpose(1, 2)


def test_keeping_all_tokens_is_the_whole_memory(remembered: dict[str, torch.Tensor]) -> None:
    net = network(UNPADDED)
    memory, position = remembered["memory"], remembered["memory_position"]
    found, scores = masked_attention(
        net.memory_attention,
        as_tokens(net, remembered["embedding"]),
        memory,
        position,
        POINTERS,
        keep=torch.ones(2, memory.shape[1], dtype=torch.bool),
        newest=NEWEST,
    )
    dense = net.attend_memory(remembered["embedding"], memory, position, POINTERS)
    found = found.transpose(1, 2).reshape(dense.shape)
    torch.testing.assert_close(found, dense, atol=2e-5, rtol=1e-5)
    assert scores.shape == (2, GRID)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))


@pytest.mark.parametrize("count", [12, GRID])
def test_pruned_attention_is_masked_attention(
    remembered: dict[str, torch.Tensor], count: int
) -> None:
    net = network(UNPADDED)
    embedding, memory = remembered["embedding"], remembered["memory"]
    position = remembered["memory_position"]
    marks = strongest(torch.rand(2 * 5, GRID), count).reshape(2, 5, GRID)
    keep = torch.ones(2, memory.shape[1], dtype=torch.bool)
    keep[:, OLDER] = marks.flatten(1)
    expected, scores = masked_attention(
        net.memory_attention,
        as_tokens(net, embedding),
        memory,
        position,
        POINTERS,
        keep=keep,
        newest=NEWEST,
    )
    chosen = torch.stack([row[OLDER].nonzero()[:, 0] for row in keep])  # (layers, 5 * count)
    whole = torch.cat([torch.arange(GRID), torch.arange(6 * GRID, memory.shape[1])])
    spot = chosen % GRID
    found, found_scores = PrunedAttention(net, POINTERS)(
        embedding,
        memory[:, whole],
        position[:, whole],
        torch.zeros(1, len(whole)),
        memory[0, OLDER][chosen],
        position[0, OLDER][chosen],
        torch.stack([spot % 16, spot // 16], dim=-1).float(),
        torch.zeros(2, 5 * count),
    )
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected, atol=3e-5, rtol=1e-5)
    torch.testing.assert_close(found_scores, scores, atol=1e-6, rtol=1e-4)


def test_slots_that_are_not_used_do_not_matter(remembered: dict[str, torch.Tensor]) -> None:
    net = network(UNPADDED)
    embedding, memory = remembered["embedding"], remembered["memory"]
    position = remembered["memory_position"]
    whole = torch.cat([torch.arange(6 * GRID, memory.shape[1])])
    unused = torch.full((2, 8), -1e4)
    pruned = PrunedAttention(net, POINTERS)
    found, _ = pruned(
        embedding, memory[:, whole], position[:, whole], torch.zeros(1, len(whole)),
        torch.randn(2, 8, 32), torch.randn(2, 8, 32), torch.zeros(2, 8, 2), unused,
    )  # fmt: skip
    dense = net.attend_memory(embedding, memory[:, whole], position[:, whole], POINTERS)
    torch.testing.assert_close(found, dense, atol=2e-5, rtol=1e-5)


def test_kept_tokens() -> None:
    assert kept_tokens(0.05, 64 * 64) == 204
    assert kept_tokens(1.0, 64 * 64) == 4096
    assert kept_tokens(0.05, 16 * 16) == 12
    assert kept_tokens(0.0, 16 * 16) == 1
    assert kept_tokens(0.29, 100) == 29  # 28.999… in float64


def test_strongest_marks_so_many_of_each_layer() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.4, 0.0], [0.0, 0.1, 0.2, 0.7]])
    marks = strongest(scores, 2)
    assert marks.tolist() == [[False, True, True, False], [False, False, True, True]]


def test_saliency_sums_to_one_and_leaves_the_answer_alone() -> None:
    net = network(UNPADDED)
    features = net.encode(torch.randn(1, 3, 256, 256))
    prompt = torch.tensor([[[100.0, 80.0], [0.0, 0.0]]]), torch.tensor([[1.0, -1.0]])
    plain = net.decode(features.embedding, features.high, *prompt)
    taps = SaliencyTaps(net.sam_mask_decoder)
    tapped = net.decode(features.embedding, features.high, *prompt)
    saliency = taps.read()
    taps.remove()
    assert saliency.shape == (1, 16, 16)
    torch.testing.assert_close(saliency.sum(), torch.tensor(1.0))
    torch.testing.assert_close(tapped.masks, plain.masks, atol=1e-4, rtol=1e-4)
