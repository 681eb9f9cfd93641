"""Orders to a device: the rpcs of ControlService, carried by a query.

    answer("GetStatus", b"", daemon)                   # on the device: bytes of the response
    ask(session, "default", "robot-7", "GetStatus")    # from afar

A refusal is text: why, what, and what to do, in a line each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError, Message

from edgeperc.control import ControlError, Daemon
from edgeperc.errors import ConfigError, DeviceError, EdgepercError
from edgeperc.fleet import keys
from edgeperc.proto.codec import as_message
from edgeperc.proto.control_codec import recording_message, status_message
from edgeperc.proto.edgeperc.v1 import control_pb2 as pb

log = logging.getLogger("edgeperc")
LONGEST = 1 << 20
"""Bytes of an order."""
_WHYS = ("impossible", "unknown", "conflict", "taken", "range")


def answer(order: str, request: bytes, daemon: Daemon) -> bytes:
    """Carry out an order; the bytes of its response. Raises EdgepercError if it is refused.

    Code that an app's file names is refused, by the daemon, as for every client.
    """
    if order not in ORDERS:
        raise ControlError(
            f"no order '{order}'", why="unknown", hint=f"there are: {', '.join(ORDERS)}"
        )
    if len(request) > LONGEST:
        raise ControlError("an order of more than 1 MiB")
    kind, _, carry_out = ORDERS[order]
    message = kind()
    try:
        message.ParseFromString(request)
    except DecodeError as error:
        raise ConfigError(f"{order}: the request is damaged") from error
    if order not in ("GetStatus", "GetConfig", "ValidateConfig"):
        log.warning("by way of the fleet: %s", order)
    response = carry_out(message, daemon)
    return bytes(response.SerializeToString())


def refusal(error: EdgepercError) -> bytes:
    """An error on its way back."""
    lines = (getattr(error, "why", ""), str(error).replace("\n", " "), error.hint)
    return "\n".join(lines).encode()


def refused(text: bytes) -> EdgepercError:
    """Inverse of `refusal`."""
    why, message, hint, *_ = (*text.decode(errors="replace").split("\n"), "", "", "")
    if why in _WHYS:
        return ControlError(message, why=why, hint=hint)  # type: ignore[arg-type]
    return ConfigError(message or "refused", hint=hint)


def ask(
    session: Any,
    fleet: str,
    device: str,
    order: str,
    request: Message | None = None,
    *,
    timeout_s: float = 10.0,
) -> Any:
    """Give an order and wait for its response. Raises what the device says, or DeviceError."""
    kind, response, _ = ORDERS[order]
    key = f"{keys.device(fleet, keys.check('device', device))}/control/{order}"
    payload = (request if request is not None else kind()).SerializeToString()
    for reply in session.get(key, payload=payload, timeout=timeout_s):
        if reply.ok is None:
            text = reply.err.payload.to_bytes()
            if text == b"Timeout":  # said by Zenoh, not by the device
                break
            raise refused(text)
        message = response()
        message.ParseFromString(reply.ok.payload.to_bytes())
        return message
    raise DeviceError(
        f"fleet: '{device}' does not answer", hint="edgeperc fleet ls shows who is there"
    )


def _status(_: Any, daemon: Daemon) -> Message:
    return status_message(daemon.status())


def _config(_: Any, daemon: Daemon) -> Message:
    return as_message(pb.GetConfigResponse, daemon.app())


def _validate(request: Any, daemon: Daemon) -> Message:
    daemon.validate(request.toml)
    return pb.ValidateConfigResponse()


def _apply(request: Any, daemon: Daemon) -> Message:
    if not request.etag:
        raise ConfigError("the etag of GetConfig is missing")
    return pb.ApplyConfigResponse(etag=daemon.apply(request.toml, request.etag).etag)


def _start(request: Any, daemon: Daemon) -> Message:
    return pb.StartRecordingResponse(
        recording=recording_message(
            daemon.start_recording(
                request.name, max_bytes=request.max_bytes, max_s=request.max_seconds
            )
        )
    )


def _stop(_: Any, daemon: Daemon) -> Message:
    return pb.StopRecordingResponse(recording=recording_message(daemon.stop_recording()))


ORDERS: dict[str, tuple[type[Message], type[Message], Callable[[Any, Daemon], Message]]] = {
    "GetStatus": (pb.GetStatusRequest, pb.GetStatusResponse, _status),
    "GetConfig": (pb.GetConfigRequest, pb.GetConfigResponse, _config),
    "ValidateConfig": (pb.ValidateConfigRequest, pb.ValidateConfigResponse, _validate),
    "ApplyConfig": (pb.ApplyConfigRequest, pb.ApplyConfigResponse, _apply),
    "StartRecording": (pb.StartRecordingRequest, pb.StartRecordingResponse, _start),
    "StopRecording": (pb.StopRecordingRequest, pb.StopRecordingResponse, _stop),
}
"""Order -> request, response, and what carries it out."""
