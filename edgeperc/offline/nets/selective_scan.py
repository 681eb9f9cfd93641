"""The selective scan as a layer calls it: the plain reference, and whatever is fastest here.

    y = selective_scan(u, delta, A, B, C, D, delta_bias, softplus=True)

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
arXiv 2312.00752, algorithm 2 and equation 4, with the simplified `step * B` for B.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from edgeperc.offline.nets.scan_gradient import scan_gradient
from edgeperc.scan import selective as kernels


def selective_scan(
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
    """As `sequential_scan`, as fast as this machine can, with gradients.

    float32 on the CPU runs the kernels of `edgeperc.scan.selective`, with as many threads as torch
    may use; on a GPU it is mamba_ssm's kernel where that can be imported. All else takes the
    reference. torch.onnx.export(dynamo=False, custom_opsets={"edgeperc": 1}) writes one node
    `edgeperc::SelectiveScan`, for `edgeperc.offline.scan_onnx`.
    """
    D = u.new_zeros(u.shape[1]) if D is None else D  # noqa: N806
    bias = u.new_zeros(u.shape[1]) if delta_bias is None else delta_bias
    exporting = torch.onnx.is_in_onnx_export()
    if not exporting:
        kernels.check_shapes(u, delta, A, B, C, D, bias)
    if exporting or (u.device.type == "cpu" and u.dtype == torch.float32):
        y: Tensor = _Scan.apply(u, delta, A, B, C, D, bias, softplus)  # type: ignore[no-untyped-call]
        return y
    mamba = mamba_scan() if u.is_cuda else None
    if mamba is not None:
        return mamba(u, delta, A, B, C, D, delta_bias=bias, delta_softplus=softplus)
    return sequential_scan(u, delta, A, B, C, D, bias, softplus=softplus)


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


@lru_cache
def mamba_scan() -> Callable[..., Tensor] | None:
    """mamba_ssm's kernel for GPUs, or None where it is not installed or does not load."""
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except ImportError:
        return None
    scan: Callable[..., Tensor] = module.selective_scan_fn
    return scan


class _Scan(torch.autograd.Function):
    """The kernels of `edgeperc.scan.selective` in torch's graph."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        *tensors, softplus = given
        if torch.onnx.is_in_onnx_export():
            return torch.zeros_like(tensors[0])  # of which a trace sees the shape alone
        ctx.save_for_backward(*tensors)
        ctx.softplus = softplus
        arrays = [_array(each) for each in tensors]
        y = kernels.selective_scan(*arrays, softplus=softplus, threads=torch.get_num_threads())
        return torch.from_numpy(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        grads = scan_gradient(
            tuple(_array(each) for each in ctx.saved_tensors),
            _array(grad_y),
            softplus=ctx.softplus,
            threads=torch.get_num_threads(),
        )
        return (*(torch.from_numpy(each) for each in grads), None)

    @staticmethod
    def symbolic(g: Any, *given: Any) -> Any:
        """One node for torch.onnx."""
        *inputs, softplus = given
        node = g.op("edgeperc::SelectiveScan", *inputs, softplus_i=int(softplus))
        node.setType(inputs[0].type())
        return node


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().numpy()
    return array
