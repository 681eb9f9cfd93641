"""SAM against two independent implementations with the same random weights."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgeperc.inference.session import Session
from edgeperc.offline.nets.prompt_encoder import ABSENT, PADDING
from edgeperc.offline.nets.sam import VARIANTS, Sam, SamConfig
from edgeperc.offline.nets.taps import Attention, Tap
from edgeperc.offline.nets.tinyvit import TinyVitConfig
from edgeperc.offline.nets.vit import VitConfig
from edgeperc.offline.onnx_tidy import tidy, unfit

# 256 px: a grid of 16, so that windows of 14 are filled up; blocks in windows and global ones.
TINY = SamConfig(
    name="tiny",
    encoder=VitConfig(
        embed=48, depth=4, heads=4, global_blocks=(1, 3), picture_px=256, window=14, width=32
    ),
    decoder_heads=2,
    decoder_feed_forward=64,
)
CLOSE = 1e-4


def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that keep values near 1, with every bias, norm and position in play."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, values in [*net.named_parameters(), *net.named_buffers()]:
            if not values.is_floating_point():
                continue
            values.normal_(generator=draw)
            if name.endswith("running_var"):
                values.abs_().add_(0.5)
            elif values.dim() == 1 and name.endswith("weight"):
                values.mul_(0.2).add_(1)
            elif values.dim() > 1 and "embed" not in name and "gaussian" not in name:
                values.div_(math.sqrt(values[0].numel()))
            else:
                values.mul_(0.3)
    return net.eval()


@pytest.fixture(scope="module")
def ours() -> Sam:
    net = randomise(Sam(TINY))
    assert isinstance(net, Sam)
    return net


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))


# The prompts of the comparison: points (P, 2) with labels, a box, a mask of an earlier answer.

POINTS, LABELS = torch.tensor([[40.0, 200.0], [131.5, 7.25], [255.0, 0.0]]), torch.tensor([1, 0, 1])
BOX = torch.tensor([30.5, 21.0, 200.0, 249.0])
MASK = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
PROMPTS = {
    "points": (POINTS, LABELS, None, None),
    "box": (None, None, BOX, None),
    "points and box": (POINTS, LABELS, BOX, None),
    "point and mask": (POINTS[:1], LABELS[:1], None, MASK),
}
prompts = pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
Prompt = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def as_tokens(prompt: Prompt) -> tuple[Tensor, Tensor]:
    """points (1, P, 2), labels (1, P) as ours wants them: corners are points, so is the padding."""
    points, labels, box, _ = prompt
    where, kinds = [], []
    if points is not None and labels is not None:
        where, kinds = [points], [labels.float()]
    if box is not None:
        where.append(box.reshape(2, 2))
        kinds.append(torch.tensor([2.0, 3.0]))
    else:
        where.append(torch.zeros(1, 2))
        kinds.append(torch.tensor([PADDING]))
    return torch.cat(where)[None], torch.cat(kinds)[None]


# Hugging Face's SamModel.

RENAMED = (
    ("image_encoder.", "vision_encoder."),
    ("blocks.", "layers."),
    ("patch_embed.proj", "patch_embed.projection"),
    ("neck.0", "neck.conv1"),
    ("neck.1", "neck.layer_norm1"),
    ("neck.2", "neck.conv2"),
    ("neck.3", "neck.layer_norm2"),
    ("mask_downscaling.0", "mask_embed.conv1"),
    ("mask_downscaling.1", "mask_embed.layer_norm1"),
    ("mask_downscaling.3", "mask_embed.conv2"),
    ("mask_downscaling.4", "mask_embed.layer_norm2"),
    ("mask_downscaling.6", "mask_embed.conv3"),
    ("output_upscaling.0", "upscale_conv1"),
    ("output_upscaling.1", "upscale_layer_norm"),
    ("output_upscaling.3", "upscale_conv2"),
    (".point_embeddings", ".point_embed"),
    ("pe_layer.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (".norm_final_attn.", ".layer_norm_final_attn."),
    (".norm", ".layer_norm"),
)
HEADS = (("layers.0.", "proj_in."), ("layers.1.", "layers.0."), ("layers.2.", "proj_out."))


def to_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names, which are Meta's, as those of transformers."""
    renamed = {}
    for name, values in state.items():
        head = "iou_prediction_head" in name or "hypernetworks" in name
        theirs = name
        for old, new in HEADS if head else RENAMED:
            theirs = theirs.replace(old, new)
        renamed[theirs] = values
    shared = renamed["prompt_encoder.shared_embedding.positional_embedding"]
    return {**renamed, "shared_image_embedding.positional_embedding": shared}


