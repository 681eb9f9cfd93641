"""The simulated mirrors: what they understand, how they move, and how they fail."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeperc import cli
from edgeperc.drivers.galvo.optotune import optotune
from edgeperc.drivers.galvo.plant import Plant, SecondOrder
from edgeperc.errors import ConfigError, DeviceError
from edgeperc.packet import Gaze
from edgeperc.simulate.devices import (
    DEVICES,
    Device,
    MirrorcleDevice,
    OptotuneDevice,
    SigmaDevice,
)
from edgeperc.simulate.faults import FAULTS, Fault, parse
from edgeperc.simulate.mirror import MirrorSimulator
from edgeperc.simulate.tool import simulate_mirror

HEADER = SigmaDevice.header
CENTRE = Gaze(pan_rad=0.0, tilt_rad=0.0)


def replies(device: Device, *lines: bytes) -> list[bytes]:
    return [device.obey(command).reply for line in lines for command in device.feed(line)]


class Host:
    """The other end of a simulator's port, without a driver."""

    def __init__(self, port: str) -> None:
        self.fd = os.open(port, os.O_RDWR | os.O_NOCTTY)

    def ask(self, data: bytes, *, wait_s: float = 10.0) -> bytes:
        """Send, and read a line; what came until then if none does."""
        os.write(self.fd, data)
        heard = b""
        while not heard.endswith(b"\n"):
            if not select.select([self.fd], [], [], wait_s)[0]:
                break
            heard += os.read(self.fd, 1)
        return heard


@contextlib.contextmanager
def host(simulator: MirrorSimulator) -> Iterator[Host]:
    found = Host(simulator.port)
    try:
        yield found
    finally:
        os.close(found.fd)


# What they understand


def test_an_optotune_answers_once_told_to() -> None:
    device = OptotuneDevice()
    assert replies(device, b"xy= 0.1;0.1\r\n", b"status\r\n", b"hello\r\n") == [b"", b"", b""]
    assert replies(device, b"start\r\n", b"xy= 0.1;0.1\r\n") == [b"OK\r\n", b""]
    talk = [b"acknowledge\r\n", b"status\r\n", b"xy= 0.1; 0.1\r\n", b"xy=-1;1\r\n"]
    assert replies(device, *talk) == [b"OK\r\n"] * 4
    bad = [b"xy= 1.0001;0\r\n", b"xy= 0;nan\r\n", b"xy= 0\r\n", b"xy= a;b\r\n", b"xz\r\n", b"\r\n"]
    assert replies(device, *bad) == [b"NO\r\n"] * 6
    device.reboot()
    assert replies(device, b"status\r\n") == [b""]


def test_an_optotune_counts_in_tangents() -> None:
    device = OptotuneDevice()
    replies(device, b"start\r\n")
    answer = device.obey(b"xy= 1.0000;-0.2502\r\n")
    assert answer.point_rad
    x_deg, y_deg = map(math.degrees, answer.point_rad)
    assert x_deg == pytest.approx(50.0)
    assert y_deg == pytest.approx(-16.6, abs=0.01)


def test_an_mti_keeps_to_its_modes_and_bounds() -> None:
    device = MirrorcleDevice(reach_deg=8.0)
    assert replies(device, b"MTI+EN\n", b"hello\n") == [b"", b""]
    (banner,) = replies(device, b"$MTI$\n")
    assert banner.startswith(b"MTI-Device")
    assert banner.endswith(b"Ready in Command Mode\r\n")
    bad = b"MTI-ERR InvalidCommand\r\n"
    assert replies(device, b"MTI+GT 0 0 0\n") == [bad]  # not enabled
    for line in (b"MTI+VB 80\n", b"MTI+VD 200\n", b"MTI+BW 50\n", b"MTI+EN\n", b"MTI+EC\n"):
        assert replies(device, line) == [b"MTI-OK\r\n"]
    for line in (b"MTI+VB 101\n", b"MTI+VD -1\n", b"MTI+BW 49\n", b"MTI+BW nan\n", b"MTI+XX\n"):
        assert replies(device, line) == [bad]
    for line in (b"MTI+GT 1.0001 0 0\n", b"MTI+GT 0 0\n", b"MTI+GT 0 nan 0\n", b"GT\n", b"\n"):
        assert replies(device, line) == [bad]
    answer = device.obey(b"MTI+GT 0.5 -1 0\n")
    assert answer.point_rad == pytest.approx((math.radians(4), math.radians(-8)))
    assert replies(device, b"MTI+DI\n", b"MTI+GT 0 0 0\n") == [b"MTI-OK\r\n", bad]
    assert replies(device, b"MTI+EX\n") == [b"MTI-Device Exit Command Mode\r\n"]
    assert replies(device, b"MTI+EN\n") == [b""]


