from __future__ import annotations

from edgeperc.clock import ReplayClock, SteppedClock
from edgeperc.steering.slots import Slots


def clock() -> SteppedClock:
    return SteppedClock(ReplayClock(None))


def test_slots_begin_at_the_multiples_of_the_period() -> None:
    assert list(Slots(10, clock(), end_ns=45)) == [10, 20, 30, 40]


def test_the_first_slot_is_the_next_one() -> None:
    late = clock()
    late.wait_until(1_005)
    assert next(iter(Slots(10, late))) == 1_010


def test_a_loop_that_is_a_little_late_begins_at_once_and_says_so() -> None:
    time, begun = clock(), []
    slots = Slots(10, time, end_ns=50)
    for due_ns in slots:
        begun.append((due_ns, slots.late_ns))
        if due_ns == 20:
            time.wait_until(33)
    assert begun == [(10, 0), (20, 0), (30, 3), (40, 0), (50, 0)]
    assert slots.missed == 0


def test_slots_whose_end_has_passed_are_missed() -> None:
    time, begun = clock(), []
    slots = Slots(10, time, end_ns=90)
    for due_ns in slots:
        begun.append(due_ns)
        if due_ns == 20:
            time.wait_until(65)
    assert begun == [10, 20, 60, 70, 80, 90]
    assert slots.missed == 3


def test_a_stopped_clock_ends_the_slots() -> None:
    time = clock()
    begun = []
    for due_ns in Slots(10, time):
        begun.append(due_ns)
        if due_ns == 30:
            time.stop()
    assert begun == [10, 20, 30]
