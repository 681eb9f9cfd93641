"""A mirror as a thing that swings: second order for each axis, in closed form.

The device simulators and the twin's mirror move by it, so a position is exact at any time and no
step size stands in the way.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from edgeperc.packet import Gaze

REMEMBERED = 512
"""Stretches of motion kept for questions about the past; a command makes one, or two with slew."""


@dataclass(frozen=True, slots=True)
class SecondOrder:
    """x'' = wn² (r - x) - 2 zeta wn x', underdamped: wn = 2 pi natural_hz, zeta = damping.

    Raises ValueError if natural_hz is not above 0, or damping not between 0 and 1.
    """

    natural_hz: float = 350.0
    damping: float = 0.75

    def __post_init__(self) -> None:
        if not (0 < self.natural_hz < math.inf and 0 < self.damping < 1):
            raise ValueError(f"{self}: natural_hz must be above 0, damping between 0 and 1")

    @property
    def decay(self) -> float:
        """How fast the envelope of a swing falls: zeta wn, 1/s."""
        return self.damping * 2 * math.pi * self.natural_hz

    @property
    def swing(self) -> float:
        """Angular frequency of the damped swing: wn sqrt(1 - zeta²), rad/s."""
        return 2 * math.pi * self.natural_hz * math.sqrt(1 - self.damping**2)

    def lag_s(self) -> float:
        """How far it trails behind a reference that moves evenly: 2 zeta / wn."""
        return 2 * self.damping / (2 * math.pi * self.natural_hz)

    def settle_s(self, step: float, tolerance: float) -> float:
        """Time from rest until a step stays within `tolerance` (of the envelope, so never less).

        -ln(tolerance / |step| * sqrt(1 - zeta²)) / (zeta wn); by default 4.44 ms to 0.1 %.
        """
        if abs(step) <= tolerance:
            return 0.0
        return -math.log(tolerance / abs(step) * math.sqrt(1 - self.damping**2)) / self.decay


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Motion since start_ns behind a reference that starts at `reference` and moves by `slope`/s.

    cosine, sine: amplitudes of the swing about the path that it would follow in the long run.
    """

    start_ns: int
    response: SecondOrder
    reference: float
    slope: float
    cosine: float
    sine: float

    @classmethod
    def begin(
        cls,
        start_ns: int,
        response: SecondOrder,
        state: tuple[float, float],
        reference: float,
        slope: float,
    ) -> _Stretch:
        position, speed = state
        cosine = position - reference + slope * response.lag_s()
        sine = (speed - slope + response.decay * cosine) / response.swing
        return cls(start_ns, response, reference, slope, cosine, sine)

    def state(self, time_ns: int) -> tuple[float, float]:
        """Position and speed at `time_ns`, not before the start."""
        response = self.response
        after_s = max(time_ns - self.start_ns, 0) * 1e-9
        decay, swing = response.decay, response.swing
        fall = math.exp(-decay * after_s)
        cos, sin = math.cos(swing * after_s), math.sin(swing * after_s)
        away = fall * (self.cosine * cos + self.sine * sin)
        drift = fall * (self.sine * cos - self.cosine * sin) * swing - decay * away
        path = self.reference + self.slope * (after_s - response.lag_s())
        return path + away, self.slope + drift

    def still_ns(self, tolerance: float) -> int:
        """Time from which it stays within `tolerance` of a reference that stands."""
        amplitude = math.hypot(self.cosine, self.sine)
        if amplitude <= tolerance:
            return self.start_ns
        return self.start_ns + math.ceil(
            math.log(amplitude / tolerance) / self.response.decay * 1e9
        )


class PlantAxis:
    """One axis: commands in, position out, at any time since the oldest stretch remembered.

    A command acts `delay_us` after it came, on the position and speed of that moment. With
    slew_per_s the reference runs to the target at that speed instead of jumping there; a damping
    below 1 lets the mirror itself be some percent faster for a moment. Times are int ns, not
    decreasing from command to command; positions have one unit, tolerances the same.
    """

    def __init__(
        self,
        response: SecondOrder,
        *,
        delay_us: float = 150.0,
        slew_per_s: float | None = None,
        at: float = 0.0,
    ) -> None:
        self._response = response
        self._delay_ns = round(delay_us * 1e3)
        self._slew = slew_per_s
        rest = _Stretch(-(1 << 62), response, at, 0.0, 0.0, 0.0)
        self._stretches: deque[_Stretch] = deque([rest], maxlen=REMEMBERED)

    def command(self, target: float, time_ns: int) -> None:
        """Go to `target`, asked for at `time_ns`; the present target again changes nothing."""
        if self._stretches[-1].reference == target and self._stretches[-1].slope == 0:
            return
        start_ns = time_ns + self._delay_ns
        now = self._at(start_ns)
        reference = now.reference + now.slope * (start_ns - now.start_ns) * 1e-9
        state = now.state(start_ns)
        while self._stretches[-1].start_ns >= start_ns and len(self._stretches) > 1:
            self._stretches.pop()  # the end of a slew that this command cuts short
        if self._slew is None or target == reference:
            self._begin(start_ns, state, target, 0.0)
            return
        slope = math.copysign(self._slew, target - reference)
        self._begin(start_ns, state, reference, slope)
        end_ns = start_ns + math.ceil((target - reference) / slope * 1e9)
        self._begin(end_ns, self._stretches[-1].state(end_ns), target, 0.0)

    def position(self, time_ns: int) -> float:
        """Where it is at `time_ns`."""
        return self._at(time_ns).state(time_ns)[0]

    def speed(self, time_ns: int) -> float:
        """How fast it moves at `time_ns`, per second."""
        return self._at(time_ns).state(time_ns)[1]

    def still_ns(self, tolerance: float) -> int:
        """Time from which it stays within `tolerance` of the last target."""
        return self._stretches[-1].still_ns(tolerance)

    def _begin(
        self, start_ns: int, state: tuple[float, float], reference: float, slope: float
    ) -> None:
        stretch = _Stretch.begin(start_ns, self._response, state, reference, slope)
        self._stretches.append(stretch)

    def _at(self, time_ns: int) -> _Stretch:
        for stretch in reversed(self._stretches):
            if stretch.start_ns <= time_ns:
                return stretch
        return self._stretches[0]


class Plant:
    """Both axes of a mirror; arguments as of `PlantAxis`, angles in rad."""

    def __init__(
        self,
        response: SecondOrder,
        *,
        delay_us: float = 150.0,
        slew_rad_per_s: float | None = None,
        at: Gaze,
    ) -> None:
        self._pan, self._tilt = (
            PlantAxis(response, delay_us=delay_us, slew_per_s=slew_rad_per_s, at=angle_rad)
            for angle_rad in (at.pan_rad, at.tilt_rad)
        )

    def command(self, target: Gaze, time_ns: int) -> None:
        """Go to `target`, asked for at `time_ns`."""
        self._pan.command(target.pan_rad, time_ns)
        self._tilt.command(target.tilt_rad, time_ns)

    def position(self, time_ns: int) -> Gaze:
        """Where it points at `time_ns`."""
        return Gaze(pan_rad=self._pan.position(time_ns), tilt_rad=self._tilt.position(time_ns))

    def still_ns(self, tolerance_rad: float) -> int:
        """Time from which both axes stay within `tolerance_rad` of the last target."""
        return max(self._pan.still_ns(tolerance_rad), self._tilt.still_ns(tolerance_rad))
