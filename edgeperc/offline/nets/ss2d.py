"""Selective scans over planes and over channels, as layers: four directions, or two.

    plane = SS2D(96, states=1, ratio=1.0)
    y = plane(x)                                             # (B, H, W, 96) -> (B, H, W, 96)

A scan walks a sequence with a state that forgets as fast as each element says (Mamba, arXiv
2312.00752). A plane is walked by rows and by columns, forwards and backwards, and the four answers
are added (SS2D of VMamba, arXiv 2401.10166). Channels are last everywhere, as norms and linear
layers want them.

What is projected for a scan depends on one pixel only, so it is computed once where the pixels lie,
and not on four permuted copies of the plane: exact, and a quarter of the moving.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeperc.offline.nets.selective_scan import selective_scan
from edgeperc.offline.nets.taps import Tap

DOMAIN = "edgeperc"
"""Of the nodes that stand for a scan in an exported graph."""
DIRECTIONS = 4


class ScanWeights(nn.Module):
    """What a selective scan learns, for `directions` walks over elements of `features` numbers.

    project: (K, R + 2 N, F), an element to its step (of rank R), B and C. step, step_bias: (K, F,
    R) and (K, F), the step of each feature before the softplus. log_decay: (K * F, N), A is its
    negative exponential. skip: (K * F,).
    """

    def __init__(self, features: int, rank: int, states: int, directions: int) -> None:
        super().__init__()
        self.features, self.rank, self.states = features, rank, states
        self.directions = directions
        rows = directions * features
        bound = features**-0.5
        self.project = nn.Parameter(
            torch.empty(directions, rank + 2 * states, features).uniform_(-bound, bound)
        )
        spread = rank**-0.5
        self.step = nn.Parameter(torch.empty(directions, features, rank).uniform_(-spread, spread))
        self.step_bias = nn.Parameter(_first_steps(directions, features))
        decay = torch.arange(1.0, states + 1).log().repeat(rows, 1)
        self.log_decay = nn.Parameter(decay)
        self.skip = nn.Parameter(torch.ones(rows))
        self.fixed: tuple[Tensor, Tensor] | None = None
        self.tap_u, self.tap_projected, self.tap_y = Tap(), Tap(), Tap()

    def decay(self) -> Tensor:
        """A: (K * F, N), below zero."""
        return self.fixed[1] if self.fixed else -self.log_decay.exp()

    def native_projection(self) -> Tensor:
        """(F, K * (R + 2 N)): an element to all steps, then all B, then all C, by direction."""
        if self.fixed:
            return self.fixed[0]
        parts = torch.split(self.project, [self.rank, self.states, self.states], dim=1)
        return torch.cat([part.reshape(-1, self.features) for part in parts]).t()

    @torch.no_grad()
    def fix(self) -> None:
        """Compute once what follows from the weights alone, for an export."""
        self.fixed = self.native_projection().contiguous(), self.decay()


class SS2D(nn.Module):
    """In, 3 x 3 depthwise, SiLU, scan in four directions, norm, out: (B, H, W, width) as it was."""

    def __init__(self, width: int, *, states: int, ratio: float, conv_bias: bool = False) -> None:
        super().__init__()
        inner = int(ratio * width)
        self.enter = nn.Linear(width, inner, bias=False)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=conv_bias)
        self.scan = ScanWeights(inner, math.ceil(width / 16), states, DIRECTIONS)
        self.norm = nn.LayerNorm(inner)
        self.leave = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, width) float32."""
        u = self.scan.tap_u(F.silu(depthwise(self.mix, self.enter(x))))
        y: Tensor = self.leave(self.norm(self.scan.tap_y(cross_scan(self.scan, u))))
        return y


class ChannelScan(nn.Module):
    """The same over the channel axis: its elements are channels, its features are pixels.

    Forwards and backwards. cells: pixels that the weights are for, which ties them to one size.
    """

    def __init__(self, width: int, cells: int, *, states: int, ratio: float) -> None:
        super().__init__()
        inner = int(ratio * width)
        self.enter = nn.Linear(width, inner, bias=False)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.scan = ScanWeights(cells, math.ceil(cells / 16), states, 2)
        self.norm = nn.LayerNorm(inner)
        self.leave = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, H, W, width) float32 with H * W = cells."""
        batch, height, width, _ = (int(n) for n in x.shape)
        u = self.scan.tap_u(F.silu(depthwise(self.mix, self.enter(x))))
        y = channel_scan(self.scan, u.reshape(batch, height * width, -1))
        out: Tensor = self.leave(self.norm(self.scan.tap_y(y)))
        return out.reshape(batch, height, width, -1)


def depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of planes, (B, H, W, C) to (B, h, w, c)."""
    y: Tensor = conv(x.permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1)


