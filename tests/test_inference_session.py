"""Sessions of onnxruntime: who runs them, and what they say when it cannot be done."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeperc import places
from edgeperc.assemble import assemble
from edgeperc.config import App, PipelineTable, ProviderTable, load
from edgeperc.errors import ConfigError, ModelError
from edgeperc.inference import engines, providers
from edgeperc.inference.engines import engine_for
from edgeperc.inference.gpu import Versions
from edgeperc.inference.providers import Provider, chosen, why_not
from edgeperc.inference.session import Opened, Session, telling
from edgeperc.plan import Plan, open_model
from edgeperc.prompt import Efficient, ImageSession, VideoSession
from edgeperc.result import ModelRef
from edgeperc.serve import what_runs

FULL = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine of a test is kept at home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path: Path, nodes: list[onnx.NodeProto], *constants: onnx.TensorProto) -> Path:
    """x and y of open lengths; only x where nobody takes y."""
    taken = {name for node in nodes for name in node.input}
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"n_{name}"])
        for name in ("x", "y")
        if name in taken
    ]
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    )
    graph.initializer.extend(constants)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    two = numpy_helper.from_array(np.float32(2), "two")
    return write(tmp_path / "doubling.onnx", [helper.make_node("Mul", ["x", "two"], ["out"])], two)


# what runs it


@pytest.mark.parametrize("wanted", [(), ("cpu",)])
def test_the_processor_runs_it(doubling: Path, wanted: tuple[str, ...]) -> None:
    session = Session(doubling, threads=1, providers=wanted)
    assert (session.provider, session.precision) == ("CPUExecutionProvider", "fp32")
    np.testing.assert_array_equal(session.run(np.arange(3, dtype=np.float32))[0], [0, 2, 4])


class FakeRuntime:
    """Stands in for onnxruntime: some providers, of which some start and take operators."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        has: list[str],
        *,
        starts: list[str] = (),
        **took: int,
    ) -> None:
        self.starts, self.took = [FULL[name] for name in starts], took
        self.options: list[Any] = []
        self.real = ort.InferenceSession
        monkeypatch.setattr(ort, "get_available_providers", lambda: [FULL[name] for name in has])
        monkeypatch.setattr(ort, "InferenceSession", self)

    def __call__(self, path: str, options: Any, *, providers: Any, enable_fallback: int) -> Any:
        assert not enable_fallback
        self.options.append((dict(providers), options.graph_optimization_level))
        runs = [name for name, _ in providers if name in self.starts] or [FULL["cpu"]]
        real = self.real(path, providers=[FULL["cpu"]])
        parts = [
            SimpleNamespace(ep_name=FULL[name], get_nodes=lambda count=count: range(count))
            for name, count in self.took.items()
            if FULL[name] in runs
        ]
        return SimpleNamespace(
            get_providers=lambda: runs,
            get_inputs=real.get_inputs,
            get_outputs=real.get_outputs,
            run=real.run,
            get_provider_graph_assignment_info=lambda: parts,
        )


