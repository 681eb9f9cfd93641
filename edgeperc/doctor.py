"""What a machine has and lacks to run edgeperc, in plain words: `edgeperc doctor`.

    for found in examine(app="search-rig"):
        print(found.state, found.topic, found.said, found.todo)

Each check is a function that yields what it finds; a problem is what keeps something from running,
a warning what makes it slow or may surprise. With an app, what that app needs becomes a problem.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from edgeperc import places, plugin
from edgeperc.errors import EdgepercError, ModelError
from edgeperc.machine import HERE, Machine, clock_is_set, cores

State = Literal["ok", "warning", "problem"]

PORTS = {50051: "gRPC", 8080: "the web view", 9464: "metrics"}
_GB = 1e9
_HOT_C = 90.0
_SHM_BYTES = 256e6  # rings of frames; containers have 64 MB unless told otherwise
_MEMLOCK_BYTES = 8 * 1024**2
_EVENT_CAMERAS = {"152a": "iniVation", "04b4": "Prophesee"}
_NEEDED = {"argus": "GStreamer"}
"""What a driver needs of OpenCV."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. todo: what to do about it, where it is not ok."""

    topic: str
    state: State
    said: str
    todo: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What an app needs, or nothing. drivers: of its sensors and mirror."""

    drivers: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    priority: bool = False


def examine(app: str = "", *, machine: Machine = HERE) -> list[Finding]:
    """Look at everything. app: by name or path, also its models, libraries and ports."""
    found: list[Finding] = []
    needs, ports = Needs(), dict(PORTS)
    if app:
        needs, ports, of_app = _app(app)
        found += of_app
    checks: Sequence[Callable[[], Iterator[Finding]]] = (
        _python,
        lambda: _runtime(needs),
        lambda: _gpu(machine, needs),
        lambda: _opencv(machine, needs),
        lambda: _devices(machine),
        lambda: _priority(machine, needs),
        lambda: _processors(machine),
        lambda: _power(machine),
        lambda: _heat(machine),
        lambda: _memory(machine),
        _disks,
        _clock,
        lambda: _extras(needs),
        lambda: _ports(ports),
    )
    for check in checks:
        found += check()
    return found


def _python() -> Iterator[Finding]:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info >= (3, 13):
        yield Finding("python", "warning", said, "edgeperc is tested with Python 3.10 to 3.12")
    else:
        yield Finding("python", "ok", said)


def _runtime(needs: Needs) -> Iterator[Finding]:
    import onnxruntime as ort

    from edgeperc.config import ProviderName, ProviderTable
    from edgeperc.inference.providers import Provider, why_not

    there = ort.get_available_providers()
    providers = {name: Provider(ProviderTable(name=name)) for name in get_args(ProviderName)}
    asked = {name: each for name, each in providers.items() if each.execution in there}
    with ThreadPoolExecutor(len(asked) or 1) as pool:
        reasons = pool.map(why_not, [each.execution for each in asked.values()])
    fails = {name: reason for name, reason in zip(asked, reasons, strict=True) if reason}
    works = [name for name in asked if name not in fails]
    yield Finding(
        "onnxruntime",
        "ok" if works else "problem",
        f"{ort.__version__} runs networks by {', '.join(works) or 'nothing'}",
        "" if works else "install onnxruntime anew",
    )
    for name, reason in fails.items():
        state: State = "problem" if name in needs.required else "warning"
        said = f"'{name}' is in it, but does not start: {reason}"
        yield Finding("onnxruntime", state, said, providers[name].install)
    for name in sorted(needs.required.difference(asked)):
        said = f"the app requires '{name}', which is not in it"
        yield Finding("onnxruntime", "problem", said, providers[name].install)


def _gpu(machine: Machine, needs: Needs) -> Iterator[Finding]:
    from edgeperc.inference.gpu import gpu, tensorrt_version

    found, tensorrt = gpu(), tensorrt_version()
    if found is None:
        wanted = machine.is_jetson() or needs.required & {"tensorrt", "cuda"}
        yield Finding(
            "gpu",
            "warning" if wanted else "ok",
            "no GPU of CUDA is seen",
            "in a container: --runtime nvidia; else look at JetPack, or the driver"
            if wanted
            else "",
        )
        return
    yield Finding("gpu", "ok", str(found))
    if tensorrt:
        yield Finding("tensorrt", "ok", tensorrt)
    else:
        todo = "on a Jetson: apt install tensorrt; then edgeperc prepare"
        yield Finding("tensorrt", "warning", "libnvinfer is not found", todo)


def _opencv(machine: Machine, needs: Needs) -> Iterator[Finding]:
    import cv2

    build = cv2.getBuildInformation()
    has = {}
    for name, label in (("GStreamer", "GStreamer"), ("V4L2", "v4l/v4l2"), ("FFmpeg", "FFMPEG")):
        line = re.search(rf"^\s*{re.escape(label)}:\s*(.*)$", build, re.MULTILINE)
        has[name] = bool(line and line[1].startswith("YES"))
    words = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in has.items())
    yield Finding("opencv", "ok", f"{cv2.__version__} from {Path(cv2.__file__).parent}: {words}")
    if not has["GStreamer"]:
        needed = any(_NEEDED.get(driver) == "GStreamer" for driver in needs.drivers)
        if needed or machine.is_jetson():
            yield Finding(
                "opencv",
                "problem" if needed else "warning",
                "it has no GStreamer: CSI cameras cannot be opened",
                "take the system's python3-opencv, not pip's: see docs/jetson.md",
            )


def _devices(machine: Machine) -> Iterator[Finding]:
    kinds = (
        ("cameras", "dev/video*", "video"),
        ("serial ports", "dev/tty[AU][CS][MB]*", "dialout"),
        ("graphics", "dev/dri/render*", "render"),
        ("graphics", "dev/nvmap", "video"),
        ("graphics", "dev/nvhost-*", "video"),
    )
    for topic, pattern, group in kinds:
        nodes = sorted(machine.root.glob(pattern))
        shut = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
        if shut:
            names = ", ".join(f"/{node.relative_to(machine.root)}" for node in shut[:4])
            todo = f"sudo usermod -aG {group} $USER, and log in again; in a container --group-add"
            yield Finding(topic, "warning", f"{names} may not be opened", todo)
        elif topic != "graphics":
            names = ", ".join(f"/{node.relative_to(machine.root)}" for node in nodes[:4])
            yield Finding(topic, "ok", names or "none are plugged in")
    yield from _usb(machine)


def _usb(machine: Machine) -> Iterator[Finding]:
    for vendor in sorted(machine.root.glob("sys/bus/usb/devices/*/idVendor")):
        name = _EVENT_CAMERAS.get(vendor.read_text().strip())
        if name is None:
            continue
        bus, device = (int((vendor.parent / each).read_text()) for each in ("busnum", "devnum"))
        node = machine.root / f"dev/bus/usb/{bus:03}/{device:03}"
        if os.access(node, os.R_OK | os.W_OK):
            yield Finding("event cameras", "ok", f"one of {name}")
        else:
            todo = "neuromorphic-drivers-install-udev-rules, and plug it in again"
            said = f"one of {name}, which may not be opened"
            yield Finding("event cameras", "warning", said, todo)


def _priority(machine: Machine, needs: Needs) -> Iterator[Finding]:
    if machine.may_have_priority():
        yield Finding("priority", "ok", "real-time priority is permitted")
    else:
        yield Finding(
            "priority",
            "warning" if needs.priority or not needs.drivers else "ok",
            "real-time priority is not permitted: captures and the search are late under load",
            "systemd: LimitRTPRIO=20; a shell: rtprio in /etc/security/limits.d; "
            "a container: --ulimit rtprio=20",
        )
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY and soft < _MEMLOCK_BYTES:
        said = f"only {soft / 1024:.0f} KiB may be locked in memory"
        yield Finding("memlock", "warning", said, "systemd: LimitMEMLOCK=64M; a shell: ulimit -l")
    else:
        most = "as much as one likes" if soft == resource.RLIM_INFINITY else f"{soft / 1e6:.0f} MB"
        yield Finding("memlock", "ok", f"{most} may be locked in memory")


def _processors(machine: Machine) -> Iterator[Finding]:
    count = cores()
    said = f"{count} cores" if count > 1 else "one core"
    todo = "" if count > 1 else "give it two: capture and inference wait for each other"
    yield Finding("processors", "ok" if count > 1 else "warning", said, todo)
    lazy = [each for each in machine.governors() if each not in ("performance", "schedutil")]
    if lazy:
        todo = (
            "sudo jetson_clocks" if machine.is_jetson() else "cpupower frequency-set -g performance"
        )
        said = f"their governor is {', '.join(lazy)}: clocks rise late after a pause"
        yield Finding("processors", "warning", said, todo)
    elif machine.governors():
        yield Finding("processors", "ok", f"governor {', '.join(machine.governors())}")


def _power(machine: Machine) -> Iterator[Finding]:
    mode, board = machine.power_mode(), machine.board()
    if not mode:
        return
    slow = mode in ("low-power", "quiet") or (machine.is_jetson() and "MAXN" not in mode)
    todo = "sudo nvpmodel -m 0" if machine.is_jetson() else "powerprofilesctl set performance"
    said = f"{mode} on {board}" if board else mode
    yield Finding("power mode", "warning" if slow else "ok", said, todo if slow else "")


def _heat(machine: Machine) -> Iterator[Finding]:
    for slow in machine.throttling():
        yield Finding("heat", "warning", f"throttling: {slow}", "cool it, or lower the power mode")
    hot = max(machine.temperatures().items(), key=lambda each: each[1], default=None)
    if hot is None:
        yield Finding("heat", "ok", "no thermal zone tells anything")
    elif hot[1] >= _HOT_C:
        yield Finding("heat", "warning", f"{hot[0]} is at {hot[1]:.0f} °C", "cool it")
    else:
        yield Finding("heat", "ok", f"hottest is {hot[0]}, {hot[1]:.0f} °C")
    if count := machine.throttled_before():
        said = f"slowed down {count} times since the machine was started"
        yield Finding("heat", "warning", said, "cool it, or look at its power supply")


def _memory(machine: Machine) -> Iterator[Finding]:
    available, total = machine.memory_bytes()
    if total:
        short = available < 0.5 * _GB
        said = f"{available / _GB:.1f} of {total / _GB:.1f} GB available"
        todo = "end what is not needed, or take smaller models" if short else ""
        yield Finding("memory", "warning" if short else "ok", said, todo)
    shm = machine.root / "dev/shm"
    if shm.is_dir():
        size = shutil.disk_usage(shm).total
        short = size < _SHM_BYTES
        todo = "a container: --shm-size=1g, or --ipc=host" if short else ""
        said = f"/dev/shm holds {size / 1e6:,.0f} MB"
        yield Finding("shared memory", "warning" if short else "ok", said, todo)


def _disks() -> Iterator[Finding]:
    kinds = {"cache": places.cache_home(), "models": places.data_home(), "here": Path.cwd()}
    for what, folder in kinds.items():
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        said = f"{free / _GB:.1f} GB free for {folder}"
        if not os.access(there, os.W_OK):
            todo = "set XDG_CACHE_HOME to one that is" if what == "cache" else ""
            yield Finding("disk", "warning", f"{there} may not be written", todo)
        elif free < _GB:
            yield Finding("disk", "warning", said, "make room: recordings and engines are large")
        else:
            yield Finding("disk", "ok", said)


def _clock() -> Iterator[Finding]:
    is_set = clock_is_set()
    if is_set is None:
        yield Finding("clock", "ok", "nobody knows whether the wall clock is kept right")
    elif is_set:
        yield Finding("clock", "ok", "the wall clock is kept right")
    else:
        yield Finding(
            "clock",
            "warning",
            "nothing keeps the wall clock right: stamps of several machines do not go together",
            "apt install chrony (or systemd-timesyncd, or ptp4l and phc2sys)",
        )


def _extras(needs: Needs) -> Iterator[Finding]:
    about = importlib.metadata.metadata("edgeperc")
    wanted = {
        builtin.extra
        for table in (plugin.DRIVERS, plugin.MIRRORS, plugin.SINKS)
        for name, builtin in table.items()
        if name in needs.drivers and builtin.extra
    }
    lacks = {}
    for extra in about.get_all("Provides-Extra") or []:
        if extra in ("dev", "mamba"):
            continue
        names = _named(importlib.metadata.requires("edgeperc") or [], extra)
        lacks[extra] = [name for name in names if not _installed(name)]
    for extra, missing in lacks.items():
        if missing and extra in wanted:
            said = f"the app needs {', '.join(missing)}"
            yield Finding("extras", "problem", said, f"pip install 'edgeperc[{extra}]'")
    whole = [extra for extra, missing in lacks.items() if not missing]
    parts = [f"{extra} (lacks {', '.join(missing)})" for extra, missing in lacks.items() if missing]
    said = f"installed: {', '.join(whole) or 'none'}"
    yield Finding("extras", "ok", f"{said}; not: {', '.join(parts)}" if parts else said)


def _named(requirements: Sequence[str], extra: str) -> Iterator[str]:
    for line in requirements:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        if re.search(rf"extra == ['\"]{extra}['\"]", line) and name != "edgeperc":
            yield name


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _ports(ports: dict[int, str]) -> Iterator[Finding]:
    taken = [port for port in ports if not _is_free(port)]
    for port in taken:
        said = f"{port}, for {ports[port]}, is taken"
        yield Finding(
            "ports", "warning", said, "end who listens there: ss -ltnp; or listen elsewhere"
        )
    free = [str(port) for port in ports if port not in taken]
    if free:
        yield Finding("ports", "ok", f"free: {', '.join(free)}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _app(name: str) -> tuple[Needs, dict[int, str], list[Finding]]:
    """What an app needs, the ports it listens on, and what is to be said of its models."""
    from edgeperc.plan import Plan, check_names

    try:
        plan = Plan.load(name)
        check_names(plan)
    except EdgepercError as error:
        return Needs(), dict(PORTS), [Finding("app", "problem", str(error), error.hint)]
    found = [Finding("app", "ok", f"{plan.app_where} on {plan.rig_path}")]
    required = {table.require for table in plan.app.pipelines if table.require}
    for model in dict.fromkeys(table.model for table in plan.app.pipelines):
        found += _model(model)
    drivers = {str(sensor.get("driver")) for sensor in plan.rig.sensors.values()}
    drivers |= {str((plan.rig.mirror or {}).get("driver"))}
    drivers |= {str(sink.get("kind")) for sink in plan.app.sinks}
    port = (plan.rig.mirror or {}).get("port")
    if isinstance(port, str) and not os.access(port, os.R_OK | os.W_OK):
        there = os.path.exists(port)
        said = f"the mirror's port {port} {'may not be opened' if there else 'is not there'}"
        todo = "sudo usermod -aG dialout $USER" if there else "plug it in, or simulate it"
        found.append(Finding("mirror", "problem", said, todo))
    listens = {}
    for sink in plan.app.sinks:
        number = re.fullmatch(r".*:(\d+)", str(sink.get("listen", "")))
        if number and int(number[1]):
            listens[int(number[1])] = str(sink.get("kind"))
    needs = Needs(
        drivers=frozenset(drivers),
        required=frozenset(required),
        priority=plan.app.search is not None,
    )
    return needs, listens, found


def _model(name: str) -> Iterator[Finding]:
    """Whether a model's files are here, and are those that its card names."""
    try:
        model = places.find_model(name)
        for entry in model.card.files:
            path = model.folder / entry.path
            if entry.sha256 and places.sha256(path) != entry.sha256:
                raise ModelError(
                    f"{path}: sha256 is not the one in its model.toml",
                    hint="the file was changed or damaged; import, pull or export it again",
                )
    except EdgepercError as error:
        yield Finding("model", "problem", str(error), error.hint)
    else:
        count = len(model.card.files)
        files = f"{count} files" if count > 1 else "its file"
        yield Finding("model", "ok", f"{name}: {files} in {model.folder}, sha256 right")