def cross_scan(weights: ScanWeights, u: Tensor) -> Tensor:
    """Walk a plane in four directions. u: (B, H, W, D). Returns the sum, (B, H, W, D).

    Directions: by rows, by columns, and both backwards. In an exported graph, one node.
    """
    projected = weights.tap_projected(u @ weights.native_projection())
    tables = (weights.step, weights.decay(), weights.skip, weights.step_bias)
    if torch.onnx.is_in_onnx_export():
        marked: Tensor = _CrossScanNode.apply(u, projected, *tables)  # type: ignore[no-untyped-call]
        return marked
    return scan_plane(u, projected, *tables)


def scan_plane(
    u: Tensor, projected: Tensor, step: Tensor, decay: Tensor, skip: Tensor, step_bias: Tensor
) -> Tensor:
    """The plain meaning of the node. u: (B, H, W, D); projected: (B, H, W, 4 * (R + 2 N)): steps,
    B and C, each by direction. step: (4, D, R); decay: (4 * D, N); skip: (4 * D,); step_bias:
    (4, D). Returns (B, H, W, D).
    """
    batch, height, width, features = (int(n) for n in u.shape)
    rank, states = step.shape[2], decay.shape[1]
    cells = height * width
    sizes = [DIRECTIONS * rank, DIRECTIONS * states, DIRECTIONS * states]
    low, b, c = (_planes(part) for part in torch.split(projected, sizes, dim=-1))
    delta = torch.einsum("kdr,bkrhw->bkdhw", step, low)
    walked = (
        walk(each)
        for each in (u.permute(0, 3, 1, 2)[:, None].expand(-1, 4, -1, -1, -1), delta, b, c)
    )
    us, deltas, bs, cs = walked
    y = selective_scan(
        us.reshape(batch, -1, cells),
        deltas.reshape(batch, -1, cells),
        decay,
        bs,
        cs,
        skip,
        step_bias.reshape(-1),
        softplus=True,
    )
    y = y.reshape(batch, DIRECTIONS, features, cells)
    rows = (y[:, 0] + y[:, 2].flip(-1)).reshape(batch, features, height, width)
    columns = (y[:, 1] + y[:, 3].flip(-1)).reshape(batch, features, width, height)
    return (rows + columns.transpose(2, 3)).permute(0, 2, 3, 1)


def walk(planes: Tensor) -> Tensor:
    """(B, 4, C, H, W), one plane a direction, to the sequences (B, 4, C, H * W) that are walked."""
    rows, columns = planes[:, 0].flatten(2), planes[:, 1].transpose(2, 3).flatten(2)
    back = planes[:, 2].flatten(2).flip(-1)
    up = planes[:, 3].transpose(2, 3).flatten(2).flip(-1)
    return torch.stack([rows, columns, back, up], dim=1)


def channel_scan(weights: ScanWeights, u: Tensor) -> Tensor:
    """Walk the channels, forwards and backwards. u: (B, cells, T). Returns the sum, alike."""
    batch, cells, length = (int(n) for n in u.shape)
    both = torch.stack([u, u.flip(-1)], dim=1)
    projected = weights.tap_projected(torch.matmul(weights.project, both))
    sizes = [weights.rank, weights.states, weights.states]
    low, b, c = torch.split(projected, sizes, dim=2)
    y = selective_scan(
        both.reshape(batch, -1, length),
        torch.matmul(weights.step, low).reshape(batch, -1, length),
        weights.decay(),
        b,
        c,
        weights.skip,
        weights.step_bias.reshape(-1),
        softplus=True,
    )
    y = y.reshape(batch, 2, cells, length)
    return y[:, 0] + y[:, 1].flip(-1)


def _planes(values: Tensor) -> Tensor:
    """(B, H, W, 4 * C) to (B, 4, C, H, W)."""
    batch, height, width, channels = values.shape
    split = values.reshape(batch, height, width, DIRECTIONS, channels // DIRECTIONS)
    return split.permute(0, 3, 4, 1, 2)


def _first_steps(directions: int, features: int) -> Tensor:
    """Biases whose softplus lies between 0.001 and 0.1, evenly in the logarithm (Mamba's)."""
    low, high = math.log(1e-3), math.log(0.1)
    steps = torch.empty(directions, features).uniform_(low, high).exp().clamp(min=1e-4)
    return steps + torch.log(-torch.expm1(-steps))


class _CrossScanNode(torch.autograd.Function):
    """`scan_plane`, as one node of an exported graph."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        return inputs[0].clone()  # the tracer wants a shape, not the values

    @staticmethod
    def symbolic(graph: Any, *inputs: Any) -> Any:
        rank = inputs[2].type().sizes()[2]
        states = inputs[3].type().sizes()[1]
        sizes = [DIRECTIONS * n for n in (rank, states, states)]
        out = graph.op(f"{DOMAIN}::CrossScan", *inputs, sizes_i=sizes)
        out.setType(inputs[0].type())
        return out