def test_a_provider_that_was_asked_for_must_start(
    doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime goes on with the processor, and raises nothing."""
    FakeRuntime(monkeypatch, ["openvino", "cpu"], starts=["cpu"])
    with pytest.raises(ModelError, match=r"doubling.onnx: provider 'openvino' does not start") as e:
        Session(doubling, providers=("openvino", "cpu"))
    assert "onnxruntime-openvino" in e.value.hint


def test_the_ones_behind_it_must_start_too(doubling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRuntime(monkeypatch, ["tensorrt", "cuda", "cpu"], starts=["tensorrt", "cpu"])
    with pytest.raises(ModelError, match="'tensorrt' starts, but 'cuda' after it does not"):
        Session(doubling, providers=("tensorrt", "cuda", "cpu"))


def test_a_provider_that_takes_no_operator_does_not_run_it(
    doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeRuntime(monkeypatch, ["openvino", "cpu"], starts=["openvino", "cpu"], cpu=7)
    with pytest.raises(ModelError, match="'openvino' takes none of its operators"):
        Session(doubling, providers=("openvino", "cpu"))


def test_shares_of_a_mixed_session_are_named(
    doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeRuntime(monkeypatch, ["openvino", "cpu"], starts=["openvino", "cpu"], openvino=90, cpu=10)
    assert Session(doubling, providers=("openvino", "cpu")).provider == (
        "OpenVINOExecutionProvider (90 of 100 operators), "
        "CPUExecutionProvider (10 of 100 operators)"
    )


def test_with_none_named_the_best_that_starts_runs_it_and_the_log_says_so(
    doubling: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = FakeRuntime(
        monkeypatch, ["cpu", "openvino", "cuda", "tensorrt"], starts=["openvino", "cpu"]
    )
    with caplog.at_level(logging.WARNING):
        session = Session(doubling)
    assert session.provider == FULL["openvino"]
    assert [record.getMessage() for record in caplog.records] == [
        "doubling.onnx: provider 'tensorrt' does not start",
        "doubling.onnx: provider 'cuda' does not start",
    ]
    assert [list(names) for names, _ in runtime.options] == [
        [FULL[name] for name in order]
        for order in (
            ("tensorrt", "cuda", "openvino", "cpu"),
            ("cuda", "openvino", "cpu"),
            ("openvino", "cpu"),
        )
    ]
    levels = [level for _, level in runtime.options]
    assert levels[-1] == ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert levels[0] == ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_a_damaged_file_is_not_a_provider_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeRuntime(monkeypatch, ["openvino", "cpu"], starts=["openvino", "cpu"])
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"bad.onnx: onnxruntime cannot load it: .*parsing failed"):
        Session(path)


@pytest.mark.parametrize(
    ("wanted", "complaint", "hint"),
    [
        (("cuda",), "provider 'cuda': this onnxruntime .* has cpu", "onnxruntime-gpu"),
        (("openvino", "cpu"), "provider 'openvino': this onnx.* has cpu", "docs/openvino.md"),
        (("tpu",), "unknown provider 'tpu'", "tensorrt, cuda, openvino, cpu"),
        (("cpu", "cpu"), "'cpu' is there twice", ""),
        (("cpu", "openvino"), "'openvino' comes after 'cpu', which leaves it nothing", "last"),
        ((ProviderTable(name="cpu", precision="bf16"),), "'cpu' does not compute in bf16", "f32"),
        ((ProviderTable(name="openvino", precision="f16"),), "on GPU and NPU, not on CPU", "bf16"),
        ((ProviderTable(name="cuda", device="GPU"),), "device is for 'openvino'", ""),
    ],
)
def test_what_is_not_there_or_cannot_be_meant(
    wanted: Any, complaint: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [FULL["cpu"]])
    with pytest.raises((ConfigError, ModelError), match=complaint) as error:
        chosen(wanted)
    assert hint in error.value.hint


def test_bf16_needs_a_processor_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(FULL.values()))
    wanted = ProviderTable(name="openvino", precision="bf16")
    monkeypatch.setattr(providers, "_cpu_has_bf16", lambda: False)
    with pytest.raises(ModelError, match="this processor has no bf16"):
        chosen([wanted])
    monkeypatch.setattr(providers, "_cpu_has_bf16", lambda: True)
    assert chosen([wanted])[0].precision == "bf16"


def test_openvino_is_told_its_precision_device_and_threads() -> None:
    told = Provider(ProviderTable(name="openvino")).options(threads=3)
    assert told == {
        "device_type": "CPU",
        "load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}',
        "num_of_threads": "3",
    }
    graphics = ProviderTable(name="openvino", device="GPU", precision="f16")
    assert Provider(graphics).options(threads=3) == {
        "device_type": "GPU",
        "load_config": '{"GPU": {"INFERENCE_PRECISION_HINT": "f16"}}',
    }


def test_a_pipeline_with_providers_is_run_by_onnxruntime() -> None:
    """The bundled label maps have a spike-driven engine, which providers would not be of."""
    model = places.find_model("sltnet-twin")
    table = PipelineTable(name="p", input="dvs", model="sltnet-twin", providers=("cpu",))
    ref = open_model(model, table).ref
    assert (ref.engine, ref.provider) == ("onnxruntime", "CPUExecutionProvider")
    with pytest.raises(ConfigError, match="not of the spike-driven engine"):
        open_model(model, msgspec.structs.replace(table, engine="spiking"))


@pytest.mark.parametrize("name", ["finder-twin", "promptable", "sltnet-twin"])
def test_a_pipeline_hands_its_providers_to_every_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [FULL["cpu"]])
    wanted = ProviderTable(name="openvino", precision="bf16")
    table = PipelineTable(name="p", input="wide", model=name, providers=(wanted, "cpu"))
    with pytest.raises(ModelError, match="provider 'openvino': this onnxruntime"):
        open_model(places.find_model(name), table)


def test_every_network_of_a_video_is_given_the_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, object]] = []

    class Seen(Session):
        def __init__(self, path: Path, **options: Any) -> None:
            given.append((path.stem, options["providers"]))
            super().__init__(path, **options)

    monkeypatch.setattr("edgeperc.prompting.networks.Session", Seen)
    model = places.find_model("promptable")
    for efficient in (Efficient(), Efficient(memory_keep_share=0.05)):
        VideoSession(model, threads=1, providers=("cpu",), efficient=efficient).close()
    ImageSession(model, threads=1, providers=("cpu",)).close()
    assert {name for name, _ in given} == {
        "encoder",
        "decoder",
        "memory_encoder",
        "memory_attention",
        "memory_retrieval",
    }
    assert {providers for _, providers in given} == {("cpu",)}


@pytest.mark.parametrize(
    ("toml", "complaint"),
    [
        ('providers = "cpu"', "[[pipelines]] #1 providers: expected `array`"),
        ('providers = [{ name = "openvino", presicion = "bf16" }]', "did you mean 'precision'"),
        ('providers = [{ name = "openvino", precision = "f8" }]', "precision: "),
    ],
)
def test_mistakes_in_an_app_are_said_where_they_stand(
    toml: str, complaint: str, tmp_path: Path
) -> None:
    app = tmp_path / "app.toml"
    app.write_text(f'rig = "r"\n[[pipelines]]\nname="a"\ninput="b"\nmodel="c"\n{toml}\n')
    with pytest.raises(ConfigError) as error:
        load(app, App)
    assert complaint in str(error.value)


def test_an_unknown_provider_of_an_app_is_said_where_it_stands(tmp_path: Path) -> None:
    app = tmp_path / "app.toml"
    pipeline = 'name="a"\ninput="dvs"\nmodel="sltnet-twin"\nproviders=["tpu"]\n'
    app.write_text(f'rig = "twin"\n[[pipelines]]\n{pipeline}')
    with pytest.raises(ConfigError, match=r"app.toml \[\[pipelines\]\] #1 .*provider 'tpu'"):
        assemble(Plan.load(str(app)))


def test_lines_of_serve_and_check_name_who_runs_it() -> None:
    ref = ModelRef(name="m", engine="onnxruntime", provider=FULL["openvino"], precision="bf16")
    run: Any = SimpleNamespace(pipelines=lambda: [SimpleNamespace(name="p", model=ref)])
    assert list(what_runs(run)) == ["p: m on onnxruntime (OpenVINOExecutionProvider, bf16)"]


# what must run it


def required(**keys: Any) -> str:
    """Who runs the bundled finder in a pipeline with these keys."""
    table = PipelineTable(name="p", input="wide", model="finder-twin", **keys)
    return open_model(places.find_model("finder-twin"), table).ref.provider


def test_what_is_required_runs_it() -> None:
    assert required(require="cpu") == FULL["cpu"]
    assert required(require="cpu", providers=("cpu",)) == FULL["cpu"]


def test_a_required_provider_that_is_not_in_this_build_is_an_error() -> None:
    with pytest.raises(ModelError, match="provider 'tensorrt': this onnxruntime .* has") as error:
        required(require="tensorrt")
    assert "onnxruntime-gpu" in error.value.hint


def test_a_required_provider_never_falls_back_silently(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime goes on with CUDA, as it does where TensorRT's library is missing."""
    runtime = FakeRuntime(monkeypatch, ["tensorrt", "cuda", "cpu"], starts=["cuda", "cpu"])
    monkeypatch.setattr(
        "edgeperc.inference.session.why_not", lambda _: "libnvinfer.so.10: no such file"
    )
    with pytest.raises(ModelError) as error:
        required(require="tensorrt")
    assert str(error.value).endswith(
        "provider 'tensorrt' does not start: libnvinfer.so.10: no such file"
    )
    assert list(runtime.options[0][0]) == [FULL[name] for name in ("tensorrt", "cuda", "cpu")]


def test_what_is_required_must_come_first() -> None:
    with pytest.raises(ConfigError, match="'tensorrt', but providers begin with 'cpu'"):
        required(require="tensorrt", providers=("cpu",))


def test_options_of_tensorrt() -> None:
    half = ProviderTable(name="tensorrt", precision="f16")
    assert Provider(half).options(threads=1) == {
        "trt_fp16_enable": "True",
        "trt_int8_enable": "False",
    }
    more = {"trt_builder_optimization_level": 5, "trt_dla_enable": True}
    int8 = ProviderTable(name="tensorrt", precision="int8", options=more)
    assert Provider(int8).options(threads=1) == {
        "trt_fp16_enable": "True",
        "trt_int8_enable": "True",
        "trt_builder_optimization_level": "5",
        "trt_dla_enable": "True",
    }


@pytest.mark.parametrize(
    ("name", "option", "complaint"),
    [
        ("tensorrt", "trt_builder_optimisation_level", "did you mean 'trt_builder_optimization"),
        ("tensorrt", "trt_engine_cache_path", "takes no option"),
        ("tensorrt", "trt_extra_plugin_lib_paths", "takes no option"),  # that would be code
        ("cpu", "device_id", "'cpu' takes no option"),
    ],
)
def test_an_option_that_is_not_known_is_refused(name: Any, option: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        chosen([ProviderTable(name=name, options={option: 1})])


@pytest.fixture
def orin(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    """Stands in for a machine with TensorRT."""
    monkeypatch.setattr(engines, "versions_of", lambda *_: Versions("TensorRT 10.3.0", "Orin"))
    return FakeRuntime(monkeypatch, ["tensorrt", "cpu"], starts=["tensorrt", "cpu"])


def kept(runtime: FakeRuntime) -> Path:
    """Where the newest session was told to keep its engine."""
    return Path(runtime.options[-1][0][FULL["tensorrt"]]["trt_engine_cache_path"])


def test_an_engine_of_tensorrt_is_kept_by_who_is_told_of_it(
    doubling: Path, orin: FakeRuntime
) -> None:
    """Its input has any length, so it is built when it runs."""
    opened: list[Opened | Path] = []
    with telling(opened.append):
        session = Session(doubling, providers=("tensorrt", "cpu"))
    assert opened[0] == doubling
    first = opened[1]
    assert isinstance(first, Opened)
    assert first.engine
    assert not first.engine.built
    (kept(orin) / "doubling_1.engine").write_text("engine")
    session.run(np.zeros(2, np.float32))
    assert len(engines.building()) == 1
    first.engine.keep()
    assert engines.building() == ()
    for _ in range(2):  # it is taken as it is, also by who does not know of such things
        Session(doubling, providers=("tensorrt", "cpu")).run(np.zeros(2, np.float32))
        assert kept(orin) == first.engine.place
        assert (kept(orin) / "doubling_1.engine").read_text() == "engine"


def test_an_engine_that_nobody_prepared_is_forgotten(
    doubling: Path, orin: FakeRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(doubling, providers=("tensorrt", "cpu"))
    assert [build.network for build in engines.building()] == ["doubling.onnx"]
    session.run(np.zeros(2, np.float32))
    assert engines.building() == ()
    assert not kept(orin).exists()
    assert "built at every start" in caplog.text


def test_an_engine_that_is_of_no_use_is_built_anew(
    doubling: Path, orin: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine_for(doubling, FULL["tensorrt"], Provider(TENSORRT).options(threads=2)) as engine:
        assert engine
        (engine.folder / "doubling_1.engine").write_text("damaged")
    engine.keep()
    real = FakeRuntime.__call__

    def deserialize(self: Any, path: str, options: Any, *, providers: Any, **more: Any) -> Any:
        folder = Path(dict(providers)[FULL["tensorrt"]]["trt_engine_cache_path"])
        if (folder / "doubling_1.engine").exists():
            raise RuntimeError("TensorRT EP could not deserialize engine from cache")
        return real(self, path, options, providers=providers, **more)

    monkeypatch.setattr(FakeRuntime, "__call__", deserialize)
    assert Session(doubling, providers=("tensorrt", "cpu")).provider == FULL["tensorrt"]
    assert not engine.place.exists()
    assert len(orin.options) == 1


TENSORRT = ProviderTable(name="tensorrt")


def test_onnxruntime_says_itself_why_a_provider_does_not_start() -> None:
    assert why_not(FULL["cpu"]) == ""
    assert why_not(FULL["tensorrt"]) == "it is not in this build of onnxruntime"


def test_onnxruntime_is_told_not_to_report_its_use(tmp_path: Path) -> None:
    """Without the word it leaves a number of this machine in the cache, and sends events."""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    program = (
        "from edgeperc.inference.session import Session; import sys; from pathlib import Path\n"
    )
    program += "Session(Path(sys.argv[1]), providers=('cpu',))"
    network = places.find_model("finder-twin").file("network")
    subprocess.run(
        [sys.executable, "-c", program, str(network)],
        env={**environment, "XDG_CACHE_HOME": str(tmp_path)},
        check=True,
        timeout=60,
    )
    assert not list(tmp_path.iterdir())


# what it says when it fails


def test_an_operator_that_fails_on_its_input_is_one_line(tmp_path: Path) -> None:
    into = numpy_helper.from_array(np.array([2, 3], np.int64), "into")
    nodes = [helper.make_node("Reshape", ["x", "into"], ["out"], name="fold")]
    session = Session(write(tmp_path / "fold.onnx", nodes, into))
    assert session.run(np.zeros(6, np.float32))[0].shape == (2, 3)
    with pytest.raises(ModelError) as error:
        session.run(np.zeros(7, np.float32))
    assert str(error.value) == (
        f"{tmp_path / 'fold.onnx'}: it cannot be run: Reshape 'fold': The input tensor cannot be "
        "reshaped to the requested shape. Input shape:{7}, requested shape:{2,3}"
    )
    assert session.run(np.zeros(6, np.float32))[0].shape == (2, 3)  # and it goes on


def test_an_index_out_of_bounds_is_one_line(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["y"], ["at"], to=TensorProto.INT64),
        helper.make_node("Gather", ["x", "at"], ["out"], name="pick"),
    ]
    session = Session(write(tmp_path / "pick.onnx", nodes))
    with pytest.raises(ModelError, match=r"^\S+: it cannot be run: Gather 'pick': .*") as error:
        session.run(np.zeros(3, np.float32), np.array([9], np.float32))
    assert "\n" not in str(error.value)
    assert ".cc:" not in str(error.value)


def test_too_little_memory_is_one_line_with_a_hint(tmp_path: Path) -> None:
    """More than any address space holds, so that no system tries."""
    nodes = [
        helper.make_node("Cast", ["y"], ["shape"], to=TensorProto.INT64),
        helper.make_node("Expand", ["x", "shape"], ["out"], name="grow"),
    ]
    session = Session(write(tmp_path / "grow.onnx", nodes))
    with pytest.raises(ModelError, match=r"cannot be run: .*") as error:
        session.run(np.zeros(1, np.float32), np.array([2.0**47], np.float32))
    assert "not enough memory" in error.value.hint
    assert session.run(np.zeros(1, np.float32), np.full(1, 5, np.float32))[0].shape == (5,)


# the real provider, where somebody made an environment for it: make openvino

OPENVINO = os.environ.get("EDGEPERC_OPENVINO", "")
PROGRAM = """
from pathlib import Path
import numpy as np
from edgeperc import places
from edgeperc.errors import ModelError
from edgeperc.inference.session import Session
from edgeperc.prompting.golden import agreement
path = places.find_model("finder-twin").file("network")
x = np.random.default_rng(0).random((1, 1, 96, 128), np.float32)
answers = []
for providers in (("openvino",), ("cpu",), ()):
    session = Session(path, threads=1, providers=providers)
    print(session.provider)
    answers.append(session.run(x)[0])
assert np.abs(answers[0] - answers[1]).max() < 1e-3 * answers[1].std()
print(min(agreement(places.find_model("promptable"))) > 0.97)
"""


@pytest.mark.skipif(not OPENVINO, reason="set EDGEPERC_OPENVINO to the Python of `make openvino`")
def test_openvino_really_runs_our_models() -> None:
    done = subprocess.run(
        [OPENVINO, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == [
        FULL["openvino"],
        FULL["cpu"],
        FULL["openvino"],
        "True",
    ]