@pytest.fixture(scope="module")
def hugging_face(ours: Sam) -> Any:
    pytest.importorskip("transformers")
    try:
        from transformers import SamConfig as TheirConfig
        from transformers import SamModel
    except RuntimeError as error:  # a broken torchvision is worse than none
        pytest.skip(f"transformers cannot be used: {error}")
    vit = TINY.encoder
    assert isinstance(vit, VitConfig)
    config = TheirConfig(
        vision_config={
            "hidden_size": vit.embed,
            "output_channels": vit.width,
            "num_hidden_layers": vit.depth,
            "num_attention_heads": vit.heads,
            "image_size": vit.picture_px,
            "window_size": vit.window,
            "global_attn_indexes": list(vit.global_blocks),
            "num_pos_feats": vit.width // 2,
            "mlp_dim": 4 * vit.embed,
        },
        prompt_encoder_config={
            "hidden_size": vit.width,
            "image_size": vit.picture_px,
            "image_embedding_size": vit.grid,
        },
        mask_decoder_config={
            "hidden_size": vit.width,
            "mlp_dim": TINY.decoder_feed_forward,
            "num_attention_heads": TINY.decoder_heads,
        },
    )
    net = SamModel(config).eval()
    net.load_state_dict(to_hugging_face(ours.state_dict()), strict=True)
    return net


@torch.no_grad()
def test_the_embedding_is_that_of_hugging_face(
    ours: Sam, hugging_face: Any, picture: Tensor
) -> None:
    theirs = hugging_face.get_image_embeddings(picture)
    assert theirs.std() > 0.5
    assert torch.allclose(ours.encode(picture), theirs, atol=CLOSE, rtol=0)


@prompts
@torch.no_grad()
def test_answers_are_those_of_hugging_face(
    ours: Sam, hugging_face: Any, picture: Tensor, prompt: Prompt
) -> None:
    points, labels, box, mask = prompt
    asked = {
        "image_embeddings": ours.encode(picture),
        "input_points": None if points is None else points[None, None],
        "input_labels": None if labels is None else labels[None, None],
        "input_boxes": None if box is None else box[None, None].clone(),
        "input_masks": mask,
    }
    answer = ours.decode(asked["image_embeddings"], *as_tokens(prompt), mask)
    for several, ways in ((True, slice(1, None)), (False, slice(0, 1))):
        theirs = hugging_face(**asked, multimask_output=several)
        assert theirs.pred_masks.std() > 0.05
        assert torch.allclose(answer.masks[:, ways], theirs.pred_masks[:, 0], atol=CLOSE, rtol=0)
        assert torch.allclose(answer.ious[:, ways], theirs.iou_scores[:, 0], atol=CLOSE, rtol=0)


# Meta's own package, without its face, which needs torchvision.


