"""The pyramid is the detector's, and begins with its weights or says why not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from edgeperc.errors import DataError
from edgeperc.offline.detector_start import start_from_detector
from edgeperc.offline.nets.pyramid import WIDTHS, Pyramid

Real = Callable[[str], Path]
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def joined_maps(path: Path, picture: np.ndarray) -> list[np.ndarray]:
    """What the detector's file has behind its 77 convolutions, by the sizes of its own maps."""
    model = onnx.load(str(path))
    ends = [8, 60, 68, 76]  # numbers of the convolutions that close the stages, as they run
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    products = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "Mul"}
    names = [products[convs[end].output[0]] for end in ends]
    for name in names:
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(names, {session.get_inputs()[0].name: picture})


def test_with_a_detectors_weights_it_sees_what_the_detector_sees(real: Real) -> None:
    path = real("models/yolox_nano.onnx")
    pyramid = Pyramid()
    start_from_detector(pyramid, path, MEAN, STD)
    rgb = np.random.default_rng(0).integers(0, 256, (416, 416, 3)).astype(np.float32)
    # Grey at the edge, where the detector pads with black and the pyramid with the mean.
    rgb[:16] = rgb[-16:] = rgb[:, :16] = rgb[:, -16:] = 0
    wanted = joined_maps(path, rgb[..., ::-1].transpose(2, 0, 1)[None].copy())
    scaled = (torch.from_numpy(rgb) - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        # Padding of the first convolution only: let it be black for the pyramid as well.
        first = pyramid.start.conv
        black = (-torch.tensor(MEAN) / torch.tensor(STD)).repeat(4)[:, None, None]
        cut = [scaled.permute(2, 0, 1)[:, y::2, x::2] for x in (0, 1) for y in (0, 1)]
        padded = torch.nn.functional.pad(torch.cat(cut) - black, (1, 1, 1, 1)) + black
        bordered = torch.nn.functional.conv2d(padded[None], first.weight, first.bias)
        first.forward = lambda _: bordered  # type: ignore[method-assign]
        got = pyramid(scaled.permute(2, 0, 1)[None])
    for mine, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, atol=2e-3)


def test_maps_have_the_strides_and_widths_they_promise() -> None:
    maps = Pyramid()(torch.zeros(2, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [
        (2, width, side, side) for width, side in zip(WIDTHS, (16, 8, 4, 2), strict=True)
    ]


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    picture = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [
        helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 3, 3], np.zeros(108)),
        helper.make_tensor("b", TensorProto.FLOAT, [4], np.zeros(4)),
    ]
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    onnx.save(helper.make_model(helper.make_graph([node], "g", [picture], [answer], stored)), other)
    with pytest.raises(DataError, match="not those of YOLOX-Nano"):
        start_from_detector(Pyramid(), other, MEAN, STD)
    other.write_bytes(b"no network at all")
    with pytest.raises(DataError, match="not an ONNX file"):
        start_from_detector(Pyramid(), other, MEAN, STD)
