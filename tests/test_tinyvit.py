"""TinyViT: the layout of mobile_sam.pt, a slow reference from its names, and MobileSAM itself.

`make setup-peers` installs MobileSAM's own code; absent, it is skipped.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.offline.nets.sam import VARIANTS, Sam
from edgeperc.offline.nets.taps import Attention
from edgeperc.offline.nets.tinyvit import TinyViT, TinyVitConfig

# 224 px: grids of 28 and 14, so that windows of 5 and 6 are filled up and those of 7 are not.
TINY = TinyVitConfig(
    embeds=(8, 16, 20, 40),
    depths=(1, 2, 2, 1),
    heads=(2, 2, 4),
    windows=(5, 7, 6),
    picture_px=224,
    width=16,
    labels=3,
)


def randomise(net: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, values in net.state_dict().items():
            if values.is_floating_point():
                values.normal_(generator=draw).mul_(0.4)
                if values.dim() == 1 and not name.endswith(("bias", "mean")):
                    values.abs_().add_(0.8)  # scales of norms, variances
                elif values.dim() > 1 and "attention_biases" not in name:
                    values.div_(0.4 * math.sqrt(values[0].numel()))
    return net.eval()


def published_layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes in the encoder of mobile_sam.pt, written down from the publication."""
    found: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int) -> None:
        found.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    def linear(name: str, inside: int, outside: int) -> None:
        found.update({f"{name}.weight": (outside, inside), f"{name}.bias": (outside,)})

    def conv(name: str, *shape: int) -> None:
        found[f"{name}.c.weight"] = shape
        norm(f"{name}.bn", shape[0])
        for record in ("running_mean", "running_var"):
            found[f"{name}.bn.{record}"] = (shape[0],)
        found[f"{name}.bn.num_batches_tracked"] = ()

    def merge(name: str, inside: int, outside: int) -> None:
        conv(f"{name}.conv1", outside, inside, 1, 1)
        conv(f"{name}.conv2", outside, 1, 3, 3)
        conv(f"{name}.conv3", outside, outside, 1, 1)

    conv("patch_embed.seq.0", 32, 3, 3, 3)
    conv("patch_embed.seq.2", 64, 32, 3, 3)
    for block in ("layers.0.blocks.0", "layers.0.blocks.1"):
        conv(f"{block}.conv1", 256, 64, 1, 1)
        conv(f"{block}.conv2", 256, 1, 3, 3)
        conv(f"{block}.conv3", 64, 256, 1, 1)
    merge("layers.0.downsample", 64, 128)
    for layer, depth, width, heads, cells in (
        (1, 2, 128, 4, 49),
        (2, 6, 160, 5, 196),
        (3, 2, 320, 10, 49),
    ):
        for block in (f"layers.{layer}.blocks.{index}" for index in range(depth)):
            found[f"{block}.attn.attention_biases"] = (heads, cells)
            norm(f"{block}.attn.norm", width)
            linear(f"{block}.attn.qkv", width, 3 * width)
            linear(f"{block}.attn.proj", width, width)
            norm(f"{block}.mlp.norm", width)
            linear(f"{block}.mlp.fc1", width, 4 * width)
            linear(f"{block}.mlp.fc2", 4 * width, width)
            conv(f"{block}.local_conv", width, 1, 3, 3)
    merge("layers.1.downsample", 128, 160)
    merge("layers.2.downsample", 160, 320)
    norm("norm_head", 320)
    linear("head", 320, 1000)
    found.update({"neck.0.weight": (256, 320, 1, 1), "neck.2.weight": (256, 256, 3, 3)})
    norm("neck.1", 256)
    norm("neck.3", 256)
    return found


def test_names_and_shapes_are_those_of_the_published_file() -> None:
    with torch.device("meta"):
        net = Sam(VARIANTS["mobile-sam"])
        embedding = net.encode(torch.empty(1, 3, 1024, 1024))
    encoder = net.image_encoder.state_dict()
    assert {name: tuple(values.shape) for name, values in encoder.items()} == published_layout()
    assert sum(values.numel() for values in net.parameters()) == 10_130_092
    unused = sum(v.numel() for k, v in encoder.items() if k.startswith(("head", "norm_head")))
    neck = sum(v.numel() for k, v in encoder.items() if k.startswith("neck"))
    assert sum(v.numel() for v in net.image_encoder.parameters()) - unused - neck == 5_071_124
    assert embedding.shape == (1, 256, 64, 64)


