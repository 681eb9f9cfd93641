"""The GPU and the versions of what builds engines for it, asked of their libraries themselves.

gpu()                                   # Gpu(name="Orin", capability=(8, 7)), or None
tensorrt_version()                      # "10.3.0", or "" where there is none
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the CUDA driver."""
_NVINFER = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8", "libnvinfer.so")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU of CUDA. capability: compute capability, major and minor."""

    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name}, compute capability {major}.{minor}"


@dataclass(frozen=True, slots=True)
class Versions:
    """What an engine was built by, and for."""

    runtime: str
    device: str


def versions_of(provider: str, options: Mapping[str, str]) -> Versions | None:
    """What engines of a provider depend on; None if it builds none, or it cannot be known."""
    import onnxruntime as ort  # not by those who only ask what is being built

    if provider == "OpenVINOExecutionProvider":
        device = options.get("device_type", "CPU")
        return Versions(f"onnxruntime {ort.__version__}", f"{device}, {_processor()}")
    if provider != "TensorrtExecutionProvider":
        return None
    number, version = options.get("device_id", "0"), tensorrt_version()
    found = gpu(int(number)) if number.isdecimal() else None
    if found is None or not version:
        return None
    return Versions(f"onnxruntime {ort.__version__}, TensorRT {version}", str(found))


@functools.cache
def gpu(number: int = 0) -> Gpu | None:
    """A GPU as the CUDA driver names it; None if there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, name = ctypes.c_int(), ctypes.create_string_buffer(128)
    values = [ctypes.c_int(), ctypes.c_int()]
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), number)
        or cuda.cuDeviceGetName(name, len(name), device)
        or any(
            cuda.cuDeviceGetAttribute(ctypes.byref(value), which, device)
            for value, which in zip(values, _CAPABILITY, strict=True)
        )
    )
    if failed:
        return None
    major, minor = (value.value for value in values)
    return Gpu(name=name.value.decode(errors="replace"), capability=(major, minor))


@functools.cache
def tensorrt_version() -> str:
    """Of the library that the loader finds, as 10.3.0; empty if it finds none."""
    for name in _NVINFER:
        try:
            number = int(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
        return version_of(number)
    return ""


def version_of(number: int) -> str:
    """8502 -> 8.5.2, as TensorRT wrote its version up to 9; 100300 -> 10.3.0 since."""
    thousand = 10_000 if number >= 100_000 else 1000
    return f"{number // thousand}.{number % thousand // 100}.{number % 100}"


@functools.cache
def _processor() -> str:
    """Model and vector instructions, on which compiled code depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown processor"
    wanted = ("model name", "flags", "CPU part", "Features")
    first = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    return ", ".join(first[name] for name in wanted if name in first)
