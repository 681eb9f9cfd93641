"""One onnxruntime session: provider order, threads, and what really runs. Never imports torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgeperc.errors import ModelError

PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
"""Best first; each is used where this onnxruntime build has it."""


class Session:
    """A network that onnxruntime has loaded.

    `provider` is the one that took the session, which may be a later one of PROVIDERS than was
    asked for: onnxruntime falls back without an error. Raises ModelError if the file is missing or
    is not a network.
    """

    def __init__(self, path: Path, *, threads: int = 2) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning workers would take the cores from the sensor threads between two frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = [name for name in PROVIDERS if name in ort.get_available_providers()]
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        try:
            self._session = ort.InferenceSession(str(path), options, providers=wanted)
        except Exception as error:  # onnxruntime's own exception types share no base class
            first_line = str(error).strip().splitlines()[0]
            raise ModelError(f"{path}: onnxruntime cannot load it: {first_line}") from error
        self.provider: str = self._session.get_providers()[0]
        self.input_shapes = {node.name: tuple(node.shape) for node in self._session.get_inputs()}
        self.output_shapes = {node.name: tuple(node.shape) for node in self._session.get_outputs()}

    def close(self) -> None:
        """Free the network and its memory; may be called twice."""
        self._session = None

    def run(self, *inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Run the network on its inputs in order; outputs are in the order of `output_shapes`.

        Raises ModelError if a shape does not fit, or it is closed.
        """
        if self._session is None:
            raise ModelError("the network is closed")
        if len(inputs) != len(self.input_shapes):
            raise ModelError(
                f"the network takes {len(self.input_shapes)} inputs, not {len(inputs)}"
            )
        for (name, shape), given in zip(self.input_shapes.items(), inputs, strict=True):
            if not _fits(given.shape, shape):
                raise ModelError(f"input '{name}' is {given.shape}, the network takes {shape}")
        outputs: list[NDArray[np.float32]] = self._session.run(
            None, dict(zip(self.input_shapes, inputs, strict=True))
        )
        return outputs


def _fits(given: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> bool:
    """Whether an array has a network's shape, in which a name or None stands for any length."""
    return len(given) == len(wanted) and all(
        length == n or not isinstance(n, int) for length, n in zip(given, wanted, strict=True)
    )
