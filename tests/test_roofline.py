"""Counting from graphs against formulas by hand, predictions, refusals, and this machine."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeperc import cli
from edgeperc.bench.timing import times_ms
from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline.roofline import calibrate, formulas
from edgeperc.offline.roofline.count import Counted, Layer, count
from edgeperc.offline.roofline.devices import Device, device, sheet, sheets
from edgeperc.offline.roofline.graph import shaped
from edgeperc.offline.roofline.measure import measure
from edgeperc.offline.roofline.predict import bits_of, predict
from edgeperc.offline.roofline.report import lengths_of, report

Node = tuple[str, list[str], list[str], dict[str, Any]]
TOY = Device("toy", "toy", {"fp32": 1e9, "fp16": 2e9, "int8": 4e9}, 1e9, ((1.0, 1e9),))


def network(
    nodes: Sequence[Node],
    inputs: dict[str, Sequence[int | str]],
    output: str,
    weights: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """A graph of float inputs; weights: an array, or lengths to be filled with ones."""
    arrays = {
        name: np.ones(value, np.float32) if isinstance(value, tuple) else np.asarray(value)
        for name, value in (weights or {}).items()
    }
    graph = helper.make_graph(
        [helper.make_node(op, given, made, name=made[0], **how) for op, given, made, how in nodes],
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def counted(*args: Any, fuse: bool = True, **kwargs: Any) -> Counted:
    return count(shaped(network(*args, **kwargs)), fuse=fuse)


def only(graph: Counted) -> Layer:
    (layer,) = graph.layers
    return layer


def elements(layer: Layer) -> tuple[int, int]:
    return sum(each.elements for each in layer.reads), sum(each.elements for each in layer.writes)


# --- what is counted -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "how", "out"),
    [
        ((8, 4, 3, 3), {"pads": [1, 1, 1, 1]}, (8, 10, 12)),
        ((8, 4, 3, 3), {}, (8, 8, 10)),
        ((8, 4, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}, (8, 5, 6)),
        ((8, 4, 3, 5), {"strides": [2, 3], "pads": [0, 2, 1, 1]}, (8, 5, 4)),
        ((6, 2, 3, 3), {"group": 2, "pads": [2, 2, 2, 2], "dilations": [2, 2]}, (6, 10, 12)),
        ((4, 1, 3, 3), {"group": 4}, (4, 8, 10)),
        ((8, 4, 1, 1), {}, (8, 10, 12)),
    ],
    ids=["padded", "bare", "strided", "oblong", "grouped, dilated", "depthwise", "pointwise"],
)
def test_a_convolution(
    weight: tuple[int, ...], how: dict[str, Any], out: tuple[int, int, int]
) -> None:
    nodes: list[Node] = [("Conv", ["x", "w", "b"], ["y"], how)]
    layer = only(counted(nodes, {"x": [1, 4, 10, 12]}, "y", {"w": weight, "b": (weight[0],)}))
    channels, height, width = out
    taps = 0
    for _ in range(channels):  # by hand: each output number is a sum over its group's taps
        taps += height * width * (4 // how.get("group", 1)) * weight[2] * weight[3]
    assert layer.macs == taps
    assert layer.ops == 2 * taps
    assert layer.has_weights
    assert elements(layer) == (4 * 10 * 12 + np.prod(weight) + weight[0], channels * height * width)


def test_a_transposed_convolution() -> None:
    nodes: list[Node] = [("ConvTranspose", ["x", "w"], ["y"], {"strides": [2, 2], "group": 2})]
    layer = only(counted(nodes, {"x": [1, 4, 5, 6]}, "y", {"w": (4, 3, 2, 2)}))
    assert layer.macs == 4 * 5 * 6 * 3 * 2 * 2
    assert elements(layer)[1] == 6 * 10 * 12


@pytest.mark.parametrize(
    ("op", "x", "weight", "how", "macs"),
    [
        ("MatMul", [7, 5], (5, 3), {}, 7 * 5 * 3),
        ("MatMul", [2, 7, 5], (5, 3), {}, 2 * 7 * 5 * 3),
        ("Gemm", [7, 5], (3, 5), {"transB": 1}, 7 * 5 * 3),
        ("Gemm", [5, 7], (5, 3), {"transA": 1}, 7 * 5 * 3),
    ],
)
def test_a_linear_layer(
    op: str, x: list[int], weight: tuple[int, ...], how: dict[str, Any], macs: int
) -> None:
    layer = only(counted([(op, ["x", "w"], ["y"], how)], {"x": x}, "y", {"w": weight}))
    assert layer.macs == macs
    assert layer.has_weights
    assert [each.elements for each in layer.reads if each.weight] == [15]


def attention_graph(heads: int, queries: int, keys: int, dim: int) -> Counted:
    nodes: list[Node] = [
        ("MatMul", ["q", "k"], ["scores"], {}),
        ("Softmax", ["scores"], ["shares"], {"axis": -1}),
        ("MatMul", ["shares", "v"], ["y"], {}),
    ]
    shapes: dict[str, Sequence[int | str]] = {
        "q": [1, heads, queries, dim],
        "k": [1, heads, dim, keys],
        "v": [1, heads, keys, dim],
    }
    return counted(nodes, shapes, "y")


def test_attention() -> None:
    graph = attention_graph(heads=3, queries=5, keys=7, dim=4)
    macs, other = formulas.attention(heads=3, queries=5, keys=7, head_dim=4)
    assert macs == 3 * 5 * 4 * 7 + 3 * 5 * 7 * 4 == graph.macs
    assert other == 12 * 3 * 5 * 7 == sum(layer.other for layer in graph.layers)
    assert not any(layer.has_weights for layer in graph.layers)
    scores = graph.layers[0]
    assert elements(scores) == (3 * 5 * 4 + 3 * 4 * 7, 3 * 5 * 7)


def test_a_selective_scan() -> None:
    """Against the recurrence itself, written out, in which every operation is counted."""
    length, channels, states = 4, 3, 2
    macs = other = 0
    for _ in range(length):
        for _ in range(channels):
            other += 1  # delta u
            for _ in range(states):
                other += 1 + formulas.EXPONENTIAL  # exp(delta A)
                other += 1  # (delta u) B
                macs += 1  # h = decay h + that
                macs += 1  # y += C h
            macs += 1  # y += D u
    work = formulas.selective_scan(length=length, channels=channels, states=states)
    assert (work.macs, work.other) == (macs, other)
    assert work.read == 2 * length * channels + 2 * length * states + channels * (states + 1)
    assert work.written == length * channels
    twice = formulas.selective_scan(length=length, channels=channels, states=states, batch=2)
    assert (twice.macs, twice.other) == (2 * macs, 2 * other)
    grouped = formulas.selective_scan(length=length, channels=channels, states=states, groups=4)
    assert grouped.read - work.read == 3 * 2 * length * states


def spiking_graph() -> Counted:
    nodes: list[Node] = [
        ("Conv", ["x", "w0"], ["v0"], {}),
        ("Clip", ["v0", "zero", "one"], ["s0"], {}),
        ("MaxPool", ["s0"], ["p0"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["p0", "w1"], ["v1"], {}),
        ("Relu", ["v1"], ["r1"], {}),
        ("Conv", ["r1", "w2"], ["y"], {}),
    ]
    limits = {"zero": np.float32(0), "one": np.float32(1)}
    weights = {"w0": (4, 2, 1, 1), "w1": (6, 4, 1, 1), "w2": (5, 6, 1, 1), **limits}
    return counted(nodes, {"x": [1, 2, 8, 8]}, "y", weights)


def test_spikes_are_told_from_numbers_and_counted_by_their_rate() -> None:
    graph = spiking_graph()
    assert [layer.spikes for layer in graph.layers if layer.macs] == [False, True, False]
    (spiking,) = (layer for layer in graph.layers if layer.spikes)
    assert spiking.macs == 4 * 4 * 4 * 6
    assert formulas.accumulates(spiking.macs, 0.25) == 96
    assert formulas.accumulates(spiking.macs, 0) == 0
    assert formulas.accumulates(spiking.macs, 1) == spiking.macs


@pytest.mark.parametrize(
    ("op", "how", "an_element"),
    [("Relu", {}, 1), ("Erf", {}, 8), ("Softmax", {"axis": -1}, 12), ("Transpose", {}, 0)],
)
def test_what_is_no_product(op: str, how: dict[str, Any], an_element: int) -> None:
    layer = only(counted([(op, ["x"], ["y"], how)], {"x": [6, 5]}, "y"))
    assert (layer.macs, layer.other) == (0, 30 * an_element)
    assert elements(layer) == (30, 30)


def test_a_layer_normalization_and_a_resize() -> None:
    norm = only(
        counted(
            [("LayerNormalization", ["x", "g", "b"], ["y"], {})],
            {"x": [3, 8]},
            "y",
            {"g": (8,), "b": (8,)},
        )
    )
    assert (norm.other, elements(norm)) == (8 * 24, (24 + 16, 24))
    sizes = np.array([1, 2, 8, 6], np.int64)
    how = {"mode": "linear"}
    nodes: list[Node] = [("Resize", ["x", "", "", "sizes"], ["y"], how)]
    bilinear = only(counted(nodes, {"x": [1, 2, 4, 3]}, "y", {"sizes": sizes}))
    assert (bilinear.other, elements(bilinear)) == (9 * 96, (24, 96))


def test_a_slice_reads_what_it_gives() -> None:
    ends = {"from": np.array([2]), "to": np.array([5]), "axis": np.array([0])}
    nodes: list[Node] = [("Slice", ["x", "from", "to", "axis"], ["y"], {})]
    layer = only(counted(nodes, {"x": [100, 5]}, "y", ends))
    assert (layer.ops, elements(layer)) == (0, (15, 15))


def test_an_unknown_operator_counts_once_an_element_and_is_named() -> None:
    graph = counted([("Hardmax", ["x"], ["y"], {})], {"x": [6, 5]}, "y")
    assert graph.guessed == ("Hardmax",)
    assert only(graph).other == 30


RESIDUAL: list[Node] = [
    ("MatMul", ["x", "w"], ["a"], {}),
    ("Add", ["a", "b"], ["c"], {}),
    ("Relu", ["c"], ["d"], {}),
    ("Add", ["d", "x"], ["y"], {}),
]


def test_pointwise_nodes_join_the_layer_before_them() -> None:
    weights = {"w": (5, 5), "b": (5,)}
    layer = only(counted(RESIDUAL, {"x": [4, 5]}, "y", weights))
    assert layer.op == "MatMul+Add+Relu+Add"
    assert (layer.macs, layer.other) == (100, 60)
    # x is read once, what is between them never.
    assert elements(layer) == (20 + 25 + 5, 20)
    apart = counted(RESIDUAL, {"x": [4, 5]}, "y", weights, fuse=False)
    assert [layer.op for layer in apart.layers] == ["MatMul", "Add", "Relu", "Add"]
    assert sum(layer.ops for layer in apart.layers) == layer.ops


def test_what_two_nodes_take_goes_to_memory() -> None:
    nodes: list[Node] = [
        ("MatMul", ["x", "w"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("Transpose", ["a"], ["c"], {}),
        ("MatMul", ["b", "c"], ["y"], {}),
    ]
    graph = counted(nodes, {"x": [4, 5]}, "y", {"w": (5, 6)})
    assert [layer.op for layer in graph.layers] == ["MatMul", "Relu", "Transpose", "MatMul"]


def test_views_and_constants_cost_nothing() -> None:
    nodes: list[Node] = [
        ("Reshape", ["x", "to"], ["a"], {}),
        ("Mul", ["w8", "scale"], ["w"], {}),
        ("MatMul", ["a", "w"], ["y"], {}),
    ]
    weights = {"to": np.array([5, 4], np.int64), "w8": (4, 3), "scale": np.float32(2)}
    layer = only(counted(nodes, {"x": [2, 2, 5]}, "y", weights))
    assert layer.macs == 5 * 4 * 3
    assert layer.has_weights
    assert [each.name for each in layer.reads] == ["x", "w"]


def quantized_graph() -> onnx.ModelProto:
    nodes: list[Node] = [
        ("QuantizeLinear", ["x", "s", "z"], ["xq"], {}),
        ("DequantizeLinear", ["xq", "s", "z"], ["xd"], {}),
        ("DequantizeLinear", ["wq", "s", "wz"], ["wd"], {}),
        ("MatMul", ["xd", "wd"], ["y"], {}),
    ]
    weights = {
        "s": np.float32(0.1),
        "z": np.uint8(128),
        "wz": np.int8(0),
        "wq": np.ones((16, 8), np.int8),
    }
    return network(nodes, {"x": [4, 16]}, "y", weights)


def test_a_quantized_file_is_counted_in_the_bits_it_has() -> None:
    graph = count(shaped(quantized_graph()))
    (timed,) = predict(graph, TOY, bits_of("file")).layers
    assert timed.precision == "int8"
    assert timed.moved == 4 * 16 + 16 * 8 + 4 * 4 * 8
    assert timed.compute_s == pytest.approx(2 * 4 * 16 * 8 / 4e9)


# --- what is predicted -----------------------------------------------------------------------


def test_a_layer_takes_the_longer_of_its_two_roofs() -> None:
    wide = counted([("MatMul", ["x", "w"], ["y"], {})], {"x": [64, 64]}, "y", {"w": (64, 64)})
    (timed,) = predict(wide, TOY, bits_of("fp32")).layers
    assert timed.moved == 4 * 3 * 64 * 64
    assert timed.compute_s == pytest.approx(2 * 64**3 / 1e9)
    assert timed.memory_s == pytest.approx(4 * 3 * 64**2 / 1e9)
    assert (timed.bound, timed.seconds) == ("compute", timed.compute_s)
    assert timed.intensity == pytest.approx(2 * 64**3 / (12 * 64**2))
    thin = counted([("MatMul", ["x", "w"], ["y"], {})], {"x": [1, 64]}, "y", {"w": (64, 64)})
    (timed,) = predict(thin, TOY, bits_of("fp32")).layers
    assert (timed.bound, timed.seconds) == ("memory", timed.memory_s)


@pytest.mark.parametrize(
    ("bits", "precision", "weight_bytes", "float_bytes"),
    [
        ("file", "fp32", 4, 4),
        ("fp32", "fp32", 4, 4),
        ("fp16", "fp16", 2, 2),
        ("w8a8", "int8", 1, 2),
        ("w6a6", "int8", 1, 2),
        ("w4a8", "int8", 0.5, 2),
        ("w4a16", "fp16", 0.5, 2),
    ],
)
def test_bits(bits: str, precision: str, weight_bytes: float, float_bytes: float) -> None:
    """Between two layers with weights activations are as narrow as said; elsewhere float."""
    nodes: list[Node] = [
        ("MatMul", ["x", "w"], ["a"], {}),
        ("MatMul", ["a", "w"], ["b"], {}),
        ("Softmax", ["b"], ["y"], {}),
    ]
    graph = counted(nodes, {"x": [4, 16]}, "y", {"w": (16, 16)})
    activation = {"w8a8": 1, "w6a6": 1, "w4a8": 1}.get(bits, float_bytes)
    first, second, softmax = predict(graph, TOY, bits_of(bits)).layers
    assert first.precision == second.precision == precision
    assert first.moved == 256 * weight_bytes + 64 * (activation + activation)
    assert second.moved == 256 * weight_bytes + 64 * (activation + float_bytes)
    assert softmax.moved == 2 * 64 * float_bytes


def test_attention_products_are_not_quantized() -> None:
    graph = attention_graph(heads=3, queries=5, keys=7, dim=4)
    assert {each.precision for each in predict(graph, TOY, bits_of("w4a8")).layers} == {"fp16"}


def test_the_bottleneck_is_said_and_what_would_help() -> None:
    graph = counted([("MatMul", ["x", "w"], ["y"], {})], {"x": [64, 64]}, "y", {"w": (64, 64)})
    prediction = predict(graph, TOY, bits_of("fp32"))
    assert prediction.bottleneck() == (
        "The bottleneck is arithmetic: 100% of the predicted time waits for it, 100% in MatMul "
        "layers; the longest of them is y (100.0%)."
    )
    what_if = dict(prediction.what_if())
    assert what_if["twice the bandwidth"] == pytest.approx(prediction.seconds)
    assert what_if["twice the arithmetic"] == pytest.approx(prediction.seconds / 2)
    assert what_if["w8a8"] == pytest.approx(prediction.seconds / 4)
    thin = counted([("Relu", ["x"], ["y"], {})], {"x": [64, 64]}, "y")
    assert "memory bandwidth" in predict(thin, TOY, bits_of("fp32")).bottleneck()


def test_every_device_says_where_its_figures_come_from() -> None:
    assert list(sheets()) == ["orin-agx", "orin-nx", "orin-nano", "xavier", "xavier-nx"]
    bandwidths = [sheet(key).bandwidth_gb_s.value for key in sheets()]
    assert bandwidths == [204.8, 102.4, 68.0, 136.5, 59.7]
    for key in sheets():
        made = device(key)
        assert made.ops_s["int8"] > made.ops_s["fp16"] > made.ops_s["fp32"] > made.vector_ops_s
        assert made.bytes_s(1e3) == made.bytes_s(1e9) == sheet(key).bandwidth_gb_s.value * 1e9
        assert len([note for note in made.notes if "(20" in note]) == 4


# --- refusals --------------------------------------------------------------------------------


def test_unknown_devices_and_bits_list_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match="unknown device 'orin-agz'; did you mean 'orin-agx'"
    ) as e:
        device("orin-agz")
    assert "orin-agx, orin-nx, orin-nano, xavier, xavier-nx, here" in e.value.hint
    for bits in ("int8", "w0a8", "w8", "w8a32"):
        with pytest.raises(ConfigError, match=f"unknown bits '{bits}'"):
            bits_of(bits)


OPEN: list[Node] = [("MatMul", ["x", "w"], ["a"], {}), ("Relu", ["a"], ["y"], {})]


def test_open_lengths_must_be_given() -> None:
    def model() -> onnx.ModelProto:
        return network(OPEN, {"x": ["tokens", 5]}, "y", {"w": (5, 3)})

    with pytest.raises(ConfigError, match="input 'x' has no fixed length: tokens") as refused:
        shaped(model())
    assert "--shape tokens=" in refused.value.hint
    assert count(shaped(model(), {"tokens": (7,)})).macs == 7 * 5 * 3
    assert count(shaped(model(), {"x": (7, 5)})).macs == 7 * 5 * 3
    named_alike = network(
        [("MatMul", ["tokens", "w"], ["a"], {}), OPEN[1]],
        {"tokens": ["tokens", 5]},
        "y",
        {"w": (5, 3)},
    )
    assert count(shaped(named_alike, {"tokens": (7,)})).macs == 7 * 5 * 3
    with pytest.raises(ConfigError, match="input 'x' is tokens,5, not 7,4"):
        shaped(model(), {"x": (7, 4)})
    with pytest.raises(ConfigError, match="no input and no open axis 'token'"):
        shaped(model(), {"token": (7,)})


def test_lengths_that_are_computed_from_open_ones_are_told() -> None:
    nodes: list[Node] = [
        ("Shape", ["x"], ["shape"], {}),
        ("Gather", ["shape", "zero"], ["rows"], {}),
        ("Unsqueeze", ["rows", "axis"], ["row"], {}),
        ("Concat", ["row", "rest"], ["to"], {"axis": 0}),
        ("Reshape", ["x", "to"], ["a"], {}),
        ("MatMul", ["a", "w"], ["y"], {}),
    ]
    weights = {
        "zero": np.int64(0),
        "axis": np.array([0]),
        "rest": np.array([2, 3]),
        "w": (3, 4),
    }
    model = network(nodes, {"x": ["tokens", 6]}, "y", weights)
    assert only(count(shaped(model, {"tokens": (5,)}))).macs == 5 * 2 * 3 * 4


def test_loops_are_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])],
        "then",
        [],
        [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)],
    )
    nodes: list[Node] = [("If", ["yes"], ["y"], {"then_branch": branch, "else_branch": branch})]
    with pytest.raises(ModelError, match="If 'y': how often"):
        shaped(network(nodes, {"x": [2]}, "y", {"yes": np.bool_(True)}))


def test_shapes_of_the_command_line() -> None:
    assert lengths_of(["x=1,3", "tokens=7"]) == {"x": (1, 3), "tokens": (7,)}
    for text in ("x", "x=", "=3", "x=1,-3", "x=0", "x=a"):
        with pytest.raises(ConfigError, match="must be a name and lengths"):
            lengths_of([text])


def test_a_broken_or_missing_file_and_a_foreign_measurement(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        report(str(tmp_path / "none.onnx"), "orin-nx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff\x01no network")
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        report(str(broken), "orin-nx")
    with pytest.raises(ConfigError, match="--measure is for --device here"):
        report("promptable", "orin-nx", measured=True)


# --- this machine ----------------------------------------------------------------------------

FAKE = calibrate.Calibration(
    cpu="made up",
    onnxruntime="0",
    threads=1,
    date="2026-11-27",
    load=0.0,
    gemm_gops={"fp32": 100.0, "int8": 400.0},
    softmax_gops=20.0,
    copies=((1e4, 50.0), (1e6, 10.0)),
    launch_us=2.0,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An empty cache folder, and a machine that is measured at once; how often it was."""
    import msgspec

    times: list[int] = []

    def measured(threads: int) -> calibrate.Calibration:
        times.append(threads)
        facts = str(calibrate.machine.facts()["cpu"])
        return msgspec.structs.replace(
            FAKE, cpu=facts, onnxruntime=calibrate.ort.__version__, threads=threads
        )

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(calibrate, "measured", measured)
    return times


