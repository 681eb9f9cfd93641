"""`edgeperc.v1.SearchService`: clients point the mirror of the search camera, one at a time."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from edgeperc.control import ControlError, Daemon, Steering
from edgeperc.errors import DeviceError
from edgeperc.packet import Gaze, GazeRange
from edgeperc.proto.codec import as_dataclass, as_message, to_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import search_pb2 as search
from edgeperc.proto.edgeperc.v1 import search_pb2_grpc as search_grpc
from edgeperc.result import Detections, Result
from edgeperc.sinks.grpc_standard import Seats
from edgeperc.sinks.replies import answered
from edgeperc.steering.lease import DEFAULT_TTL_S, LONGEST_TTL_S

SERVICE = search.DESCRIPTOR.services_by_name["SearchService"].full_name
MOST_PLACES, MOST_LOOKS, LONGEST_HOLDER = 10_000, 1000, 100
NEAR_RAD = 4e-3
"""A look that the mirror measured so close to a place, a quarter of a degree, is a look at it."""
LOOK_S = 2.0
"""Without a look at a place for so long a scan gives up."""
POLL_S = 0.25
WAITING_LOOKS = 64


class Searching(search_grpc.SearchServiceServicer):  # type: ignore[misc]
    """The rpcs, by the daemon's steering. scans: how many may run at a time."""

    def __init__(self, daemon: Daemon | None, *, scans: Seats) -> None:
        self._daemon, self._seats = daemon, scans
        self._scans: set[queue.Queue[Detections]] = set()
        self._lock = threading.Lock()
        self._is_closed = threading.Event()

    def add_to(self, server: grpc.Server) -> None:
        """Serve it."""
        search_grpc.add_SearchServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    def publish(self, result: Result) -> None:
        """Hand looks to the scans; never blocks."""
        if isinstance(result, Detections) and result.gaze is not None:
            with self._lock:
                for looks in self._scans:
                    if not looks.full():
                        looks.put_nowait(result)

    def close(self) -> None:
        """End the scans."""
        self._is_closed.set()

    def AcquireSteering(  # noqa: N802
        self, request: search.AcquireSteeringRequest, context: grpc.ServicerContext
    ) -> search.AcquireSteeringResponse:
        """Take the mirror from the search."""
        holder = (request.holder or context.peer())[:LONGEST_HOLDER]
        with answered(context):
            lease = self._steering().acquire(holder, request.ttl_s)
        ttl_s = min(request.ttl_s or DEFAULT_TTL_S, LONGEST_TTL_S)
        return search.AcquireSteeringResponse(lease=lease, ttl_s=ttl_s)

    def RenewSteering(  # noqa: N802
        self, request: search.RenewSteeringRequest, context: grpc.ServicerContext
    ) -> search.RenewSteeringResponse:
        """Hold it for longer."""
        with answered(context):
            self._steering().renew(request.lease, request.ttl_s)
        return search.RenewSteeringResponse()

    def ReleaseSteering(  # noqa: N802
        self, request: search.ReleaseSteeringRequest, context: grpc.ServicerContext
    ) -> search.ReleaseSteeringResponse:
        """Give it back."""
        with answered(context):
            self._steering().release(request.lease)
        return search.ReleaseSteeringResponse()

    def PointAt(  # noqa: N802
        self, request: search.PointAtRequest, context: grpc.ServicerContext
    ) -> search.PointAtResponse:
        """Point somewhere from now on."""
        if not request.HasField("gaze"):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the gaze is missing")
        with answered(context):
            self._steering().point(request.lease, as_dataclass(Gaze, request.gaze))
        return search.PointAtResponse()

    def Scan(  # noqa: N802
        self, request: search.ScanRequest, context: grpc.ServicerContext
    ) -> Iterator[search.ScanResponse]:
        """Look at one place after the other."""
        places = [as_dataclass(Gaze, place) for place in request.places]
        wanted = request.looks or 1
        if not 0 < len(places) <= MOST_PLACES or wanted > MOST_LOOKS:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"{len(places):,} places, {wanted:,} looks: from 1 to {MOST_PLACES:,} places and"
                f" at most {MOST_LOOKS:,} looks at each",
            )
        with self._seats.taken(context), answered(context), self._looks() as looks:
            steering = self._steering()
            _check_all(places, steering.state().reach)
            for number, place in enumerate(places):
                for count in range(wanted):
                    if count == 0:
                        _empty(looks)
                    steering.point(request.lease, place)
                    found = self._look_at(place, looks, context)
                    if found is None:
                        return
                    message = to_message(found, pb.MASK_ENCODING_RAW)
                    yield search.ScanResponse(place=number, result=message)

    def GetMirrorState(  # noqa: N802
        self, request: search.GetMirrorStateRequest, context: grpc.ServicerContext
    ) -> search.GetMirrorStateResponse:
        """Where it points, and who says so."""
        with answered(context):
            state = self._steering().state()
        return search.GetMirrorStateResponse(
            gaze=as_message(pb.Gaze, state.gaze) if state.gaze else None,
            lowest=as_message(pb.Gaze, state.reach.lowest) if state.reach else None,
            highest=as_message(pb.Gaze, state.reach.highest) if state.reach else None,
            holder=state.holder,
            lease_s=state.lease_s,
        )

    def Stop(  # noqa: N802
        self, request: search.StopRequest, context: grpc.ServicerContext
    ) -> search.StopResponse:
        """Take it from whoever has it."""
        with answered(context):
            self._steering().stop()
        return search.StopResponse()

    def _steering(self) -> Steering:
        steering = self._daemon.steering if self._daemon else None
        if steering is None:
            raise ControlError(
                "this daemon steers no mirror",
                hint="it needs an app with [search]: edgeperc serve search",
            )
        return steering

    @contextmanager
    def _looks(self) -> Iterator[queue.Queue[Detections]]:
        looks: queue.Queue[Detections] = queue.Queue(WAITING_LOOKS)
        with self._lock:
            self._scans.add(looks)
        try:
            yield looks
        finally:
            with self._lock:
                self._scans.remove(looks)

    def _look_at(
        self, place: Gaze, looks: queue.Queue[Detections], context: grpc.ServicerContext
    ) -> Detections | None:
        """The next look there; None if nobody waits for it any more. Raises DeviceError."""
        end_s = time.monotonic() + LOOK_S
        while context.is_active() and not self._is_closed.is_set():
            try:
                look = looks.get(timeout=POLL_S)
            except queue.Empty:
                look = None
            if look and look.gaze and _distance_rad(look.gaze, place) <= NEAR_RAD:
                return look
            if time.monotonic() > end_s:
                raise DeviceError(
                    f"no look at pan {math.degrees(place.pan_rad):.2f}°, tilt"
                    f" {math.degrees(place.tilt_rad):.2f}° within {LOOK_S:g} s",
                    hint="GetStatus says whether the mirror and its camera are there",
                )
        return None


def _check_all(places: Sequence[Gaze], reach: GazeRange | None) -> None:
    """Raise ControlError for a place that is beyond the reach; before the first move."""
    for number, place in enumerate(places):
        if not (math.isfinite(place.pan_rad) and math.isfinite(place.tilt_rad)):
            raise ControlError(f"place {number} is no angle", why="range")
        if reach and _distance_rad(reach.clip(place), place) > 1e-6:
            raise ControlError(
                f"place {number}, pan {math.degrees(place.pan_rad):.2f}°, tilt"
                f" {math.degrees(place.tilt_rad):.2f}°, is beyond the mirror's reach",
                why="range",
            )


def _distance_rad(one: Gaze, other: Gaze) -> float:
    return max(abs(one.pan_rad - other.pan_rad), abs(one.tilt_rad - other.tilt_rad))


def _empty(looks: queue.Queue[Detections]) -> None:
    while True:
        try:
            looks.get_nowait()
        except queue.Empty:
            return
