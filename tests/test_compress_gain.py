"""What grids behind norms and logarithmic grids gain on tensors made by hand; -s shows the figures.

Ratios of the squared error of a layer's output to that of round-to-nearest, over five seeds. They
tell whether a method does what it is for where its paper says so, not what it does to a network.
"""

import pytest
import torch

from edgeperc.offline.compress.quantizers.adaptive_log import AdaptiveLog
from edgeperc.offline.compress.quantizers.log_sqrt2 import Log2, LogSqrt2
from edgeperc.offline.compress.quantizers.uniform import Uniform
from edgeperc.offline.compress.transforms.channel_grids import (
    channel_grids,
    common_grid,
    on_grid,
    scales_alone,
)

SEEDS, CHANNELS, OUTLIERS = 5, 192, 8


def layer(seed):
    """What a norm hands on, 8 of 192 channels 3 to 30 times as large, and a layer that reads it."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.ones(CHANNELS)
    size[torch.randperm(CHANNELS, generator=generator)[:OUTLIERS]] = 3 * 10 ** torch.rand(
        OUTLIERS, generator=generator
    )
    rows = torch.randn(2048, CHANNELS, generator=generator) * size
    rows += 0.3 * size * torch.randn(CHANNELS, generator=generator)
    return rows, torch.randn(256, CHANNELS, generator=generator) / CHANNELS**0.5


def rounded_weight(weight, bits):
    q = Uniform(bits, symmetric=True, axis=0, search="mse")
    q.fit(weight)
    return q.dequantize(q.quantize(weight))


def nearest(rows, weight, bits, search, weight_bits):
    """Round-to-nearest, one grid for the tensor of inputs."""
    q = Uniform(bits, symmetric=False, search=search)
    q.fit(rows)
    seen = q.dequantize(q.quantize(rows))
    return error(
        seen, weight if weight_bits is None else rounded_weight(weight, bits), rows, weight
    )


def rescaled(rows, weight, bits, weight_bits, *, shift=True):
    """The channels' grids, and the weight rounded as the common grid makes it."""
    grids = channel_grids(rows, bits) if shift else scales_alone(rows, bits, weight.square().sum(0))
    ratio = (grids.scale / common_grid(grids, bits).scale).float()
    near = on_grid(rows.double(), grids, bits).float()
    used = weight if weight_bits is None else rounded_weight(weight * ratio, bits) / ratio
    return error(near, used, rows, weight)


def error(seen, used, rows, weight):
    return float((seen @ used.T - rows @ weight.T).square().mean())


def ratio(bits, weight_bits, search, **options):
    found = [
        rescaled(*layer(seed), bits, weight_bits, **options)
        / nearest(*layer(seed), bits, search, weight_bits)
        for seed in range(SEEDS)
    ]
    return min(found), sum(found) / SEEDS, max(found)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "least_gain"), [(8, 0.3), (6, 0.5), (4, 0.8)])
def test_rescaled_norms_err_less(bits, least_gain):
    for name, weight_bits, search, options in (
        ("against quantiles", bits, "percentile", {}),
        ("against least squares", bits, "mse", {}),
        ("against quantiles, inputs alone", None, "percentile", {}),
        ("against least squares, inputs alone", None, "mse", {}),
        ("not shifted, against least squares", bits, "mse", {"shift": False}),
        ("not shifted, against least squares, inputs alone", None, "mse", {"shift": False}),
    ):
        low, mean, high = ratio(bits, weight_bits, search, **options)
        print(f"W{bits}A{bits} {name}: {mean:.3f} ({low:.3f} to {high:.3f})")
        assert high < (least_gain if weight_bits else 0.5 * least_gain)


@pytest.mark.parametrize(
    ("kind", "spread"),
    [
        ("flat", 1.0),
        ("peaked", 12.0),
        pytest.param("middling", 3.0, marks=pytest.mark.slow),
    ],
)
def test_grids_of_shares(kind, spread):
    """Relative squared error of the sum of values at 4 bits, attention of 196 tokens."""
    grids = {
        "log_sqrt2": LogSqrt2(4),
        "log2": Log2(4),
        "agq": AdaptiveLog(4),
        "uniform": Uniform(4, symmetric=False),
        "uniform-minmax": Uniform(4, symmetric=False, search="minmax"),
    }
    errors = dict.fromkeys(grids, 0.0)
    largest = 0.0
    for seed in range(SEEDS):
        generator = torch.Generator().manual_seed(seed)
        shares = (spread * torch.randn(1, 4, 196, 196, generator=generator)).softmax(-1)
        v = torch.randn(1, 4, 196, 32, generator=generator)
        largest = max(largest, float(shares.max()))
        exact = shares @ v
        for name, q in grids.items():
            q.fit(shares, v) if isinstance(q, AdaptiveLog) else q.fit(shares)
            away = q.dequantize(q.quantize(shares)) @ v - exact
            errors[name] += float(away.square().sum() / exact.square().sum()) / SEEDS
    told = ", ".join(f"{name} {value:.4f}" for name, value in errors.items())
    print(f"{kind}, largest share {largest:.2f}: {told}")
    best = min(errors, key=errors.__getitem__)
    assert best.startswith("uniform") == (kind == "peaked")
    # Its own measure is the error to the power of 2.4.
    assert errors["agq"] < 1.05 * min(errors["log_sqrt2"], errors["log2"])