def test_a_da_board_clips_and_never_answers() -> None:
    device = SigmaDevice()
    limit = math.radians(20)
    for code, expected in ((0, -limit), (16383, limit), (16384, limit), (0xFFFF, limit)):
        answer = device.obey(HEADER + b"\x00" + code.to_bytes(2, "big") * 2)
        assert answer.reply == b""
        assert answer.point_rad == pytest.approx((expected, expected))


COMMANDS: dict[str, st.SearchStrategy[bytes]] = {
    "optotune": st.sampled_from([b"start\r\n", b"xy= 0.1;0.2\r\n", b"status\n", b"\r\n"]),
    "mirrorcle": st.sampled_from([b"$MTI$\n", b"MTI+GT 0.1 -0.2 0\n", b"MTI+EN\r\n"]),
    "sigma": st.binary(min_size=5, max_size=5).map(lambda rest: HEADER + rest),
}


@pytest.mark.parametrize("kind", DEVICES)
@given(data=st.data())
def test_commands_are_found_however_the_bytes_are_cut(kind: str, data: st.DataObject) -> None:
    sent = data.draw(st.lists(COMMANDS[kind], max_size=8))
    stream = b"".join(sent)
    device = DEVICES[kind]()  # type: ignore[index]
    found = []
    while stream:
        size = data.draw(st.integers(1, 25))
        found += device.feed(stream[:size])
        stream = stream[size:]
    assert found == sent


@given(
    frames=st.lists(COMMANDS["sigma"], min_size=1, max_size=6),
    junk=st.lists(st.binary(max_size=15).filter(lambda b: b"\xff" not in b), min_size=7),
)
def test_a_da_board_finds_its_frames_in_junk(frames: list[bytes], junk: list[bytes]) -> None:
    device = SigmaDevice()
    stream = b"".join(a + b for a, b in zip(junk, frames, strict=False)) + junk[-1]
    assert [each for byte in stream for each in device.feed(bytes([byte]))] == frames


def test_a_da_board_skips_what_the_authors_host_sends_behind_a_frame() -> None:
    device = SigmaDevice()
    frame = HEADER + bytes.fromhex("00 20 00 20 00")
    assert device.feed((frame + b"\xff\xaa\x88\x55" + b"\x07" * 6) * 3) == [frame] * 3


def test_half_a_line_does_not_grow_without_end() -> None:
    device = OptotuneDevice()
    for _ in range(100):
        assert device.feed(b"x" * 200) == []
    assert len(device._half) <= 256
    assert device.feed(b"\nstart\r\n")[-1] == b"start\r\n"


# How they move


def test_the_truth_is_the_plant_on_the_simulators_clock() -> None:
    now_ns = 5_000
    simulator = MirrorSimulator("optotune", wire_time=False, now_ns=lambda: now_ns)
    with simulator, host(simulator) as port:
        port.ask(b"start\r\n")
        port.ask(b"acknowledge\r\n")
        assert port.ask(b"xy= 0.5;-0.25\r\n") == b"OK\r\n"
        expected = Plant(SecondOrder(), at=CENTRE)
        target = simulator.received[-1].target
        assert target
        expected.command(target, 5_000)
        now_ns = 2_000_000
        assert simulator.position() == expected.position(2_000_000)
        for time_ns in range(0, 9_000_000, 500_000):
            assert simulator.position(time_ns) == expected.position(time_ns)
        assert simulator.position(10**9) == target
        port.ask(b"xy= 0;0\r\n")  # in mid-move
        expected.command(CENTRE, 2_000_000)
        assert simulator.position(2_500_000) == expected.position(2_500_000)
    assert [each.command for each in simulator.received][:2] == [b"start\r\n", b"acknowledge\r\n"]
    assert [each.time_ns for each in simulator.received][-2:] == [5_000, 2_000_000]


def test_noise_and_slew() -> None:
    with MirrorSimulator(
        "sigma", wire_time=False, noise_deg=0.1, slew_deg_per_s=1000.0, now_ns=lambda: 0
    ) as simulator:
        with host(simulator) as port:
            os.write(port.fd, HEADER + bytes.fromhex("00 3f ff 20 00"))
            assert simulator.wait_received(1)
        seen_deg = [math.degrees(simulator.position(10**9).pan_rad) for _ in range(400)]
        middle_deg = math.degrees(simulator.position(10_000_000).pan_rad)
    mean_deg = sum(seen_deg) / 400
    assert mean_deg == pytest.approx(20, abs=0.03)
    assert math.sqrt(sum((x - mean_deg) ** 2 for x in seen_deg) / 400) == pytest.approx(
        0.1, rel=0.2
    )
    assert middle_deg == pytest.approx(10, abs=1)  # 10 ms at 1000°/s


