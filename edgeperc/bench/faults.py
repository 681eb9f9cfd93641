"""A daemon hurt in every way that is possible here: what dies, what goes on, what comes back.

Each fault has an outcome that is demanded, and a time until all is as before. Nothing is played:
processes are killed by the kernel, cameras and mirrors are real programs at the other end of a
socket or a pseudo-terminal, the disk is a small one that is full.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeperc.bench import fault_clients, fault_clock, fault_parts, fault_recordings, soak
from edgeperc.bench.figures import Figures
from edgeperc.bench.victim import FaultError, ImpossibleError
from edgeperc.errors import ConfigError, EdgepercError


@dataclass(frozen=True)
class Fault:
    """Something that is done to a daemon. demanded: what must come of it.

    do: takes an empty folder; seconds until all was as before, None where nothing was lost. Raises
    FaultError where something else came of it.
    """

    name: str
    demanded: str
    do: Callable[[Path], float | None]


FAULTS = tuple(
    Fault(name, demanded, do)
    for part in (fault_parts, fault_clock, fault_clients, fault_recordings)
    for name, demanded, do in part.FAULTS
)


def measure(
    figures: Figures,
    _recording: object = None,
    only: tuple[str, ...] = (),
    soak_s: float | None = None,
) -> None:
    """Add faults_injected, faults_survived, recordings_corrupt, and a table of them all.

    only: names of faults; all if empty. soak_s: leave a daemon alone for so long after that, and
    add soak_growth and soak_missed_beats. Raises ConfigError for a fault that is not known.
    """
    names = [fault.name for fault in FAULTS]
    for name in only:
        if name not in names:
            raise ConfigError(f"--only {name}: no such fault", hint=f"one of: {', '.join(names)}")
    chosen = [fault for fault in FAULTS if not only or fault.name in only]
    fault_recordings.corrupt.clear()
    rows, survived, injected = [], 0, 0
    for fault in chosen:
        figures.progress(fault.name)
        with tempfile.TemporaryDirectory(prefix="edgeperc-fault-") as folder:
            try:
                seconds = fault.do(Path(folder))
            except ImpossibleError as error:
                rows.append(_row(fault, f"not tried: {error}"))
                continue
            except (FaultError, EdgepercError, OSError) as error:
                outcome, after = f"FAILED: {error}", ""
            else:
                survived += 1
                outcome, after = "as demanded", "" if seconds is None else f"{seconds:.1f}"
        injected += 1
        rows.append(_row(fault, outcome, after))
        figures.detail(f"recovery_s_{fault.name.replace(' ', '_')}", float(after or 0))
    figures.add("faults_injected", injected, "ways in which a daemon was hurt")
    figures.add("faults_survived", survived, "of these, with the outcome that is demanded")
    figures.add(
        "recordings_corrupt", len(fault_recordings.corrupt), "recordings that could not be read"
    )
    figures.tables.append(("Faults", rows))
    if soak_s is not None:
        soak.measure(figures, seconds=soak_s)


def _row(fault: Fault, outcome: str, after: str = "") -> dict[str, str]:
    """A line of the table; what is long comes last, where a terminal may cut it."""
    about = {"fault": fault.name, "as before after s": after}
    return about | {"outcome": outcome, "demanded": fault.demanded}
