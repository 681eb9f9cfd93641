"""Every run-time dependency has a wheel for 64-bit Arm, as the committed lists say. No network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from edgeperc.config import read_toml
from edgeperc.offline import jetson_lock
from edgeperc.offline.jetson_lock import FROM_ELSEWHERE, NUMPY, PYTHONS, ROOT, file_of, lock

GLIBC = (2, 35)
LINE = re.compile(
    r"(?P<name>[\w.-]+)==(?P<version>\S+)"
    r"(?P<hashes>( --hash=sha256:[0-9a-f]{64})+)  # (?P<file>\S+)"
)


@dataclass(frozen=True)
class Pin:
    version: Version
    file: str


def pins(*, jetson: bool, python: str) -> dict[str, Pin]:
    found = {}
    for line in file_of(jetson=jetson, python=python).read_text().splitlines():
        if line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        assert match, line
        found[canonicalize_name(match["name"])] = Pin(Version(match["version"]), match["file"])
    return found


def wanted(lines: list[str], python: str) -> list[Requirement]:
    """Those of some requirements that hold on a Jetson with this Python."""
    there = {
        "python_version": python,
        "python_full_version": f"{python}.12",
        "platform_machine": "aarch64",
        "platform_system": "Linux",
        "sys_platform": "linux",
        "extra": "",
    }
    asked = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [each for each in asked if each.marker is None or each.marker.evaluate(there)]


def dependencies(python: str) -> list[Requirement]:
    return wanted(read_toml(ROOT / "pyproject.toml")["project"]["dependencies"], python)


EVERY = [(jetson, python) for jetson in (False, True) for python in PYTHONS]


@pytest.mark.parametrize(("jetson", "python"), EVERY)
def test_every_wheel_runs_on_64_bit_arm(jetson: bool, python: str) -> None:
    interpreter = f"cp{python.replace('.', '')}"
    for name, pin in pins(jetson=jetson, python=python).items():
        of, version, _, tags = parse_wheel_filename(pin.file)
        assert (canonicalize_name(of), version) == (name, pin.version)
        assert any(
            (tag.interpreter in (interpreter, "py3") or tag.abi == "abi3") and fits(tag.platform)
            for tag in tags
        ), pin.file


def fits(platform: str) -> bool:
    if platform == "any":
        return True
    numbers = {"manylinux2014_aarch64": "2_17"}.get(platform)
    match = re.fullmatch(r"manylinux_(\d+)_(\d+)_aarch64", platform)
    glibc = numbers.split("_") if numbers else list(match.groups()) if match else None
    return glibc is not None and (int(glibc[0]), int(glibc[1])) <= GLIBC


@pytest.mark.parametrize(("jetson", "python"), EVERY)
def test_every_run_time_dependency_is_there(jetson: bool, python: str) -> None:
    """A dependency without a wheel belongs into an extra."""
    there = pins(jetson=jetson, python=python)
    for each in dependencies(python):
        name = canonicalize_name(each.name)
        if jetson and name in FROM_ELSEWHERE:
            assert name not in there
            continue
        assert name in there, f"{name} is new: make lock-jetson"
        assert there[name].version in each.specifier, f"{name}: make lock-jetson"


@pytest.mark.parametrize(("jetson", "python"), EVERY)
def test_they_are_the_versions_that_edgeperc_is_tested_with(jetson: bool, python: str) -> None:
    there = pins(jetson=jetson, python=python)
    held = wanted((ROOT / "constraints.txt").read_text().splitlines(), python)
    versions = {canonicalize_name(each.name): each.specifier for each in held}
    for each in dependencies(python):
        name = canonicalize_name(each.name)
        assert name in versions, f"{name} is not in constraints.txt"
        if name in there and not (jetson and name == "numpy"):
            assert there[name].version in versions[name], f"{name}: make lock-jetson"
    if jetson:
        assert there["numpy"].version in Requirement(NUMPY).specifier


def test_a_list_is_made_of_what_uv_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def resolve(folder: Path, requirements: Any, constraints: Any, python: str) -> Any:
        asked.append((requirements, constraints, python))
        any_board = {"url": "https://x/a-1.0-py3-none-any.whl", "hashes": {"sha256": "0" * 64}}
        arm = "a-1.0-cp310-cp310-manylinux_2_17_aarch64.whl"
        own = {"url": f"https://x/{arm}", "hashes": {"sha256": "1" * 64}}
        return [{"name": "a", "version": "1.0", "wheels": [any_board, own]}]

    monkeypatch.setattr(jetson_lock, "_resolve", resolve)
    (line,) = [each for each in lock(jetson=True, python="3.10").splitlines() if each[0] != "#"]
    match = LINE.fullmatch(line)
    assert match
    assert match["file"].endswith("aarch64.whl")
    assert match["hashes"].count("--hash") == 2
    requirements, constraints, _ = asked[0]
    assert not [each for each in requirements if each.startswith(FROM_ELSEWHERE)]
    assert NUMPY in constraints
    lock(jetson=False, python="3.12")
    assert [each for each in asked[1][0] if each.startswith(FROM_ELSEWHERE)]