def test_wire_time_is_charged_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    simulator = MirrorSimulator("optotune")
    with simulator, host(simulator) as port, monkeypatch.context() as patch:
        patch.setattr("edgeperc.simulate.mirror.time.sleep", slept.append)
        port.ask(b"start\r\nacknowledge\r\n")
        simulator.wait_received(2)
        port.ask(b"status\r\n")
        simulator.wait_received(3)
        port.ask(b"status\r\n")
    sizes = [7, 4, 13, 4, 8, 4]
    assert slept[:6] == pytest.approx([size * 10 / 256_000 for size in sizes])


# How they fail


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("nak", Fault("nak")),
        ("nak:3x", Fault("nak", times=3)),
        ("hang@500ms:1.5s", Fault("hang", start_s=0.5, span_s=1.5)),
        ("unplug@5s:2s", Fault("unplug", start_s=5.0, span_s=2.0)),
        ("slow-reply", Fault("slow-reply", delay_s=0.2)),
        ("slow-reply=80ms@1s:4x", Fault("slow-reply", delay_s=0.08, start_s=1.0, times=4)),
        ("wrong-handshake", Fault("wrong-handshake", text="HELLO")),
        ("wrong-handshake=GPS: v=1@2", Fault("wrong-handshake", text="GPS: v=1@2")),
        ("wrong-handshake=X@2s", Fault("wrong-handshake", text="X", start_s=2.0)),
    ],
)
def test_faults_in_words(words: str, expected: Fault) -> None:
    assert parse(words) == expected


@pytest.mark.parametrize(
    "words",
    ["", "nake", "nak:3", "nak@3", "nak=1", "hang:3x", "reboot:2x", "slow-reply=8", "nak:3x:2s"],
)
def test_words_that_are_no_fault(words: str) -> None:
    with pytest.raises(ConfigError, match=f"'{words}'") as caught:
        parse(words)
    assert "LIMIT" in caught.value.hint


def test_a_board_without_answers_has_no_faults_about_them() -> None:
    with MirrorSimulator("sigma") as simulator:
        for name in ("nak", "dropped-reply", "slow-reply", "wrong-handshake"):
            with pytest.raises(ConfigError, match="never answers"):
                simulator.inject(name)
        for name in set(FAULTS) - {"nak", "dropped-reply", "slow-reply", "wrong-handshake"}:
            simulator.inject(name)


def test_a_fault_strikes_as_often_as_asked() -> None:
    with MirrorSimulator("optotune", wire_time=False) as simulator, host(simulator) as port:
        port.ask(b"start\r\n")
        port.ask(b"acknowledge\r\n")
        simulator.inject("nak:2x")
        assert [port.ask(b"xy= 0;0\r\n") for _ in range(3)] == [b"NO\r\n", b"NO\r\n", b"OK\r\n"]
        simulator.inject("nak@1000s")  # not yet
        simulator.inject("nak:0ms")  # no more
        assert port.ask(b"status\r\n") == b"OK\r\n"
        simulator.inject("garbage:1x")
        garbage = port.ask(b"status\r\n")
        assert garbage.endswith(b"OK\r\n")
        assert len(garbage) == 10
        assert port.ask(b"status\r\n") == b"OK\r\n"


def test_a_refused_or_dropped_command() -> None:
    with MirrorSimulator("optotune", wire_time=False) as simulator, host(simulator) as port:
        port.ask(b"start\r\n")
        port.ask(b"acknowledge\r\n")
        simulator.inject("nak:1x")
        port.ask(b"xy= 0.5;0\r\n")
        assert simulator.received[-1].target is None  # refused: not done
        simulator.inject("dropped-reply:1x")
        os.write(port.fd, b"xy= 0.5;0\r\n")
        assert simulator.wait_received(4)
        assert simulator.received[-1].target  # done, only not answered
        assert port.ask(b"status\r\n") == b"OK\r\n"


def test_it_hangs_then_catches_up() -> None:
    with MirrorSimulator("optotune", wire_time=False) as simulator, host(simulator) as port:
        simulator.inject("hang")
        os.write(port.fd, b"start\r\n")
        assert not simulator.wait_received(1, timeout_s=0.05)
        simulator.mend()
        assert simulator.wait_received(1)


