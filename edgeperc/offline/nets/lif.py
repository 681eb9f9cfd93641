"""Leaky integrate-and-fire neurons over discrete time steps, trained by surrogate gradients."""
# ruff: noqa: D102 - what a forward does is what its class says

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from edgeperc.errors import ModelError

Surrogate = Callable[[Tensor], Tensor]
"""Derivative of a spike by its membrane potential, as a function of (potential - threshold)."""


def tanh_surrogate(distance: Tensor) -> Tensor:
    """The published one: slope of a tanh scaled to run from 0 to 1 within 0.5 of the threshold."""
    slope = 3 * (1 - torch.tanh(3 * distance) ** 2) / (2 * math.tanh(1.5))
    return slope * (distance.abs() <= 0.5)


def sigmoid_surrogate(distance: Tensor, steepness: float = 4.0) -> Tensor:
    """Slope of sigmoid(steepness * distance): never exactly zero."""
    rise = torch.sigmoid(steepness * distance)
    return steepness * rise * (1 - rise)


class _Fire(torch.autograd.Function):
    """1.0 where u > threshold (>= if inclusive); the gradient is the surrogate's."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, threshold: float, inclusive: bool, surrogate: Surrogate
    ) -> Tensor:
        ctx.save_for_backward(u)
        ctx.threshold, ctx.surrogate = threshold, surrogate
        return (u >= threshold if inclusive else u > threshold).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (u,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate(u - ctx.threshold), None, None, None


_fire: Callable[..., Tensor] = _Fire.apply


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons with a hard reset.

    With u the membrane potential above `reset`, per time step: `u = decay * u + gain * x`, a spike
    where `reset + u > threshold` (`>=` if inclusive), then u = 0 where it spiked.

    spikingjelly's LIFNode is `decay = 1 - 1 / tau`, `gain = 1 / tau` (1 without decay_input) and
    `inclusive`. x and the result: (time_steps * B, ...), time outermost. Raises ModelError if the
    first axis does not hold whole time steps.
    """

    def __init__(
        self,
        *,
        time_steps: int = 1,
        decay: float = 0.25,
        gain: float = 1.0,
        threshold: float = 0.5,
        reset: float = 0.0,
        inclusive: bool = False,
        detach_reset: bool = False,
        surrogate: Surrogate = tanh_surrogate,
    ) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.decay, self.gain = decay, gain
        self.threshold, self.reset = threshold, reset
        self.inclusive, self.detach_reset = inclusive, detach_reset
        self.surrogate = surrogate

    def forward(self, x: Tensor) -> Tensor:
        if len(x) % self.time_steps:
            raise ModelError(f"{len(x)} potentials do not make {self.time_steps} time steps")
        drives = (x if self.gain == 1 else self.gain * x).chunk(self.time_steps)
        u = drives[0]
        spikes = [self._fire(u)]
        for drive in drives[1:]:
            fired = spikes[-1].detach() if self.detach_reset else spikes[-1]
            u = self.decay * (1 - fired) * u + drive
            spikes.append(self._fire(u))
        return torch.cat(spikes) if len(spikes) > 1 else spikes[0]

    def _fire(self, u: Tensor) -> Tensor:
        return _fire(u, self.threshold - self.reset, self.inclusive, self.surrogate)
