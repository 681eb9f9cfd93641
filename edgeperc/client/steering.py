"""A client that has the mirror: point it, scan with it, read where it is.

    with edgeperc.client.connect().steering("survey") as mirror:
        mirror.point(pan_rad=0.1, tilt_rad=-0.02)
        for place, look in mirror.scan([(0.0, 0.0), (0.1, 0.0)], looks=3):
            print(place, look.gaze, look.boxes)

The lease is kept until the `with` ends; where this process dies, the search has the mirror again
after ttl_s.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType

import grpc

from edgeperc.client.connection import Connection
from edgeperc.control import MirrorState
from edgeperc.errors import EdgepercError
from edgeperc.packet import Gaze, GazeRange
from edgeperc.proto.codec import as_dataclass, from_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import search_pb2 as search
from edgeperc.proto.edgeperc.v1 import search_pb2_grpc as search_grpc
from edgeperc.result import Detections

RENEWALS = 3  # in a ttl_s


class MirrorSession:
    """Made by `Client.steering`, ended by `with` or `close`. May be used from several threads.

    Angles are in rad from the middle of the field, right and up positive. Methods raise ConfigError
    where the daemon refuses: beyond the reach, or when somebody has taken the lease away.
    """

    def __init__(self, connection: Connection, *, holder: str, ttl_s: float) -> None:
        self._connection = connection
        self._rpcs = search_grpc.SearchServiceStub(connection.channel)  # type: ignore[no-untyped-call]
        wanted = search.AcquireSteeringRequest(holder=holder, ttl_s=ttl_s)
        granted = connection.ask(self._rpcs.AcquireSteering, wanted)
        self._lease, self.ttl_s = granted.lease, granted.ttl_s
        self._ended = threading.Event()
        threading.Thread(target=self._keep, name="edgeperc steering", daemon=True).start()

    def point(self, pan_rad: float, tilt_rad: float) -> None:
        """Look there from now on; returns at once, while the mirror moves."""
        gaze = pb.Gaze(pan_rad=pan_rad, tilt_rad=tilt_rad)
        request = search.PointAtRequest(lease=self._lease, gaze=gaze)
        self._connection.ask(self._rpcs.PointAt, request)

    def scan(
        self, places: Sequence[tuple[float, float]], *, looks: int = 1
    ) -> Iterator[tuple[int, Detections]]:
        """Look at each place, (pan_rad, tilt_rad), so many times; index of the place, and what was
        found there.

        Raises ConfigError as `point` does, DeviceError where no look comes for two seconds.
        """
        request = search.ScanRequest(
            lease=self._lease,
            places=[pb.Gaze(pan_rad=pan_rad, tilt_rad=tilt_rad) for pan_rad, tilt_rad in places],
            looks=looks,
        )
        call = self._connection.call(self._rpcs.Scan, request)
        try:
            for response in call:
                result = from_message(response.result)
                assert isinstance(result, Detections)
                yield response.place, result
        except grpc.RpcError as error:
            raise self._connection.readable(error) from error
        finally:
            call.cancel()

    def state(self) -> MirrorState:
        """Where the mirror looks now, what it reaches and who has it."""
        return mirror_state(self._connection)

    def close(self) -> None:
        """Give the mirror back to the search; may be called twice."""
        if not self._ended.is_set():
            self._ended.set()
            request = search.ReleaseSteeringRequest(lease=self._lease)
            with suppress(EdgepercError):  # then it expires
                self._connection.ask(self._rpcs.ReleaseSteering, request)

    def __enter__(self) -> MirrorSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _keep(self) -> None:
        request = search.RenewSteeringRequest(lease=self._lease, ttl_s=self.ttl_s)
        while not self._ended.wait(self.ttl_s / RENEWALS):
            with suppress(EdgepercError):  # whoever points next is told
                self._connection.ask(self._rpcs.RenewSteering, request)


def mirror_state(connection: Connection) -> MirrorState:
    """Where the mirror looks, whoever has it."""
    rpcs = search_grpc.SearchServiceStub(connection.channel)  # type: ignore[no-untyped-call]
    state = connection.ask(rpcs.GetMirrorState, search.GetMirrorStateRequest())
    reach = None
    if state.HasField("lowest"):
        lowest, highest = as_dataclass(Gaze, state.lowest), as_dataclass(Gaze, state.highest)
        reach = GazeRange(lowest=lowest, highest=highest)
    gaze = as_dataclass(Gaze, state.gaze) if state.HasField("gaze") else None
    return MirrorState(gaze=gaze, reach=reach, holder=state.holder, lease_s=state.lease_s)
