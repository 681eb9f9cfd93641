"""Frames and events together: how fast MambaSeg is, and the scans that it is made of."""

from __future__ import annotations

import importlib

from edgeperc.bench.figures import Figures
from edgeperc.errors import ConfigError

_PARTS = ("bench_scan", "bench_fusion")


def measure(figures: Figures, _recording: object = None, only: tuple[str, ...] = ()) -> None:
    """Speed-ups of the scans, and the network as a whole; only: keys, all if empty.

    Raises ConfigError without torch, or for a key that is not known.
    """
    try:
        parts = [importlib.import_module(f"edgeperc.offline.{name}") for name in _PARTS]
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("edgeperc"):
            raise
        raise ConfigError(
            f"bench fusion needs {error.name}", hint="pip install 'edgeperc[offline]'"
        ) from None
    known = [key for part in parts for key in part.KEYS]
    for key in only:
        if key not in known:
            raise ConfigError(f"--only {key}: no such figure", hint=f"one of {', '.join(known)}")
    for part in parts:
        part.measure(figures, tuple(key for key in part.KEYS if not only or key in only))
