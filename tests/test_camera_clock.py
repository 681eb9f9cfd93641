"""Times of cameras on the host's clock, and their pictures' numbers."""

from __future__ import annotations

import numpy as np
import pytest

from edgeperc.drivers.camera_clock import CameraClock, PictureCount

MS, S = 10**6, 10**9


@pytest.mark.parametrize("drift", [0.0, 5e-5, -5e-5])
def test_exposures_stay_in_step_with_the_host_for_an_hour(drift: float) -> None:
    """The camera's crystal runs fast or slow, and pictures take 2 ms to us, often much longer."""
    random = np.random.default_rng(1)
    clock, late_ms, last_ns = CameraClock(), [], 0
    for true_ns in range(5 * S, 3605 * S, S // 5):
        way_ns = 2 * MS + round(random.exponential(3 * MS))
        camera_ns = round(true_ns * (1 + drift)) - 7 * S
        start_ns = clock.start_ns(camera_ns, true_ns + way_ns)
        assert last_ns <= start_ns <= true_ns + way_ns or start_ns == last_ns
        last_ns = start_ns
        late_ms.append((start_ns - true_ns) / MS)
    assert min(late_ms) >= 2 - 0.02  # none before its light came, but for the drift of a picture
    assert np.percentile(late_ms[50:], 99) < 3.5


def test_a_late_first_picture_puts_no_exposure_before_another() -> None:
    clock = CameraClock()
    first = clock.start_ns(1000 * MS, 5050 * MS)  # 50 ms on its way
    second = clock.start_ns(1008 * MS, 5009 * MS)
    third = clock.start_ns(1100 * MS, 5102 * MS)
    assert (first, second) == (5050 * MS, 5050 * MS)
    assert third == pytest.approx(5101 * MS, abs=0.1 * MS)


@pytest.mark.parametrize(
    ("ids", "seqs"),
    [
        ([0, 1, 2, 5], [0, 1, 2, 5]),
        ([7, 8, 10], [0, 1, 3]),
        ([65534, 65535, 1, 3], [0, 1, 2, 4]),
        ([70_000, 70_001, 70_005], [0, 1, 5]),
        ([0, 0, 0], [0, 1, 2]),
    ],
)
def test_what_the_camera_took_and_we_did_not_get_leaves_a_gap(
    ids: list[int], seqs: list[int]
) -> None:
    count = PictureCount()
    assert [count.seq(camera_id) for camera_id in ids] == seqs


def test_a_camera_that_does_not_count() -> None:
    count = PictureCount()
    never = (1 << 64) - 1
    assert [count.seq(never, missed=missed) for missed in (0, 0, 2, 0)] == [0, 1, 4, 5]
