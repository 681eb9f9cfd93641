"""The selective scan as a layer calls it: the plain reference, and whatever is fastest here.

    y = selective_scan(u, delta, A, B, C, D, delta_bias, softplus=True)

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
arXiv 2312.00752, algorithm 2 and equation 4, with the simplified `step * B` for B.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sequential_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,  # noqa: N803
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    D: Tensor | None = None,  # noqa: N803
    delta_bias: Tensor | None = None,
    *,
    softplus: bool = False,
) -> Tensor:
    """Discretise, then take one step after the other: slow, and right by reading it.

    u, delta: (batch, channels, L). A: (channels, N). B, C: (batch, groups, N, L), of which channel
    i reads group i * groups // channels. D, delta_bias: (channels,) or None. Any floating dtype.
    Returns (batch, channels, L). It holds several tensors of (batch, channels, N, L).
    """
    step = delta if delta_bias is None else delta + delta_bias[:, None]
    if softplus:
        step = functional.softplus(step)
    each = u.shape[1] // B.shape[1]
    gate_in, gate_out = (gate.repeat_interleave(each, dim=1) for gate in (B, C))
    kept = torch.exp(step[:, :, None] * A[:, :, None])
    added = step[:, :, None] * gate_in * u[:, :, None]
    state = torch.zeros_like(kept[..., 0])
    y = []
    for t in range(u.shape[-1]):
        state = kept[..., t] * state + added[..., t]
        y.append((state * gate_out[..., t]).sum(-1))
    skip = 0 if D is None else D[:, None] * u
    return torch.stack(y, -1) + skip
