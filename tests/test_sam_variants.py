"""Which network a file is of, and files that are refused, each in one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgeperc.errors import ModelError
from edgeperc.offline.checkpoint import read_checkpoint
from edgeperc.offline.nets import sam, sam2
from edgeperc.offline.nets.sam import Sam, SamConfig
from edgeperc.offline.nets.sam2 import Sam2, Sam2Config
from edgeperc.offline.nets.sam_variants import architectures, identify, load_published
from edgeperc.offline.nets.tinyvit import TinyVitConfig
from edgeperc.offline.nets.vit import VitConfig

SMALL: dict[str, SamConfig | Sam2Config] = {
    "small-vit": SamConfig(
        name="small-vit",
        encoder=VitConfig(embed=16, depth=3, heads=2, global_blocks=(2,), picture_px=64, width=16),
        decoder_heads=2,
        decoder_feed_forward=8,
    ),
    "small-vit-deep": SamConfig(
        name="small-vit-deep",
        encoder=VitConfig(embed=16, depth=4, heads=2, global_blocks=(2,), picture_px=64, width=16),
        decoder_heads=2,
        decoder_feed_forward=8,
    ),
    "small-mobile": SamConfig(
        name="small-mobile",
        encoder=TinyVitConfig(
            embeds=(8, 8, 12, 16), heads=(2, 2, 2), picture_px=64, width=16, labels=2
        ),
        decoder_heads=2,
        decoder_feed_forward=8,
    ),
}
_SMALL_21 = Sam2Config(
    name="small2.1",
    picture_px=64,
    embed=8,
    heads=1,
    stages=(1, 1, 1, 1),
    global_blocks=(2,),
    windows=(4, 4, 2, 2),
    width=16,
    memory_width=8,
    memory_layers=1,
    feed_forward=8,
    decoder_feed_forward=8,
    decoder_heads=2,
)
SMALL |= {"small2.1": _SMALL_21, "small2": replace(_SMALL_21, name="small2", version_21=False)}


@pytest.fixture(autouse=True)
def small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a few thousand weights among the published ones."""
    for name, config in SMALL.items():
        table: Any = sam.VARIANTS if isinstance(config, SamConfig) else sam2.VARIANTS
        monkeypatch.setitem(table, name, config)


def network(name: str) -> Sam | Sam2:
    config = architectures()[name]
    return Sam(config) if isinstance(config, SamConfig) else Sam2(config)


def state_of(name: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(network(name).state_dict())


Save = Callable[[Any], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: Any) -> Path:
        torch.save(content, tmp_path / "weights.pt")
        return tmp_path / "weights.pt"

    return write


def load(path: Path, name: str) -> Sam | Sam2:
    return load_published(read_checkpoint(path), name)


PUBLISHED = [*sam.VARIANTS, *sam2.VARIANTS]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_network_is_told_from_the_others(name: str) -> None:
    with torch.device("meta"):
        state = network(name).state_dict()
    assert identify(state) == name


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "below model"])
def test_weights_come_in_as_they_were(name: str, wrapped: bool, save: Save) -> None:
    state = state_of(name)
    net = load(save({"model": state} if wrapped else state), name)
    assert not net.training
    own = net.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[key], values) for key, values in state.items())
    side = architectures()[name].picture_px
    embedding = net.encode(torch.zeros(1, 3, side, side))  # no table was left without values
    embedding = embedding if isinstance(embedding, Tensor) else embedding.embedding
    assert torch.isfinite(embedding).all()


def test_half_precision_comes_in_as_single(save: Save) -> None:
    state = {key: values.half() for key, values in state_of("small-vit").items()}
    net = load(save(state), "small-vit")
    assert {values.dtype for values in net.state_dict().values()} == {torch.float32}


def refused(path: Path, name: str, *, sentence: str, hint: str = "") -> None:
    with pytest.raises(ModelError) as caught:
        load(path, name)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hint in caught.value.hint


