"""From checkpoint to model folder: the file says what the network says; all of it or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeperc import config
from edgeperc.config import Accuracy, Checkpoint, Input, ModelCard
from edgeperc.drivers.replay import Replay
from edgeperc.errors import ModelError
from edgeperc.inference.session import Session
from edgeperc.offline.checkpoint import read_checkpoint
from edgeperc.offline.compare import doubts
from edgeperc.offline.export import (
    export_onnx,
    export_trained,
    import_checkpoint,
    steepen,
    to_toml,
)
from edgeperc.offline.fold import fold
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.nets.sltnet_folded import Neurons
from edgeperc.offline.nets.sltnet_keys import load_sltnet, published_modules
from edgeperc.offline.prune import prune
from edgeperc.offline.report import Check, ImportReport
from edgeperc.packet import Events
from edgeperc.places import find_model
from edgeperc.represent import RECIPES
from edgeperc.window import CountWindows

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
GOLDEN = DATA / "golden" / "sltnet_ddd17_davis346.npz"
OFFICIAL = {n: DATA / "models" / f"sltnet_{n}_official.pth" for n in ("ddd17", "dsec")}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(width: int = 8, blocks: tuple[int, int, int] = (1, 1, 1)) -> SLTNet:
    """A random network whose batch norms have seen data."""
    torch.manual_seed(0)
    net = SLTNet(3, width=width, blocks=blocks)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.bias, -0.3, 0.6)
    with torch.no_grad():
        net(torch.randn(4, 5, 32, 48))
    return net.eval()


CARD = ModelCard(
    name="toy",
    task="semantic",
    summary='A card with "quotes", a \\ and an é',
    licence="MIT",
    source="made up",
    classes=("road", "car", "person"),
    input=Input(kind="events", represent="voxel-grid", width_px=45, height_px=32, window_us=50_000),
    checkpoint=Checkpoint(architecture="sltnet", sha256="1" * 64),
    accuracy=(Accuracy(dataset="none", status="not measured"),),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network in the published layout."""
    net = trained(8, (3, 3, 3))
    names = {ours: theirs for theirs, ours in published_modules().items()}
    split = ((key.rpartition("."), value) for key, value in net.state_dict().items())
    state = {f"{names[module]}.{leaf}": value for (module, _, leaf), value in split}
    path = tmp_path_factory.mktemp("weights") / "toy.pth"
    torch.save({"model": state, "best_miou": np.float64(0.5)}, path)
    return path


def grids(*size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    dense = torch.randn(4, 5, *size, generator=generator)
    return dense * (torch.rand(dense.shape, generator=generator) < 0.2)


@pytest.mark.parametrize("blocks", [(0, 0, 0), (1, 1, 1)])
def test_the_onnx_file_gives_the_networks_labels(
    tmp_path: Path, blocks: tuple[int, int, int]
) -> None:
    net = trained(blocks=blocks)
    path = tmp_path / "net.onnx"
    export_onnx(prune(fold(net))[0], path, 40, 48)
    session = Session(path, threads=1)
    assert session.input_shapes == {"voxel": (1, 5, 40, 48)}
    agreement = []
    for grid in grids(40, 48):
        (logits,) = session.run(grid[None].numpy())
        with torch.no_grad():
            expected = net(grid[None])
        assert logits.shape == expected.shape
        assert logits.dtype == np.float32
        agreement.append((logits.argmax(1) == expected.argmax(1).numpy()).mean())
    assert np.mean(agreement) >= 0.999


def test_a_network_without_dead_parts_stays_within_size_and_node_limits(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    export_onnx(fold(SLTNet(11).eval()), path, 32, 32)
    assert path.stat().st_size <= 2_000_000
    assert len(onnx.load(path).graph.node) <= 1_200


def test_the_same_network_gives_the_same_bytes(tmp_path: Path) -> None:
    folded = fold(trained())
    for name in ("a", "b"):
        export_onnx(folded, tmp_path / name, 16, 16)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_steep_neurons_fire_as_the_others_and_never_in_part() -> None:
    folded = fold(trained())
    steep = steepen(folded)
    before = {k: v.clone() for k, v in folded.state_dict().items()}
    spikes: dict[str, list[Tensor]] = {}
    for net in (folded, steep):
        for name, layer in net.named_modules():
            if isinstance(layer, Neurons):
                layer.register_forward_hook(
                    lambda _layer, _x, y, name=name: spikes.setdefault(name, []).append(y)
                )
        with torch.no_grad():
            net(grids(32, 48))
    assert len(spikes) > 40
    for plain, sharp in spikes.values():
        assert set(sharp.unique().tolist()) <= {0.0, 1.0}
        assert (plain == sharp).double().mean() > 0.9999
    assert all(torch.equal(before[key], value) for key, value in folded.state_dict().items())


def test_an_import_makes_a_complete_model_folder(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "models" / "toy"
    report = import_checkpoint(CARD, checkpoint, out)
    assert {p.name for p in out.iterdir()} >= {"toy.onnx", "model.toml", "report.md", "report.json"}
    assert [p.name for p in out.parent.iterdir()] == ["toy"]

    monkeypatch.setenv("EDGEPERC_HOME", str(tmp_path))
    model = find_model("toy")
    assert model.card == msgspec.structs.replace(CARD, files=report.files)
    network = model.file("network")
    assert network is not None
    assert Session(network, threads=1).input_shapes == {"voxel": (1, 5, 32, 48)}

    (warning,) = report.warnings
    assert report.checkpoint_sha256 in warning
    assert "1" * 64 in warning
    assert json.loads((out / "report.json").read_text())["recorded"] == {"best_miou": 0.5}
    assert all(check.onnx_labels >= 0.999 for check in report.checks)
    text = (out / "report.md").read_text()
    assert warning in text
    assert "toy.onnx" in report.summary()


def test_our_own_weights_are_exported_into_a_folder_that_keeps_its_other_files(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(trained().state_dict(), weights)
    out = tmp_path / "toy"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "model.toml").write_text("old")
    report = export_trained(CARD, weights, out)
    assert report.warnings == ()
    assert config.load(out / "model.toml", ModelCard).files == report.files
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (
            msgspec.structs.replace(CARD, classes=("a", "b")),
            "3 classes, the card 'toy' says 5 and 2",
        ),
        (
            msgspec.structs.replace(CARD, input=msgspec.structs.replace(CARD.input, bins=3)),
            "5 bins",
        ),
        (
            msgspec.structs.replace(CARD, input=msgspec.structs.replace(CARD.input, represent="x")),
            "unknown representation 'x'",
        ),
    ],
)
def test_a_card_that_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, checkpoint: Path, card: ModelCard, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        import_checkpoint(card, checkpoint, tmp_path / "toy")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_clear_error(
    tmp_path: Path, checkpoint: Path
) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "toy"):
        with pytest.raises(ModelError, match="cannot be written"):
            import_checkpoint(CARD, checkpoint, target)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def checked(*labels: float) -> list[Check]:
    return [Check("noise", share, 0.0, 1.0, 0.0) for share in labels]


