"""`edgeperc.v1.ControlService`: how the daemon is, and orders to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import grpc

from edgeperc.control import ControlError, Daemon
from edgeperc.proto.codec import as_message
from edgeperc.proto.control_codec import recording_message, status_message
from edgeperc.proto.edgeperc.v1 import control_pb2 as control
from edgeperc.proto.edgeperc.v1 import control_pb2_grpc as control_grpc
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.sinks.models import LoadedModels
from edgeperc.sinks.replies import CODES, answered

log = logging.getLogger("edgeperc")

SERVICE = control.DESCRIPTOR.services_by_name["ControlService"].full_name
LONGEST_TOML = 1 << 20
_RECORDING = {**CODES, "taken": grpc.StatusCode.ALREADY_EXISTS}


class Control(control_grpc.ControlServiceServicer):  # type: ignore[misc]
    """The rpcs, by a daemon and the models that are loaded for clients.

    daemon: None where the sink stands alone. refused: calls turned away so far, by status code.
    """

    def __init__(
        self,
        daemon: Daemon | None,
        models: LoadedModels,
        *,
        refused: Callable[[], Mapping[str, int]],
    ) -> None:
        self._daemon, self._models, self._refused = daemon, models, refused

    def add_to(self, server: grpc.Server) -> None:
        """Serve it."""
        control_grpc.add_ControlServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    def GetStatus(  # noqa: N802
        self, request: control.GetStatusRequest, context: grpc.ServicerContext
    ) -> control.GetStatusResponse:
        """How everything is."""
        with answered(context):
            message = status_message(self._known_daemon().status())
        message.loaded_models.extend(self._models.loaded)
        message.refused.update(self._refused())
        return message

    def GetConfig(  # noqa: N802
        self, request: control.GetConfigRequest, context: grpc.ServicerContext
    ) -> control.GetConfigResponse:
        """The app's file."""
        with answered(context):
            return as_message(control.GetConfigResponse, self._known_daemon().app())

    def ValidateConfig(  # noqa: N802
        self, request: control.ValidateConfigRequest, context: grpc.ServicerContext
    ) -> control.ValidateConfigResponse:
        """Check an app's file."""
        _check_length(request.toml, context)
        with answered(context):
            self._known_daemon().validate(request.toml)
        return control.ValidateConfigResponse()

    def ApplyConfig(  # noqa: N802
        self, request: control.ApplyConfigRequest, context: grpc.ServicerContext
    ) -> control.ApplyConfigResponse:
        """Run another app's file."""
        _check_length(request.toml, context)
        if not request.etag:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the etag of GetConfig is missing")
        with answered(context):
            now = self._known_daemon().apply(request.toml, request.etag)
        log.warning("%s applied another app, now %s", context.peer(), now.etag)
        return control.ApplyConfigResponse(etag=now.etag)

    def LoadModel(  # noqa: N802
        self, request: control.LoadModelRequest, context: grpc.ServicerContext
    ) -> control.LoadModelResponse:
        """Load an installed model."""
        with answered(context):
            model = self._models.load(request.name)
        return control.LoadModelResponse(model=as_message(pb.ModelRef, model.ref))

    def UnloadModel(  # noqa: N802
        self, request: control.UnloadModelRequest, context: grpc.ServicerContext
    ) -> control.UnloadModelResponse:
        """Free a model."""
        with answered(context):
            self._models.unload(request.name)
        return control.UnloadModelResponse()

    def StartRecording(  # noqa: N802
        self, request: control.StartRecordingRequest, context: grpc.ServicerContext
    ) -> control.StartRecordingResponse:
        """Record into a new file."""
        with answered(context, _RECORDING):
            begun = self._known_daemon().start_recording(
                request.name, max_bytes=request.max_bytes, max_s=request.max_seconds
            )
        return control.StartRecordingResponse(recording=recording_message(begun))

    def StopRecording(  # noqa: N802
        self, request: control.StopRecordingRequest, context: grpc.ServicerContext
    ) -> control.StopRecordingResponse:
        """End the recording."""
        with answered(context, _RECORDING):
            ended = self._known_daemon().stop_recording()
        return control.StopRecordingResponse(recording=recording_message(ended))

    def _known_daemon(self) -> Daemon:
        if self._daemon is None:
            raise ControlError("this sink belongs to no daemon")
        return self._daemon


def _check_length(toml: str, context: grpc.ServicerContext) -> None:
    if len(toml) > LONGEST_TOML:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the app's file is longer than 1 MiB")
