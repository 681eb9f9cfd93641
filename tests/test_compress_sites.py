from __future__ import annotations

import pytest
from torch import nn

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.sites import choose, sites_of
from edgeperc.offline.nets.sltnet import SLTNet

from .tiny_promptable import tiny_sam, tiny_sam2

SITES = sites_of(tiny_sam2())


def names(patterns: str | list[str]) -> list[str]:
    return [site.name for site in choose(SITES, patterns)]


def test_sites_are_all_layers_with_weights_and_all_taps() -> None:
    for net in (tiny_sam2(), tiny_sam(), SLTNet(6, width=8, blocks=(1, 1, 1))):
        sites = sites_of(net)
        layers = {
            name
            for name, module in net.named_modules()
            if type(module) in (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
        }
        assert {name for name, site in sites.items() if site.kind == "layer"} == layers
        taps = {name for name, _ in net.named_modules() if ".tap_" in name}
        assert {name for name, site in sites.items() if site.kind == "tap"} == taps
        assert all(net.get_submodule(name) is site.module for name, site in sites.items())


def test_a_pattern_takes_what_is_below_it() -> None:
    assert names("image_encoder.trunk.blocks.0.mlp") == [
        "image_encoder.trunk.blocks.0.mlp.layers.0",
        "image_encoder.trunk.blocks.0.mlp.layers.1",
    ]
    assert names("*.patch_embed") == ["image_encoder.trunk.patch_embed.proj"]


def test_the_last_pattern_that_fits_decides() -> None:
    everything = names("*")
    mlps = names("*.mlp")
    assert names(["*", "!*.mlp"]) == [name for name in everything if name not in mlps]
    assert names(["*", "!*.mlp", "*.blocks.0.mlp"]) == [
        name for name in everything if name not in mlps or ".blocks.0.mlp" in name
    ]
    assert names(["!*.mlp", "*"]) == everything
    assert everything == list(SITES)


@pytest.mark.parametrize("patterns", ["*.norm7", ["*", "!*.norm7"], ["*.mlp", "!*.mlp"]])
def test_what_fits_nothing_or_leaves_nothing_is_an_error(patterns: str | list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        choose(SITES, patterns)
    assert str(patterns if isinstance(patterns, str) else patterns[-1].lstrip("!")) in str(error)


def test_an_error_names_the_nearest_site() -> None:
    with pytest.raises(ConfigError) as error:
        choose(SITES, "image_encoder.trunk.blocks.0.atn.qkv")
    assert "image_encoder.trunk.blocks.0.attn.qkv" in error.value.hint
