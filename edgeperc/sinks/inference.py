"""The Open Inference Protocol (KServe v2) over gRPC: installed networks, tensors in and out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from numpy.typing import NDArray

from edgeperc import __version__
from edgeperc.errors import DataError, EdgepercError
from edgeperc.proto.inference import open_inference_pb2 as oip
from edgeperc.proto.inference import open_inference_pb2_grpc as oip_grpc
from edgeperc.sessions import RefusedError
from edgeperc.sinks.grpc_standard import Seats
from edgeperc.sinks.models import LoadedModel, LoadedModels, installed
from edgeperc.sinks.replies import answered, its_turn, sentence

if TYPE_CHECKING:
    from edgeperc.inference.session import Session

SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
VERSION = "1"
EXTENSIONS = ("model_repository",)
TYPES: dict[str, tuple[str, str, str]] = {
    "tensor(bool)": ("BOOL", "?", "bool_contents"),
    "tensor(int8)": ("INT8", "<i1", "int_contents"),
    "tensor(int16)": ("INT16", "<i2", "int_contents"),
    "tensor(int32)": ("INT32", "<i4", "int_contents"),
    "tensor(int64)": ("INT64", "<i8", "int64_contents"),
    "tensor(uint8)": ("UINT8", "<u1", "uint_contents"),
    "tensor(uint16)": ("UINT16", "<u2", "uint_contents"),
    "tensor(uint32)": ("UINT32", "<u4", "uint_contents"),
    "tensor(uint64)": ("UINT64", "<u8", "uint64_contents"),
    "tensor(float16)": ("FP16", "<f2", ""),
    "tensor(float)": ("FP32", "<f4", "fp32_contents"),
    "tensor(double)": ("FP64", "<f8", "fp64_contents"),
}
"""Of onnxruntime -> name in the protocol, dtype on the wire, field of typed contents."""


class Inference(oip_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The rpcs, by the models that are loaded for clients.

    is_ready: whether the daemon's own pipelines give results. asking, streams: how many calls may
    run a network, and how many streams may be open, at a time.
    """

    def __init__(
        self,
        models: LoadedModels,
        *,
        is_ready: Callable[[], bool],
        asking: Seats,
        streams: Seats,
    ) -> None:
        self._models, self._is_ready = models, is_ready
        self._asking, self._streams = asking, streams

    def add_to(self, server: grpc.Server) -> None:
        """Serve it."""
        oip_grpc.add_GRPCInferenceServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    def ServerLive(  # noqa: N802
        self, request: oip.ServerLiveRequest, context: grpc.ServicerContext
    ) -> oip.ServerLiveResponse:
        """It answers, so it lives."""
        return oip.ServerLiveResponse(live=True)

    def ServerReady(  # noqa: N802
        self, request: oip.ServerReadyRequest, context: grpc.ServicerContext
    ) -> oip.ServerReadyResponse:
        """Whether the pipelines give results."""
        return oip.ServerReadyResponse(ready=self._is_ready())

    def ModelReady(  # noqa: N802
        self, request: oip.ModelReadyRequest, context: grpc.ServicerContext
    ) -> oip.ModelReadyResponse:
        """Whether a model may be asked."""
        ready = request.version in ("", VERSION) and self._models.has_network(request.name)
        return oip.ModelReadyResponse(ready=ready)

    def ServerMetadata(  # noqa: N802
        self, request: oip.ServerMetadataRequest, context: grpc.ServicerContext
    ) -> oip.ServerMetadataResponse:
        """Name and version."""
        return oip.ServerMetadataResponse(
            name="edgeperc", version=__version__, extensions=EXTENSIONS
        )

    def ModelMetadata(  # noqa: N802
        self, request: oip.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> oip.ModelMetadataResponse:
        """What a network takes and gives; loads it."""
        with answered(context):
            model = self._model(request.name, request.version)
            network = model.network
            return oip.ModelMetadataResponse(
                name=request.name,
                versions=[VERSION],
                platform="onnxruntime_onnx",
                inputs=_tensors(network.input_shapes, network.input_types),
                outputs=_tensors(network.output_shapes, network.output_types),
            )
        raise AssertionError("abort raises")

    def ModelInfer(  # noqa: N802
        self, request: oip.ModelInferRequest, context: grpc.ServicerContext
    ) -> oip.ModelInferResponse:
        """Run a network once."""
        with self._asking.taken(context), answered(context):
            return self._infer(request, context)
        raise AssertionError("abort raises")

    def ModelStreamInfer(  # noqa: N802
        self, requests: Iterator[oip.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[oip.ModelStreamInferResponse]:
        """Run networks, a request after the other."""
        with self._streams.taken(context):
            for request in requests:
                try:
                    answer = self._infer(request, context)
                except EdgepercError as error:
                    empty = oip.ModelInferResponse(model_name=request.model_name, id=request.id)
                    yield oip.ModelStreamInferResponse(
                        error_message=sentence(error), infer_response=empty
                    )
                else:
                    yield oip.ModelStreamInferResponse(infer_response=answer)

    def RepositoryIndex(  # noqa: N802
        self, request: oip.RepositoryIndexRequest, context: grpc.ServicerContext
    ) -> oip.RepositoryIndexResponse:
        """The installed models, and which of them may be asked."""
        response = oip.RepositoryIndexResponse()
        for name in sorted(installed()):
            if self._models.has_network(name):
                response.models.add(name=name, version=VERSION, state="READY")
            elif not request.ready:
                response.models.add(
                    name=name,
                    version=VERSION,
                    state="UNAVAILABLE",
                    reason="not loaded, or not one network",
                )
        return response

    def _infer(
        self, request: oip.ModelInferRequest, context: grpc.ServicerContext
    ) -> oip.ModelInferResponse:
        """The answer to a request. Raises EdgepercError."""
        model = self._model(request.model_name, request.model_version)
        network = model.network
        given = _given(request, network)
        wanted = _wanted(request, network)
        with its_turn(model.lock, context):
            answers = network.run(*given)
        response = oip.ModelInferResponse(
            model_name=request.model_name, model_version=VERSION, id=request.id
        )
        for name, array in zip(network.output_shapes, answers, strict=True):
            if name in wanted:
                datatype, dtype, _ = _known_type(network.output_types[name])
                response.outputs.add(name=name, datatype=datatype, shape=array.shape)
                response.raw_output_contents.append(array.astype(dtype, copy=False).tobytes())
        return response

    def _model(self, name: str, version: str) -> LoadedModel:
        if version not in ("", VERSION):
            raise RefusedError(f"model '{name}' has no version {version!r}", why="unknown")
        return self._models.get(name)


def _tensors(shapes: dict[str, Any], types: dict[str, str]) -> list[Any]:
    return [
        oip.ModelMetadataResponse.TensorMetadata(
            name=name,
            datatype=_known_type(types[name])[0],
            shape=[length if isinstance(length, int) else -1 for length in shape],
        )
        for name, shape in shapes.items()
    ]


def _known_type(onnx_type: str) -> tuple[str, str, str]:
    try:
        return TYPES[onnx_type]
    except KeyError:
        raise RefusedError(f"the network has a {onnx_type}, which is not served") from None


def _wanted(request: oip.ModelInferRequest, network: Session) -> set[str]:
    """Names of the outputs to answer with."""
    for output in request.outputs:
        if output.name not in network.output_shapes:
            there = ", ".join(network.output_shapes)
            raise DataError(f"no output '{output.name}'; there are: {there}")
        _refuse_parameters(output.parameters)
    return {output.name for output in request.outputs} or set(network.output_shapes)


def _given(request: oip.ModelInferRequest, network: Session) -> list[NDArray[Any]]:
    """The inputs as arrays, in the network's order. Raises DataError for what does not fit."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise DataError(f"{len(request.inputs)} inputs with {len(raw)} raw contents")
    from edgeperc.inference.session import (
        fits,  # onnxruntime, which the daemon's front does without
    )

    arrays: dict[str, NDArray[Any]] = {}
    for number, tensor in enumerate(request.inputs):
        if tensor.name not in network.input_shapes or tensor.name in arrays:
            there = ", ".join(network.input_shapes)
            raise DataError(f"input '{tensor.name}' is none, or is there twice; wanted: {there}")
        _refuse_parameters(tensor.parameters)
        array = _array(tensor, raw[number] if raw else None, network.input_types[tensor.name])
        wanted = network.input_shapes[tensor.name]
        if not fits(array.shape, wanted):
            raise DataError(f"input '{tensor.name}' is {array.shape}, the network takes {wanted}")
        arrays[tensor.name] = array
    missing = [name for name in network.input_shapes if name not in arrays]
    if missing:
        raise DataError(f"the input is missing: {', '.join(missing)}")
    return [arrays[name] for name in network.input_shapes]


def _array(tensor: Any, raw: bytes | None, onnx_type: str) -> NDArray[Any]:
    datatype, dtype, field = _known_type(onnx_type)
    if tensor.datatype != datatype:
        raise DataError(f"input '{tensor.name}' is {tensor.datatype}, the network takes {datatype}")
    shape = tuple(tensor.shape)
    if any(length < 0 for length in shape):
        raise DataError(f"input '{tensor.name}' has a shape of {shape}")
    values: NDArray[Any]
    if raw is not None:
        if tensor.HasField("contents"):
            raise DataError(f"input '{tensor.name}' has both typed and raw contents")
        if len(raw) % np.dtype(dtype).itemsize:
            raise DataError(f"input '{tensor.name}' has {len(raw)} bytes of {datatype}")
        values = np.frombuffer(raw, dtype)
    elif not field:
        raise DataError(f"input '{tensor.name}': {datatype} travels as raw contents only")
    else:
        try:
            values = np.array(getattr(tensor.contents, field), dtype)
        except OverflowError as error:
            raise DataError(f"input '{tensor.name}' holds what is no {datatype}") from error
    if values.size != math.prod(shape):
        raise DataError(f"input '{tensor.name}' of {shape} has {values.size:,} elements")
    return values.reshape(shape)


def _refuse_parameters(parameters: Any) -> None:
    for name in ("shared_memory_region", "classification"):
        if name in parameters:
            raise DataError(f"the parameter '{name}' is not served here")
