from edgeperc.packet import Stamp
from edgeperc.ros.wall import Wall

S = 10**9
DAY = 86_400 * S
NOW = 1_700_000_000 * S


def wall(monotonic_s=50_000, recorded=None):
    return Wall(recorded, wall_ns=lambda: NOW, monotonic_ns=lambda: monotonic_s * S)


def at(time_ns, source="wide"):
    return Stamp(source=source, seq=0, start_ns=time_ns - 1, end_ns=time_ns)


def test_live_cameras_go_by_the_host():
    assert wall().offset_ns(at(49_999 * S)) == NOW - 50_000 * S


def test_recordings_in_unix_time_keep_it():
    assert wall().offset_ns(at(1_400_000_000 * S)) == 0


def test_time_that_begins_at_nought_begins_now():
    clocks = wall()
    assert clocks.offset_ns(at(2 * S)) == NOW - 2 * S


def test_offset_stays_though_the_wall_clock_is_set():
    wall_ns = [NOW]
    clocks = Wall(wall_ns=lambda: wall_ns[0], monotonic_ns=lambda: 50_000 * S)
    first = clocks.offset_ns(at(0))
    wall_ns[0] += 3600 * S
    assert clocks.offset_ns(at(30 * S)) == first == NOW


def test_clock_is_known_again_after_days_of_running():
    clocks = wall()
    first = clocks.offset_ns(at(0))
    for half_days in range(1, 10):
        assert clocks.offset_ns(at(half_days * DAY // 2)) == first


def test_a_recording_of_ours_keeps_the_offset_that_it_was_made_with():
    clocks = wall(recorded={"wide": (3 * S, 77)})
    assert clocks.offset_ns(at(49_999 * S)) == 77
    assert clocks.offset_ns(at(49_999 * S, "live")) == NOW - 50_000 * S
    assert clocks.offset_ns(at(9 * S, "simulated")) == 77
    clocks.recorded = {}
    assert clocks.offset_ns(at(49_999 * S)) == NOW - 50_000 * S


def test_two_sensors_of_one_clock_have_one_offset_and_the_host_another():
    wall_ns = [NOW]
    clocks = Wall(wall_ns=lambda: wall_ns[0], monotonic_ns=lambda: 50_000 * S)
    first = clocks.offset_ns(at(2 * S, "wide"))
    wall_ns[0] += 1000
    assert first == clocks.offset_ns(at(3 * S, "dvs")) == NOW - 2 * S
    assert clocks.offset_ns(at(50_001 * S, "live")) == NOW - 50_000 * S
    assert clocks.offset_ns(at(4 * S, "wide")) == first


def test_live_cameras_go_by_the_wall_clock_that_was_set(caplog):
    wall_s = [NOW // S]
    clocks = Wall(wall_ns=lambda: wall_s[0] * S, monotonic_ns=lambda: 50_000 * S)
    assert clocks.offset_ns(at(50_000 * S, "live")) == NOW - 50_000 * S
    twin = clocks.offset_ns(at(7 * S, "twin"))
    wall_s[0] += 86_400 * 365  # the first NTP answer on a board without a battery
    assert clocks.offset_ns(at(50_000 * S, "live")) == wall_s[0] * S - 50_000 * S
    assert clocks.offset_ns(at(8 * S, "twin")) == twin
    assert clocks.host_ns == wall_s[0] * S - 50_000 * S
    assert [record.getMessage() for record in caplog.records] == [
        "the wall clock was set by +31536000.0 s; stamps go by it from now on"
    ]
