"""Compressed encoders of the published sizes: how much faster in onnxruntime than in float.

Random weights, so speed and size alone; ViT-B and Hiera-T at 512 px, MobileSAM at 1024. Each file
has a process of its own and they run by turns, see `edgeperc.bench.onnx_pair`. Keys of accuracy are
those of `edgeperc.bench.compress_accuracy`, where a trained network and pictures are given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeperc.bench import compress_accuracy, openvino_nncf
from edgeperc.bench.figures import Figures
from edgeperc.bench.onnx_pair import Timed, paired
from edgeperc.bench.openvino_arm import arm
from edgeperc.errors import ConfigError

AIMS = {"vitb": 2.3, "hiera_t": 2.1, "mobilesam": 1.7}
OPENVINO_AIMS = {"vitb": 3.0, "hiera_t": 2.6, "mobilesam": 2.4}
NATIVE = "int8_vs_openvino_native_vitb"
LEAST_OF_NATIVE = 0.9
MOST_BYTES = 0.28
UNEVEN = 0.03


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured. only: keys, all of them if empty. folder: where networks are kept for the
    next run; a temporary one if None. accuracy: as `edgeperc.bench.compress_accuracy` takes them,
    for its keys. openvino_venv: an environment of `edgeperc.bench.openvino_venv --native`, for keys
    of OpenVINO.
    """

    only: tuple[str, ...] = ()
    rounds: int = 3
    folder: Path | None = None
    accuracy: Any = None
    openvino_venv: Path | None = None


def measure(figures: Figures, recording: Path | None, settings: Settings = Settings()) -> None:
    """Fill figures. Raises ConfigError for an unknown key, or a network that cannot be made."""
    openvino = [*(f"int8_speedup_openvino_ep_{name}" for name in OPENVINO_AIMS), NATIVE]
    plain = [*(f"int8_speedup_{name}" for name in AIMS), "size_ratio_vitb", *compress_accuracy.KEYS]
    known = [*plain, *openvino]
    if unknown := [key for key in settings.only if key not in known]:
        raise ConfigError(f"unknown figure '{unknown[0]}'", hint=f"known are: {', '.join(known)}")
    wanted = settings.only or known
    python = _openvino(settings.openvino_venv)
    if python is None:
        wanted = _without(figures, wanted, openvino, settings.only, "--openvino-venv FOLDER", _MAKE)
    if settings.accuracy is None:
        needs, hint = (
            "--weights FILE --data FOLDER",
            "what `edgeperc train promptable` wrote, and its pictures",
        )
        wanted = _without(figures, wanted, compress_accuracy.KEYS, settings.only, needs, hint)
    with tempfile.TemporaryDirectory() as scratch:
        folder = settings.folder or Path(scratch)
        for name in AIMS:
            if f"int8_speedup_{name}" in wanted:
                _speed(figures, name, _built(figures, name, folder), settings.rounds)
        if "size_ratio_vitb" in wanted:
            built = _built(figures, "vitb", folder)
            sizes = [(built / f"{kind}.onnx").stat().st_size for kind in ("int8", "float")]
            what = f"ViT-B encoder, {sizes[0] / 1e6:.1f} of {sizes[1] / 1e6:.1f} MB"
            figures.add("size_ratio_vitb", sizes[0] / sizes[1], what, aim=MOST_BYTES)
        if python is not None:
            _by_openvino(figures, wanted, folder, python, settings.rounds)
    if accuracy := tuple(key for key in compress_accuracy.KEYS if key in wanted):
        compress_accuracy.measure(figures, None, settings.accuracy, only=accuracy)


def _speed(figures: Figures, name: str, built: Path, rounds: int) -> None:
    figures.progress(f"{name}: integers against float")
    timed: Timed = paired(built / "float.onnx", built / "int8.onnx", rounds=rounds)
    facts = json.loads((built / "facts.json").read_bytes())
    what = (
        f"{name} {facts['picture_px']} px: {timed.before_ms:.0f} ms, then {timed.after_ms:.0f}, "
        f"processor time of one thread, load {timed.load:.1f}"
    )
    figures.add(f"int8_speedup_{name}", timed.speedup, what, aim=AIMS[name])
    _uneven(figures, f"{name}: float", timed)


