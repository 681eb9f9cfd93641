"""The swinging mirror in closed form, against a fine numerical integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeperc.drivers.galvo.plant import REMEMBERED, Plant, PlantAxis, SecondOrder
from edgeperc.packet import Gaze

STEP_US = 2
Commands = list[tuple[int, float]]


def integrated(
    commands: Commands, response: SecondOrder, *, delay_us: int, slew_per_s: float, until_us: int
) -> list[float]:
    """Position every 100 µs by Runge-Kutta in steps of 2 µs. commands: times in µs, targets."""
    wn = 2 * math.pi * response.natural_hz
    target = reference = position = speed = 0.0
    pending = [(time_us + delay_us, to) for time_us, to in commands]
    dt = STEP_US * 1e-6
    found = []

    def slope(x: float, v: float, r: float) -> tuple[float, float]:
        return v, wn**2 * (r - x) - 2 * response.damping * wn * v

    for time_us in range(0, until_us + 1, STEP_US):
        while pending and pending[0][0] <= time_us:
            target = pending.pop(0)[1]
        if time_us % 100 == 0:
            found.append(position)
        moved = min(max(target - reference, -slew_per_s * dt), slew_per_s * dt)
        now, mid, end = (
            (target, target, target)
            if math.isinf(slew_per_s)
            else (reference, reference + moved / 2, reference + moved)
        )
        reference = end
        a = slope(position, speed, now)
        b = slope(position + a[0] * dt / 2, speed + a[1] * dt / 2, mid)
        c = slope(position + b[0] * dt / 2, speed + b[1] * dt / 2, mid)
        d = slope(position + c[0] * dt, speed + c[1] * dt, end)
        position += dt / 6 * (a[0] + 2 * b[0] + 2 * c[0] + d[0])
        speed += dt / 6 * (a[1] + 2 * b[1] + 2 * c[1] + d[1])
    return found


@pytest.mark.parametrize("slew_per_s", [math.inf, 300.0])
@pytest.mark.parametrize("response", [SecondOrder(), SecondOrder(900.0, 0.3)])
def test_it_moves_as_the_differential_equation_says(
    response: SecondOrder, slew_per_s: float
) -> None:
    commands = [(200, 1.0), (1300, -0.5), (1340, 0.7), (4000, 0.7), (9000, 0.0)]
    axis = PlantAxis(
        response, delay_us=150.0, slew_per_s=None if math.isinf(slew_per_s) else slew_per_s
    )
    for time_us, target in commands:
        axis.command(target, time_us * 1000)
    expected = integrated(commands, response, delay_us=150, slew_per_s=slew_per_s, until_us=14_000)
    found = [axis.position(time_us * 1000) for time_us in range(0, 14_001, 100)]
    assert max(expected) > 0.6
    np.testing.assert_allclose(found, expected, atol=2e-3 if slew_per_s < math.inf else 1e-6)


def test_the_published_settle_times() -> None:
    assert SecondOrder().settle_s(0.5, 0.5e-3) == pytest.approx(4.44e-3, abs=5e-6)
    assert SecondOrder(900.0).settle_s(0.5, 0.5e-3) == pytest.approx(1.73e-3, abs=5e-6)
    assert SecondOrder().settle_s(0.5, 0.6) == 0


@given(
    targets=st.lists(st.floats(-1, 1), min_size=1, max_size=5),
    gaps_us=st.lists(st.integers(0, 5000), min_size=5, max_size=5),
    damping=st.floats(0.2, 0.95),
)
def test_still_means_near_the_target_for_good_and_hardly_later(
    targets: list[float], gaps_us: list[int], damping: float
) -> None:
    response = SecondOrder(350.0, damping)
    axis = PlantAxis(response)
    time_ns = 0
    for target, gap_us in zip(targets, gaps_us, strict=False):
        time_ns += gap_us * 1000
        axis.command(target, time_ns)
    tolerance = 1e-3
    still_ns = axis.still_ns(tolerance)
    for later_ns in range(still_ns, still_ns + 20_000_000, 97_000):
        assert abs(axis.position(later_ns) - targets[-1]) <= tolerance * (1 + 1e-9)
    if still_ns > time_ns + 160_000:  # the envelope is touched, or nearly, within half a swing
        half_ns = math.ceil(math.pi / response.swing * 1e9)
        before = [
            abs(axis.position(max(still_ns - half_ns * k // 50, time_ns + 150_000)) - targets[-1])
            for k in range(51)
        ]
        assert max(before) >= 0.2 * tolerance


def test_a_command_starts_from_the_present_position_and_speed() -> None:
    axis = PlantAxis(SecondOrder(), delay_us=150.0)
    axis.command(1.0, 0)
    position, speed = axis.position(800_000), axis.speed(800_000)
    axis.command(-1.0, 650_000)
    assert axis.position(800_000) == pytest.approx(position, abs=1e-12)
    assert axis.speed(800_000) == pytest.approx(speed, rel=1e-9)
    assert speed > 100
    assert axis.position(799_999) == pytest.approx(position, abs=1e-5)  # the past stays


def test_the_speed_is_the_slope_of_the_position() -> None:
    axis = PlantAxis(SecondOrder(), slew_per_s=200.0)
    axis.command(1.0, 0)
    for time_ns in range(200_000, 9_000_000, 310_000):
        slope = (axis.position(time_ns + 1000) - axis.position(time_ns - 1000)) / 2e-6
        assert axis.speed(time_ns) == pytest.approx(slope, abs=0.2)


def test_a_slew_cut_short_turns_from_where_it_is() -> None:
    axis = PlantAxis(SecondOrder(), delay_us=0.0, slew_per_s=100.0)
    axis.command(1.0, 0)  # 10 ms away
    axis.command(0.0, 5_000_000)
    highest = max(axis.position(time_ns) for time_ns in range(0, 20_000_000, 50_000))
    assert 0.45 < highest < 0.55
    assert axis.position(30_000_000) == pytest.approx(0.0, abs=1e-6)


def test_many_commands_leave_it_small_and_right() -> None:
    axis = PlantAxis(SecondOrder(), at=0.3)
    for k in range(3 * REMEMBERED):
        axis.command(0.1 * (k % 2), k * 1000)
    assert len(axis._stretches) == REMEMBERED
    assert axis.position(10**12) == pytest.approx(0.1)


def test_both_axes_move_and_are_still_when_both_are() -> None:
    plant = Plant(SecondOrder(), at=Gaze(pan_rad=0.1, tilt_rad=0.2))
    assert plant.position(-5) == Gaze(pan_rad=0.1, tilt_rad=0.2)
    plant.command(Gaze(pan_rad=0.1, tilt_rad=-0.3), 0)
    still_ns = plant.still_ns(1e-4)
    assert still_ns == pytest.approx(150_000 + SecondOrder().settle_s(0.5, 1e-4) * 1e9, abs=2)
    assert plant.position(still_ns).tilt_rad == pytest.approx(-0.3, abs=1e-4)
    assert plant.position(still_ns).pan_rad == pytest.approx(0.1, abs=1e-12)


@pytest.mark.parametrize("bad", [(0.0, 0.75), (math.inf, 0.75), (350.0, 0.0), (350.0, 1.0)])
def test_what_does_not_swing_is_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SecondOrder(*bad)
