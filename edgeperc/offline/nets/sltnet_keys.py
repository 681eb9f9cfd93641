"""The published SLTNet checkpoint's names for our layers; a load accounts for every key."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

from edgeperc.offline.checkpoint import Weights
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.nets.strict_load import fitting, require_none

HINT = "Is this an SLTNet checkpoint of the layout that the model card names?"

NEVER_CALLED = re.compile(
    r"transformer[12]\.attn[23]\."
    r"|PA[12]\."
    r"|DAB_Block_\d\.DAB_Module_\d_\d\.conv3x3_[12]\."
    r"|downsample_[123]\.bnlif\."
    r"|upsample_[123]\.bn\."
)
"""Layers that the published code builds, saves and never calls."""


def load_sltnet(weights: Weights) -> SLTNet:
    """Build the network that a checkpoint was trained as, in evaluation mode.

    Reads the published layout and our own. Raises ModelError naming the first key that is missing,
    unknown, of the wrong shape or not finite.
    """
    state = weights.state
    published = any(key.startswith("init_conv.") for key in state)
    net = _published_net(state) if published else _own_net(state)
    own = net.state_dict()
    names = _published_keys(own) if published else {key: key for key in own}
    _require([key for key in names.values() if key not in state], "lacks")
    unknown = sorted(state.keys() - names.values())
    _require([k for k in unknown if not (published and NEVER_CALLED.match(k))], "has unknown key")
    net.load_state_dict({key: fitting(names[key], state[names[key]], own[key]) for key in own})
    return net.eval()


def _published_net(state: dict[str, Tensor]) -> SLTNet:
    first, last = "init_conv.0.conv.weight", "classifier.0.conv.weight"
    _require([key for key in (first, last) if key not in state], "lacks")
    width, bins = state[first].shape[:2]
    return SLTNet(len(state[last]), bins=bins, width=width)


def _own_net(state: dict[str, Tensor]) -> SLTNet:
    first, last = "stem.0.conv.weight", "classifier.weight"
    _require([key for key in (first, last) if key not in state], "lacks")
    width, bins = state[first].shape[:2]
    one, two, three = (
        sum(f"stage{i}.{j}.reduce.1.weight" in state for j in range(1, 100)) for i in (1, 2, 3)
    )
    return SLTNet(len(state[last]), bins=bins, width=width, blocks=(one, two, three))


def _published_keys(own: Iterable[str]) -> dict[str, str]:
    """Our key -> the published one."""
    modules = {ours: theirs for theirs, ours in published_modules().items()}
    split = (key.rpartition(".") for key in own)
    return {f"{module}.{leaf}": f"{modules[module]}.{leaf}" for module, _, leaf in split}


def _require(keys: list[str], what: str) -> None:
    """Raise ModelError if there are such keys."""
    require_none(keys, what, hint=HINT)


def published_modules() -> dict[str, str]:
    """Published module path -> ours, for every module that is called."""
    names = {
        **_conv_bn("init_conv.0", "stem.0"),
        **_conv_bn("init_conv.1", "stem.1"),
        "init_conv.2.conv": "stem.2",
        "bn_lif_1.bn": "stem.3.bn",
        "bn_lif_5.bn": "up1.after.bn",
        "bn_lif_6.bn": "up2.after.bn",
        "bn_lif_7.bn": "head_lif.bn",
        "PA3.conv": "up3.after.conv",
        "classifier.0.conv": "classifier",
    }
    for i in (1, 2, 3):
        names[f"downsample_{i}.conv3x3.conv"] = f"stage{i}.0.conv"
        names[f"bn_lif_{i + 1}.bn"] = f"stage{i}.4.bn"
        for j in range(3):
            names |= _lmsb(f"DAB_Block_{i}.DAB_Module_{i}_{j}", f"stage{i}.{j + 1}")
        names |= _lmsb(f"DAB_Block_{i + 3}.DAB_Module_{i + 3}_0", f"up{i}.block")
        names[f"upsample_{i}.conv"] = f"up{i}.conv"
        names |= _skip(i)
    for i in (1, 2):
        names |= _transformer(f"transformer{i}", f"transformers.{i - 1}")
    return names


def _conv_bn(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.conv": f"{ours}.conv", f"{theirs}.bn_lif.bn": f"{ours}.bn"}


def _lmsb(theirs: str, ours: str) -> dict[str, str]:
    return {
        f"{theirs}.bn_lif_1.bn": f"{ours}.reduce.0.bn",
        f"{theirs}.conv1x1_in.conv": f"{ours}.reduce.1",
        **_conv_bn(f"{theirs}.conv3x1", f"{ours}.reduce.2"),
        **_conv_bn(f"{theirs}.conv1x3", f"{ours}.reduce.3"),
        **_conv_bn(f"{theirs}.dconv3x1", f"{ours}.near.0"),
        **_conv_bn(f"{theirs}.dconv1x3", f"{ours}.near.1"),
        f"{theirs}.ca11.conv": f"{ours}.near.2.conv",
        **_conv_bn(f"{theirs}.ddconv3x1", f"{ours}.far.0"),
        **_conv_bn(f"{theirs}.ddconv1x3", f"{ours}.far.1"),
        f"{theirs}.ca22.conv": f"{ours}.far.2.conv",
        f"{theirs}.bn_lif_2.bn": f"{ours}.expand.0.bn",
        f"{theirs}.conv1x1.conv": f"{ours}.expand.1",
    }


def _skip(i: int) -> dict[str, str]:
    return {
        **_conv_bn(f"LC{i}.dconv3x1", f"skip{i}.0"),
        **_conv_bn(f"LC{i}.dconv1x3", f"skip{i}.1"),
        **_conv_bn(f"FE{i}.conv1x1_1", f"skip{i}.2.channel_gate.1"),
        f"FE{i}.conv1x1_2.conv": f"skip{i}.2.channel_gate.2",
        f"FE{i}.conv3x3.conv": f"skip{i}.2.pixel_gate.0",
        f"FE{i}.bn": f"skip{i}.2.pixel_gate.1",
        f"FE{i}.conv1x1.conv": f"skip{i}.2.mix",
    }


def _transformer(theirs: str, ours: str) -> dict[str, str]:
    names = {
        f"{theirs}.mlp.fc1_conv": f"{ours}.mlp.1",
        f"{theirs}.mlp.fc1_bn": f"{ours}.mlp.2",
        f"{theirs}.mlp.fc2_conv": f"{ours}.mlp.4",
        f"{theirs}.mlp.fc2_bn": f"{ours}.mlp.5",
    }
    layers = ("0.body.0", "0.body.1.bn", "0.body.2.0", "0.body.2.1", "0.body.2.2", "1")
    branches = (("q_conv", "q.0"), ("k_conv", "k.0"), ("v_conv", "v.0"), ("proj_conv", "project"))
    for branch, own in branches:
        for index, layer in enumerate(layers, start=1):
            names[f"{theirs}.attn1.{branch}.{layer}"] = f"{ours}.attention.{own}.{index}"
    return names
