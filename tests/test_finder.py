"""The networks for pictures, and that their exported files say what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgeperc.config import ModelCard, load
from edgeperc.detect import Detector
from edgeperc.detection.decode import finder
from edgeperc.errors import ModelError
from edgeperc.inference.session import Session
from edgeperc.offline import export_finder, trainers
from edgeperc.offline.nets.finder import LOG_VARIANCES, STRIDE_PX, Finder, Regions
from edgeperc.packet import Frame, Stamp
from edgeperc.places import ModelFolder, find_card
from edgeperc.segment import Segmenter

TINY = (4, 6, 8, 10, 12)
STAMP = Stamp(source="cam", seq=0, start_ns=0, end_ns=1)


def random_net(kind: type[Finder] | type[Regions], classes: int) -> nn.Module:
    """With norms that have seen something, so that folding them matters."""
    torch.manual_seed(1)
    net = kind(classes, TINY)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias):
                nn.init.normal_(values, 0, 0.3)  # type: ignore[arg-type]
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 1.5)  # type: ignore[arg-type]
    return net.eval()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pt"
    net = random_net(Finder, 2)
    nn.init.constant_(net.classifier.bias, 0.5)  # type: ignore[arg-type, union-attr]
    torch.save({"channels": TINY, "net": net.state_dict()}, path)
    return path


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 160)])
def test_a_finder_answers_for_each_cell(height: int, width: int) -> None:
    answer = random_net(Finder, 3)(torch.rand(2, 1, height, width))
    assert answer.shape == (2, 3 + 8, height // STRIDE_PX, width // STRIDE_PX)
    log_variance = answer[:, -4:].detach()
    assert LOG_VARIANCES[0] <= log_variance.min() <= log_variance.max() <= LOG_VARIANCES[1]


def test_regions_answer_at_a_quarter() -> None:
    assert random_net(Regions, 5)(torch.rand(1, 1, 96, 160)).shape == (1, 5, 24, 40)


def test_a_new_finder_says_nothing() -> None:
    answer = Finder(2, TINY).eval()(torch.rand(1, 1, 64, 64))
    assert len(finder(answer.detach().numpy(), 0.3, 64, 64)) == 0


@pytest.mark.parametrize("kind", [Finder, Regions])
def test_the_file_says_what_the_network_says(
    kind: type[Finder] | type[Regions], tmp_path: Path
) -> None:
    net, path = random_net(kind, 2), tmp_path / "net.onnx"
    export_finder.export_onnx(net, path)
    difference, scale = export_finder.compare(net, path)
    assert scale > 0.1
    assert 0 < difference < 0.01 * scale  # weights of 11 bits
    assert not any(node.op_type == "BatchNormalization" for node in onnx.load(path).graph.node)


def test_with_weights_of_half_precision_the_file_is_exact(tmp_path: Path) -> None:
    """Then halving loses nothing; what is left is the order of additions."""
    net, path = random_net(Finder, 2), tmp_path / "net.onnx"
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # folded, they would make other numbers
            module.reset_parameters()
            module.eps = 0.0
    with torch.no_grad():
        for values in net.parameters():
            values.copy_(values.half().float())
    export_finder.export_onnx(net, path)
    picture = np.random.default_rng(0).random((1, 1, 64, 96), np.float32)
    trained = net(torch.from_numpy(picture)).detach().numpy()
    np.testing.assert_allclose(
        Session(path, threads=1).run(picture)[0], trained, rtol=1e-4, atol=1e-5
    )


def test_a_large_weight_takes_half_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    net = random_net(Finder, 2)
    export_finder.export_onnx(net, path)
    assert path.stat().st_size < 2.2 * sum(values.numel() for values in net.parameters()) + 20_000


def test_trained_weights_become_a_model(weights: Path, tmp_path: Path) -> None:
    card = find_card("finder-twin").card
    report = trainers.export_trained(card, weights, tmp_path / "model")
    written = load(tmp_path / "model" / "model.toml", ModelCard)
    assert (written.name, written.detect) == (card.name, card.detect)
    assert f"{written.files[0].bytes:,} bytes" in report.summary()
    detector = Detector(ModelFolder(written, tmp_path / "model"), score=0.0)
    image = np.random.default_rng(0).integers(0, 255, (70, 100), dtype=np.uint8)
    found = detector(Frame(stamp=STAMP, image=image))
    assert found.classes == ("person", "vehicle")
    assert len(found.boxes) > 0
    assert found.variance is not None
    assert found.variance.shape == found.boxes.shape


def test_trained_regions_become_a_model(tmp_path: Path) -> None:
    card = find_card("regions-twin").card
    net = random_net(Regions, len(card.classes))
    torch.save({"channels": TINY, "net": net.state_dict()}, tmp_path / "weights.pt")
    trainers.export_trained(card, tmp_path / "weights.pt", tmp_path / "model")
    written = load(tmp_path / "model" / "model.toml", ModelCard)
    segmenter = Segmenter(ModelFolder(written, tmp_path / "model"))
    image = np.random.default_rng(0).integers(0, 255, (70, 100), dtype=np.uint8)
    labels = segmenter(Frame(stamp=STAMP, image=image)).labels
    assert labels.shape == image.shape
    assert labels.max() < len(card.classes)


def test_weights_that_do_not_fit_are_refused(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    with pytest.raises(ModelError, match="does not fit the card 'regions-twin'"):
        trainers.export_trained(find_card("regions-twin").card, weights, out)
    card = find_card("finder-twin").card
    with pytest.raises(ModelError, match="No such file"):
        trainers.export_trained(card, tmp_path / "gone.pt", out)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ModelError, match="not what `edgeperc train` writes"):
        trainers.export_trained(card, tmp_path / "text.pt", out)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="not what `edgeperc train` writes"):
        trainers.export_trained(card, tmp_path / "list.pt", out)
    assert not out.exists()
