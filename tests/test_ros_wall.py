from edgeperc.ros.wall import Wall

S = 10**9
DAY = 86_400 * S
NOW = 1_700_000_000 * S


def wall(monotonic_s=50_000):
    return Wall(wall_ns=lambda: NOW, monotonic_ns=lambda: monotonic_s * S)


def test_live_cameras_go_by_the_host():
    assert wall().offset_ns(49_999 * S) == NOW - 50_000 * S


def test_recordings_in_unix_time_keep_it():
    assert wall().offset_ns(1_400_000_000 * S) == 0


def test_time_that_begins_at_nought_begins_now():
    clocks = wall()
    assert clocks.offset_ns(2 * S) == NOW - 2 * S


def test_offset_stays_though_the_wall_clock_is_set():
    times = [NOW, NOW, NOW + 3600 * S]
    clocks = Wall(wall_ns=lambda: times.pop(0), monotonic_ns=lambda: 50_000 * S)
    first = clocks.offset_ns(0)
    assert clocks.offset_ns(30 * S) == first == NOW


def test_clock_is_known_again_after_days_of_running():
    clocks = wall()
    first = clocks.offset_ns(0)
    for half_days in range(1, 10):
        assert clocks.offset_ns(half_days * DAY // 2) == first