def _by_openvino(
    figures: Figures, wanted: Collection[str], folder: Path, python: Path, rounds: int
) -> None:
    for name in OPENVINO_AIMS:
        if f"int8_speedup_openvino_ep_{name}" in wanted:
            _openvino_speed(figures, name, _built(figures, name, folder), python, rounds)
    if NATIVE in wanted:
        _against_native(figures, _built(figures, "vitb", folder), python, rounds)


def _openvino_speed(figures: Figures, name: str, built: Path, python: Path, rounds: int) -> None:
    """Integers by the OpenVINO provider against floats by the CPU provider beside it."""
    figures.progress(f"{name}: integers by OpenVINO against float")
    before = arm(python, "cpu", built / "float.onnx")
    timed = paired(before, arm(python, "openvino", built / "int8.onnx"), rounds=rounds)
    what = (
        f"{name}, OpenVINO provider against float on the CPU provider of one environment: "
        f"{timed.before_ms:.0f} ms, then {timed.after_ms:.0f}, "
        f"processor time of one thread, load {timed.load:.1f}"
    )
    key = f"int8_speedup_openvino_ep_{name}"
    figures.add(key, timed.speedup, what, aim=OPENVINO_AIMS[name])
    _uneven(figures, f"{name}: float beside OpenVINO", timed)


def _against_native(figures: Figures, built: Path, python: Path, rounds: int) -> None:
    """OpenVINO by itself, with the INT8 network of its own tool, against the provider with ours."""
    figures.progress("vitb: OpenVINO's own INT8 network against ours")
    own = openvino_nncf.made(python, built / "float.onnx", built / "nncf.xml")
    arms = [arm(python, "native", own), arm(python, "openvino", built / "int8.onnx")]
    timed = paired(*arms, rounds=rounds)
    what = (
        f"ViT-B: {timed.before_ms:.0f} ms for NNCF's INT8 network by OpenVINO itself, "
        f"{timed.after_ms:.0f} for ours by the provider, processor time, load {timed.load:.1f}"
    )
    figures.add(NATIVE, timed.speedup, what, aim=LEAST_OF_NATIVE)
    _uneven(figures, "vitb: OpenVINO by itself", timed)


def _uneven(figures: Figures, what: str, timed: Timed) -> None:
    if timed.uneven > UNEVEN:
        share = 100 * timed.uneven
        figures.note(f"{what} took uneven times ({share:.0f} %), its ratio is rough.")


def _without(
    figures: Figures,
    wanted: Collection[str],
    keys: Collection[str],
    asked: Collection[str],
    needs: str,
    hint: str,
) -> list[str]:
    """What is wanted beside `keys`, and a note. Raises ConfigError if one of them was asked for."""
    left = [key for key in wanted if key not in keys]
    if first := [key for key in asked if key in keys]:
        raise ConfigError(f"'{first[0]}' needs {needs}", hint=hint)
    if len(left) < len(wanted):
        figures.note(f"Not measured without {needs}: {', '.join(k for k in wanted if k in keys)}.")
    return left


_MAKE = "python -m edgeperc.bench.openvino_venv FOLDER --native"


def _openvino(folder: Path | None) -> Path | None:
    """The Python of an environment. Raises ConfigError if the folder is none."""
    if folder is None:
        return None
    python = folder.absolute() / "bin" / "python"
    if not python.is_file():
        raise ConfigError(f"{folder}: no environment is there", hint=_MAKE)
    return python


def _built(figures: Figures, name: str, folder: Path) -> Path:
    """A folder with float.onnx, int8.onnx and facts.json of a network."""
    out = folder / f"compress_{name}"
    if not (out / "facts.json").exists():
        figures.progress(f"{name}: exporting it")
        done = subprocess.run(
            [sys.executable, "-m", "edgeperc.offline.bench_compress", name, str(out)],
            check=False,
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise ConfigError(f"{name} cannot be made: {said}")
    return out
