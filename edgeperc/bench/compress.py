"""Compressed encoders of the published sizes: how much faster in onnxruntime than in float.

Random weights, so speed and size alone; ViT-B and Hiera-T at 512 px, MobileSAM at 1024. Each file
has a process of its own and they run by turns, see `edgeperc.bench.onnx_pair`. Keys of accuracy
need a trained network and are filled in by `ACCURACY`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeperc.bench.figures import Figures
from edgeperc.bench.onnx_pair import Timed, paired
from edgeperc.errors import ConfigError

AIMS = {"vitb": 2.3, "hiera_t": 2.1, "mobilesam": 1.7}
MOST_BYTES = 0.28
UNEVEN = 0.03


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured. only: keys, all of them if empty. folder: where networks are kept for the
    next run; a temporary one if None. data: a folder of data sets, for keys of accuracy.
    """

    only: tuple[str, ...] = ()
    rounds: int = 3
    folder: Path | None = None
    data: Path | None = None


ACCURACY: dict[str, Callable[[Figures, Settings], None]] = {}
"""Key -> what adds its figure."""


def measure(figures: Figures, recording: Path | None, settings: Settings = Settings()) -> None:
    """Fill figures. Raises ConfigError for an unknown key, or a network that cannot be made."""
    known = [*(f"int8_speedup_{name}" for name in AIMS), "size_ratio_vitb", *ACCURACY]
    if unknown := [key for key in settings.only if key not in known]:
        raise ConfigError(f"unknown figure '{unknown[0]}'", hint=f"known are: {', '.join(known)}")
    wanted = settings.only or known
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
    for key, fill in ACCURACY.items():
        if key in wanted:
            fill(figures, settings)


def _speed(figures: Figures, name: str, built: Path, rounds: int) -> None:
    figures.progress(f"{name}: integers against float")
    timed: Timed = paired(built / "float.onnx", built / "int8.onnx", rounds=rounds)
    facts = json.loads((built / "facts.json").read_bytes())
    what = (
        f"{name} {facts['picture_px']} px: {timed.before_ms:.0f} ms, then {timed.after_ms:.0f}, "
        f"processor time of one thread, load {timed.load:.1f}"
    )
    figures.add(f"int8_speedup_{name}", timed.speedup, what, aim=AIMS[name])
    if timed.uneven > UNEVEN:
        share = 100 * timed.uneven
        figures.note(f"{name}: float took uneven times ({share:.0f} %), its ratio is rough.")


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
