"""The doctor, on made-up machines and on this one."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeperc import doctor, places
from edgeperc.cli import app
from edgeperc.doctor import Finding, examine
from edgeperc.machine import Machine

CLEAN = {"sys/class/thermal/thermal_zone0/temp": "45000"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("edgeperc.inference.providers.why_not", lambda _: "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def put(root: Path, files: dict[str, str]) -> Machine:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Machine(root)


def of(found: list[Finding], topic: str) -> list[Finding]:
    return [each for each in found if each.topic == topic]


def bad(found: list[Finding], topic: str) -> Finding:
    (one,) = [each for each in of(found, topic) if each.state != "ok"]
    assert one.todo
    return one


def test_a_device_that_may_not_be_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = put(
        root,
        {
            "dev/video0": "",
            "dev/ttyACM0": "",
            "dev/nvmap": "",
            "sys/bus/usb/devices/1-1/idVendor": "152a\n",
            "sys/bus/usb/devices/1-1/busnum": "1\n",
            "sys/bus/usb/devices/1-1/devnum": "7\n",
            "sys/bus/usb/devices/1-2/idVendor": "046d\n",
            "dev/bus/usb/001/007": "",
        },
    )
    found = examine(machine=machine)
    assert of(found, "cameras") == [Finding("cameras", "ok", "/dev/video0")]
    assert of(found, "serial ports")[0].said == "/dev/ttyACM0"
    assert of(found, "event cameras")[0].said == "one of iniVation"

    real = os.access
    monkeypatch.setattr(
        os, "access", lambda p, mode: not str(p).startswith(str(root)) and real(p, mode)
    )
    found = examine(machine=machine)
    assert "/dev/video0 may not be opened" in bad(found, "cameras").said
    assert "usermod -aG video" in bad(found, "cameras").todo
    assert "dialout" in bad(found, "serial ports").todo
    assert "/dev/nvmap" in bad(found, "graphics").said
    assert "udev-rules" in bad(found, "event cameras").todo


def test_a_slow_and_hot_jetson(root: Path) -> None:
    machine = put(
        root,
        {
            "etc/nv_tegra_release": "# R36",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=15W >",
            "var/lib/nvpmodel/status": "pmode:0002",
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin",
            "sys/class/thermal/thermal_zone0/type": "tj-thermal",
            "sys/class/thermal/thermal_zone0/temp": "96000",
            "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
            "sys/class/thermal/cooling_device0/cur_state": "1",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand",
            "proc/meminfo": "MemTotal: 7633000 kB\nMemAvailable: 200000 kB\n",
        },
    )
    found = examine(machine=machine)
    assert bad(found, "power mode") == Finding(
        "power mode", "warning", "15W on NVIDIA Jetson AGX Orin", "sudo nvpmodel -m 0"
    )
    assert {each.said for each in of(found, "heat")} == {
        "throttling: cpufreq-cpu0 is slowed down (1 of ?)",
        "tj-thermal is at 96 °C",
    }
    assert "jetson_clocks" in bad(found, "processors").todo
    assert "0.2 of 7.8 GB" in bad(found, "memory").said
    assert "no GStreamer" in bad(found, "opencv").said
    assert bad(found, "gpu").state == "warning"
    put(root, {"var/lib/nvpmodel/status": "pmode:0000"})
    assert of(examine(machine=machine), "power mode")[0].state == "ok"


def test_priority_that_is_not_permitted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = put(root, {"proc/self/status": "CapEff:\t0000000000000000\n"})
    monkeypatch.setattr("resource.getrlimit", lambda _: (0, 0))
    found = examine(machine=machine)
    assert "LimitRTPRIO" in bad(found, "priority").todo
    assert "LimitMEMLOCK" in bad(found, "memlock").todo


def test_little_shared_memory_as_in_a_container(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "dev/shm").mkdir(parents=True)
    small = shutil.disk_usage("/")._replace(total=64 << 20, free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: small)
    found = examine(machine=Machine(root))
    assert "--shm-size" in bad(found, "shared memory").todo
    assert [each.state for each in of(found, "disk")] == ["warning"] * 3


def test_a_port_that_is_taken(root: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        found = list(doctor._ports({port: "gRPC"}))
    assert bad(found, "ports").said == f"{port}, for gRPC, is taken"
    assert list(doctor._ports({port: "gRPC"})) == [Finding("ports", "ok", f"free: {port}")]


def test_a_clock_that_nobody_keeps_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "clock_is_set", lambda: False)
    assert "chrony" in bad(list(doctor._clock()), "clock").todo
    monkeypatch.setattr(doctor, "clock_is_set", lambda: True)
    assert [each.state for each in doctor._clock()] == ["ok"]


def test_a_provider_that_does_not_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "onnxruntime.get_available_providers",
        lambda: ["TensorrtExecutionProvider", "CPUExecutionProvider"],
    )
    words = {"TensorrtExecutionProvider": "libnvinfer.so.10: cannot open shared object file"}
    monkeypatch.setattr("edgeperc.inference.providers.why_not", lambda name: words.get(name, ""))
    found = examine(machine=Machine(root))
    assert of(found, "onnxruntime")[0].said.endswith("runs networks by cpu")
    assert bad(found, "onnxruntime").state == "warning"
    assert "libnvinfer.so.10" in bad(found, "onnxruntime").said


def an_app(folder: Path, *, model: str, more: str = "", rig: str = "twin-search") -> str:
    file = folder / "mine.toml"
    pipeline = f'name = "a"\ninput = "wide"\nmodel = "{model}"\n{more}\n'
    sink = '[[sinks]]\nkind = "grpc"\nlisten = "127.0.0.1:50123"\n'
    file.write_text(f'rig = "{rig}"\n[[pipelines]]\n{pipeline}{sink}')
    return str(file)


def test_an_app_and_its_models(root: Path, tmp_path: Path) -> None:
    found = examine(an_app(tmp_path, model="finder-twin"), machine=Machine(root))
    assert of(found, "app")[0].state == "ok"
    assert "sha256 right" in of(found, "model")[0].said
    assert of(found, "ports")[0].said == "free: 50123"


def test_a_model_that_was_damaged(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "mine"
    shutil.copytree(places.find_model("finder-twin").folder, folder)
    with (folder / "finder-twin.onnx").open("ab") as file:
        file.write(b"more")
    found = examine(an_app(tmp_path, model=str(folder)), machine=Machine(root))
    assert "sha256 is not the one" in bad(found, "model").said
    assert bad(found, "model").state == "problem"


def test_what_an_app_requires_and_this_machine_lacks(root: Path, tmp_path: Path) -> None:
    mine = an_app(tmp_path, model="finder-twin", more='require = "tensorrt"')
    found = examine(mine, machine=Machine(root))
    assert bad(found, "onnxruntime") == Finding(
        "onnxruntime",
        "problem",
        "the app requires 'tensorrt', which is not in it",
        bad(found, "onnxruntime").todo,
    )
    assert "onnxruntime-gpu" in bad(found, "onnxruntime").todo


def test_a_library_that_an_app_needs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = tmp_path / "rig.toml"
    rig.write_text(
        '[sensors.wide]\ndriver = "basler"\n[mirror]\ndriver = "optotune"\nport = "/dev/ttyNONE"\n'
    )
    monkeypatch.setattr(doctor, "_installed", lambda name: name != "pypylon")
    found = examine(an_app(tmp_path, model="finder-twin", rig=str(rig)), machine=Machine(root))
    assert bad(found, "extras") == Finding(
        "extras", "problem", "the app needs pypylon", "pip install 'edgeperc[basler]'"
    )
    assert "/dev/ttyNONE is not there" in bad(found, "mirror").said


def test_a_mistake_in_an_app_is_said(root: Path, tmp_path: Path) -> None:
    found = examine(an_app(tmp_path, model="nosuch"), machine=Machine(root))
    assert "unknown model 'nosuch'" in bad(found, "model").said
    found = examine("nosuch", machine=Machine(root))
    assert bad(found, "app").state == "problem"


def test_the_verb_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # with the real providers
    said = CliRunner().invoke(app, ["doctor", "--json", "events"])
    found: list[dict[str, Any]] = json.loads(said.stdout)
    topics = {each["topic"] for each in found}
    assert {"python", "onnxruntime", "opencv", "priority", "disk", "clock", "model"} <= topics
    problems = [each for each in found if each["state"] == "problem"]
    assert said.exit_code == bool(problems)
    assert CliRunner().invoke(app, ["doctor", "nosuch"]).exit_code == 1
    text = CliRunner().invoke(app, ["doctor"]).output
    assert "python" in text
