"""The scan of a plane in plain ONNX operators: the function behind a `CrossScan` node.

    model = with_portable_scans(model)                       # runs anywhere; nodes stay as they are

Cross scan and merge are transpositions and slices with a step of -1, the scan itself is a
`SelectiveScan` node, which has a function of its own (`edgeperc.offline.scan_onnx`).
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper

from edgeperc.offline.scan_onnx import with_portable_scan

DOMAIN, OPSET = "edgeperc", 17
_WALKS = ("rows", "columns", "back", "up")
_END = -(2**31)


def with_portable_scans(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add the functions of both kinds of scan. The nodes of the graph are left as they are."""
    model = with_portable_scan(model)
    if not any(f.name == "CrossScan" for f in model.functions):
        model.functions.append(cross_scan_function())
    return model


def cross_scan_function() -> onnx.FunctionProto:
    """`CrossScan(u, projected, step, decay, skip, step_bias)` of one plane.

    As `edgeperc.scan.cross.cross_scan`; attribute sizes: how many channels of `projected` are
    steps, b and c, of all directions together.
    """
    body = _Body()
    body.add("Transpose", ["u"], "u_planes", perm=[0, 3, 1, 2])
    body.add("Transpose", ["projected"], "planes", perm=[0, 3, 1, 2])
    sizes = helper.make_node("Constant", [], ["sizes"])
    sizes.attribute.append(
        onnx.AttributeProto(name="value_ints", type=onnx.AttributeProto.INTS, ref_attr_name="sizes")
    )
    body.nodes.append(sizes)
    body.add("Split", ["planes", "sizes"], ["low", "b", "c"], axis=1)
    body.walk(["u_planes"] * 4, "us", axis=1)
    for name in ("low", "b", "c"):
        body.add("Split", [name], [f"{name}_{walk}" for walk in _WALKS], axis=1)
    body.walk([f"low_{walk}" for walk in _WALKS], "lows", axis=0)
    body.add("MatMul", ["step", "lows"], "deltas")  # (4, D, R) by (4, R, L)
    body.add("Reshape", ["deltas", "one_row_of_three"], "delta")
    for name in ("b", "c"):
        body.walk([f"{name}_{walk}" for walk in _WALKS], f"{name}s", axis=0)
        body.add("Unsqueeze", [f"{name}s", "first"], f"{name}_groups")
    body.add("Reshape", ["step_bias", "flat"], "bias")
    body.nodes.append(
        helper.make_node(
            "SelectiveScan",
            ["us", "delta", "decay", "b_groups", "c_groups", "skip", "bias"],
            ["ys"],
            domain=DOMAIN,
            softplus=1,
        )
    )
    body.merge()
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    inputs = ["u", "projected", "step", "decay", "skip", "step_bias"]
    return helper.make_function(
        DOMAIN, "CrossScan", inputs, ["y"], body.finished(), opsets, attributes=["sizes"]
    )


class _Body:
    """Nodes of a function, in order; constants first."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, list[int]] = {
            "keep_rows": [0, 0, -1],
            "one_row_of_three": [1, -1, 0],
            "flat": [-1],
            "first": [0],
            "last_axis": [2],
            "minus_one": [-1],
            "end": [_END],
        }

    def finished(self) -> list[onnx.NodeProto]:
        """All nodes."""
        made = [
            helper.make_node("Constant", [], [name], value_ints=ints)
            for name, ints in self._constants.items()
        ]
        return made + self.nodes

    def add(
        self, kind: str, inputs: list[str], outputs: str | list[str], **attributes: Any
    ) -> None:
        """A plain operator."""
        outputs = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(kind, inputs, outputs, **attributes))

    def reverse(self, name: str, out: str) -> None:
        """(..., L) backwards, along axis 2."""
        self.add("Slice", [name, "minus_one", "end", "last_axis", "minus_one"], out)

    def walk(self, planes: list[str], out: str, *, axis: int) -> None:
        """Planes (1, C, H, W), one a direction, to the sequences that are walked, joined."""
        for walk, plane in zip(_WALKS, planes, strict=True):
            name = f"{out}_{walk}"
            if walk in ("columns", "up"):
                self.add("Transpose", [plane], f"{name}_turned", perm=[0, 1, 3, 2])
            forwards = f"{name}_forwards" if walk in ("back", "up") else name
            turned = f"{name}_turned" if walk in ("columns", "up") else plane
            self.add("Reshape", [turned, "keep_rows"], forwards)
            if forwards != name:
                self.reverse(forwards, name)
        self.add("Concat", [f"{out}_{walk}" for walk in _WALKS], out, axis=axis)

    def merge(self) -> None:
        """`ys` (1, 4 * D, L) to `y` (1, H, W, D): each walk undone, all added."""
        self.add("Split", ["ys"], [f"y_{walk}" for walk in _WALKS], axis=1)
        self.add("Transpose", ["u_planes"], "u_turned", perm=[0, 1, 3, 2])
        for one, other, like in (("rows", "back", "u_planes"), ("columns", "up", "u_turned")):
            self.reverse(f"y_{other}", f"y_{other}_forwards")
            self.add("Add", [f"y_{one}", f"y_{other}_forwards"], f"both_{one}")
            self.add("Shape", [like], f"{like}_shape")
            self.add("Reshape", [f"both_{one}", f"{like}_shape"], f"plane_{one}")
        self.add("Transpose", ["plane_columns"], "plane_turned", perm=[0, 1, 3, 2])
        self.add("Add", ["plane_rows", "plane_turned"], "sum")
        self.add("Transpose", ["sum"], "y", perm=[0, 2, 3, 1])