def test_a_reboot_loses_position_state_and_half_a_line() -> None:
    with MirrorSimulator("optotune", wire_time=False) as simulator, host(simulator) as port:
        for line in (b"start\r\n", b"acknowledge\r\n", b"xy= 0.5;0\r\n"):
            assert port.ask(line) == b"OK\r\n"
        simulator.inject("reboot")
        assert simulator.position(10**18) == CENTRE
        assert port.ask(b"status\r\n", wait_s=0.05) == b""
        assert port.ask(b"start\r\n") == b"OK\r\n"
        assert simulator.wait_received(5)


def test_a_link_follows_the_port_and_goes_with_it(tmp_path: Path) -> None:
    link = tmp_path / "mirror"
    link.symlink_to("/dev/pts/left-behind")
    simulator = MirrorSimulator("mirrorcle", wire_time=False, link=link)
    with simulator:
        assert os.readlink(link) == simulator.port
        with host(simulator) as port:
            port.ask(b"$MTI$\n")
            assert port.ask(b"MTI+EN\n") == b"MTI-OK\r\n"
        simulator.inject("unplug")
        assert not simulator.plugged
        assert not link.is_symlink()
        simulator.mend()
        assert os.readlink(link) == simulator.port
        assert isinstance(simulator.device, MirrorcleDevice)
        assert not simulator.device.enabled  # it lost power
        with host(simulator) as port:
            assert port.ask(b"$MTI$\n").startswith(b"MTI-Device")
    assert not link.is_symlink()
    simulator.close()


def test_a_file_in_the_way_of_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ConfigError, match="mine: is in the way"):
        MirrorSimulator("sigma", link=tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"


def test_unplugged_for_a_while(tmp_path: Path) -> None:
    with MirrorSimulator("sigma", link=tmp_path / "m") as simulator:
        simulator.inject("unplug:30ms")
        deadline_s = time.monotonic() + 10
        while not simulator.plugged and time.monotonic() < deadline_s:
            time.sleep(0.005)
        assert simulator.plugged


def test_simulators_leave_nothing_behind(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(5):
        with MirrorSimulator("sigma", link=tmp_path / "m") as simulator:
            simulator.inject("unplug")
            simulator.mend()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
    assert list(tmp_path.iterdir()) == []


# The tool


def test_the_first_line_is_the_port(capsys: pytest.CaptureFixture[str]) -> None:
    simulate_mirror("sigma", faults=["unplug@90s:1s"], duration_s=0.05)
    out, err = capsys.readouterr()
    assert out.startswith("/dev/pts/")
    assert len(out.splitlines()) == 1
    assert err.startswith("sigma on /dev/pts/")
    assert "0 commands" in err


@pytest.mark.parametrize(
    ("args", "expected"),
    [(["--fault", "nake"], "'nake' is no fault"), (["--kind", "laser"], "'laser'")],
)
def test_mistakes_on_the_command_line(
    args: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["edgeperc", "simulate", "mirror", *args])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_its_help_names_every_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["edgeperc", "simulate", "mirror", "--help"])
    with pytest.raises(SystemExit):
        cli.main()
    out = capsys.readouterr().out
    assert all(f"{name}: " in out for name in FAULTS)
    assert "NAME=VALUE@START:LIMIT" in out


def test_it_runs_beside_a_driver_until_ctrl_c(tmp_path: Path) -> None:
    link = tmp_path / "mirror"
    command = [sys.executable, "-m", "edgeperc", "simulate", "mirror", "--link", str(link)]
    screen, terminal = os.openpty()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True)
    os.close(terminal)
    try:
        assert process.stdout
        assert process.stdout.readline().strip() == str(link)
        with contextlib.closing(optotune(port=str(link), timeout_ms=5000.0)) as mirror:
            mirror.aim(Gaze(pan_rad=0.1, tilt_rad=0.0))
            mirror.measured()
            assert "xy= 0.0842;0.0000" in _screen_until(screen, "xy= 0.0842;0.0000")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            with pytest.raises(DeviceError):
                mirror.measured()
        assert not link.is_symlink()
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
        os.close(screen)


def _screen_until(screen: int, wanted: str) -> str:
    seen, deadline_s = "", time.monotonic() + 20
    while wanted not in seen and time.monotonic() < deadline_s:
        if select.select([screen], [], [], 1)[0]:
            seen += os.read(screen, 4096).decode(errors="replace")
    return seen
