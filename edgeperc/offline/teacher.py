"""A trained detector's features as something to imitate: what a few hundred pictures cannot teach.

Only the features that our network computes at training time are compared; nothing of the detector
is in the result.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, shape_inference

STRIDES = (8, 16, 32)


class Teacher:
    """The last feature maps of a YOLOX file at strides 8, 16 and 32, side by side at stride 16.

    channels: of all three together. Each is brought to mean 0 and deviation 1 in every picture.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        model = shape_inference.infer_shapes(onnx.load(str(path)))
        names, counts = _last_maps(model)
        self.channels = sum(counts)
        for axis, name in ((0, "count"), (2, "height"), (3, "width")):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
        del model.graph.value_info[:], model.graph.output[:]
        for name in names:  # onnxruntime leaves out what nobody asks for
            model.graph.output.append(helper.make_empty_tensor_value_info(name))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._input = model.graph.input[0].name

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """pictures: (B, S, S, 3) uint8 RGB. Returns (B, channels, S / 16, S / 16) float32."""
        side = pictures.shape[1] // 16
        answers = []
        for picture in pictures:  # one by one: the file's own reshapes know no batch
            tensor = picture[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)
            maps = self._session.run(None, {self._input: tensor})
            answers.append(np.concatenate([_at_side(m[0], side) for m in maps]))
        return np.stack(answers)


def _last_maps(model: onnx.ModelProto) -> tuple[list[str], list[int]]:
    """Names and channels of the last joined feature map at each stride, before the boxes begin."""
    sides = {info.name: info.type.tensor_type.shape.dim for info in model.graph.value_info}
    input_px = model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    found = {}
    for node in model.graph.node:
        shape = sides.get(node.output[0], ())
        if node.op_type == "Concat" and len(shape) == 4 and shape[1].dim_value % 8 == 0:
            found[input_px // shape[2].dim_value] = (node.output[0], shape[1].dim_value)
    return [found[s][0] for s in STRIDES], [found[s][1] for s in STRIDES]


def _at_side(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """(C, h, w) at another size, each channel brought to mean 0 and deviation 1."""
    planes = values.transpose(1, 2, 0)
    how = cv2.INTER_AREA if planes.shape[0] > side else cv2.INTER_LINEAR
    parts = [
        np.atleast_3d(cv2.resize(planes[..., i : i + 4], (side, side), interpolation=how))
        for i in range(0, planes.shape[2], 4)
    ]
    maps = np.concatenate(parts, axis=2).transpose(2, 0, 1)
    mean, deviation = maps.mean((1, 2), keepdims=True), maps.std((1, 2), keepdims=True)
    scaled: NDArray[np.float32] = ((maps - mean) / (deviation + 1e-3)).astype(np.float32)
    return scaled
