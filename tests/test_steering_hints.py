from __future__ import annotations

import threading
import time

import numpy as np

from edgeperc.packet import Stamp
from edgeperc.result import LabelMap, ModelRef
from edgeperc.steering.hints import LEAD_NS, TimedHints

MS = 1_000_000


def said(end_ms: int, source: str = "wide") -> LabelMap:
    stamp = Stamp(source=source, seq=0, start_ns=0, end_ns=end_ms * MS)
    labels = np.zeros((1, 1), np.uint8)
    return LabelMap(stamp=stamp, labels=labels, classes=(), model=ModelRef(name="m"))


def ends_ms(hints: TimedHints, now_ms: int) -> list[int]:
    return [result.stamp.end_ns // MS for result in hints.take(now_ms * MS)]


def test_a_hint_arrives_its_delay_after_its_last_photon_and_once() -> None:
    hints = TimedHints(["wide"], delay_ns=50 * MS)
    for end_ms in (100, 200, 300):
        hints.put("wide", said(end_ms))
    assert ends_ms(hints, 149) == []
    assert ends_ms(hints, 150) == [100]
    assert ends_ms(hints, 151) == []
    assert ends_ms(hints, 350) == [200, 300]


def test_hints_of_several_pipelines_come_in_order_of_time() -> None:
    hints = TimedHints(["a", "b"], delay_ns=0)
    hints.put("b", said(100))
    hints.put("b", said(300))
    hints.put("a", said(200))
    hints.ended("a")
    hints.ended("b")
    assert ends_ms(hints, 1_000) == [100, 200, 300]


def test_the_loop_waits_for_a_pipeline_that_is_behind() -> None:
    hints = TimedHints(["fast", "slow"], delay_ns=0)
    hints.put("fast", said(500))
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.extend(ends_ms(hints, 200)))
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    hints.put("slow", said(150))
    time.sleep(0.05)
    assert thread.is_alive()  # it may still say something about 160
    hints.passed("slow", 210 * MS)
    thread.join(30)
    assert taken == [150]


def test_a_pipeline_that_is_far_ahead_waits_for_the_loop() -> None:
    hints = TimedHints(["wide"], delay_ns=0)
    far_ms = LEAD_NS // MS + 100
    thread = threading.Thread(target=hints.put, args=("wide", said(far_ms)))
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    hints.take(100 * MS)
    thread.join(30)
    assert not thread.is_alive()


def test_stop_wakes_everybody() -> None:
    hints = TimedHints(["wide"], delay_ns=0)
    waiting = [
        threading.Thread(target=hints.take, args=(MS,)),
        threading.Thread(target=hints.put, args=("wide", said(10**7))),
    ]
    waiting[0].start()
    time.sleep(0.02)
    hints.stop()
    waiting[1].start()
    for thread in waiting:
        thread.join(30)
        assert not thread.is_alive()
