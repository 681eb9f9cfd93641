"""The fusion network: counts, the published layout, sizes it is tied to, and what folding keeps."""

import dataclasses
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from edgeperc.errors import ModelError  # noqa: E402
from edgeperc.offline import mambaseg_counts  # noqa: E402
from edgeperc.offline.checkpoint import Weights  # noqa: E402
from edgeperc.offline.nets import ddim, ss2d  # noqa: E402
from edgeperc.offline.nets.mambaseg import (  # noqa: E402
    VARIANTS,
    FoldedHead,
    Head,
    MambaSeg,
    MambaSegConfig,
    folded,
)
from edgeperc.offline.nets.mambaseg_keys import load_mambaseg  # noqa: E402
from edgeperc.scan.cross import cross_scan  # noqa: E402

SMALL = MambaSegConfig(
    classes=3,
    frame_channels=1,
    bins=2,
    widths=(16, 16, 32, 16),
    depths=(1, 2, 1, 1),
    mlp_ratio=2.0,
    fusion_states=3,
    head_width=8,
    locked_px=(36, 44),
)


def sides(size_px):
    found = [tuple(-(-side // 4) for side in size_px)]
    for _ in range(3):
        found.append(tuple(-(-side // 2) for side in found[-1]))
    return found


def scan_shapes(name, width, features, rank, states, directions, inner, bias):
    shapes = {
        "in_proj.weight": (inner, width),
        "conv2d.weight": (inner, 1, 3, 3),
        "x_proj_weight": (directions, rank + 2 * states, features),
        "dt_projs_weight": (directions, features, rank),
        "dt_projs_bias": (directions, features),
        "A_logs": (directions * features, states),
        "Ds": (directions * features,),
        "out_norm.weight": (inner,),
        "out_norm.bias": (inner,),
        "out_proj.weight": (width, inner),
    }
    if bias:
        shapes["conv2d.bias"] = (inner,)
    return {f"{name}.{key}": shape for key, shape in shapes.items()}


def both(name, out, inside=None, *rest):
    """Weight and bias of a layer, or of a norm without `inside`."""
    weight = (out,) if inside is None else (out, inside, *rest)
    return {f"{name}.weight": weight, f"{name}.bias": (out,)}


def published_shapes(config):
    """The published state dict, key by key, written down apart from our key map."""
    shapes = {}
    widths = config.widths
    for side, channels in (("encoder_img", config.frame_channels), ("encoder_ev", config.bins)):
        shapes |= both(f"{side}.patch_embed.0", widths[0] // 2, channels, 3, 3)
        shapes |= both(f"{side}.patch_embed.2", widths[0] // 2)
        shapes |= both(f"{side}.patch_embed.5", widths[0], widths[0] // 2, 3, 3)
        shapes |= both(f"{side}.patch_embed.7", widths[0])
        for i, width in enumerate(widths):
            shapes |= both(f"{side}.outnorm{i}", width)
            for j in range(config.depths[i]):
                block = f"{side}.layers.{i}.blocks.{j}"
                hidden = int(config.mlp_ratio * width)
                shapes |= both(f"{block}.norm", width) | both(f"{block}.norm2", width)
                shapes |= both(f"{block}.mlp.fc1", hidden, width)
                shapes |= both(f"{block}.mlp.fc2", width, hidden)
                rank = math.ceil(width / 16)
                shapes |= scan_shapes(f"{block}.op", width, width, rank, 1, 4, width, False)
            if i < 3:
                shapes |= both(f"{side}.layers.{i}.downsample.1", widths[i + 1], width, 3, 3)
                shapes |= both(f"{side}.layers.{i}.downsample.3", widths[i + 1])
    for i, width in enumerate(widths):
        cells, inner, n = math.prod(sides(config.locked_px)[i]), 2 * width, config.fusion_states
        shapes[f"ccbs.{i}.cca.shared_fc.1.weight"] = (width // 4, width, 1, 1)
        shapes[f"ccbs.{i}.cca.shared_fc.3.weight"] = (width, width // 4, 1, 1)
        shapes |= both(f"ccbs.{i}.csa.mlp.0", 16, 4, 1, 1) | both(
            f"ccbs.{i}.csa.mlp.2", 2, 16, 1, 1
        )
        for k, side in ((1, "i"), (2, "e")):
            shapes |= both(f"ccbs.{i}.norm_{side}", width)
            for c in (1, 2):
                shapes |= both(f"ccbs.{i}.conv_{side}{c}", width, width, 1, 1)
            shapes |= both(f"ccbs.{i}.conv_{side}3", width, 2 * width, 1, 1)
            shapes[f"ccbs.{i}.ca{k}.fc.0.weight"] = (width // 16, width, 1, 1)
            shapes[f"ccbs.{i}.ca{k}.fc.2.weight"] = (width, width // 16, 1, 1)
            shapes[f"ccbs.{i}.sa{k}.conv1.weight"] = (1, 2, 7, 7)
            rank = math.ceil(cells / 16)
            shapes |= scan_shapes(f"ccbs.{i}.ssm_{side}", width, cells, rank, n, 2, inner, True)
            rank = math.ceil(width / 16)
            shapes |= scan_shapes(f"ccbs.{i}.ss2d_{side}", width, inner, rank, n, 4, inner, True)
        shapes |= both(f"out_convs.{i}", width, 2 * width, 1, 1)
        shapes |= both(f"decoder.linear_c{i + 1}.proj", config.head_width, width)
    shapes |= both("decoder.linear_fuse.0", config.head_width, 4 * config.head_width, 1, 1)
    shapes |= both("decoder.linear_fuse.1", config.head_width)
    shapes |= both("decoder.linear_pred", config.classes, config.head_width, 1, 1)
    return shapes


def published_state(config, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: 0.2 * torch.randn(shape, generator=generator)
        for key, shape in published_shapes(config).items()
    }
    norm, width = "decoder.linear_fuse.1", (config.head_width,)
    return state | {
        f"{norm}.running_mean": torch.randn(width, generator=generator),
        f"{norm}.running_var": torch.rand(width, generator=generator) + 0.5,
        f"{norm}.num_batches_tracked": torch.tensor(7),
    }


def weights(state):
    return Weights(state, "", 0)


def lively(config, seed=0):
    """A network whose norms and running statistics do something."""
    torch.manual_seed(seed)
    net = MambaSeg(config).eval()
    with torch.no_grad():
        for name, values in (*net.named_parameters(), *net.named_buffers()):
            if "norm" in name and values.is_floating_point():
                values.add_(0.3 * torch.rand_like(values))
    return net


@pytest.mark.parametrize(
    ("px", "classes", "total", "fusions"),
    [((200, 346), 6, 97.55, 33.54), ((440, 640), 11, 256.18, 192.17)],
)
def test_counts_are_those_of_the_published_network(px, classes, total, fusions):
    config = dataclasses.replace(VARIANTS["mambaseg-tiny"], locked_px=px, classes=classes)
    with torch.device("meta"):
        net = MambaSeg(config)
    count = sum(p.numel() for p in net.parameters())
    assert round(count / 1e6, 2) == total
    assert round(sum(p.numel() for p in net.fusions.parameters()) / 1e6, 2) == fusions
    assert count == sum(map(math.prod, published_shapes(config).values()))


def test_published_count_is_that_of_the_plain_layers():
    config = dataclasses.replace(VARIANTS["mambaseg-tiny"], locked_px=(200, 346), frame_channels=1)
    counts = mambaseg_counts.count(config, (200, 346))
    assert round(counts.plain / 1e6, 2) == round(mambaseg_counts.PUBLISHED_PARAMETERS / 1e6, 2)
    assert round(counts.total / 1e6, 2) == 97.55
    assert counts.states == pytest.approx(324e6, rel=2e-3)


def test_operations_are_those_of_a_network_counted_by_hand():
    config = dataclasses.replace(SMALL, locked_px=None)
    counts = mambaseg_counts.count(config, (32, 32))
    head = 8 * (8 * 8 * 16 + 4 * 4 * 16 + 2 * 2 * 32 + 16)  # lifted where the stages lie
    head += 8 * 8 * (32 * 8 + 8 * 3)
    only_head = dataclasses.replace(config, head_width=16)
    grown = mambaseg_counts.count(only_head, (32, 32)).macs - counts.macs
    assert grown == head + 2 * 8 * 8 * 32 * 8
    one = mambaseg_counts.count(dataclasses.replace(config, fusion_states=4), (32, 32))
    cells = (64, 16, 4, 1)
    plane = sum(2 * 4 * 2 * w * n for w, n in zip(SMALL.widths, cells, strict=True))
    channel = sum(2 * 2 * 64 * 2 * w for w in SMALL.widths)
    assert one.states - counts.states == plane + channel


def test_nano_is_small_and_takes_any_size():
    net = lively(VARIANTS["mambaseg-nano"])
    assert sum(p.numel() for p in net.parameters()) < 3e6
    for height, width in ((32, 48), (36, 41)):
        frame, events = torch.randn(2, 1, height, width), torch.randn(2, 5, height, width)
        with torch.no_grad():
            assert net(frame, events).shape == (2, 6, height, width)


def test_published_checkpoint_is_loaded_to_the_last_key():
    state = published_state(SMALL)
    net = load_mambaseg(weights(state), input_px=(36, 44))
    assert net.config == SMALL
    own = net.state_dict()
    assert len(own) == len(state)
    assert sum(v.double().sum() for v in own.values()) == pytest.approx(
        float(sum(v.double().sum() for v in state.values()))
    )
    assert torch.equal(
        own["fusions.1.channels.scans.1.scan.project"], state["ccbs.1.ssm_e.x_proj_weight"]
    )
    assert torch.equal(
        own["events.stages.1.1.scan.scan.step_bias"],
        state["encoder_ev.layers.1.blocks.1.op.dt_projs_bias"],
    )
    assert torch.equal(own["head.lift.2.weight"], state["decoder.linear_c3.proj.weight"])
    with torch.no_grad():
        assert net(torch.randn(1, 1, 36, 44), torch.randn(1, 2, 36, 44)).isfinite().all()


def test_own_weights_come_back(tmp_path):
    net = lively(VARIANTS["mambaseg-nano"])
    again = load_mambaseg(weights(net.state_dict()))
    assert again.config == net.config
    inputs = torch.randn(1, 1, 32, 32), torch.randn(1, 5, 32, 32)
    with torch.no_grad():
        assert torch.equal(net(*inputs), again(*inputs))


def test_published_checkpoint_of_another_size_is_refused_with_both_sizes():
    state = published_state(SMALL)
    with pytest.raises(ModelError, match=r"99, 30, 9, 4 cells; 40 × 64 px .* has 160, 40"):
        load_mambaseg(weights(state), input_px=(40, 64))
    with pytest.raises(ModelError, match=r"tied to one size of picture \(99, 30, 9, 4 cells\)"):
        load_mambaseg(weights(state))


def test_inputs_of_another_size_are_refused_with_both_sizes():
    net = MambaSeg(SMALL)
    with pytest.raises(ModelError, match=r"input is 40 × 44 px .* tied to 36 × 44 px"):
        net(torch.zeros(1, 1, 40, 44), torch.zeros(1, 2, 40, 44))
    with pytest.raises(ModelError, match=r"frame is 36 × 44 px .* events are 36 × 40 px"):
        net(torch.zeros(1, 1, 36, 44), torch.zeros(1, 2, 36, 40))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda s: s.pop("ccbs.0.sa1.conv1.weight"), "lacks fusions.0.plane.gates.0.conv.weight"),
        (lambda s: s.pop("out_convs.2.weight"), "lacks merge.2.weight"),
        (lambda s: s.update({"encoder_img.head.weight": torch.zeros(1)}), "unknown key"),
        (lambda s: s.update({"ccbs.0.norm_i.weight": torch.zeros(5)}), r"is \(5,\), must be \(16,"),
        (lambda s: s["ccbs.3.ssm_i.Ds"].fill_(math.nan), "not finite"),
    ],
)
def test_checkpoint_with_a_fault_is_refused_by_name(spoil, says):
    state = published_state(SMALL)
    spoil(state)
    with pytest.raises(ModelError, match=says):
        load_mambaseg(weights(state), input_px=(36, 44))


def test_folded_head_is_the_head_up_to_rounding():
    torch.manual_seed(1)
    head = Head((8, 12, 16, 20), 24, 5).eval()
    with torch.no_grad():
        head.norm.running_mean.normal_()
        head.norm.running_var.uniform_(0.3, 2)
        head.norm.weight.normal_()
        head.norm.bias.normal_()
        maps = [torch.randn(1, *size, 8 + 4 * i) for i, size in enumerate(sides((52, 88)))]
        expected, found = head(maps), FoldedHead(head)(maps)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_folded_network_is_the_network_up_to_rounding():
    net = lively(SMALL)
    inputs = torch.randn(1, 1, 36, 44), torch.randn(1, 2, 36, 44)
    with torch.no_grad():
        expected, found = net(*inputs), folded(net)(*inputs)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("size", [8, 13, 50, 3])
def test_grid_cells_are_those_of_adaptive_pooling(size):
    x = torch.randn(1, 2, size, 11)
    pooled = ddim.averages(size) @ x @ ddim.averages(11).t()
    assert torch.allclose(pooled, F.adaptive_avg_pool2d(x, ddim.GRID), atol=1e-6)


@pytest.mark.parametrize(("size", "target"), [(4, 9), (50, 200), (7, 50), (1, 5), (9, 4), (6, 6)])
def test_enlarging_is_bilinear_interpolation(size, target):
    x = torch.randn(2, 3, size, 5)
    expected = F.interpolate(x, (target, 11), mode="bilinear", align_corners=False)
    found = ddim.enlarge(x.permute(0, 2, 3, 1), target, 11).permute(0, 3, 1, 2)
    assert torch.allclose(found, expected, atol=1e-5)


def test_odd_channels_change_places():
    half = ddim.ChannelHalf(8, states=1, ratio=1.0, cells=None)
    seen = []
    for layer in half.beside:
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    torch.nn.init.zeros_(half.squeeze[2].weight)  # all gates are one half
    frame, events = torch.ones(1, 8, 8, 8), torch.full((1, 8, 8, 8), 3.0)
    half(frame, events)
    for x, own, other in ((seen[0], 0.5, 1.5), (seen[1], 1.5, 0.5)):
        assert (x[..., ::2] == own).all()
        assert (x[..., 1::2] == other).all()


def test_plane_scan_in_torch_is_the_kernel():
    torch.manual_seed(0)
    scan = ss2d.ScanWeights(20, 2, 3, 4)
    with torch.no_grad():
        u = torch.randn(1, 6, 9, 20)
        inputs = (
            u,
            u @ scan.native_projection(),
            scan.step,
            scan.decay(),
            scan.skip,
            scan.step_bias,
        )
        expected = ss2d.scan_plane(*inputs).numpy()
    found = cross_scan(*(each.detach().numpy() for each in inputs))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_gradients_reach_every_parameter():
    net = lively(dataclasses.replace(SMALL, locked_px=None))
    net(torch.randn(1, 1, 32, 32), torch.randn(1, 2, 32, 32)).square().mean().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert silent == []