def test_a_lone_flip_is_a_warning_and_a_wrong_network_an_error() -> None:
    assert doubts(checked(1.0, 1.0, 0.9995)) == []
    (warning,) = doubts(checked(1.0, 0.95, 1.0))
    assert "95.00%" in warning
    with pytest.raises(ModelError, match="95.00%"):
        doubts(checked(1.0, 0.95, 0.94))


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(deadline=None)
@given(
    summary=text,
    classes=st.lists(text, min_size=1, max_size=4),
    accuracy=st.none() | st.floats(0, 100),
    bins=st.integers(1, 20),
)
def test_cards_survive_toml(
    tmp_path_factory: pytest.TempPathFactory,
    summary: str,
    classes: list[str],
    accuracy: float | None,
    bins: int,
) -> None:
    card = msgspec.structs.replace(
        CARD,
        summary=summary,
        classes=tuple(classes),
        input=msgspec.structs.replace(CARD.input, bins=bins),
        accuracy=(Accuracy(dataset=summary, status="measured here", miou_percent=accuracy),) * 2,
    )
    path = tmp_path_factory.getbasetemp() / "card.toml"
    path.write_text(to_toml(card), encoding="utf-8")
    assert config.load(path, ModelCard) == card


# The published weights.


@pytest.mark.parametrize("name", ["ddd17", "dsec"])
def test_published_cards_name_the_official_files(name: str) -> None:
    card = config.load(ROOT / "models" / f"sltnet-{name}" / "model.toml", ModelCard)
    assert card.checkpoint is not None
    if not OFFICIAL[name].exists():
        pytest.skip(f"{OFFICIAL[name].name} is not here")
    weights = read_checkpoint(OFFICIAL[name])
    assert (weights.sha256, weights.bytes) == (card.checkpoint.sha256, card.checkpoint.bytes)
    assert load_sltnet(weights).classifier.out_channels == len(card.classes)
    recorded = [a.miou_percent for a in card.accuracy if a.status == "recorded in checkpoint"]
    assert recorded == [round(100 * weights.record["best_miou"], 2)]


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN.name} is not here")
def test_the_imported_network_gives_the_official_labels(
    official: tuple[ImportReport, Path],
) -> None:
    report, folder = official
    assert report.warnings == ()
    network = report.files[0]
    assert network.bytes <= 2_000_000
    assert report.nodes <= 1_200
    assert sum(r.what == "block" for r in report.removed) == 12
    assert all(check.pruned_max_d == 0 for check in report.checks)

    session = Session(folder / network.path, threads=2)
    golden = np.load(GOLDEN)
    for voxel, labels in zip(golden["voxel"], golden["labels"], strict=True):
        (logits,) = session.run(voxel[None])
        assert (logits[0].argmax(0) == labels).mean() >= 0.999


@pytest.mark.slow
@pytest.mark.skipif(not OFFICIAL["dsec"].exists(), reason=f"{OFFICIAL['dsec'].name} is not here")
def test_the_dsec_network_keeps_its_live_block_and_its_labels_on_real_events(
    tmp_path: Path,
) -> None:
    card = config.load(ROOT / "models" / "sltnet-dsec" / "model.toml", ModelCard)
    report = import_checkpoint(card, OFFICIAL["dsec"], tmp_path / "out")
    assert report.warnings == ()
    gone = [r.place for r in report.removed if r.what == "block"]
    assert len(gone) == 11
    assert "up3.block" not in gone

    net = load_sltnet(read_checkpoint(OFFICIAL["dsec"]))
    session = Session(tmp_path / "out" / report.files[0].path, threads=1)
    size = {"width_px": card.input.width_px, "height_px": card.input.height_px}
    recording = Replay(str(DATA / "events" / "gen3_evt2.raw"), **size)
    windows = CountWindows(card.input.window_events or 0)
    recipe = RECIPES[card.input.represent](*size.values(), card.input)
    agreement = []
    for packet in recording.packets():
        assert isinstance(packet, Events)
        for window in windows.push(packet):
            voxel = recipe(window)[None].copy()
            with torch.no_grad():
                expected = net(torch.from_numpy(voxel)).argmax(1).numpy()
            agreement.append((session.run(voxel)[0].argmax(1) == expected).mean())
    assert len(agreement) == 5
    assert min(agreement) >= 0.999