def modeling(package: str, module: str) -> Any:
    """A module of an installed package, below a stand-in so that its __init__ does not run."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not here")
    name = f"stand_in_for_{package}"
    if name not in sys.modules:
        stand_in = types.ModuleType(name)
        stand_in.__path__ = [str(Path(spec.origin).parent)]
        sys.modules[name] = stand_in
    return importlib.import_module(f"{name}.{module}")


@pytest.fixture(scope="module")
def meta(ours: Sam) -> Any:
    parts = modeling("segment_anything", "modeling")
    vit = TINY.encoder
    assert isinstance(vit, VitConfig)
    net = parts.Sam(
        image_encoder=parts.ImageEncoderViT(
            img_size=vit.picture_px,
            embed_dim=vit.embed,
            depth=vit.depth,
            num_heads=vit.heads,
            out_chans=vit.width,
            norm_layer=lambda width: nn.LayerNorm(width, eps=1e-6),
            use_rel_pos=True,
            window_size=vit.window,
            global_attn_indexes=vit.global_blocks,
        ),
        prompt_encoder=parts.PromptEncoder(
            embed_dim=vit.width,
            image_embedding_size=(vit.grid, vit.grid),
            input_image_size=(vit.picture_px, vit.picture_px),
            mask_in_chans=16,
        ),
        mask_decoder=parts.MaskDecoder(
            transformer=parts.TwoWayTransformer(
                depth=2,
                embedding_dim=vit.width,
                mlp_dim=TINY.decoder_feed_forward,
                num_heads=TINY.decoder_heads,
            ),
            transformer_dim=vit.width,
        ),
    )
    net.load_state_dict(ours.state_dict(), strict=True)
    return net.eval()


@torch.no_grad()
def test_the_embedding_is_that_of_meta(ours: Sam, meta: Any, picture: Tensor) -> None:
    theirs = meta.image_encoder(picture)
    assert torch.allclose(ours.encode(picture), theirs, atol=CLOSE, rtol=0)


@prompts
@torch.no_grad()
def test_answers_are_those_of_meta(ours: Sam, meta: Any, picture: Tensor, prompt: Prompt) -> None:
    points, labels, box, mask = prompt
    embedding = ours.encode(picture)
    pair = None if points is None or labels is None else (points[None], labels[None])
    boxes = None if box is None else box[None]
    sparse, dense = meta.prompt_encoder(points=pair, boxes=boxes, masks=mask)
    masks, ious = meta.mask_decoder.predict_masks(
        image_embeddings=embedding,
        image_pe=meta.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    answer = ours.decode(embedding, *as_tokens(prompt), mask)
    assert torch.allclose(answer.masks, masks, atol=CLOSE, rtol=0)
    assert torch.allclose(answer.ious, ious, atol=CLOSE, rtol=0)


@pytest.mark.parametrize(
    ("name", "builder", "parameters"),
    [
        ("sam-vit-b", "build_sam_vit_b", 93_735_472),
        ("sam-vit-l", "build_sam_vit_l", 312_342_832),
        ("sam-vit-h", "build_sam_vit_h", 641_090_608),
    ],
)
def test_the_published_sizes_have_the_names_and_shapes_of_meta(
    name: str, builder: str, parameters: int
) -> None:
    build = getattr(modeling("segment_anything", "build_sam"), builder)
    with torch.device("meta"):
        net, theirs = Sam(VARIANTS[name]), build()
        embedding = net.encode(torch.empty(1, 3, 1024, 1024))
    assert shapes(net) == shapes(theirs)
    for part, module in theirs.named_modules():
        if hasattr(module, "eps"):
            assert net.get_submodule(part).eps == module.eps
    assert sum(values.numel() for values in net.parameters()) == parameters
    assert embedding.shape == (1, 256, 64, 64)


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(values.shape) for name, values in net.state_dict().items()}


# What is ours: taps, absent points, export.


@torch.no_grad()
def test_an_absent_point_is_as_if_it_were_not_there(ours: Sam, picture: Tensor) -> None:
    embedding = ours.encode(picture)
    points, labels = as_tokens(PROMPTS["points"])
    more = torch.cat([points, torch.full((1, 4, 2), 99.0)], dim=1)
    kinds = torch.cat([labels, torch.full((1, 4), ABSENT)], dim=1)
    alone, among = ours.decode(embedding, points, labels), ours.decode(embedding, more, kinds)
    assert torch.allclose(alone.masks, among.masks, atol=1e-5, rtol=0)
    assert torch.allclose(alone.ious, among.ious, atol=1e-5, rtol=0)


@torch.no_grad()
def test_written_out_attention_is_the_fused_one(ours: Sam, picture: Tensor) -> None:
    tokens = as_tokens(PROMPTS["points"])
    fused = ours.decode(ours.encode(picture), *tokens)
    attentions = [module for module in ours.modules() if isinstance(module, Attention)]
    assert len(attentions) == 4 + 7
    for each in attentions:
        each.written_out = True
    try:
        written = ours.decode(ours.encode(picture), *tokens)
    finally:
        for each in attentions:
            each.written_out = False
    assert torch.allclose(fused.masks, written.masks, atol=1e-5, rtol=0)
    sites = {name for name, module in ours.named_modules() if isinstance(module, Tap)}
    assert "image_encoder.blocks.3.attn.tap_softmax" in sites
    assert len(sites) == 6 * (4 + 7)


@torch.no_grad()
def test_relative_positions_are_of_the_query_before_its_tap(ours: Sam) -> None:
    """A tap that makes the query zero leaves the bias alone to decide."""
    block: Any = ours.get_submodule("image_encoder.blocks.1")
    attention, seen = block.attn, torch.randn(1, 16, 16, 48)
    qkv = attention.qkv(seen).reshape(1, 256, 3, 4, 12).permute(2, 0, 3, 1, 4)
    expected = attention.bias(qkv[0]).softmax(-1) @ qkv[2]
    attention.tap_q.work = Zero()
    try:
        got = attention(seen)
    finally:
        attention.tap_q.work = None
    mixed = attention.proj(expected.transpose(1, 2).reshape(1, 16, 16, 48))
    assert torch.allclose(got, mixed, atol=1e-5, rtol=0)


class Zero(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return torch.zeros_like(values)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        SamConfig(
            name="tiny-mobile",
            encoder=TinyVitConfig(
                embeds=(8, 16, 20, 40), heads=(2, 2, 4), picture_px=256, width=32, labels=3
            ),
            decoder_heads=2,
            decoder_feed_forward=64,
        ),
    ],
    ids=lambda config: config.name,
)
@pytest.mark.filterwarnings("ignore")  # the old exporter warns of sizes that become constants
def test_an_exported_encoder_is_static_and_says_the_same(
    config: SamConfig, picture: Tensor, tmp_path: Path
) -> None:
    net, path = randomise(Sam(config)), tmp_path / "encoder.onnx"
    encoder = net.get_submodule("image_encoder")
    torch.onnx.export(encoder, (picture,), str(path), dynamo=False, opset_version=17)
    model = tidy(onnx.load(path))
    assert not unfit(model)
    assert not {"Shape", "Einsum", "Gather"} & {node.op_type for node in model.graph.node}
    onnx.save(model, path)
    (answer,) = Session(path).run(picture.numpy())
    with torch.no_grad():
        expected = encoder(picture).numpy()
    assert expected.std() > 0.5
    assert np.abs(answer - expected).max() < CLOSE
