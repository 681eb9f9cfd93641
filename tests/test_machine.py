"""What the kernel's files say, read from a folder that looks like a machine."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

from edgeperc.inference import engines
from edgeperc.machine import HERE, Machine, clock_is_set, cores, machine_notes


def write(root: Path, files: dict[str, str]) -> Machine:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(root)


ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\n",
    "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "99250\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
    "sys/class/thermal/thermal_zone0/trip_point_0_temp": "99000\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_type": "critical\n",
    "sys/class/thermal/thermal_zone0/trip_point_1_temp": "104500\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "61000\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",  # asleep: it cannot be read
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "3\n",
    "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device1/cur_state": "2\n",
    "sys/class/thermal/cooling_device1/max_state": "24\n",
    "sys/class/thermal/cooling_device2/type": "devfreq-17000000.gpu\n",
    "sys/class/thermal/cooling_device2/cur_state": "0\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "4\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
    "proc/meminfo": "MemTotal:        7633000 kB\nMemFree:  1 kB\nMemAvailable:    5000000 kB\n",
    "proc/self/status": "Name:\tpython\nCapEff:\t0000000000000000\n",
}


def test_a_hot_jetson(tmp_path: Path) -> None:
    machine = write(tmp_path, ORIN)
    assert machine.board() == "NVIDIA Jetson Orin Nano Developer Kit"
    assert machine.is_jetson()
    assert machine.power_mode() == "7W"
    assert machine.temperatures() == {"cpu-thermal": 99.25, "gpu-thermal": 61.0}
    assert machine.throttling() == (
        "cpufreq-cpu0 is slowed down (2 of 24)",
        "cpu-thermal is at 99 °C, where slowing down begins",
    )
    assert machine.throttled_before() == 4
    assert machine.governors() == ("powersave", "schedutil")
    assert machine.memory_bytes() == (5_000_000 * 1024, 7_633_000 * 1024)


def test_a_cool_desktop(tmp_path: Path) -> None:
    machine = write(
        tmp_path,
        {
            "sys/class/dmi/id/product_name": "X1\n",
            "sys/firmware/acpi/platform_profile": "balanced\n",
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
            "sys/class/thermal/thermal_zone0/temp": "45000\n",
            "sys/class/thermal/cooling_device0/type": "intel_powerclamp\n",
            "sys/class/thermal/cooling_device0/cur_state": "-1\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7\n",
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "2\n",
        },
    )
    assert (machine.board(), machine.is_jetson()) == ("X1", False)
    assert machine.power_mode() == "balanced"
    assert machine.throttling() == ()
    assert machine.throttled_before() == 9


def test_where_nothing_is_known_nothing_is_said(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "nowhere")
    assert (machine.board(), machine.power_mode(), machine.governors()) == ("", "", ())
    assert (machine.temperatures(), machine.throttling()) == ({}, ())
    assert machine.memory_bytes() == (0, 0)


def test_priority_is_a_capability_or_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = write(tmp_path, ORIN)
    monkeypatch.setattr("resource.getrlimit", lambda _: (0, 0))
    assert not machine.may_have_priority()
    write(tmp_path, {"proc/self/status": "CapEff:\t0000000000800000\n"})
    assert machine.may_have_priority()
    write(tmp_path, ORIN)
    monkeypatch.setattr("resource.getrlimit", lambda _: (20, 20))
    assert machine.may_have_priority()


def test_notes_of_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("resource.getrlimit", lambda _: (0, 0))
    building = engines.root() / ".building-net-1"
    building.mkdir(parents=True)
    key: dict[str, object] = {
        "network": "net.onnx",
        "provider": engines.TENSORRT,
        "pid": os.getpid(),
    }
    key["began_s"] = time.monotonic() - 92
    (building / "key.json").write_text(json.dumps(key))
    with (building / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        notes = machine_notes(write(tmp_path / "root", ORIN))
    assert notes[0].startswith("building engine for net.onnx: 9")
    assert notes[1:] == (
        "power mode 7W",
        "throttling: cpufreq-cpu0 is slowed down (2 of 24)",
        "throttling: cpu-thermal is at 99 °C, where slowing down begins",
        "real-time priority is not permitted",
    )
    assert machine_notes(Machine(tmp_path / "root")) is notes  # not looked up at every question


def test_this_machine_can_be_asked() -> None:
    assert cores() >= 1
    available, total = HERE.memory_bytes()
    assert 0 < available <= total
    assert clock_is_set() in (True, False, None)
    assert all(isinstance(note, str) for note in machine_notes())
