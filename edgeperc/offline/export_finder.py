"""From trained weights of a network for pictures to a model folder.

    export_trained(card, Path("out/finder-twin/weights.pt"), Path("models/finder-twin"))

writes `<name>.onnx` for pictures of any size, its weights kept in half precision, and `model.toml`.
"""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from edgeperc.config import FileEntry, ModelCard
from edgeperc.errors import ModelError
from edgeperc.inference.session import Session
from edgeperc.offline.export import OPSET, file_entry, new_folder, one_thread, to_toml
from edgeperc.offline.nets.finder import Finder, Regions
from edgeperc.offline.storage import stored


@dataclass(frozen=True, slots=True, kw_only=True)
class FinderReport:
    """What was written. difference, scale: largest difference of an output between the file and
    the network as trained, and the outputs' standard deviation, over pictures of several sizes.
    """

    parameters: int
    file: FileEntry
    difference: float
    scale: float

    def summary(self) -> str:
        """A few lines for the terminal."""
        return (
            f"{self.parameters:,} parameters\n{self.file.path}: {self.file.bytes:,} bytes\n"
            f"outputs differ from the trained network's by {self.difference:.3g} at most; "
            f"their standard deviation is {self.scale:.3g}"
        )


def export_trained(card: ModelCard, checkpoint: Path, out_dir: Path) -> FinderReport:
    """Turn what `edgeperc train` wrote into a model folder.

    Raises ModelError if the file holds no such network, it does not fit the card, or the folder
    cannot be written.
    """
    net = load_net(card, checkpoint)
    with one_thread(), new_folder(out_dir) as folder:
        path = folder / f"{card.name}.onnx"
        export_onnx(net, path)
        difference, scale = compare(net, path)
        entry = file_entry(path, "network")
        complete = msgspec.structs.replace(card, files=(entry,))
        (folder / "model.toml").write_text(to_toml(complete), encoding="utf-8")
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return FinderReport(parameters=parameters, file=entry, difference=difference, scale=scale)


def load_net(card: ModelCard, checkpoint: Path) -> nn.Module:
    """The network of a card with trained weights, ready to answer. Raises ModelError."""
    try:
        held = torch.load(checkpoint, weights_only=True)
        channels, state = tuple(held["channels"]), held["net"]
    except OSError as error:
        raise ModelError(f"{checkpoint}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise ModelError(f"{checkpoint}: not what `edgeperc train` writes: {error}") from error
    kind = Finder if card.task == "detection" else Regions
    try:
        net = kind(len(card.classes), channels)
        net.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{checkpoint}: does not fit the card '{card.name}': {first_line}"
        ) from error
    return net.eval()


def export_onnx(net: nn.Module, path: Path) -> None:
    """Write `picture` (1, 1, height, width) float32 -> `answer`; batch norms are folded."""
    example = torch.zeros(1, 1, 64, 64)
    sizes = {"picture": {2: "height", 3: "width"}, "answer": {2: "rows", 3: "columns"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # as in edgeperc.offline.export
        torch.onnx.export(
            net,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["picture"],
            output_names=["answer"],
            dynamic_axes=sizes,
        )
    onnx.save(stored(onnx.load(str(path)), "half"), str(path))


def compare(net: nn.Module, path: Path) -> tuple[float, float]:
    """Largest difference of an output between file and network, and the outputs' deviation."""
    session = Session(path, threads=1)
    differences, answers = [], []
    for picture in _probes():
        with torch.no_grad():
            trained = net(torch.from_numpy(picture)).numpy()
        differences.append(float(np.abs(session.run(picture)[0] - trained).max()))
        answers.append(trained.ravel())
    return max(differences), float(np.concatenate(answers).std())


def _probes() -> list[NDArray[Any]]:
    """Noise and smooth shades of several sizes."""
    rng = np.random.default_rng(0)
    probes = []
    for height, width in ((224, 224), (64, 96), (448, 960)):
        shade = np.linspace(0, 1, height)[:, None] * np.linspace(1, 0, width)
        for picture in (shade, rng.random((height, width))):
            probes.append(picture[None, None].astype(np.float32))
    return probes
