"""The standard gRPC services, health and reflection, bounded so that they cannot starve the rest.

Each open stream holds a thread of the server's pool. Seats keep some threads free whatever clients
do, so that short calls always answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from edgeperc.sinks.security import Guard


class Seats:
    """How many streams may be open at a time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = threading.BoundedSemaphore(count)

    @contextmanager
    def taken(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Hold a seat, or end the call with RESOURCE_EXHAUSTED."""
        if not self._free.acquire(blocking=False):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"this daemon's {self.count} streams of this kind are taken",
            )
        try:
            yield
        finally:
            self._free.release()


class Health(health.HealthServicer):  # type: ignore[misc]
    """Standard health of `names`: not serving until `set_serving`."""

    def __init__(self, names: tuple[str, ...], seats: Seats, guard: Guard) -> None:
        # Its thread-less mode sends under a lock in the thread that calls `set`: that blocks on a
        # slow watcher and deadlocks with one that hangs up (seen with grpcio-health-checking 1.80).
        super().__init__(experimental_non_blocking=False)
        self._names = names
        self._seats, self._guard = seats, guard
        self._parts: dict[str, bool] = {}
        for name in names:
            self.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    def set_serving(self) -> None:
        """Say that all is well; never blocks."""
        for name in self._names:
            self.set(name, health_pb2.HealthCheckResponse.SERVING)

    def report(self, name: str, is_well: bool) -> None:
        """Say how one part is, if that has changed; never blocks."""
        if self._parts.get(name) != is_well:
            self._parts[name] = is_well
            status = health_pb2.HealthCheckResponse
            self.set(name, status.SERVING if is_well else status.NOT_SERVING)

    def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """The state of a service now."""
        self._guard.admit_to_health(context)
        return super().Check(request, context)

    def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """Stream the state of a service as it changes."""
        self._guard.admit_to_health(context)
        with self._seats.taken(context):
            yield from super().Watch(request, context)

    def add_to(self, server: grpc.Server) -> None:
        """Serve it."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)


class Reflection(reflection.ReflectionServicer):  # type: ignore[misc]
    """Standard reflection: lets grpcurl and the like find out what `names` offer."""

    def __init__(self, names: tuple[str, ...], seats: Seats) -> None:
        super().__init__((*names, health.SERVICE_NAME, reflection.SERVICE_NAME))
        self._seats = seats

    def ServerReflectionInfo(  # noqa: N802
        self,
        request_iterator: Iterator[reflection_pb2.ServerReflectionRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        """Answer questions about descriptors."""
        with self._seats.taken(context):
            yield from super().ServerReflectionInfo(request_iterator, context)

    def add_to(self, server: grpc.Server) -> None:
        """Serve it."""
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(self, server)
