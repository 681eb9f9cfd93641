"""SLTNet as an artifact: its file gives the labels of the simulated network, and the daemon's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgeperc import places
from edgeperc.errors import ModelError
from edgeperc.offline.compress import artifact, artifact_semantic
from edgeperc.offline.compress.adapters import open_subject
from edgeperc.offline.compress.adapters.sltnet import SltnetSubject
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.recipe import load_recipe
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.datasets import TRAINING_STREETS, twin
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.segment import Segmenter

pytestmark = pytest.mark.slow


def weights(folder: Path, classes: int = 6) -> Path:
    """A network whose neurons fire, as a file."""
    torch.manual_seed(1)
    net = SLTNet(classes, width=8, blocks=(1, 1, 1))
    with torch.no_grad():
        for name, values in net.named_buffers():
            if name.endswith("running_mean"):
                values.copy_(0.2 * torch.randn(values.shape) - 0.3)
    torch.save({"state": net.state_dict()}, folder / "events.pth")
    return folder / "events.pth"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Context, Path]:
    """A quantized network and its artifact."""
    folder = tmp_path_factory.mktemp("semantic")
    subject = open_subject(str(weights(folder)))
    assert isinstance(subject, SltnetSubject)
    samples = subject.windows(twin(TRAINING_STREETS), 3)
    sim = Simulated(subject.net)
    ctx = Context(subject=subject, sim=sim, samples=samples[:2], held_out=samples[2:])
    kept = set(subject.keep_fp)
    exact = open_subject(str(folder / "events.pth")).net
    at = [site for name, site in sim.sites.items() if name not in kept]
    quantize(ctx, at, weight="uniform8c-minmax", act="uniform8-minmax")
    sim.fold()
    ledger = Ledger("events", "w8a8", "0" * 64, 0, "real", 2, 1)
    artifact.write(ctx, ledger, folder / "small", exact=exact, time_it=False)
    return ctx, folder / "small"


def test_the_daemons_labels_are_those_of_the_simulated_network(made: tuple[Context, Path]) -> None:
    ctx, folder = made
    model = places.find_model(str(folder))
    assert (model.card.task, model.card.name) == ("semantic", "sltnet-twin-w8a8")
    assert model.card.classes == places.find_card("sltnet-twin").card.classes
    events = twin(TRAINING_STREETS).thinned(3).read(2).events
    segmenter = Segmenter(model)
    labels = segmenter(events).labels
    with torch.no_grad():
        wanted = ctx.net(ctx.held_out[0]["voxel"])[0].argmax(0).numpy()[:260, :346]
    assert len(np.unique(wanted)) > 1
    assert np.mean(labels == wanted) >= 0.999
    assert segmenter.ref.precision == "fp32"  # no codes are multiplied


def test_neurons_stay_comparisons_and_weights_are_stored_as_codes(
    made: tuple[Context, Path],
) -> None:
    graph = onnx.load(made[1] / "network.onnx").graph
    assert any(node.op_type == "Greater" for node in graph.node)
    stored = [each for each in graph.initializer if each.data_type == onnx.TensorProto.INT8]
    assert sum(np.prod(each.dims) > 64 for each in stored) > 10
    told = json.loads((made[1] / "quant.json").read_text())
    assert set(told["labels"]) == {"int8 storage"}
    assert told["runs_in_integers"]["network"]["in integers"] == 0
    assert told["agreement"] >= 0.999


def test_the_report_shows_labels_errors_and_what_became_of_the_answers(
    made: tuple[Context, Path],
) -> None:
    report = (made[1] / "report.md").read_text()
    assert "| full precision | 32 |" in report
    assert "| transformers.0 | 8 int8 storage |" in report
    assert "int8;" not in report
    errors = report.partition("| site | input or value | weight |")[2].splitlines()[2:10]
    worst = [max(float(x) for x in line.split("|")[2:4] if x.strip() != "–") for line in errors]
    assert worst == sorted(worst, reverse=True)
    assert worst[0] > 0
    assert (made[1] / "masks.png").stat().st_size > 1000


def test_a_file_that_gives_other_labels_is_refused(
    made: tuple[Context, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_semantic, "agreement", lambda *_: 0.98)
    ledger = Ledger("events", "w8a8", "0" * 64, 0, "real", 2, 1)
    with pytest.raises(ModelError, match=r"get the same label: 0\.9800, 0\.99 is asked for"):
        artifact.write(made[0], ledger, tmp_path / "out", time_it=False)
    assert not (tmp_path / "out").exists()


def test_first_layer_classifier_and_neurons_on_sums_are_kept(made: tuple[Context, Path]) -> None:
    kept = made[0].subject.keep_fp
    assert {"stem.0", "classifier", "head"} <= set(kept)
    assert "stem.1" not in kept
    assert load_recipe("w8a8").keep_fp is None


def test_weights_that_fit_no_card_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 5 bins and 4 classes, the card 'sltnet-twin' says"):
        open_subject(str(weights(tmp_path, classes=4)))
