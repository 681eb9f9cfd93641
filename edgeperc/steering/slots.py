"""Slots of equal length on a clock: when each begins, how late it was met, which were missed."""

from __future__ import annotations

from collections.abc import Iterator

from edgeperc.clock import Clock


class Slots:
    """Slots at the multiples of a period. Iterating waits for the next one and yields its time.

    A slot whose end has passed when the loop comes back is missed. late_ns: of the present slot,
    from its beginning until the loop had it. missed: so far. end_ns: no slot begins after it.
    """

    def __init__(self, period_ns: int, clock: Clock, *, end_ns: int | None = None) -> None:
        self.period_ns = period_ns
        self.late_ns = 0
        self.missed = 0
        self._clock = clock
        self._end_ns = end_ns

    def __iter__(self) -> Iterator[int]:
        """Beginnings in ns, until the clock is stopped or the end has come."""
        number = self._clock.now_ns() // self.period_ns + 1
        while self._end_ns is None or number * self.period_ns <= self._end_ns:
            due_ns = number * self.period_ns
            if not self._clock.wait_until(due_ns):
                return
            self.late_ns = max(0, self._clock.now_ns() - due_ns)
            yield due_ns
            following = max(number + 1, self._clock.now_ns() // self.period_ns)
            self.missed += following - number - 1
            number = following
