"""What every quantizer is: one grid for one tensor, off until it is switched on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from edgeperc.errors import ModelError

Export = Literal["int8", "int8 storage", "int4 weights", "accuracy only"]


class Quantizer(nn.Module):
    """One grid for one tensor. Its numbers are buffers, so a state_dict keeps them.

    A subclass says what `fit`, `quantize` and `dequantize` do. bits: of a code. export: what runs
    with integers of this grid in onnxruntime; "int8 storage" is no faster than int8, "int4 weights"
    are a kernel of floats, "accuracy only" is no faster than float.
    """

    export: Export = "accuracy only"
    hard: ClassVar[bool] = True
    """Whether `forward` gives only values of the grid; a solver's soft ones say False."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        if not 1 <= bits <= 16:
            raise ValueError(f"bits is {bits}, must be 1 to 16")
        self.bits = bits
        self.enabled = False

    def fit(self, values: Tensor) -> None:
        """Choose the grid for values like these. Raises ModelError if any is not finite."""
        raise NotImplementedError

    def quantize(self, x: Tensor) -> Tensor:
        """The integer code of each value, in the type of x."""
        raise NotImplementedError

    def dequantize(self, codes: Tensor) -> Tensor:
        """The value of each code."""
        raise NotImplementedError

    def takes(self, weight: Tensor) -> bool:
        """Whether it is for a weight of this shape and size; a layer of others stays float."""
        return True

    def inside(self, x: Tensor) -> Tensor:
        """Which values the grid reaches, bool; others are clipped and get no gradient."""
        return torch.ones_like(x, dtype=torch.bool)

    def off_grid(self, values: Tensor) -> float:
        """How far values are from their grid, as a share of the largest; 0 on it."""
        away = (self.dequantize(self.quantize(values)) - values).abs().max()
        return float(away / values.abs().max().clamp(min=1e-12))

    def probe(self) -> Tensor:
        """Values all over the grid and beyond it, in a shape that this quantizer takes."""
        return torch.linspace(-3, 3, 257)

    def onnx(self, x: Tensor) -> Tensor:
        """What an exported graph has in place of `forward`."""
        return self.dequantize(self.quantize(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return x where it is off, else the nearest values on the grid with the gradient of x."""
        if not self.enabled:
            return x
        if torch.onnx.is_in_onnx_export():
            return self.onnx(x)
        detached = x.detach()
        values = self.dequantize(self.quantize(detached))
        if not (x.requires_grad and torch.is_grad_enabled()):
            return values
        through: Tensor = _straight_through(x, values, self.inside(detached))
        return through

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """As of any module, for grids of any number of channels."""
        for name, buffer in list(self._buffers.items()):
            stored = state_dict.get(prefix + name)
            if buffer is not None and stored is not None:
                setattr(self, name, buffer.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def refuse_not_finite(values: Tensor) -> None:
    """Raises ModelError if a value is NaN or infinite, or there is none."""
    if not values.numel():
        raise ModelError("a quantizer cannot be fitted to no values")
    if not bool(torch.isfinite(values).all()):
        raise ModelError("a quantizer cannot be fitted to NaN or infinite values")


class _StraightThrough(torch.autograd.Function):
    """Values of the grid; the gradient as if they were x, nothing where x was clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(inside)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None


_straight_through: Callable[..., Tensor] = _StraightThrough.apply
