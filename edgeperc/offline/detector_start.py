"""Begin the pyramid of our promptable network with the convolutions of a trained detector."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper

from edgeperc.errors import DataError
from edgeperc.offline.nets.pyramid import Pyramid, load_detector


def start_from_detector(
    pyramid: Pyramid, path: Path, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> None:
    """Copy what a YOLOX-Nano file has learned; `mean`, `deviation`: of the pyramid's pictures.

    Raises DataError for a file of another network.
    """
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's exceptions have no base class of their own
        raise DataError(f"{path}: not an ONNX file: {error}") from error
    stored = {entry.name: entry for entry in graph.initializer}
    kernels = [node.input[1:3] for node in graph.node if node.op_type == "Conv"]
    weights = [
        tuple(torch.tensor(numpy_helper.to_array(stored[name])) for name in names)
        for names in kernels
        if len(names) == 2 and all(name in stored for name in names)
    ]
    try:
        load_detector(
            pyramid,
            [(kernel, bias) for kernel, bias in weights],
            torch.tensor(mean),
            torch.tensor(deviation),
        )
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{path}: its convolutions are not those of YOLOX-Nano",
            hint="take yolox_nano.onnx of Megvii's YOLOX, or move the file away to begin at random",
        ) from error