def test_another_size_is_named(save: Save) -> None:
    refused(
        save(state_of("small-vit-deep")),
        "small-vit",
        sentence="the checkpoint is of small-vit-deep, the card is 'small-vit'",
        hint="edgeperc models import small-vit-deep",
    )


@pytest.mark.parametrize(
    ("found", "card", "versions"),
    [("small2", "small2.1", ("SAM 2", "SAM 2.1")), ("small2.1", "small2", ("SAM 2.1", "SAM 2"))],
)
def test_a_card_of_the_other_version_is_refused(
    found: str, card: str, versions: tuple[str, str], save: Save
) -> None:
    refused(
        save({"model": state_of(found)}),
        card,
        sentence=f"the checkpoint is of {versions[0]}, the card '{card}' is of {versions[1]}",
        hint=f"edgeperc models import {found} ",
    )


def test_half_of_what_is_new_in_21_is_neither(save: Save) -> None:
    state = state_of("small2.1")
    del state["no_obj_embed_spatial"]
    refused(save(state), "small2.1", sentence="neither SAM 2 nor SAM 2.1")


def test_a_size_that_nobody_published_is_described(save: Save) -> None:
    state = state_of("small-vit")
    for key in [key for key in state if ".blocks.1." in key or ".blocks.2." in key]:
        del state[key]
    refused(
        save(state),
        "small-vit",
        sentence="SAM of width 16 and 1 blocks, which is none of the published networks",
        hint="sam-vit-h",
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("small-vit", "prompt_encoder.no_mask_embed.weight"),
        ("small-vit", "image_encoder.patch_embed.proj.weight"),
        ("small-mobile", "image_encoder.layers.1.blocks.0.attn.attention_biases"),
        ("small2", "memory_encoder.out_proj.weight"),
        ("small2", "image_encoder.neck.convs.0.conv.weight"),
    ],
)
def test_a_missing_entry_is_named(name: str, key: str, save: Save) -> None:
    state = state_of(name)
    del state[key]
    refused(save(state), name, sentence=f"lacks {key}")


def test_an_unknown_entry_is_named_and_others_are_counted(save: Save) -> None:
    state = {**state_of("small-vit"), "adapter.a": torch.ones(1), "adapter.b": torch.ones(1)}
    refused(save(state), "small-vit", sentence="has unknown key adapter.a and 1 more")


def test_another_shape_and_a_nan_are_named(save: Save) -> None:
    key = "image_encoder.pos_embed"
    state = {**state_of("small-vit"), key: torch.ones(1, 8, 8, 16)}
    refused(save(state), "small-vit", sentence=f"{key} is (1, 8, 8, 16), must be (1, 4, 4, 16)")
    state[key] = torch.full((1, 4, 4, 16), torch.nan)
    refused(save(state), "small-vit", sentence=f"{key} holds values that are not finite")


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("vision_encoder.layers.0.attn.qkv.weight", "has Hugging Face's names"),
        ("detector.backbone.vision_backbone.trunk.pos_embed", "is of SAM 3"),
        ("conv1.weight", "the checkpoint, with conv1.weight, is not of SAM"),
    ],
)
def test_what_is_of_no_such_network_is_refused(key: str, sentence: str, save: Save) -> None:
    refused(save({key: torch.ones(2, 2)}), "small-vit", sentence=sentence, hint="published")


def test_an_unknown_architecture_is_refused(save: Save) -> None:
    refused(save(state_of("small-vit")), "sam-vit-x", sentence="unknown architecture 'sam-vit-x'")


def test_a_file_cut_short_is_refused(save: Save) -> None:
    path = save(state_of("small-vit"))
    path.write_bytes(path.read_bytes()[:-1000])
    refused(path, "small-vit", sentence="damaged or cut short", hint="Download")


class Code:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "bare pickle"])
def test_code_in_a_file_is_refused_and_does_not_run(old: bool, tmp_path: Path) -> None:
    path, trace = tmp_path / "sam_vit_b.pth", tmp_path / "it-ran"
    content = {**state_of("small-vit"), "surprise": Code(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    refused(path, "small-vit", sentence="refused, because it")
    assert not trace.exists()
