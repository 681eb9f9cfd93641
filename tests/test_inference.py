"""The Open Inference Protocol: by stubs of our own, and by NVIDIA's stock client unchanged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from edgeperc import places
from edgeperc.proto.inference import open_inference_pb2 as oip
from edgeperc.proto.inference import open_inference_pb2_grpc as oip_grpc
from edgeperc.result import ModelRef
from edgeperc.sink import Inventory
from edgeperc.sinks.grpc import Grpc

from .test_client import label_map

MODEL = "regions-twin"


@pytest.fixture(scope="module")
def sink() -> Iterator[Grpc]:
    inventory = Inventory(models=(ModelRef(name=MODEL), ModelRef(name="none-of-ours")))
    sink = Grpc(listen="127.0.0.1:0", inventory=inventory)
    sink.write(label_map(0))
    yield sink
    sink.close()


@pytest.fixture(scope="module")
def rpcs(sink: Grpc) -> Iterator[Any]:
    with grpc.insecure_channel(sink.address) as channel:
        yield oip_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def reference() -> ort.InferenceSession:
    """The network in onnxruntime itself, set up as the daemon's."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = places.find_model(MODEL).file("network")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def tensor(reference: ort.InferenceSession) -> NDArray[np.float32]:
    sides = iter((64, 128))  # of the picture, which may have any
    shape = [n if isinstance(n, int) else next(sides) for n in reference.get_inputs()[0].shape]
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def request_for(tensor: NDArray[np.float32], **changes: Any) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name=MODEL, id="seven")
    session_input = {"name": "input", "datatype": "FP32", "shape": tensor.shape} | changes
    request.inputs.add(**session_input)
    return request


@pytest.fixture(scope="module")
def name(reference: ort.InferenceSession) -> str:
    return str(reference.get_inputs()[0].name)


def test_an_inference_is_bit_for_bit_that_of_onnxruntime_raw_and_typed(
    rpcs: Any, reference: ort.InferenceSession, tensor: NDArray[np.float32], name: str
) -> None:
    wanted = reference.run(None, {name: tensor})
    raw = request_for(tensor, name=name)
    raw.raw_input_contents.append(tensor.tobytes())
    typed = request_for(tensor, name=name)
    typed.inputs[0].contents.fp32_contents.extend(tensor.ravel().tolist())
    for request in (raw, typed):
        answer = rpcs.ModelInfer(request)
        assert (answer.model_name, answer.model_version, answer.id) == (MODEL, "1", "seven")
        for k, output in enumerate(reference.get_outputs()):
            got = np.frombuffer(answer.raw_output_contents[k], "<f4")
            assert answer.outputs[k].name == output.name
            np.testing.assert_array_equal(got.reshape(answer.outputs[k].shape), wanted[k])


def refusals(name: str, tensor: NDArray[np.float32]) -> dict[str, oip.ModelInferRequest]:
    """Words of the refusal -> a request that earns it."""
    data = tensor.tobytes()

    def bad(raw: bytes | None = data, **changes: Any) -> oip.ModelInferRequest:
        request = request_for(tensor, **{"name": name, **changes})
        if raw is not None:
            request.raw_input_contents.append(raw)
        return request

    both, twice, extra, shared = bad(), bad(), bad(), bad()
    both.inputs[0].contents.fp32_contents.append(1.0)
    twice.inputs.add().CopyFrom(twice.inputs[0])
    twice.raw_input_contents.append(data)
    extra.outputs.add(name="more")
    shared.inputs[0].parameters["shared_memory_region"].string_param = "x"
    version, unknown, none, path = bad(), bad(), bad(), bad()
    version.model_version, unknown.model_name, path.model_name = "2", "finder-twin", "../x"
    del none.inputs[:]
    del none.raw_input_contents[:]
    return {
        "has no version '2'": version,
        "is not loaded": unknown,
        "is not the name of a model": path,
        "the input is missing": none,
        "is there twice": twice,
        "both typed and raw": both,
        "no output 'more'": extra,
        "'shared_memory_region' is not served": shared,
        "'else' is none": bad(name="else"),
        "is FP64, the network takes FP32": bad(datatype="FP64"),
        "elements": bad(raw=data[:-4]),
        "bytes of FP32": bad(raw=data[:-1]),
        "the network takes (": bad(shape=(tensor.size,)),
        "has a shape of": bad(shape=(-1, tensor.size)),
        "has 0 elements": bad(raw=None),
        "with 2 raw": _with_raw(bad(), data),
    }


def _with_raw(request: oip.ModelInferRequest, data: bytes) -> oip.ModelInferRequest:
    request.raw_input_contents.append(data)
    return request


