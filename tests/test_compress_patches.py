"""Patches embedded by a product: the same answers as the convolution's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeperc.offline.compress.graph.editing import Graph
from edgeperc.offline.compress.graph.movement import codes_first
from edgeperc.offline.compress.graph.patches import patches
from edgeperc.offline.onnx_part import Part, traced

FLOAT = 1e-5
"""Of the largest value: what float32 rounds."""


class Embedded(nn.Module):
    """A convolution with its channels moved to the end."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, H, W, C)."""
        out: torch.Tensor = self.conv(x).permute(0, 2, 3, 1)
        return out


def graph_of(conv: nn.Conv2d, x: torch.Tensor, folder: Path) -> Graph:
    part = Part(role="part", net=Embedded(conv).eval(), inputs={"x": x}, outputs=("y",))
    with torch.no_grad():
        return Graph(traced(part, folder, opset=20)[0])


@settings(max_examples=10, deadline=None)
@given(
    size=st.tuples(st.integers(1, 4), st.integers(2, 5)),
    counts=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 5)),
    bias=st.booleans(),
)
def test_a_product_gives_what_the_convolution_gives(
    tmp_path_factory: pytest.TempPathFactory,
    size: tuple[int, int],
    counts: tuple[int, int],
    channels: tuple[int, int],
    bias: bool,
) -> None:
    x = torch.randn(2, channels[0], size[0] * counts[0], size[1] * counts[1])
    conv = nn.Conv2d(*channels, size, stride=size, bias=bias)
    graph = graph_of(conv, x, tmp_path_factory.mktemp("graph"))
    assert patches(graph) == 1
    codes_first(graph)  # takes away two transposes that undo each other
    model = graph.close()
    kinds = [node.op_type for node in model.graph.node]
    assert "Conv" not in kinds
    assert kinds.count("Transpose") == 1
    with torch.no_grad():
        wanted = Embedded(conv)(x).numpy()
    found = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x.numpy()})[0]
    assert np.abs(found - wanted).max() <= FLOAT * max(np.abs(wanted).max(), 1)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(2, 4, 2, stride=1),
        nn.Conv2d(2, 4, 2, stride=2, padding=1),
        nn.Conv2d(2, 4, 2, stride=2, groups=2),
        nn.Conv2d(2, 4, 2, stride=2, dilation=2),
        nn.Conv2d(2, 4, 1),
        nn.Conv2d(2, 4, 5, stride=5),
    ],
)
def test_other_convolutions_stay(conv: nn.Conv2d, tmp_path: Path) -> None:
    assert patches(graph_of(conv, torch.randn(1, 2, 8, 8), tmp_path)) == 0