# A slow reference in double precision, which knows the weights by their published names alone.


class Slow:
    """The encoder, cell by cell where it attends."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = {name: values.double() for name, values in state.items()}

    def conv(self, name: str, x: Tensor, *, stride: int = 1, depthwise: bool = False) -> Tensor:
        at = self.state
        weight = at[f"{name}.c.weight"]
        groups = x.shape[1] if depthwise else 1
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)
        spread = (at[f"{name}.bn.running_var"] + 1e-5).sqrt()
        scale = (at[f"{name}.bn.weight"] / spread)[:, None, None]
        shift = at[f"{name}.bn.bias"][:, None, None]
        return (x - at[f"{name}.bn.running_mean"][:, None, None]) * scale + shift

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        middle = x - x.mean(-1, keepdim=True)
        scaled = middle / (middle.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def merge(self, name: str, x: Tensor, stride: int) -> Tensor:
        x = F.gelu(self.conv(f"{name}.conv1", x))
        x = F.gelu(self.conv(f"{name}.conv2", x, stride=stride, depthwise=True))
        return self.conv(f"{name}.conv3", x)

    def attend(
        self, name: str, cells: dict[tuple[int, int], Tensor], heads: int
    ) -> dict[Any, Tensor]:
        """Attention among the cells of one window, by where each lies."""
        offsets: dict[tuple[int, int], int] = {}
        for a in cells:  # numbered in the order in which the publication first meets them
            for b in cells:
                offsets.setdefault((abs(a[0] - b[0]), abs(a[1] - b[1])), len(offsets))
        biases = self.state[f"{name}.attention_biases"]
        parts = {
            at: self.linear(f"{name}.qkv", self.norm(f"{name}.norm", x, 1e-5)).reshape(heads, 3, -1)
            for at, x in cells.items()
        }
        scale = parts[0, 0].shape[-1] ** -0.5
        answer = {}
        for a, query in parts.items():
            logits = torch.stack(
                [
                    (query[:, 0] * key[:, 1]).sum(-1) * scale
                    + biases[:, offsets[abs(a[0] - b[0]), abs(a[1] - b[1])]]
                    for b, key in parts.items()
                ],
                dim=1,
            )
            values = torch.stack([value[:, 2] for value in parts.values()], dim=1)
            mixed = (logits.softmax(-1).unsqueeze(-1) * values).sum(1)
            answer[a] = self.linear(f"{name}.proj", mixed.reshape(-1))
        return answer

    def block(self, name: str, x: Tensor, heads: int, window: int) -> Tensor:
        _, width, height, _ = x.shape
        seen = x.clone()
        nothing = torch.zeros(width, dtype=x.dtype)
        for top in range(0, height, window):
            for left in range(0, height, window):
                cells = {
                    (row, column): x[0, :, top + row, left + column]
                    if max(top + row, left + column) < height
                    else nothing
                    for row in range(window)
                    for column in range(window)
                }
                for (row, column), values in self.attend(f"{name}.attn", cells, heads).items():
                    if max(top + row, left + column) < height:
                        seen[0, :, top + row, left + column] += values
        seen = self.conv(f"{name}.local_conv", seen, depthwise=True).permute(0, 2, 3, 1)
        wide = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.mlp.norm", seen, 1e-5))
        return (seen + self.linear(f"{name}.mlp.fc2", F.gelu(wide))).permute(0, 3, 1, 2)

    def __call__(self, picture: Tensor, config: TinyVitConfig) -> Tensor:
        x = F.gelu(self.conv("patch_embed.seq.0", picture.double(), stride=2))
        x = self.conv("patch_embed.seq.2", x, stride=2)
        for index in range(config.depths[0]):
            name = f"layers.0.blocks.{index}"
            wide = F.gelu(self.conv(f"{name}.conv1", x))
            wide = F.gelu(self.conv(f"{name}.conv2", wide, depthwise=True))
            x = F.gelu(self.conv(f"{name}.conv3", wide) + x)
        for layer in (1, 2, 3):
            x = self.merge(f"layers.{layer - 1}.downsample", x, stride=2 if layer < 3 else 1)
            for index in range(config.depths[layer]):
                heads, window = config.heads[layer - 1], config.windows[layer - 1]
                x = self.block(f"layers.{layer}.blocks.{index}", x, heads, window)
        for conv, norm in ((0, 1), (2, 3)):
            x = F.conv2d(x, self.state[f"neck.{conv}.weight"], padding=conv // 2)
            x = self.norm(f"neck.{norm}", x.permute(0, 2, 3, 1), 1e-6).permute(0, 3, 1, 2)
        return x


@torch.no_grad()
def test_it_is_the_slow_reference() -> None:
    net = randomise(TinyViT(TINY))
    picture = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(4))
    expected = Slow(net.state_dict())(picture, TINY)
    assert expected.std() > 0.5
    assert (net(picture) - expected).abs().max() < 1e-4


@torch.no_grad()
def test_written_out_attention_is_the_fused_one() -> None:
    net = randomise(TinyViT(TINY))
    picture = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(4))
    fused = net(picture)
    for module in net.modules():
        if isinstance(module, Attention):
            module.written_out = True
    assert torch.allclose(net(picture), fused, atol=1e-5, rtol=0)


# MobileSAM's own code, which works at 1024 px alone and wants a few names of timm.


@pytest.fixture
def mobile_sam(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.find_spec("mobile_sam")
    if spec is None or spec.origin is None:
        pytest.skip("mobile_sam is absent: make setup-peers")
    layers, registry, face = (types.ModuleType(name) for name in ("layers", "registry", "face"))
    layers.DropPath = nn.Identity  # type: ignore[attr-defined]
    layers.to_2tuple = lambda side: (side, side)  # type: ignore[attr-defined]
    layers.trunc_normal_ = nn.init.trunc_normal_  # type: ignore[attr-defined]
    registry.register_model = lambda build: build  # type: ignore[attr-defined]
    face.__path__ = [str(Path(spec.origin).parent)]
    stand_ins = {
        "timm": types.ModuleType("timm"),
        "timm.models": types.ModuleType("timm.models"),
        "timm.models.layers": layers,
        "timm.models.registry": registry,
        "stand_in_for_mobile_sam": face,
    }
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    return importlib.import_module("stand_in_for_mobile_sam.build_sam").build_sam_vit_t()


@torch.no_grad()
def test_it_is_mobile_sam(mobile_sam: Any) -> None:
    net = randomise(Sam(VARIANTS["mobile-sam"]))
    assert isinstance(net, Sam)
    mobile_sam.load_state_dict(net.state_dict(), strict=True)
    for part, module in mobile_sam.named_modules():
        if hasattr(module, "eps"):
            assert net.get_submodule(part).eps == module.eps
    mobile_sam.eval()  # its biases are gathered here, so after loading
    picture = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(5))
    embedding = net.encode(picture)
    assert embedding.std() > 0.5
    assert torch.allclose(embedding, mobile_sam.image_encoder(picture), atol=1e-4, rtol=0)
    points, labels = torch.tensor([[[300.0, 700.0]]]), torch.ones(1, 1)
    sparse, dense = mobile_sam.prompt_encoder(points=(points, labels), boxes=None, masks=None)
    masks, ious = mobile_sam.mask_decoder.predict_masks(
        embedding, mobile_sam.prompt_encoder.get_dense_pe(), sparse, dense
    )
    padded = torch.cat([points, torch.zeros(1, 1, 2)], dim=1)
    answer = net.decode(embedding, padded, torch.tensor([[1.0, -1.0]]))
    assert torch.allclose(answer.masks, masks, atol=1e-3, rtol=0)
    assert torch.allclose(answer.ious, ious, atol=1e-3, rtol=0)