def test_this_machine_is_measured_once(cache: list[int]) -> None:
    first = calibrate.here()
    assert calibrate.here() == first
    assert cache == [1]
    assert calibrate.here(threads=2) != first
    assert cache == [1, 2]
    calibrate.here(again=True)
    assert cache == [1, 2, 1]
    calibrate.cache_file().write_text("{")
    calibrate.here()
    assert cache == [1, 2, 1, 1]
    assert first.float_precision == "fp32"
    assert first.bytes_s(1.0) == 50e9
    assert first.bytes_s(1e5) == pytest.approx(30e9)
    assert first.bytes_s(1e9) == 10e9
    graph = counted(OPEN, {"x": [2, 5]}, "y", {"w": (5, 3)})
    (timed,) = predict(graph, first, bits_of("w8a8")).layers
    assert (timed.bound, timed.precision) == ("launch", "int8")
    with pytest.raises(ConfigError, match="has no rate for fp16"):
        predict(graph, first, bits_of("fp16"))


def test_measured_and_predicted_never_share_a_column(
    cache: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model = tmp_path / "net.onnx"
    onnx.save(network(RESIDUAL, {"x": [64, 256]}, "y", {"w": (256, 256), "b": (256,)}), model)
    monkeypatch.setenv("COLUMNS", "140")
    run(monkeypatch, "roofline", str(model), "--json", str(tmp_path / "a.json"))
    without = capsys.readouterr().out
    run(monkeypatch, "roofline", str(model), "--measure", "--json", str(tmp_path / "b.json"))
    with_it = capsys.readouterr().out
    assert "predicted ms" in without
    assert "measured ms" not in without
    assert "measured ms" in with_it
    (there,) = json.loads((tmp_path / "a.json").read_text())["graphs"]
    assert there["measured_ms"] is None
    assert [layer["measured_ms"] for layer in there["layers"]] == [None]
    (measured,) = json.loads((tmp_path / "b.json").read_text())["graphs"]
    assert measured["predicted_ms"] == there["predicted_ms"]
    assert measured["layers"][0]["measured_ms"] > 0
    busy = measured["measured_at_load"] > 2
    assert ("The machine was busy" in with_it) == busy
    assert measured["macs"] == 64 * 256 * 256


def test_a_prediction_for_a_model_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    where = tmp_path / "out.json"
    arguments = ["--device", "orin-nano", "--bits", "w8a8", "--spike-rate", "0.1", "--layers", "2"]
    assert run(monkeypatch, "roofline", "sltnet-twin", *arguments, "--json", str(where)) == 0
    said = capsys.readouterr().out
    for words in ("M adds", "The bottleneck is", "What if: twice the bandwidth", "all 256 layers"):
        assert words in said
    (graph,) = json.loads(where.read_text())["graphs"]
    assert graph["macs"] == sum(layer["macs"] for layer in graph["layers"])
    assert 0.85 < graph["spike_macs"] / graph["macs"] < 0.95
    assert run(monkeypatch, "roofline", "finder-twin", "--device", "xavier") == 2
    assert "--shape picture=" in capsys.readouterr().err


def test_a_networks_count_is_that_of_torch() -> None:
    """An independent counter: of the operators that torch dispatches, not of any graph."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
        torch.nn.GELU(),
        torch.nn.Conv2d(8, 8, 3, padding=1, groups=4),
        torch.nn.ConvTranspose2d(8, 4, 2, stride=2),
        torch.nn.Flatten(2),
        torch.nn.Linear(1024, 16),
        torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
    ).eval()
    picture, file = torch.zeros(1, 3, 32, 32), io.BytesIO()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # The counter knows no fused attention of CPUs.
        with (
            FlopCounterMode(display=False) as counter,
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
        ):
            net(picture)
        torch.onnx.export(net, (picture,), file, opset_version=17, dynamo=False)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    graph = count(shaped(onnx.load_from_string(file.getvalue())))
    assert 2 * graph.macs == counter.get_total_flops()


def layers_of_ten() -> list[onnx.ModelProto]:
    def one(op: str, x: list[int], weight: tuple[int, ...] | None, **how: Any) -> onnx.ModelProto:
        given = ["x", "w"] if weight else ["x"]
        weights = {"w": weight} if weight else {}
        return network([(op, given, ["y"], how)], {"x": x}, "y", weights)

    return [
        one("MatMul", [512, 256], (256, 256)),
        one("MatMul", [64, 768], (768, 1536)),
        one("MatMul", [256, 1024], (1024, 256)),
        one("MatMul", [1024, 128], (128, 512)),
        one("MatMul", [1, 512], (512, 2048)),
        one("Conv", [1, 64, 64, 64], (128, 64, 1, 1)),
        one("Conv", [1, 64, 32, 32], (64, 64, 3, 3), pads=[1, 1, 1, 1]),
        one("Conv", [1, 128, 16, 16], (128, 128, 3, 3), pads=[1, 1, 1, 1]),
        one("Softmax", [8, 256, 256], None, axis=-1),
        one("Relu", [1, 64, 128, 128], None),
    ]


@pytest.mark.slow
def test_the_calibrated_machine_is_within_a_factor_of_two_on_ten_layers() -> None:
    ratios = []
    machine = calibrate.measured(1).device()
    for model in layers_of_ten():
        graph = shaped(model)
        prediction = predict(count(graph), machine, bits_of("file"))
        real_s = measure(graph, prediction.graph.layers, threads=1, runs=60).total
        ratios.append(real_s / prediction.seconds)
    assert all(0.5 <= ratio <= 2 for ratio in ratios), [f"{ratio:.2f}" for ratio in ratios]


@pytest.mark.slow
def test_node_times_are_those_of_the_wall_clock() -> None:
    graph = shaped(network(RESIDUAL, {"x": [512, 512]}, "y", {"w": (512, 512), "b": (512,)}))
    layers = count(graph).layers
    measured = measure(graph, layers, threads=1, runs=60)
    session = calibrate.open_session(graph.model, 1)
    given = {"x": np.ones((512, 512), np.float32)}
    wall_s = min(times_ms(lambda: session.run(None, given), reps=60)) * 1e-3
    assert 0.5 < measured.total / wall_s < 2
    assert measured.layers["a"] + measured.other == pytest.approx(measured.total)


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["edgeperc", *args])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)
