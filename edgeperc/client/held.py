"""A client's session by its id alone: prompts by single calls, results by a stream to read.

    with edgeperc.client.connect().create_session("wide", ttl_s=60) as session:
        session.box(1, (738, 335, 773, 347))
        for instances in session.watch():
            print(instances.ids, instances.boxes)

It does the same as a TrackingSession, for programs that come and go: what a process has begun,
another one may go on with, by `Client.session(id)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal

import grpc
from numpy.typing import ArrayLike

from edgeperc.client.connection import Connection
from edgeperc.client.tracking import add_prompt
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.prompting.prompts import Prompt
from edgeperc.proto.codec import as_dataclass, from_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import tracking_pb2 as tracking
from edgeperc.proto.edgeperc.v1 import tracking_pb2_grpc as tracking_grpc
from edgeperc.result import Instances, ModelRef

MODES = {"latest": pb.DeliveryPolicy.MODE_LATEST, "queue": pb.DeliveryPolicy.MODE_QUEUE}
PICTURES_S = 15.0
"""For calls that the next pictures answer: longer than the daemon waits for these."""


class HeldSession:
    """Made by `Client.create_session`; ended by `with` or `delete`, or when its ttl_s is over.

    id: what it is asked for by. source, model, picture_px, ttl_s, max_objects, max_points: as of a
    TrackingSession; "" and 0 where it was found by its id.
    """

    def __init__(self, connection: Connection, opened: tracking.SessionOpened) -> None:
        self._connection = connection
        self._rpcs = tracking_grpc.TrackingServiceStub(connection.channel)  # type: ignore[no-untyped-call]
        self.id: str = opened.session_id
        self.source, self.model = opened.source, as_dataclass(ModelRef, opened.model)
        self.picture_px = (opened.width, opened.height)
        self.ttl_s = opened.ttl_s
        self.max_objects, self.max_points = opened.max_objects, opened.max_points

    def points(self, number: int, points: ArrayLike, labels: ArrayLike | None = None) -> int:
        """Say what object `number` is, by one x, y or several; labels: 1 on it, 0 beside it.

        Returns, as all that prompt, the object's id in the results of `Client.subscribe`.
        """
        return self.prompt({number: Prompt(points=points, labels=labels)})[number]  # type: ignore[arg-type]

    def box(self, number: int, box: ArrayLike) -> int:
        """Say what object `number` is, by a box around it: left, upper, right, lower edge."""
        return self.prompt({number: Prompt(box=box)})[number]  # type: ignore[arg-type]

    def mask(self, number: int, mask: ArrayLike) -> int:
        """Say what object `number` is, by a mask (H, W) of the picture's size."""
        return self.prompt({number: Prompt(mask=mask)})[number]  # type: ignore[arg-type]

    def prompt(self, prompts: Mapping[int, Prompt]) -> dict[int, int]:
        """Say what several objects are, or correct them, in one picture; their ids in results.

        Raises ConfigError where the daemon refuses one (the others were applied all the same),
        NotYetError where no picture comes, DeviceError if it cannot be reached.
        """
        request = tracking.AddPromptsRequest(
            session_id=self.id,
            prompts=[add_prompt(number, prompt) for number, prompt in prompts.items()],
        )
        answers = self._ask(self._rpcs.AddPrompts, request, timeout_s=PICTURES_S).answers
        accepted = _accepted(answers)
        return {each.object_id: each.instance_id for each in accepted}

    def remove(self, *numbers: int) -> None:
        """Follow these objects no more. Raises as `prompt`."""
        request = tracking.RemoveObjectsRequest(session_id=self.id, object_ids=numbers)
        _accepted(self._ask(self._rpcs.RemoveObjects, request, timeout_s=PICTURES_S).answers)

    def reset(self) -> None:
        """Follow none of this session's objects any more; their numbers are free again."""
        request = tracking.RemoveObjectsRequest(session_id=self.id, reset=True)
        _accepted(self._ask(self._rpcs.RemoveObjects, request, timeout_s=PICTURES_S).answers)

    def watch(
        self,
        *,
        mode: Literal["latest", "queue"] = "latest",
        depth: int = 8,
        max_rate_hz: float = 0.0,
    ) -> Iterator[Instances]:
        """This session's objects in each picture from now on; keeps it alive.

        mode, depth, max_rate_hz: as of `Client.subscribe`. Ends when the session is deleted or the
        daemon stops. Raises DeviceError where its objects are lost (watch again to go on), where
        somebody else watches it now, or when the daemon goes away; ConfigError where there is no
        such session.
        """
        delivery = pb.DeliveryPolicy(mode=MODES[mode], depth=depth, max_rate_hz=max_rate_hz)
        request = tracking.WatchRequest(session_id=self.id, delivery=delivery)
        call = self._connection.call(self._rpcs.Watch, request)
        try:
            for response in call:
                kind = response.WhichOneof("response")
                if kind == "result":
                    found = from_message(response.result)
                    assert isinstance(found, Instances)
                    yield found
                elif kind == "refused":
                    raise DeviceError(response.refused.message, hint=response.refused.hint)
                elif kind == "closed":
                    _check_end(response.closed.reason)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.ABORTED:
                raise DeviceError(error.details() or "somebody else watches") from error
            if error.code() != grpc.StatusCode.CANCELLED:  # the client was closed
                raise self._connection.readable(error) from error
        finally:
            call.cancel()

    def delete(self) -> None:
        """End it; its objects are removed. Raises ConfigError where there is no such session."""
        request = tracking.DeleteSessionRequest(session_id=self.id)
        self._ask(self._rpcs.DeleteSession, request)

    def __enter__(self) -> HeldSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(ConfigError, DeviceError):  # it is over, or the daemon is
            self.delete()

    def _ask(self, rpc: Any, request: Any, *, timeout_s: float = 0.0) -> Any:
        return self._connection.ask(rpc, request, timeout_s=timeout_s)


def _accepted(answers: Sequence[tracking.PromptAnswer]) -> list[tracking.RequestAccepted]:
    """All of them. Raises ConfigError for the first one that was refused."""
    for answer in answers:
        if answer.HasField("refused"):
            raise ConfigError(answer.refused.message, hint=answer.refused.hint)
    return [answer.accepted for answer in answers]


def _check_end(reason: tracking.SessionClosed.Reason) -> None:
    if reason == tracking.SessionClosed.REASON_EXPIRED:
        raise DeviceError("the session was given up: nothing was heard of it for its ttl_s")
