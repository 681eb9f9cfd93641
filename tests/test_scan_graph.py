"""One ONNX file, two ways to run it, one meaning; and what is wrong with a file."""

import dataclasses
import tempfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from edgeperc.errors import ModelError  # noqa: E402
from edgeperc.offline.export_fusion import agree, export_onnx, save_plain  # noqa: E402
from edgeperc.offline.nets.mambaseg import MambaSeg, MambaSegConfig  # noqa: E402
from edgeperc.scan import graph, onnx_cut  # noqa: E402
from edgeperc.scan.graph import CutGraph, WholeGraph, open_graph  # noqa: E402

SIZE = (36, 44)
SMALL = MambaSegConfig(
    classes=3,
    frame_channels=1,
    bins=2,
    widths=(16, 16, 20, 16),
    depths=(1, 2, 1, 1),
    mlp_ratio=1.0,
    fusion_states=2,
    fusion_ratio=1.0,
    head_width=8,
)


def network(config):
    torch.manual_seed(3)
    net = MambaSeg(config).eval()
    with torch.no_grad():
        for name, values in (*net.named_parameters(), *net.named_buffers()):
            if "norm" in name and values.is_floating_point():
                values.add_(0.3 * torch.rand_like(values))
    return net


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network and its file."""
    path = tmp_path_factory.mktemp("fusion") / "small.onnx"
    net = network(SMALL)
    export_onnx(net, path, *SIZE)
    return net, path


def noise(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((1, n, *SIZE), np.float32) for n in (1, 2)]


def close(found, expected):
    return np.abs(found - expected).max() < 2e-5 * np.abs(expected).max()


def test_both_ways_compute_what_torch_does(exported):
    net, path = exported
    same = agree(net, path, *SIZE)
    assert max(same.cut, same.whole) < 2e-5
    assert same.same_labels > 0.99


def test_published_fusion_is_exported_too(tmp_path):
    net = network(dataclasses.replace(SMALL, locked_px=SIZE, depths=(1, 1, 1, 1)))
    export_onnx(net, tmp_path / "locked.onnx", *SIZE)
    same = agree(net, tmp_path / "locked.onnx", *SIZE)
    assert max(same.cut, same.whole) < 2e-5


def test_plain_file_has_no_operators_of_ours(exported, tmp_path):
    _, path = exported
    save_plain(path, tmp_path / "plain.onnx")
    model = onnx.load(tmp_path / "plain.onnx")
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert not model.functions
    inputs = noise()
    assert close(WholeGraph(tmp_path / "plain.onnx", threads=1)(*inputs), CutGraph(path)(*inputs))


def test_a_shape_is_known_for_every_tensor(exported):
    graph = onnx.load(exported[1]).graph
    known = {value.name for value in (*graph.value_info, *graph.output)}
    assert {name for node in graph.node for name in node.output} <= known


def test_pieces_are_as_few_as_scans_that_wait_for_each_other(exported):
    pieces = list(onnx_cut.cut(onnx_cut.read(exported[1].read_bytes())).pieces)
    # Blocks of both encoders share a gap; so do the four scans of a fusion.
    assert len(pieces) == sum(SMALL.depths) + 4 + 1
    kinds = [sorted(scan.kind for scan in piece.scans) for piece in pieces]
    fusion = ["CrossScan"] * 2 + ["SelectiveScan"] * 2
    assert kinds.count(fusion) == 4
    assert kinds.count(["CrossScan"] * 2) == sum(SMALL.depths)
    assert sum(len(piece.model) for piece in pieces) < 2 * exported[1].stat().st_size


def test_threads_and_repetition_change_nothing(exported):
    one, two = CutGraph(exported[1], threads=1), CutGraph(exported[1], threads=2)
    first = one(*noise()).copy()
    one(*noise(1))
    assert np.array_equal(one(*noise()), first)
    assert close(two(*noise()), first)


@pytest.mark.parametrize("way", [CutGraph, WholeGraph])
def test_weight_that_is_not_finite_is_named(exported, tmp_path, way):
    model = onnx.load(exported[1])
    weight = next(w for w in model.graph.initializer if w.dims and w.data_type == 1)
    values = onnx.numpy_helper.to_array(weight).copy()
    values.reshape(-1)[0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "nan.onnx")
    with pytest.raises(ModelError, match=rf"nan.onnx: weight '{weight.name}' .* not finite"):
        way(tmp_path / "nan.onnx", threads=1)


@pytest.mark.parametrize("way", [CutGraph, WholeGraph])
@pytest.mark.parametrize("content", [b"", b"no network at all", b"\x08\x08"])
def test_file_that_is_no_network_is_refused(tmp_path, way, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="bad.onnx: it is"):
        way(tmp_path / "bad.onnx", threads=1)
    with pytest.raises(ModelError, match="No such file"):
        way(tmp_path / "missing.onnx", threads=1)


def test_scan_of_unknown_kind_is_refused(exported, tmp_path):
    model = onnx.load(exported[1])
    next(n for n in model.graph.node if n.op_type == "CrossScan").op_type = "SpiralScan"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match="unknown kind 'SpiralScan'"):
        CutGraph(tmp_path / "other.onnx", threads=1)


@pytest.mark.parametrize("way", [CutGraph, WholeGraph])
def test_wrong_shape_and_closed_network_are_refused(exported, way):
    graph = way(exported[1], threads=1)
    frame, events = noise()
    with pytest.raises(ModelError, match="frame"):
        graph(frame[..., :-4], events[..., :-4])
    graph.close()
    graph.close()
    with pytest.raises(ModelError, match="closed"):
        graph(frame, events)


def test_processor_gets_the_cut_file_unless_the_whole_is_wanted(exported):
    path = exported[1]
    assert isinstance(open_graph(path, threads=1, providers=("cpu",), whole=False), CutGraph)
    assert isinstance(open_graph(path, threads=1, providers=("cpu",), whole=True), WholeGraph)


def test_messages_agree_with_the_onnx_package(exported):
    content = exported[1].read_bytes()
    ours, theirs = onnx_cut.read(content), onnx.load(exported[1])
    assert [n.op_type for n in ours.graph.node] == [n.op_type for n in theirs.graph.node]
    assert onnx.ModelProto.FromString(ours.SerializeToString()) == theirs
    for a, b in zip(ours.graph.initializer, theirs.graph.initializer, strict=True):
        if a.data_type == 1:
            assert np.array_equal(onnx_cut.values(a), onnx.numpy_helper.to_array(b))


def test_roofline_counts_what_scans_do(exported):
    from edgeperc.offline.roofline.count import count
    from edgeperc.offline.roofline.graph import shaped

    layers = count(shaped(onnx.load(exported[1]))).layers
    plane = next(layer for layer in layers if layer.op.startswith("CrossScan"))
    # 9 x 11 pixels of 16 channels, 4 walks, a state and a skip, steps of rank 1.
    assert plane.macs == 99 * 16 * 4 * ((2 + 1) + 1)
    channel = next(layer for layer in layers if layer.op.startswith("SelectiveScan"))
    # 64 cells there and back, 16 channels long, two states and a skip.
    assert channel.macs == 64 * 2 * 16 * (2 * 2 + 1)


def test_a_large_network_goes_by_way_of_files_that_are_gone_then(exported, tmp_path, monkeypatch):
    _, path = exported
    usual = CutGraph(path, threads=1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(graph, "LARGE_BYTES", 1)
    large = CutGraph(path, threads=1)
    assert not list(tmp_path.iterdir())
    for seed in (0, 1):
        assert np.array_equal(large(*noise(seed)), usual(*noise(seed)))


def test_weights_behind_a_model_are_in_its_graph(exported):
    """onnx's own parser reads the pieces as we mean them."""
    _, path = exported
    pieces = list(onnx_cut.cut(onnx_cut.read(path.read_bytes())).pieces)
    weights = {each.name: each for each in onnx.load(path).graph.initializer}
    found = [w for p in pieces for w in onnx.load_from_string(p.model).graph.initializer]
    assert len(found) > 10
    assert all(each.raw_data == weights[each.name].raw_data for each in found)
