"""Signs folded into query and key: the product stays, two humps become one."""

import pytest
import torch

from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.compress.adapters.sam import SamSubject
from edgeperc.offline.compress.adapters.sam2 import Sam2Subject
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.engine import run_recipe
from edgeperc.offline.compress.recipe import read_recipe
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose
from edgeperc.offline.compress.transforms.sign_fold import bimodal, decide, fold, sign_fold
from edgeperc.offline.nets.mask_decoder import DecoderAttention

from .tiny_promptable import tiny_sam, tiny_sam2

NAMES = [
    "transformer.layers.0.cross_attn_token_to_image",
    "transformer.layers.1.cross_attn_token_to_image",
    "transformer.final_attn_token_to_image",
]


def humps(seed=0, tokens=256, channels=16, apart=4.0):
    """A key of which every other channel is negative."""
    generator = torch.Generator().manual_seed(seed)
    key = torch.randn(1, tokens, channels, generator=generator)
    return key + apart * torch.tensor([1.0, -1.0]).repeat(channels // 2)


@pytest.mark.parametrize("seed", range(3))
def test_the_product_of_query_and_key_stays(seed):
    torch.manual_seed(seed)
    attention = DecoderAttention(16, 2, 8)
    with torch.no_grad():
        attention.q_proj.bias.normal_()
        attention.k_proj.bias.normal_()
    q, k = torch.randn(1, 5, 16), torch.randn(1, 9, 16)
    signs = torch.randn(8).sign()

    def product():
        return attention.q_proj(q) @ attention.k_proj(k).transpose(1, 2), attention(q, k, k)

    with torch.no_grad():
        exact, answer = product()
        before = attention.k_proj(k)
        fold(attention, signs)
        torch.testing.assert_close(product()[0], exact, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(product()[1], answer, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(attention.k_proj(k), before * signs)


def test_two_humps_are_two_and_other_numbers_are_not():
    assert bimodal(humps())
    assert not bimodal(humps(apart=0.0))
    assert not bimodal(humps() * torch.tensor([1.0, -1.0]).repeat(8))
    third = humps(apart=8.0).clone()
    third[..., ::3] *= 0.1
    third[..., ::3] -= third[..., ::3].mean((0, 1))
    assert not bimodal(third)
    assert not bimodal(torch.zeros(1, 5, 4))


def test_signs_are_those_of_the_channels_means():
    decision = decide([humps(seed) for seed in range(8)])
    assert decision.signs.tolist() == [1, -1] * 8
    assert (decision.pictures, decision.bimodal, decision.doubtful) == (8, 8, 0)
    assert decision.folds
    assert not bimodal(humps() * decision.signs)


def test_most_pictures_decide_and_disagreement_is_told():
    one, two = [humps(apart=0.0)], [humps(seed) for seed in range(2)]
    assert decide(one + two).folds
    assert decide(one + two).bimodal == 2
    assert not decide(one * 2 + two).folds
    assert decide(one * 2 + two).signs.tolist() == [1] * 16
    other = humps(7)
    other[..., 0] -= 8
    decision = decide([*two, other])
    assert decision.doubtful == 1
    assert decision.signs[0] == 1


@pytest.fixture(params=["sam", "sam2"])
def given(request):
    """A network whose second look at the picture has two humps, and none of the others."""
    net = tiny_sam() if request.param == "sam" else tiny_sam2()
    subject = SamSubject(net) if request.param == "sam" else Sam2Subject(net)
    decoder = "mask_decoder" if request.param == "sam" else "sam_mask_decoder"
    with torch.no_grad():
        for name in NAMES:
            keys = net.get_submodule(f"{decoder}.{name}").k_proj
            keys.weight *= 0.5 / keys.weight.std() / keys.weight.shape[1] ** 0.5
            keys.bias.zero_()
        bias = net.get_submodule(f"{decoder}.{NAMES[1]}").k_proj.bias
        bias.copy_(torch.tensor([9.0, -9.0]).repeat(len(bias) // 2))
    torch.manual_seed(0)
    side = net.config.picture_px
    samples = [
        {
            "picture": torch.randn(1, 3, side, side),
            "points": side * torch.rand(2, 2, 2),
            "labels": torch.tensor([[1.0, -1.0]]).repeat(2, 1),
        }
        for _ in range(5)
    ]
    sim = Simulated(net)
    return Context(subject=subject, sim=sim, samples=samples[:3], held_out=samples[3:]), decoder


def test_a_network_answers_as_before_and_its_keys_have_one_hump(given):
    ctx, decoder = given
    exact = ctx.outputs(ctx.samples)
    keys = [f"{decoder}.{name}.k_proj" for name in NAMES]
    before = ctx.capture(keys, inputs=False)
    result = sign_fold(ctx, choose(ctx.sim.sites, "*token_to_image*"))
    for found, expected in zip(ctx.outputs(ctx.samples), exact, strict=True):
        for name, values in expected.items():
            torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-6)
    after = ctx.capture(keys, inputs=False)
    assert [result.details["attentions"][f"{decoder}.{name}"]["folded"] for name in NAMES] == [
        False,
        True,
        False,
    ]
    assert bimodal(before[keys[1]][0])
    assert not bimodal(after[keys[1]][0])
    assert torch.equal(after[keys[0]][0], before[keys[0]][0])
    half = before[keys[1]][0].shape[-1] // 2
    assert f"{half} of {2 * half} channels turned, 3 of 3 pictures" in " ".join(result.notes)


def test_a_recipe_has_it_and_the_engine_keeps_it(given, tmp_path):
    ctx, _ = given
    path = tmp_path / "fold.recipe.toml"
    path.write_text(
        'version = 1\n[[passes]]\nkind = "sign_fold"\nat = "*token_to_image*"\npictures = 2\n'
        '[[passes]]\nkind = "quantize"\nat = "*token_to_image*"\n'
    )
    row = run_recipe(ctx, read_recipe(path)).rows[0]
    assert row.kept
    assert {told["pictures"] for told in row.details["attentions"].values()} == {2}


def test_what_has_no_keys_of_the_decoder_is_refused(given):
    ctx, _ = given
    with pytest.raises(ConfigError, match="sign_fold"):
        sign_fold(ctx, choose(ctx.sim.sites, "image_encoder.*"))


def test_quantized_projections_are_refused():
    attention = DecoderAttention(16, 2, 8)
    torch.nn.utils.parametrize.register_parametrization(
        attention.q_proj, "weight", torch.nn.Identity()
    )
    with pytest.raises(ModelError, match="are quantized"):
        fold(attention, torch.ones(8))
