"""Where a mirror without read-back points: modelled from how long a move takes to settle."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeperc.packet import Gaze

LEFT_OVER = 1e-3
"""Share of a step that an exponential move still lacks when it is called settled."""


@dataclass(frozen=True, slots=True)
class SettleTime:
    """A move takes base_ms, and ms_per_deg for each degree of the axis that goes further.

    Inferred from the scan times of the published rig, which grow little with the way.
    """

    base_ms: float
    ms_per_deg: float

    def of(self, start: Gaze, target: Gaze) -> int:
        """Duration of a move in ns."""
        step_rad = max(
            abs(target.pan_rad - start.pan_rad),
            abs(target.tilt_rad - start.tilt_rad),
        )
        return math.ceil((self.base_ms + self.ms_per_deg * math.degrees(step_rad)) * 1e6)


@dataclass(frozen=True, slots=True)
class _Move:
    start: Gaze
    target: Gaze
    start_ns: int
    end_ns: int

    def position(self, time_ns: int) -> Gaze:
        share = self._share(time_ns)
        if share >= 1:
            return self.target
        return Gaze(
            pan_rad=_between(self.start.pan_rad, self.target.pan_rad, share),
            tilt_rad=_between(self.start.tilt_rad, self.target.tilt_rad, share),
        )

    def _share(self, time_ns: int) -> float:
        if time_ns >= self.end_ns:
            return 1.0
        if time_ns <= self.start_ns:
            return 0.0
        elapsed = (time_ns - self.start_ns) / (self.end_ns - self.start_ns)
        left_over: float = LEFT_OVER**elapsed
        return (1 - left_over) / (1 - LEFT_OVER)


class SettleModel:
    """The modelled position: each move runs monotonically from where the mirror was to its target.

    The approach is exponential (ours; a closed loop without overshoot) and ends exactly on the
    target when the settle time is over. A move that begins before the last one is over begins
    where that one is then. Only the last two moves are remembered.

    at: where the mirror lies. unsure_until_ns: until when it may still be on the way there.
    """

    def __init__(self, settle: SettleTime, *, at: Gaze, unsure_until_ns: int = 0) -> None:
        self._settle = settle
        self._last = _Move(at, at, unsure_until_ns, unsure_until_ns)
        self._before = self._last

    def move(self, target: Gaze, time_ns: int) -> None:
        """Begin to move at `time_ns`. Naming the present target again does not restart the move."""
        if target == self._last.target:
            return
        start = self.position(time_ns)
        end_ns = time_ns + self._settle.of(start, target)
        self._before, self._last = self._last, _Move(start, target, time_ns, end_ns)

    def position(self, time_ns: int) -> Gaze:
        """Where it points at `time_ns`, exact to the model since the last move but one."""
        move = self._last if time_ns >= self._last.start_ns else self._before
        return move.position(time_ns)

    def settled_ns(self) -> int:
        """When the last move is over."""
        return self._last.end_ns


def _between(start: float, target: float, share: float) -> float:
    return start + (target - start) * share
