"""What a figure was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import numpy as np

from edgeperc.bench.timing import times_ms

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16", "neon", "asimd", "sve")
_LIBRARIES = ("numpy", "numba", "onnxruntime", "torch", "opencv-python-headless")
_BUSY_LOAD = 2.0
"""Other processes' load average from which on times say little and only ratios count."""


def facts() -> dict[str, str | int | float | list[str] | dict[str, str]]:
    """CPU, its vector instructions, cores, system and versions."""
    cpu = _cpu_info()
    flags = (cpu.get("flags") or cpu.get("Features") or "").split()
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _LIBRARIES if (version := _version(name))},
    }


def load() -> float:
    """Load average of the last minute; above `busy` before a run, its times are not to be cited."""
    return os.getloadavg()[0]


def busy(load_before: float) -> bool:
    """Whether other processes were at work when the run began."""
    return load_before > _BUSY_LOAD


def commit() -> str:
    """The checkout's commit, with `+` where files differ from it; empty outside a checkout."""
    root = Path(__file__).parents[2]
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def gemm_gflops() -> float:
    """The best rate of a large float32 matrix product in numpy, on all cores."""
    size = 1536
    a, b = np.random.default_rng(0).random((2, size, size), dtype=np.float32)
    out = np.empty_like(a)
    return 2 * size**3 / min(times_ms(lambda: np.matmul(a, b, out=out), reps=8)) * 1e-6


def _cpu_info() -> dict[str, str]:
    """The first processor's entry in /proc/cpuinfo; empty on other systems."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
