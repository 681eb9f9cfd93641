"""Outliers in a decoder's queries and keys, put there on purpose, to measure what clipping does.

Published prompt decoders have them: queries of ±170 where nearly all others lie in ±1 (Zhang et
al., SAQ-SAM). A small network of ours has none, so one channel of each head's queries is made
`factor` times larger and the same channel of the keys as much smaller, and with another channel the
other way round. Queries times keys stay what they were, so the network answers as before, up to
rounding; a grid that has to hold the large channel has no steps left for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from edgeperc.errors import ConfigError
from edgeperc.offline.nets.mask_decoder import DecoderAttention


@torch.no_grad()
def inject_outliers(
    net: nn.Module,
    at: str | Sequence[str] = "*",
    *,
    factor: float = 100.0,
    per_head: int = 1,
    seed: int = 0,
) -> dict[str, list[int]]:
    """Change the network in place. at: globs over the dotted names of its decoder attentions.

    Of each head, `per_head` channels drawn by `seed` become large in the queries and as many others
    in the keys. Returns each attention's large channels, first those of the queries. Raises
    ConfigError if no attention is named or a head has too few channels.
    """
    patterns = [at] if isinstance(at, str) else list(at)
    chosen = {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, DecoderAttention) and any(fnmatchcase(name, p) for p in patterns)
    }
    if not chosen:
        raise ConfigError(f"no attention of a decoder is named {', '.join(patterns)}")
    generator = torch.Generator().manual_seed(seed)
    return {
        name: _inject(name, module, factor, per_head, generator) for name, module in chosen.items()
    }


def _inject(
    name: str,
    attention: DecoderAttention,
    factor: float,
    per_head: int,
    generator: torch.Generator,
) -> list[int]:
    width = attention.q_proj.out_features // attention.heads
    if 2 * per_head > width:
        raise ConfigError(f"{name}: heads of {width} channels have no {2 * per_head} to make large")
    drawn = torch.stack(
        [
            torch.randperm(width, generator=generator) + head * width
            for head in range(attention.heads)
        ]
    )
    queries = drawn[:, :per_head].flatten()
    keys = drawn[:, per_head : 2 * per_head].flatten()
    _scale_rows(attention.q_proj, queries, factor)
    _scale_rows(attention.k_proj, queries, 1 / factor)
    _scale_rows(attention.q_proj, keys, 1 / factor)
    _scale_rows(attention.k_proj, keys, factor)
    return [*queries.tolist(), *keys.tolist()]


def _scale_rows(layer: nn.Linear, rows: Tensor, factor: float) -> None:
    layer.weight[rows] *= factor
    if layer.bias is not None:
        layer.bias[rows] *= factor
