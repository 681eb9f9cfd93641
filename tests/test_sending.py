import threading
import time

import pytest

from edgeperc.errors import DeviceError
from edgeperc.sinks.sending import Sending


def test_all_is_sent_before_it_ends():
    got = []
    sending = Sending(got.append, name="t")
    sending.start()
    for number in range(5):
        sending.put("a", number)
    assert sending.close()
    assert (got, sending.sent, sending.lost) == ([0, 1, 2, 3, 4], 5, 0)


def test_slow_receiver_loses_the_oldest_of_a_stream_and_they_are_counted():
    got, gate = [], threading.Event()

    def send(item):
        gate.wait(20)
        got.append(item)

    sending = Sending(send, name="t", depth=2)
    sending.start()
    sending.put("fast", 0)
    deadline_s = time.monotonic() + 20
    while sending._waiting and time.monotonic() < deadline_s:
        time.sleep(0.01)  # the first one is being sent
    for number in range(1, 6):
        sending.put("fast", number)
    sending.put("slow", "s")
    gate.set()
    assert sending.close(20)
    assert got == [0, 4, "s", 5]
    assert sending.lost == 3


def test_what_the_wire_broke_of_reaches_the_one_who_puts():
    broke = threading.Event()

    def send(_):
        broke.set()
        raise DeviceError("cable")

    sending = Sending(send, name="t")
    sending.start()
    sending.put("a", 1)
    assert broke.wait(20)
    sending.close(20)
    with pytest.raises(DeviceError, match="cable"):
        sending.put("a", 2)


def test_tick_comes_again_though_nothing_is_put():
    ticks, enough = [], threading.Event()

    def tick():
        ticks.append(1)
        if len(ticks) == 3:
            enough.set()

    sending = Sending(print, name="t", tick=tick, each_s=0.01)
    sending.start()
    assert enough.wait(20)
    sending.close()


def test_closed_takes_nothing_and_may_be_closed_again():
    got = []
    sending = Sending(got.append, name="t")
    assert sending.close()  # never started
    sending.put("a", 1)
    assert sending.close()
    assert got == []
