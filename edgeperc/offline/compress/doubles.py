"""The simulated network with sums in double precision, each rounded to float32 once.

    with Doubles():
        answers = subject.run(net, sample)

In float32 two runtimes differ by the order of their sums; with grids of few bits that is enough to
turn whole steps over. What is rounded once from double precision is the same in all of them: so a
file that `graph.doubles` wrote answers as the network does here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

PLAIN: tuple[Any, ...] = (
    torch.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    F.layer_norm,
    torch.layer_norm,
    torch.softmax,
    F.softmax,
    Tensor.softmax,
    torch.sigmoid,
    Tensor.sigmoid,
    torch.log,
    Tensor.log,
    Tensor.mean,
    torch.mean,
    Tensor.exp,
    torch.exp,
    Tensor.sin,
    Tensor.cos,
    F.gelu,
)


class Doubles(TorchFunctionMode):
    """While it is entered, products, convolutions, norms and exponentials of float32 tensors are
    computed in double precision and rounded to float32; a bias is added behind that.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """func: any of torch's; those that are not in question run as they are."""
        given = dict(kwargs or {})
        if torch.onnx.is_in_onnx_export():
            return func(*args, **given)
        if func is F.linear or func is torch.conv2d or func is F.conv2d:
            return _with_bias(func, *args, **given)
        if func is F.silu:
            return args[0] * _rounded_once(torch.sigmoid, args[0])
        return _rounded_once(func, *args, **given) if func in PLAIN else func(*args, **given)


def _with_bias(
    func: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *rest: Any,
    **given: Any,
) -> Tensor:
    out = _rounded_once(func, x, weight, None, *rest, **given)
    if bias is None:
        return out
    return out + (bias if func is F.linear else bias[:, None, None])


def _rounded_once(func: Callable[..., Tensor], *args: Any, **given: Any) -> Tensor:
    if not any(isinstance(x, Tensor) and x.dtype == torch.float32 for x in args):
        return func(*args, **given)
    wide = [_double(x) for x in args]
    return func(*wide, **{name: _double(x) for name, x in given.items()}).float()


def _double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.dtype == torch.float32 else x
