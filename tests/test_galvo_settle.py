from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeperc.drivers.galvo.plant import SecondOrder
from edgeperc.drivers.galvo.settle import LEFT_OVER, SettleModel, SettleTime
from edgeperc.packet import Gaze

TIME = SettleTime(base_ms=1.0, ms_per_deg=0.1)
angles = st.floats(-1, 1)
gazes = st.builds(lambda pan, tilt: Gaze(pan_rad=pan, tilt_rad=tilt), angles, angles)
CENTRE = Gaze(pan_rad=0.0, tilt_rad=0.0)


def away(a: Gaze, b: Gaze) -> float:
    return max(abs(a.pan_rad - b.pan_rad), abs(a.tilt_rad - b.tilt_rad))


def test_the_axis_that_goes_further_counts() -> None:
    target = Gaze(pan_rad=math.radians(-3), tilt_rad=math.radians(10))
    assert TIME.of(CENTRE, target) == 2_000_000


@given(target=gazes)
def test_a_move_is_monotone_and_ends_exactly_on_the_target(target: Gaze) -> None:
    model = SettleModel(TIME, at=CENTRE)
    model.move(target, 5_000)
    end_ns = model.settled_ns()
    if target == CENTRE:
        assert end_ns == 0
        return
    times_ns = [5_000 + (end_ns - 5_000) * k // 40 for k in range(41)]
    left = [away(model.position(time_ns), target) for time_ns in times_ns]
    assert all(later <= earlier for earlier, later in itertools.pairwise(left))
    assert model.position(4_000) == model.position(5_000) == CENTRE
    assert model.position(end_ns) == model.position(end_ns + 10**9) == target
    assert left[-2] > 0 or left[0] < 1e-12
    assert left[20] == pytest.approx(left[0] * math.sqrt(LEFT_OVER), rel=0.1, abs=1e-9)


@given(targets=st.lists(gazes, min_size=2, max_size=6), gap_ns=st.integers(0, 4_000_000))
def test_a_move_begins_where_the_last_one_is(targets: list[Gaze], gap_ns: int) -> None:
    model = SettleModel(TIME, at=CENTRE)
    now_ns = 0
    for target in targets:
        now_ns += gap_ns
        there, just_before = model.position(now_ns), model.position(now_ns - 1)
        model.move(target, now_ns)
        assert away(model.position(now_ns), there) < 1e-12
        assert away(model.position(now_ns - 1), just_before) < 1e-12  # the past stays


def test_the_same_target_again_does_not_start_anew() -> None:
    model = SettleModel(TIME, at=CENTRE)
    target = Gaze(pan_rad=0.1, tilt_rad=0.0)
    model.move(target, 0)
    end_ns = model.settled_ns()
    model.move(target, end_ns - 1)
    assert model.settled_ns() == end_ns


@pytest.mark.parametrize(
    ("settle", "natural_hz"),
    [(SettleTime(4.0, 0.06), 350.0), (SettleTime(3.3, 0.024), 900.0)],
)
def test_the_drivers_defaults_bound_the_simulated_mirrors(
    settle: SettleTime, natural_hz: float
) -> None:
    for step_deg in (0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 60.0, 100.0):
        target = Gaze(pan_rad=math.radians(step_deg), tilt_rad=0.0)
        settled_s = 150e-6 + SecondOrder(natural_hz).settle_s(step_deg, 0.01)
        assert settle.of(CENTRE, target) * 1e-9 >= settled_s