def test_what_does_not_fit_is_refused_with_the_reason_and_a_stream_goes_on(
    rpcs: Any, tensor: NDArray[np.float32], name: str
) -> None:
    bad = refusals(name, tensor)
    for words, request in bad.items():
        with pytest.raises(grpc.RpcError) as caught:
            rpcs.ModelInfer(request)
        assert words in caught.value.details()
        assert caught.value.code() in (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
        )
    good = request_for(tensor, name=name)
    good.raw_input_contents.append(tensor.tobytes())
    answers = list(rpcs.ModelStreamInfer(iter([good, *bad.values(), good])))
    for words, answer in zip(bad, answers[1:-1], strict=True):
        assert words in answer.error_message
    assert answers[0].error_message == answers[-1].error_message == ""
    assert answers[0].infer_response == answers[-1].infer_response


STOCK_CLIENT = """
import json, queue, sys
import numpy as np
import tritonclient.grpc as triton

address, model, name, path = sys.argv[1:]
client = triton.InferenceServerClient(address)
tensor = np.load(path)
given = triton.InferInput(name, tensor.shape, "FP32")
given.set_data_from_numpy(tensor)
found = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model": client.is_model_ready(model),
    "other": client.is_model_ready("finder-twin"),
    "server": client.get_server_metadata(as_json=True),
    "metadata": client.get_model_metadata(model, as_json=True),
    "index": client.get_model_repository_index(as_json=True),
}
output = found["metadata"]["outputs"][0]["name"]
whole = client.infer(model, [given], request_id="1").as_numpy(output)
some = client.infer(model, [given], outputs=[triton.InferRequestedOutput(output)])
assert (some.as_numpy(output) == whole).all()
answers = queue.Queue()
client.start_stream(callback=lambda result, error: answers.put((result, error)))
for k in range(5):
    client.async_stream_infer(model, [given], request_id=str(k))
for k in range(5):
    result, error = answers.get(timeout=60)
    assert error is None and result.get_response().id == str(k), error
    assert (result.as_numpy(output) == whole).all()
client.async_stream_infer("finder-twin", [given])
result, error = answers.get(timeout=60)
found["error"] = str(error)
client.stop_stream()
try:
    client.infer("finder-twin", [given])
except triton.InferenceServerException as error:
    found["code"] = error.status()
np.save(path, whole)
print(json.dumps(found))
"""


def test_the_stock_client_of_triton_works_unchanged(
    sink: Grpc,
    reference: ort.InferenceSession,
    tensor: NDArray[np.float32],
    name: str,
    tmp_path: Any,
) -> None:
    """In a process of its own, since its stubs and ours cannot live in one."""
    path = tmp_path / "tensor.npy"
    np.save(path, tensor)
    command = [sys.executable, "-c", STOCK_CLIENT, sink.address, MODEL, name, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "No module named 'tritonclient'" in ran.stderr:
        pytest.skip("tritonclient is not installed: pip install 'edgeperc[dev]'")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert [found[key] for key in ("live", "ready", "model", "other")] == [True, True, True, False]
    assert found["server"]["name"] == "edgeperc"
    assert found["metadata"]["inputs"] == [
        {"name": name, "datatype": "FP32", "shape": ["1", "1", "-1", "-1"]}
    ]
    states = {each["name"]: each["state"] for each in found["index"]["models"]}
    assert states[MODEL] == "READY"
    assert states["finder-twin"] == "UNAVAILABLE"
    assert "not loaded" in found["error"]
    assert found["code"] == "StatusCode.NOT_FOUND"
    np.testing.assert_array_equal(np.load(path), reference.run(None, {name: tensor})[0])


def test_the_daemon_is_ready_once_a_first_result_came() -> None:
    sink = Grpc(listen="127.0.0.1:0", inventory=Inventory())
    with grpc.insecure_channel(sink.address) as channel:
        rpcs = oip_grpc.GRPCInferenceServiceStub(channel)
        assert not rpcs.ServerReady(oip.ServerReadyRequest()).ready
        sink.write(label_map(0))
        assert rpcs.ServerReady(oip.ServerReadyRequest()).ready
        assert not rpcs.ModelReady(oip.ModelReadyRequest(name="none-of-ours")).ready
    sink.close()


def test_a_model_of_several_networks_is_not_said_to_be_ready() -> None:
    """A promptable one: it is for Segment and TrackingService, whether it is loaded or not."""
    models = (ModelRef(name="promptable"), ModelRef(name=MODEL))
    sink = Grpc(listen="127.0.0.1:0", inventory=Inventory(models=models))
    with grpc.insecure_channel(sink.address) as channel:
        rpcs = oip_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(2):
            assert rpcs.ModelReady(oip.ModelReadyRequest(name=MODEL)).ready
            assert not rpcs.ModelReady(oip.ModelReadyRequest(name="promptable")).ready
            ready = rpcs.RepositoryIndex(oip.RepositoryIndexRequest(ready=True)).models
            assert [each.name for each in ready] == [MODEL]
            sink._models.load("promptable")
        with pytest.raises(grpc.RpcError, match="no network of one piece"):
            rpcs.ModelInfer(oip.ModelInferRequest(model_name="promptable"))
    sink.close()
