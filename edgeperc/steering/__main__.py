"""The child process of a search: `python -m edgeperc.steering FD`, started by steering.process."""

from __future__ import annotations

import gc
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from edgeperc.clock import ReplayClock
from edgeperc.errors import EdgepercError
from edgeperc.packet import Frame
from edgeperc.result import Result
from edgeperc.steering.build import Parts, build
from edgeperc.steering.channel import Channel
from edgeperc.steering.process import Status
from edgeperc.supervise.feed import Feed
from edgeperc.supervise.link import Link
from edgeperc.supervise.preparing import announcing

_STATUS_EVERY_S = 0.5
_PAUSE_S = 0.05
_GRACE_S = 2.0
"""How long it has to close mirror and camera once the daemon is gone."""


class Child:
    """Takes hints from the channel, once a slot, and says now and then how it goes.

    pictures: takes what the camera sees, while that is wanted.
    """

    def __init__(self, channel: Channel, pictures: Feed) -> None:
        self._channel = channel
        self._pictures = pictures
        self._is_shown = False
        self._clock = ReplayClock()
        self._parts: Parts | None = None
        self._next_status_s = 0.0
        self._unread: list[tuple[str, Any]] = []

    def main(self) -> None:
        """Get ready, wait for the start, run, say farewell."""
        plan = self._await("plan")
        clock = self._clock
        priority = take_priority(plan.app.search.priority)  # the network's threads inherit it
        try:
            with announcing(plan.model(plan.app.search.gaze).card, self._say):
                self._parts = build(plan, clock=clock, hints=self, emit=self._emit, see=self._see)
            self._parts.loop.open()
        except EdgepercError as error:  # a device that is away is none, a wrong setting is
            self._say("failed", (type(error).__name__, str(error), error.hint))
            return
        self._parts.note = priority
        self._say_status()
        anchor, self._parts.loop.order = self._await("go")
        clock.anchor(*anchor)
        gc.collect()
        gc.freeze()  # what is there now stays; a collection over all of it would cost a slot
        self._parts.loop.run()
        self._say_status()
        self._say("ended", tuple(self._parts.loop.met))

    def take(self, now_ns: int) -> Iterator[Result]:
        """The hints that have come; ends the loop when the daemon says so or is gone."""
        try:
            messages = [*self._unread, *self._channel.receive()]
        except EOFError:
            messages = [("stop", None)]
        self._unread = []
        for kind, content in messages:
            if kind == "stop":
                self._clock.stop()
            elif kind == "show":
                self._is_shown = content
            elif kind == "steer" and self._parts:
                self._parts.loop.order = content
            elif kind == "hint":
                yield content
        if time.monotonic() >= self._next_status_s + _STATUS_EVERY_S:  # no look for long
            self._say_status()

    def _emit(self, result: Result) -> None:
        self._say("result", result)
        if time.monotonic() >= self._next_status_s:  # now the slot's work is done
            self._say_status()

    def _see(self, frame: Frame) -> None:
        if self._is_shown:
            self._pictures.put(frame)

    def _say_status(self) -> None:
        assert self._parts
        self._next_status_s = time.monotonic() + _STATUS_EVERY_S
        sensors, pipeline = self._parts.status()
        refs, reach = self._parts.refs, self._parts.loop.reach
        self._say("status", Status(sensors=sensors, pipeline=pipeline, refs=refs, reach=reach))

    def _say(self, kind: str, content: object) -> None:
        try:
            last = kind in ("failed", "ended")
            self._channel.send((kind, content), must_arrive=last)
            while last and self._channel.waiting:
                time.sleep(_PAUSE_S)
                self._channel.flush()
        except BrokenPipeError:
            self._clock.stop()

    def _await(self, wanted: str) -> Any:
        """Wait for a message of one kind; ends the process if the daemon is gone.

        What has come behind it is kept for `take`.
        """
        while True:
            while self._unread:
                kind, content = self._unread.pop(0)
                if kind == wanted:
                    return content
                if kind == "stop":
                    sys.exit(0)
            try:
                self._unread += self._channel.receive()
            except EOFError:
                sys.exit(0)
            if not self._unread:
                time.sleep(_PAUSE_S)


def take_priority(wanted: int) -> str:
    """Ask for real-time priority, else for a nice value; say what was got. 0 asks nothing."""
    if wanted == 0:
        return "priority: normal"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(wanted))
    except (AttributeError, OSError):
        pass
    else:
        return f"priority: SCHED_FIFO {wanted}"
    try:
        return f"priority: nice {os.nice(-10)}; real time is not permitted"
    except OSError:
        return "priority: normal; neither real time nor a better nice value is permitted"


def _guard(fd: int) -> None:
    """End with the daemon, also while a network is loaded or its engine built."""
    poll = select.poll()
    poll.register(fd, 0)  # hanging up is told unasked
    poll.poll()
    time.sleep(_GRACE_S)
    os._exit(1)


def main() -> None:
    """Serve the daemon at the other end of the inherited socket."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    channel, pictures = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:])
    threading.Thread(target=_guard, args=(pictures.fileno(),), name="guard", daemon=True).start()
    feed = Feed()
    feed.add(Link(pictures))
    Child(Channel(channel), feed).main()


if __name__ == "__main__":
    main()
