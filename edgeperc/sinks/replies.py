"""From the house's errors to status codes, and calls that hand out bytes that are ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, NoReturn

import grpc

from edgeperc.errors import ConfigError, DataError, DeviceError, EdgepercError, ModelError
from edgeperc.proto.retry import FROM_DAEMON, retry_metadata

CODES = {
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "unknown": grpc.StatusCode.NOT_FOUND,
    "full": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "impossible": grpc.StatusCode.FAILED_PRECONDITION,
    "conflict": grpc.StatusCode.ABORTED,
    "taken": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "range": grpc.StatusCode.OUT_OF_RANGE,
    "later": grpc.StatusCode.UNAVAILABLE,
}
"""By an error's `why`."""
RETRY_S = 1.0
"""Before that, what is unavailable now is not worth another try."""
LONGEST_WAIT_S = 60.0
"""For its turn, where a call has no deadline."""
_BY_TYPE: dict[type[EdgepercError], grpc.StatusCode] = {
    ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    DataError: grpc.StatusCode.INVALID_ARGUMENT,
    ModelError: grpc.StatusCode.FAILED_PRECONDITION,
    DeviceError: grpc.StatusCode.UNAVAILABLE,
}


def code_of(error: EdgepercError, codes: Mapping[str, grpc.StatusCode] = CODES) -> grpc.StatusCode:
    """The status code that says what kind of error it is."""
    if why := getattr(error, "why", ""):
        return codes.get(why, CODES[why])
    for kind, code in _BY_TYPE.items():
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.INTERNAL


def sentence(error: EdgepercError) -> str:
    """What is wrong and what to do."""
    return f"{error}: {error.hint}" if error.hint else str(error)


@contextmanager
def answered(
    context: grpc.ServicerContext, codes: Mapping[str, grpc.StatusCode] = CODES
) -> Iterator[None]:
    """End the call with the status of an EdgepercError that is raised here.

    codes: where a `why` has another meaning than in CODES.
    """
    try:
        yield
    except EdgepercError as error:
        fail(context, code_of(error, codes), sentence(error))


def fail(context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
    """End the call; where it is UNAVAILABLE, with when to try again."""
    said: list[tuple[str, str | bytes]] = [FROM_DAEMON]
    if code == grpc.StatusCode.UNAVAILABLE:
        said.append(retry_metadata(code.value[0], message, retry_s=RETRY_S))
    context.set_trailing_metadata(tuple(said))
    context.abort(code, message)
    raise AssertionError("abort raises")


@contextmanager
def its_turn(lock: Lock, context: grpc.ServicerContext) -> Iterator[None]:
    """Hold the lock of what serves one caller at a time, or end a call that nobody waits for."""
    left_s = context.time_remaining()
    limit_s = LONGEST_WAIT_S if left_s is None else min(left_s, LONGEST_WAIT_S)
    if limit_s <= 0 or not lock.acquire(timeout=limit_s):
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "too late before its turn came")
    try:
        still_wanted(context)
        yield
    finally:
        lock.release()


def still_wanted(context: grpc.ServicerContext) -> None:
    """End a call that nobody waits for any more: its caller has gone, or its deadline passed."""
    if not context.is_active():
        context.abort(grpc.StatusCode.CANCELLED, "the caller has gone")


class BytesOf:
    """A server as generated code sees it, which is told that some rpcs answer in bytes already.

    add_PerceptionServiceServicer_to_server(servicer, BytesOf(server, "Subscribe"))
    """

    def __init__(self, server: grpc.Server, *rpcs: str) -> None:
        self._server, self._rpcs = server, rpcs

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Left out: the registered handlers are the same ones."""

    def add_registered_method_handlers(
        self, service: str, handlers: dict[str, grpc.RpcMethodHandler]
    ) -> None:
        """Take the rpcs of a service."""
        ready = {
            rpc: _without_serializer(handler) if rpc in self._rpcs else handler
            for rpc, handler in handlers.items()
        }
        generic = grpc.method_handlers_generic_handler(service, ready)
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_registered_method_handlers(service, ready)


def _without_serializer(handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
    behaviour: Callable[..., Any] = handler.unary_stream
    return grpc.unary_stream_rpc_method_handler(
        behaviour, request_deserializer=handler.request_deserializer, response_serializer=None
    )
