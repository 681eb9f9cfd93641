"""The mirrors on a serial port: their bytes, and everything that goes wrong on the wire."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serial

from edgeperc import plugin
from edgeperc.drivers.galvo import link as link_module
from edgeperc.drivers.galvo.link import SerialLink, shown
from edgeperc.drivers.galvo.mirrorcle import mirrorcle
from edgeperc.drivers.galvo.optotune import SimpleMode, optotune
from edgeperc.drivers.galvo.serial_mirror import SerialMirror
from edgeperc.drivers.galvo.sigma import sigma
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Gaze
from edgeperc.simulate.devices import MirrorcleDevice, OptotuneDevice, SigmaDevice
from edgeperc.simulate.mirror import MirrorSimulator

MTI = {"full_scale_deg": 10.0, "bias_v": 80.0, "difference_v": 130.5, "filter_hz": 400.0}
SHORT_MS = 250.0
"""A timeout that a test waits for; a healthy simulator answers within it on a busy machine, too."""

MAKE: dict[str, Callable[..., SerialMirror]] = {
    "optotune": optotune,
    "sigma": sigma,
    "mirrorcle": lambda **keys: mirrorcle(**{**MTI, **keys}),
}
GREETING = {"optotune": 4, "sigma": 5, "mirrorcle": 8}
"""Commands until a mirror is ready, the first position among them."""

answering = pytest.mark.parametrize("kind", ["optotune", "mirrorcle"])
every = pytest.mark.parametrize("kind", MAKE)


@pytest.fixture
def simulator(kind: Any, tmp_path: Path) -> Iterator[MirrorSimulator]:
    with MirrorSimulator(kind, wire_time=False, link=tmp_path / "mirror") as found:
        yield found


@pytest.fixture
def make(simulator: MirrorSimulator, tmp_path: Path) -> Callable[..., SerialMirror]:
    def construct(timeout_ms: float = SHORT_MS, **keys: Any) -> SerialMirror:
        port = str(tmp_path / "mirror")
        return MAKE[simulator.kind](port=port, timeout_ms=timeout_ms, **keys)

    return construct


def at(pan_deg: float, tilt_deg: float) -> Gaze:
    return Gaze(pan_rad=math.radians(pan_deg), tilt_rad=math.radians(tilt_deg))


def commands(simulator: MirrorSimulator) -> list[bytes]:
    return [each.command for each in list(simulator.received)]


def assert_works(make: Callable[..., SerialMirror]) -> None:
    with contextlib.closing(make(timeout_ms=5000.0)) as mirror:
        asked = mirror.aim(at(3, -2))
        assert mirror.measured(mirror.settled_ns()) == asked


# The bytes


@pytest.mark.parametrize("kind", ["optotune"])
def test_the_lines_of_an_optotune(simulator: MirrorSimulator, make: Any) -> None:
    mirror = make(timeout_ms=5000.0)
    mirror.aim(at(25, -10))
    mirror.aim(at(50, -50))
    mirror.close()
    assert simulator.wait_received(7)
    assert commands(simulator) == [
        b"\r\n",
        b"start\r\n",
        b"acknowledge\r\n",
        b"xy= 0.0000;0.0000\r\n",
        b"xy= 0.3913;-0.1480\r\n",  # tan 25° / tan 50°, tan 10° / tan 50°
        b"xy= 1.0000;-1.0000\r\n",
        b"xy= 0.0000;0.0000\r\n",
    ]


@pytest.mark.parametrize("kind", ["sigma"])
def test_the_frames_of_the_da_board(simulator: MirrorSimulator, make: Any) -> None:
    mirror = make()
    mirror.aim(at(20, -20))
    mirror.aim(at(4, 0))
    mirror.close()
    assert simulator.wait_received(8)
    header = "ff aa 88 55 11 "
    assert [command.hex(" ") for command in commands(simulator)] == [
        header + "03 00 0a 0c 0a",  # step of 1 %, 0.25 ms, 0.1 µs
        header + "02 00 01 86 a0",  # exposure of 1000 µs
        header + "01 00 03 d0 90",  # cycle of 2500 µs
        header + "04 00 00 27 10",  # pulse of 100 µs
        header + "00 20 00 20 00",  # 0 V, 0 V
        header + "00 3f ff 00 00",  # 5 V, -5 V
        header + "00 26 66 20 00",  # 1 V, 0 V: trunc(1638.3 + 8192) = 9830
        header + "00 20 00 20 00",
    ]


@pytest.mark.parametrize("kind", ["mirrorcle"])
def test_the_lines_of_an_mti(simulator: MirrorSimulator, make: Any) -> None:
    mirror = make(timeout_ms=5000.0)
    mirror.aim(at(5, -10))
    mirror.close()
    assert simulator.wait_received(12)
    assert commands(simulator) == [
        b"\n",
        b"MTI+EX\n",
        b"$MTI$\n",
        b"MTI+VB 80\n",
        b"MTI+BW 400\n",
        b"MTI+VD 130.5\n",
        b"MTI+EN\n",
        b"MTI+GT 0.0000 0.0000 0\n",
        b"MTI+GT 0.5000 -1.0000 0\n",
        b"MTI+GT 0.0000 0.0000 0\n",
        b"MTI+DI\n",
        b"MTI+EX\n",
    ]


@pytest.mark.parametrize("kind", ["sigma"])
@pytest.mark.parametrize("volts", [-5.0, -4.99, -1.234, -0.0001, 0.0, 0.0003, 0.7, 3.3333, 5.0])
def test_the_codes_of_the_da_board(simulator: MirrorSimulator, make: Any, volts: float) -> None:
    with contextlib.closing(make(deg_per_v=4.0)) as mirror:
        mirror.aim(at(volts * 4, 0))
        assert simulator.wait_received(6)
    code = int.from_bytes(commands(simulator)[5][6:8], "big")
    assert code == math.trunc(volts * 16383 * 0.1 + 8192)


@every
def test_axes_are_swapped_and_turned(simulator: MirrorSimulator, make: Any) -> None:
    with contextlib.closing(make(timeout_ms=5000.0, swap_axes=True, tilt_sign=-1)) as mirror:
        assert simulator.wait_received(GREETING[simulator.kind])
        mirror.aim(at(3, 7))
        assert simulator.wait_received(GREETING[simulator.kind] + 1)
        target = simulator.received[-1].target
    assert target
    assert math.degrees(target.pan_rad) == pytest.approx(-7, abs=0.01)  # the device's x
    assert math.degrees(target.tilt_rad) == pytest.approx(3, abs=0.01)


@every
def test_the_keys_of_a_rig_file(kind: str, simulator: MirrorSimulator, tmp_path: Path) -> None:
    def build(**keys: Any) -> SerialMirror:
        table = {"driver": kind, "port": simulator.port, **(MTI if kind == "mirrorcle" else {})}
        mirror: SerialMirror = plugin.prepare(
            {**table, "timeout_ms": 5000, **keys},
            kind="mirror",
            where="rig.toml [mirror]",
            folder=tmp_path,
            injected={"now_ns": lambda: 5},
        )()
        return mirror

    with contextlib.closing(build(pan_range_deg=[-6.0, 5], tilt_range_deg=[-4, 4])) as mirror:
        assert math.degrees(mirror.range.lowest.pan_rad) == pytest.approx(-6)
        assert mirror.settled_ns() < 10**9  # on the clock that was injected
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"pan_range_deg": [5.0, -5.0]}, "5.0 to -5.0 is no range"),
        ({"tilt_range_deg": [-5.0, 89.0]}, "is more than the device's"),
        ({"tilt_range_deg": [-5.0, math.nan]}, "tilt_range_deg"),
        ({"pan_sign": 2}, "pan_sign: invalid enum value 2"),
        ({"pan_sgn": 1}, "did you mean 'pan_sign'?"),
        ({"timeout_ms": 0}, "timeout_ms: expected `float` > 0"),
        ({"baud": 12}, "baud: expected `int` >= 9600"),
    ]
    for keys, expected in wrong:
        with pytest.raises(ConfigError, match=r"rig.toml \[mirror\]") as caught:
            build(**keys)
        assert expected in str(caught.value)


def test_an_mti_is_not_given_voltages_by_default() -> None:
    for key in ("full_scale_deg", "bias_v", "difference_v", "filter_hz"):
        table = {"driver": "mirrorcle", "port": "/dev/null", **MTI}
        del table[key]
        with pytest.raises(ConfigError, match=f"key '{key}' is missing"):
            plugin.prepare(table, kind="mirror", where="r", folder=Path(), injected={"now_ns": 0})


def test_an_exposure_longer_than_its_cycle_is_refused() -> None:
    with pytest.raises(ConfigError, match="exposure_us: 3000 is longer than cycle_us, 2500"):
        sigma(port="/dev/null", exposure_us=3000.0)


# What goes wrong on the way


@answering
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("dropped-reply", r"no answer to '(xy= |MTI\+GT ).*' within 250 ms"),
        ("hang", r"no answer to '(xy= |MTI\+GT ).*' within 250 ms"),
        ("reboot", r"no answer to '(xy= |MTI\+GT ).*' within 250 ms"),
        ("slow-reply=350ms", r"no answer to '(xy= |MTI\+GT ).*' within 250 ms"),
        ("nak", r"answered '(NO|MTI-ERR InvalidCommand)' to '.*', expected '(OK|MTI-OK)'"),
        ("garbage", r"answered '.*\\x.*(OK|MTI-OK)' to '.*', expected '(OK|MTI-OK)'"),
        ("unplug", "lost: the port hung up"),
    ],
)
@pytest.mark.parametrize("notice", ["aim", "measured"])
def test_a_fault_is_told_once_it_matters_and_a_new_mirror_works(
    simulator: MirrorSimulator, make: Any, fault: str, expected: str, notice: str
) -> None:
    mirror = make()
    mirror.aim(at(1, 1))
    mirror.measured()
    simulator.inject(fault)
    with pytest.raises(DeviceError, match=expected) as caught:  # noqa: PT012, unplugged: at once
        mirror.aim(at(2, 2))
        mirror.aim(at(3, 3)) if notice == "aim" else mirror.measured()
    assert str(caught.value).startswith(mirror._link._port)
    assert caught.value.hint
    for again in (lambda: mirror.aim(at(1, 1)), mirror.measured):  # it stays dead
        with pytest.raises(DeviceError) as later:
            again()
        assert str(later.value) == str(caught.value)
    assert math.isfinite(mirror.settled_ns())
    simulator.mend()
    mirror.close()
    if "slow" in fault:
        time.sleep(0.2)  # the device is still busy with its answer
    assert_works(make)


@every
def test_it_is_unplugged_and_plugged_in_again(simulator: MirrorSimulator, make: Any) -> None:
    mirror = make(timeout_ms=5000.0)
    mirror.aim(at(1, 1))
    before = simulator.port
    simulator.inject("unplug")
    with pytest.raises(DeviceError, match="lost: ") as caught:
        mirror.measured()  # of a board that never answers, too
    assert "unplugged" in caught.value.hint
    with pytest.raises(DeviceError, match="mirror: no such port") as missing:
        make()
    assert "serial port" in missing.value.hint
    simulator.mend()
    assert simulator.plugged
    assert Path(before) != Path(simulator.port) or Path(before).exists()
    assert_works(make)


@pytest.mark.parametrize("kind", ["sigma"])
def test_a_board_that_takes_no_more_bytes_is_lost(simulator: MirrorSimulator, make: Any) -> None:
    mirror = make()
    simulator.inject("hang")
    with pytest.raises(DeviceError, match="takes no more bytes for 250 ms") as caught:  # noqa: PT012
        for k in range(100_000):
            mirror.aim(at(k % 9, 0))
    assert "hang" in caught.value.hint
    simulator.mend()
    assert_works(make)


@pytest.mark.parametrize("kind", ["sigma"])
def test_a_board_that_babbles_is_not_listened_to(simulator: MirrorSimulator, make: Any) -> None:
    with contextlib.closing(make()) as mirror:
        simulator.inject("garbage")
        for k in range(3000):  # more than a port holds, if it were not emptied
            mirror.aim(at(k % 9, 0))
        mirror.measured()


@pytest.mark.parametrize("kind", ["sigma"])
def test_a_board_that_rebooted_goes_on_without_its_settings(
    simulator: MirrorSimulator, make: Any
) -> None:
    device = simulator.device
    assert isinstance(device, SigmaDevice)
    with contextlib.closing(make()) as mirror:
        assert simulator.wait_received(5)
        assert sorted(device.settings) == [1, 2, 3, 4]
        simulator.inject("reboot")
        mirror.aim(at(1, 1))
        assert simulator.wait_received(6)
        assert device.settings == {}  # nobody can notice: docs say so
    assert_works(make)
    assert simulator.wait_received(14)  # twice settings, rest, a gaze and rest
    assert sorted(device.settings) == [1, 2, 3, 4]


@answering
def test_an_answer_that_is_late_but_in_time_is_waited_for(
    simulator: MirrorSimulator, make: Any
) -> None:
    with contextlib.closing(make(timeout_ms=5000.0)) as mirror:
        simulator.inject("slow-reply=30ms:3x")
        for k in range(4):
            asked = mirror.aim(at(k, k))
        assert mirror.measured(mirror.settled_ns()) == asked


@answering
def test_a_late_answer_is_not_taken_for_the_next_ones(
    simulator: MirrorSimulator, make: Any
) -> None:
    with contextlib.closing(make(timeout_ms=5000.0)) as mirror:
        mirror.aim(at(1, 1))
        mirror.measured()
        unasked = b"OK\r\nMTI-OK\r\nOK\r\nMTI-OK\r\n\x00\xff"
        simulator.send(unasked)
        while mirror._link._serial.in_waiting < len(unasked):  # it is there before the command
            time.sleep(0.001)
        simulator.inject("nak")
        mirror.aim(at(2, 2))
        with pytest.raises(DeviceError, match="answered '(NO|MTI-ERR)"):
            mirror.measured()


@every
def test_junk_from_before_does_not_stand_in_the_way(simulator: MirrorSimulator, make: Any) -> None:
    simulator.send(b"\x00\xffOK\r\nNO\r\n" * 30 + b"MTI-ERR")
    assert_works(make)
    fd = os.open(simulator.port, os.O_WRONLY | os.O_NOCTTY)  # a host that died in mid-command
    half = {"sigma": b"\xff\xaa\x88", "optotune": b"xy= 0.1", "mirrorcle": b"MTI+GT 0.1"}
    os.write(fd, half[simulator.kind])
    os.close(fd)
    assert_works(make)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("optotune", "answered 'HELLO' to 'start', expected 'OK'"),
        ("mirrorcle", r"answered 'HELLO' to '\$MTI\$', expected 'MTI-Device ...'"),
    ],
)
def test_another_greeting_is_named(simulator: MirrorSimulator, make: Any, expected: str) -> None:
    simulator.inject("wrong-handshake")
    with pytest.raises(DeviceError, match=expected) as caught:
        make()
    assert "is it a" in caught.value.hint
    simulator.mend()
    assert_works(make)


@pytest.mark.parametrize("kind", ["optotune"])
def test_an_optotune_that_answers_only_once_acknowledge_came(
    simulator: MirrorSimulator, make: Any
) -> None:
    simulator.inject("dropped-reply:1x")  # to `start`; an empty line gets none before
    assert_works(lambda **_: make())
    assert simulator.device.acknowledges  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["mirrorcle"])
def test_an_mti_left_in_command_mode_is_greeted_anew(simulator: MirrorSimulator, make: Any) -> None:
    device = simulator.device
    assert isinstance(device, MirrorcleDevice)
    device.in_command_mode = True
    assert_works(make)
    assert device.settings == {b"VB": 80.0, b"VD": 130.5, b"BW": 400.0}


def test_a_device_with_less_reach_than_the_rig_file_says() -> None:
    with MirrorSimulator("optotune", wire_time=False, reach_deg=16.6) as simulator:
        mirror = optotune(port=simulator.port, timeout_ms=5000.0)
        mirror.aim(at(16.5, 0))
        mirror.measured()
        mirror.aim(at(16.7, 0))
        with pytest.raises(DeviceError, match="answered 'NO' to 'xy= 0.25") as caught:
            mirror.measured()
        assert "range of the rig file" in caught.value.hint


# What is no mirror


@pytest.fixture
def silent() -> Iterator[tuple[int, str]]:
    """A port on which nobody answers: its other end, and its name."""
    master, slave = os.openpty()
    tty.setraw(master)
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize(("kind", "first"), [("optotune", "acknowledge"), ("mirrorcle", "$MTI$")])
def test_a_port_where_nobody_answers(kind: str, first: str, silent: tuple[int, str]) -> None:
    with pytest.raises(DeviceError) as caught:
        MAKE[kind](port=silent[1], timeout_ms=60.0)
    assert f"{silent[1]}: no answer to '{first}' within 60 ms" in str(caught.value)
    assert "baud" in caught.value.hint
    SerialLink(silent[1], baud=9600, timeout_ms=1).close()  # and the port was let go


def test_an_interrupted_greeting_lets_the_port_go(
    silent: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SimpleMode, "greet", interrupt)
        with pytest.raises(KeyboardInterrupt) as caught:
            optotune(port=silent[1])
    SerialLink(silent[1], baud=9600, timeout_ms=1).close()
    assert caught.tb  # whose frames would hold the port


def test_a_board_that_never_answers_is_taken_at_its_word(silent: tuple[int, str]) -> None:
    with contextlib.closing(sigma(port=silent[1])) as mirror:
        assert mirror.aim(at(1, 1)) == mirror.measured(mirror.settled_ns())


@answering
def test_another_device_that_talks_all_the_time(kind: str, silent: tuple[int, str]) -> None:
    stopping = threading.Event()

    def talk() -> None:
        while not stopping.wait(0.002):
            os.write(silent[0], b"$GPGGA,123519,4807.038,N,01131.000,E\r\n")

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        with pytest.raises(DeviceError, match=r"sending unasked: '\$GPGGA.*|answered '\$GPGGA"):
            MAKE[kind](port=silent[1], timeout_ms=1000.0)
    finally:
        stopping.set()
        thread.join()


@every
@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ("gone", "no such port"),
        ("gone/ttyUSB0", "no such port"),
        ("file", "a file, no serial port"),
        (".", "a folder, no serial port"),
        ("fifo", "a file, no serial port"),
        ("/dev/null", "no serial port"),
        ("/dev/zero", "no serial port"),
        ("nul\x00l", "no such port"),
    ],
)
def test_a_port_that_is_none(kind: str, port: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DeviceError, match=expected) as caught:
        MAKE[kind](port=str(tmp_path / port))
    assert "serial port" in caught.value.hint
    assert (tmp_path / "file").read_text() == ""


@every
def test_a_port_that_another_program_holds(simulator: MirrorSimulator, make: Any) -> None:
    with contextlib.closing(make(timeout_ms=5000.0)) as mirror:
        with pytest.raises(DeviceError, match="in use by another program"):
            make()
        assert mirror.aim(at(1, 1)) == mirror.measured(mirror.settled_ns())


def test_a_forbidden_port_names_the_group(
    silent: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise serial.SerialException(13, "could not open port: Permission denied")

    monkeypatch.setattr(link_module.serial, "Serial", refuse)
    with pytest.raises(DeviceError, match=f"{silent[1]}: Permission denied") as caught:
        optotune(port=silent[1])
    assert "dialout" in caught.value.hint


def test_the_ports_that_are_here_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        device, description = "/dev/ttyACM3", "MR-E-2"

    monkeypatch.setattr(link_module.list_ports, "comports", lambda: [Found()])
    with pytest.raises(DeviceError) as caught:
        optotune(port="/dev/ttyACM0")
    assert caught.value.hint == "serial ports here: /dev/ttyACM3 (MR-E-2)"


# The link alone


def test_closing_ends_a_wait_for_a_device_that_hangs(silent: tuple[int, str]) -> None:
    link = SerialLink(silent[1], baud=9600, timeout_ms=300)
    link.send(b"anyone?\n")
    found: list[Any] = []

    def wait() -> None:
        with contextlib.suppress(DeviceError):
            found.append(link.line())

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    link.close(b"bye")
    thread.join(10)
    assert not thread.is_alive()
    assert found in ([], [None])
    with pytest.raises(DeviceError, match="closed"):
        link.send(b"more")


def test_lines_come_whole_however_they_are_cut(silent: tuple[int, str]) -> None:
    link = SerialLink(silent[1], baud=9600, timeout_ms=5000)
    link.send(b"?\n")
    os.write(silent[0], b"\r\n\r\nfi")
    thread = threading.Timer(0.02, os.write, (silent[0], b"rst\r\nsecond\nthi"))
    thread.start()
    assert link.line() == b"first"
    assert link.line() == b"second"
    thread.join()
    link.send(b"?\n")  # what is left over is thrown away
    os.write(silent[0], b"fourth\r\n")
    assert link.line() == b"fourth"
    link.close()


@pytest.mark.parametrize("flood", [b"x" * 300, b"\n" * 300])
def test_a_flood_without_lines_is_garbage(silent: tuple[int, str], flood: bytes) -> None:
    link = SerialLink(silent[1], baud=9600, timeout_ms=5000)
    link.send(b"?\n")
    os.write(silent[0], flood)
    with pytest.raises(DeviceError, match="sends garbage"):
        link.line()


def test_an_answer_that_waits_is_read_however_late(silent: tuple[int, str]) -> None:
    link = SerialLink(silent[1], baud=9600, timeout_ms=5)
    link.send(b"?\n")
    os.write(silent[0], b"yes\r\n")
    time.sleep(0.02)
    assert link.line() == b"yes"
    assert link.line() is None
    link.close()


def test_sends_keep_their_distance(silent: tuple[int, str]) -> None:
    link = SerialLink(silent[1], baud=9600, timeout_ms=100, pause_ms=5)
    begun_s = time.monotonic()
    for _ in range(5):
        link.send(b"?\n")
    assert time.monotonic() - begun_s >= 0.02
    link.close()


def test_bytes_are_shown_as_a_person_reads_them() -> None:
    assert shown(b"xy= 0.1;0.2\r\n") == "'xy= 0.1;0.2'"
    assert shown(b"\x00\x1b[31mA\xff\r\n") == r"'\x00\x1b[31mA\xff'"
    assert len(shown(b"x" * 500)) < 70


def test_wire_time_is_ten_bits_a_byte(silent: tuple[int, str]) -> None:
    link = SerialLink(silent[1], baud=256_000, timeout_ms=5)
    assert link.wire_ns(b"x" * 22) == 859_375
    link.close()


@pytest.mark.parametrize("kind", ["optotune"])
def test_a_move_begins_when_its_command_has_passed_the_wire(
    simulator: MirrorSimulator, make: Any
) -> None:
    with contextlib.closing(make(timeout_ms=5000.0, now_ns=lambda: 10**9)) as mirror:
        mirror.aim(at(10, 0))
        wire_ns = 19 * 10 * 10**9 // 256_000  # xy= 0.1480;0.0000 and CRLF
        assert mirror.measured(10**9 + wire_ns) == at(0, 0)
        assert mirror.measured(10**9 + wire_ns + 10_000).pan_rad > 0
        assert mirror.settled_ns() == pytest.approx(10**9 + wire_ns + 4_600_000, abs=500)


@pytest.mark.parametrize("kind", ["optotune"])
def test_a_mirror_is_logged_once_when_clipped(
    simulator: MirrorSimulator, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(simulator.device, OptotuneDevice)
    with (
        contextlib.closing(make(timeout_ms=5000.0, pan_range_deg=(-5.0, 5.0))) as mirror,
        caplog.at_level(logging.WARNING, "edgeperc"),
    ):
        mirror.aim(at(-80, 0))
        mirror.aim(at(80, 0))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
