"""The encoder works for those who look, once for all of them, and never for nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgeperc.packet import Events, Frame, Stamp
from edgeperc.result import LabelMap, ModelRef
from edgeperc.sinks.web_encoder import Encoder, Key
from edgeperc.sinks.web_wire import unpack

FRAME: Key = ("frame", "wide", "")
EVENTS: Key = ("events", "dvs", "")


def frame(seq: int) -> Frame:
    stamp = Stamp(source="wide", seq=seq, start_ns=seq, end_ns=seq + 1)
    return Frame(stamp=stamp, image=np.zeros((4, 6), np.uint8))


def events(seq: int) -> Events:
    stamp = Stamp(source="dvs", seq=seq, start_ns=seq * 10**6, end_ns=(seq + 1) * 10**6)
    one = np.zeros(1, np.uint16)
    t = np.array([seq * 1000], np.int64)
    return Events(stamp=stamp, t=t, x=one, y=one, p=one == 0, width_px=6, height_px=4)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.005)
    return True


class Sent:
    def __init__(self) -> None:
        self.messages: list[tuple[Key, dict[str, Any]]] = []
        self.hold = threading.Event()
        self.hold.set()

    def send(self, key: Key, message: bytes) -> None:
        self.hold.wait(20)
        self.messages.append((key, unpack(message)[0]))


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def encoder(sent: Sent) -> Iterator[Encoder]:
    encoder = Encoder(send=sent.send, search=None, max_width_px=100, window_ms=5.0)
    yield encoder
    encoder.close()


def test_nobody_looks_and_nothing_is_encoded(encoder: Encoder, sent: Sent) -> None:
    for seq in range(50):
        encoder.take(frame(seq))
        encoder.take(events(seq))
    time.sleep(0.2)
    assert encoder.encoded == 0
    assert encoder.streams == [EVENTS, FRAME]


def test_what_is_there_comes_at_once_and_then_only_what_is_wanted(
    encoder: Encoder, sent: Sent
) -> None:
    encoder.take(frame(1))
    model = ModelRef(name="m")
    labels = np.zeros((4, 6), np.uint8)
    encoder.write(LabelMap(stamp=frame(1).stamp, labels=labels, classes=("a",), model=model))
    encoder.want({FRAME: 1000.0})
    assert eventually(lambda: len(sent.messages) == 1)
    encoder.want({})
    encoder.take(frame(2))
    encoder.want({("labels", "wide", "m"): 1000.0})
    assert eventually(lambda: len(sent.messages) == 2)
    assert [(key[0], header["seq"]) for key, header in sent.messages] == [
        ("frame", 1),
        ("labels", 1),
    ]


def test_a_slow_receiver_gets_the_newest_and_no_thread_waits(encoder: Encoder, sent: Sent) -> None:
    sent.hold.clear()
    encoder.want({FRAME: 1000.0})
    encoder.take(frame(0))
    assert eventually(lambda: encoder.encoded == 1)
    for seq in range(1, 100):
        encoder.take(frame(seq))  # would hang here if it waited
    sent.hold.set()
    assert eventually(lambda: len(sent.messages) == 2)
    assert [header["seq"] for _, header in sent.messages] == [0, 99]


def test_a_stream_keeps_its_rate(encoder: Encoder, sent: Sent) -> None:
    encoder.want({FRAME: 0.01})
    encoder.take(frame(0))
    assert eventually(lambda: len(sent.messages) == 1)
    encoder.take(frame(1))
    time.sleep(0.2)
    assert len(sent.messages) == 1


def test_events_of_the_window_are_drawn_together(encoder: Encoder, sent: Sent) -> None:
    encoder.take(events(0))
    sent.hold.clear()
    encoder.want({EVENTS: 1000.0})
    assert eventually(lambda: encoder.encoded == 1)
    for seq in range(1, 20):
        encoder.take(events(seq))
    sent.hold.set()
    assert eventually(lambda: len(sent.messages) == 2)
    assert sent.messages[1][1]["count"] == 5


def test_what_cannot_be_encoded_is_said_once_and_the_rest_goes_on(
    encoder: Encoder, sent: Sent, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> bytes:
        raise ValueError("a bad picture")

    monkeypatch.setattr("edgeperc.sinks.web_encoder.events_message", broken)
    encoder.want({EVENTS: 1000.0, FRAME: 1000.0})
    for seq in range(5):
        encoder.take(events(seq))
        encoder.take(frame(seq))
    assert eventually(lambda: any(header["seq"] == 4 for _, header in sent.messages))
    assert caplog.text.count("a bad picture") == 1
