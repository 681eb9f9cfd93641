"""What devices can do: data sheets in devices.toml, and this machine as it was measured."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np

from edgeperc.config import Strict, load
from edgeperc.errors import ConfigError

HERE = "here"
_PATH = Path(__file__).with_name("devices.toml")
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Figure(Strict, frozen=True, kw_only=True):
    """A number and where it comes from. basis: see devices.toml."""

    value: Positive
    basis: Literal["stated", "derived", "unverified"]
    source: Annotated[str, msgspec.Meta(min_length=1)]
    date: Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\d$")]


class Rates(Strict, frozen=True, kw_only=True):
    """10^12 operations a second, dense."""

    fp32: Figure
    fp16: Figure
    int8: Figure


class Sheet(Strict, frozen=True, kw_only=True):
    """A table of devices.toml."""

    name: str
    bandwidth_gb_s: Figure
    tops: Rates


class _Sheets(Strict, frozen=True, kw_only=True, rename="kebab"):
    orin_agx: Sheet
    orin_nx: Sheet
    orin_nano: Sheet
    xavier: Sheet
    xavier_nx: Sheet


@dataclass(frozen=True)
class Device:
    """What a prediction needs to know.

    ops_s: precision -> operations a second of matrix products. vector_ops_s: of what is not a
    multiply-add. bandwidth: (bytes, bytes a second) in growing order; a layer that moves as many
    bytes gets that much, between them it is interpolated over the logarithm of the bytes.
    launch_s: what a layer takes if it does nothing; 0 where nobody measured it. notes: on what the
    figures rest, a line each.
    """

    key: str
    name: str
    ops_s: Mapping[str, float]
    vector_ops_s: float
    bandwidth: tuple[tuple[float, float], ...]
    launch_s: float = 0.0
    notes: tuple[str, ...] = ()

    def bytes_s(self, moved: float) -> float:
        """Bytes a second for a layer that moves so many."""
        sizes, rates = zip(*self.bandwidth, strict=True)
        return float(np.interp(np.log(max(moved, 1.0)), np.log(sizes), rates))

    @property
    def float_precision(self) -> str:
        """In what a network is computed where it is not quantized."""
        return "fp16" if "fp16" in self.ops_s else "fp32"


def sheet(key: str) -> Sheet:
    """A device's figures with their sources. Raises ConfigError that lists the known ones."""
    known = sheets()
    if key not in known:
        near = difflib.get_close_matches(key, [*known, HERE], n=1)
        guess = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(
            f"unknown device '{key}'{guess}", hint=f"known are: {', '.join([*known, HERE])}"
        )
    return known[key]


def device(key: str) -> Device:
    """A device of devices.toml. A division of labour: its fp32 cores do what is no multiply-add."""
    found = sheet(key)
    figures = {
        "bandwidth": found.bandwidth_gb_s,
        **{name: getattr(found.tops, name) for name in ("fp32", "fp16", "int8")},
    }
    notes = [
        f"{name}: {figure.value:g} {'GB/s' if name == 'bandwidth' else 'TOPS'}, {figure.basis}, "
        f"{figure.source} ({figure.date})"
        for name, figure in figures.items()
    ]
    ops_s = {name: figure.value * 1e12 for name, figure in figures.items() if name != "bandwidth"}
    return Device(
        key=key,
        name=found.name,
        ops_s=ops_s,
        vector_ops_s=ops_s["fp32"] / 2,
        bandwidth=((1.0, found.bandwidth_gb_s.value * 1e9),),
        notes=(*notes, "launches of kernels and copies to and from the device count as nothing"),
    )


@lru_cache(maxsize=1)
def sheets() -> dict[str, Sheet]:
    """Key -> figures of all devices that come with the package."""
    loaded = load(_PATH, _Sheets)
    return {name.replace("_", "-"): getattr(loaded, name) for name in _Sheets.__struct_fields__}
