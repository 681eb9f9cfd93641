"""A client's session: point at things in a daemon's live video, and read their masks.

    with edgeperc.client.connect().track("wide") as session:
        session.box(1, (738, 335, 773, 347))
        for instances in session:
            print(instances.stamp.end_ns, instances.ids, instances.boxes)

Objects have the numbers that the client gives them. Each request waits for its answer, which comes
with the next picture, and raises ConfigError where the daemon refuses it: the session goes on.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from types import TracebackType
from typing import Any, TypeVar

import grpc
from numpy.typing import ArrayLike

from edgeperc import masks
from edgeperc.errors import ConfigError, DeviceError, EdgepercError
from edgeperc.prompting.prompts import Prompt
from edgeperc.proto.codec import as_dataclass, from_message, mask_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import tracking_pb2 as tracking
from edgeperc.result import Instances, ModelRef

M = TypeVar("M", pb.ObjectPrompt, tracking.AddPrompt)
CLOSE_S = 1.0
SIGNS_OF_LIFE = 3  # in a ttl_s


class TrackingSession:
    """Made by `Client.track`, closed by `with` or `close`; an iterator of this session's Instances.

    source, model: what is looked at, and by what. picture_px: width and height of its pictures, in
    which prompts are given; (0, 0) until a first one came. max_objects, max_points,
    max_message_bytes: what the daemon allows. lost: results that did not come, by this client's
    slowness or by max_rate_hz.

    Reading is a sign of life: after ttl_s without any the daemon ends the session. May be used from
    several threads.
    """

    def __init__(
        self,
        begin: Callable[[Iterator[tracking.SessionRequest]], Any],
        wanted: tracking.OpenSession,
        *,
        readable: Callable[[Any], EdgepercError],
        timeout_s: float,
    ) -> None:
        self.lost = 0
        self._readable, self._timeout_s = readable, timeout_s
        self._ids = itertools.count(1)
        self._requests: queue.SimpleQueue[tracking.SessionRequest | None] = queue.SimpleQueue()
        self._asked: dict[int, Future[tracking.RequestAccepted]] = {}
        self._results: deque[pb.Result] = deque()
        self._is_queue = wanted.delivery.mode == pb.DeliveryPolicy.MODE_QUEUE
        self._depth = max(1, wanted.delivery.depth) if self._is_queue else 1
        self._changed = threading.Condition()
        self._opened: tracking.SessionOpened | None = None
        self._errors: deque[EdgepercError] = deque()
        self._has_ended = False
        self._send(tracking.SessionRequest(open=wanted))
        self._call = begin(iter(self._requests.get, None))
        threading.Thread(target=self._read, name="edgeperc session", daemon=True).start()
        opened = self._wait_for_opening()
        self.source, self.model = opened.source, as_dataclass(ModelRef, opened.model)
        self.picture_px = (opened.width, opened.height)
        self.ttl_s = opened.ttl_s
        self.max_objects, self.max_points = opened.max_objects, opened.max_points
        self.max_message_bytes = opened.max_message_bytes

    def points(self, number: int, points: ArrayLike, labels: ArrayLike | None = None) -> int:
        """Say what object `number` is, by one x, y or several; labels: 1 on it, 0 beside it.

        Returns, as all that prompt, the object's id in the results of `Client.subscribe`.
        """
        return self.prompt(number, Prompt(points=points, labels=labels))  # type: ignore[arg-type]

    def box(self, number: int, box: ArrayLike) -> int:
        """Say what object `number` is, by a box around it: left, upper, right, lower edge."""
        return self.prompt(number, Prompt(box=box))  # type: ignore[arg-type]

    def mask(self, number: int, mask: ArrayLike) -> int:
        """Say what object `number` is, by a mask (H, W) of the picture's size."""
        return self.prompt(number, Prompt(mask=mask))  # type: ignore[arg-type]

    def prompt(self, number: int, prompt: Prompt) -> int:
        """Say what object `number` is, or correct it; a new number begins an object.

        Raises DataError for a prompt that makes no sense anywhere, ConfigError where the daemon
        refuses it, DeviceError when no answer comes.
        """
        return self._ask(prompt=add_prompt(number, prompt)).instance_id

    def remove(self, number: int) -> None:
        """Follow object `number` no more. Raises as `prompt`."""
        self._ask(remove=tracking.RemoveObject(object_id=number))

    def reset(self) -> None:
        """Follow none of this session's objects any more; their numbers are free again."""
        self._ask(reset=tracking.ResetSession())

    def close(self) -> None:
        """End the session; its objects are removed. May be called twice, from any thread."""
        self._send(tracking.SessionRequest(close=tracking.CloseSession()))
        self._requests.put(None)
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended, CLOSE_S)
            self._results.clear()
        self._call.cancel()

    def __enter__(self) -> TrackingSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> TrackingSession:
        return self

    def __next__(self) -> Instances:
        """The newest that was not read yet; waits for it.

        Ends when the session was closed or the daemon stops. Raises DeviceError when the daemon
        went away or has lost this session's objects; after the latter it may be called again.
        """
        if time.monotonic() - self._sent_s > self.ttl_s / SIGNS_OF_LIFE:
            self._send(tracking.SessionRequest())
        with self._changed:
            while not (self._results or self._errors or self._has_ended):
                if not self._changed.wait(self.ttl_s / SIGNS_OF_LIFE):
                    self._send(tracking.SessionRequest())
            if self._errors:
                raise self._errors.popleft()
            if not self._results:
                raise StopIteration
            message = self._results.popleft()
            self.lost += message.dropped_before
        found = from_message(message)
        assert isinstance(found, Instances)
        self.picture_px = found.picture_px
        return found

    def _send(self, request: tracking.SessionRequest) -> None:
        self._sent_s = time.monotonic()
        self._requests.put(request)

    def _ask(self, **what: Any) -> tracking.RequestAccepted:
        """Send a request and wait for its answer."""
        request = tracking.SessionRequest(request_id=next(self._ids), **what)
        size, most = request.ByteSize(), self.max_message_bytes
        if size > most:
            raise ConfigError(f"a request of {size:,} bytes; the daemon takes {most:,}")
        answer: Future[tracking.RequestAccepted] = Future()
        with self._changed:
            if self._has_ended:
                raise DeviceError("the session is over", hint="open another one")
            self._asked[request.request_id] = answer
        self._send(request)
        try:
            return answer.result(self._timeout_s)
        except LateError:
            raise DeviceError(
                f"no answer within {self._timeout_s:g} s", hint="does the camera deliver pictures?"
            ) from None
        finally:
            self._asked.pop(request.request_id, None)

    def _wait_for_opening(self) -> tracking.SessionOpened:
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._has_ended, self._timeout_s)
            opened, errors = self._opened, self._errors
        if opened:
            return opened
        self._requests.put(None)
        self._call.cancel()
        raise errors[0] if errors else DeviceError(f"no answer within {self._timeout_s:g} s")

    def _read(self) -> None:
        """Take what the daemon says, to the end."""
        try:
            for response in self._call:
                with self._changed:
                    self._take(response)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE and self._opened:
                self._errors.append(DeviceError("the daemon went away"))
            elif error.code() != grpc.StatusCode.CANCELLED:  # by `close`
                self._errors.append(self._readable(error))
        self._requests.put(None)
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
            for answer in list(self._asked.values()):
                if not answer.done():
                    answer.set_exception(DeviceError("the session is over"))

    def _take(self, response: tracking.SessionResponse) -> None:
        kind = response.WhichOneof("response")
        if kind == "opened":
            self._opened = response.opened
        elif kind == "result":
            self._keep(response.result)
        elif kind == "accepted":
            if not self._is_queue:  # the next that is read is to show what was asked for
                self.lost += sum(1 + each.dropped_before for each in self._results)
                self._results.clear()
            if answer := self._asked.pop(response.accepted.request_id, None):
                answer.set_result(response.accepted)
        elif kind == "refused":
            refused = response.refused
            if answer := self._asked.pop(refused.request_id, None):
                answer.set_exception(ConfigError(refused.message, hint=refused.hint))
            elif not refused.request_id:
                self._errors.append(DeviceError(refused.message, hint=refused.hint))
        elif response.closed.reason == tracking.SessionClosed.REASON_EXPIRED:
            self._errors.append(
                DeviceError(f"the session was given up: nothing was read for {self.ttl_s:g} s")
            )

    def _keep(self, result: pb.Result) -> None:
        """Let a result wait; the oldest makes room."""
        if len(self._results) == self._depth:
            oldest = self._results.popleft()
            newer = self._results[0] if self._results else result
            newer.dropped_before += oldest.dropped_before + 1
        self._results.append(result)


def add_prompt(number: int, prompt: Prompt) -> tracking.AddPrompt:
    """A prompt for an object. Raises ConfigError for a number that is none."""
    if not 0 <= number < 1 << 32:
        raise ConfigError(f"object {number}: numbers are 0 to {(1 << 32) - 1}")
    return fill(tracking.AddPrompt(object_id=number), prompt)


def fill(message: M, prompt: Prompt) -> M:
    """Put a prompt into a message that has points, box and mask; returns the message."""
    assert prompt.labels is not None
    for (x, y), label in zip(prompt.points.tolist(), prompt.labels.tolist(), strict=True):
        message.points.add(x=x, y=y, background=not label)
    if prompt.box is not None:
        x_min, y_min, x_max, y_max = prompt.box.tolist()
        message.box.CopyFrom(pb.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max))
    if prompt.mask is not None:
        message.mask.CopyFrom(mask_message(masks.encode(prompt.mask)))
    return message
