"""How much memory a process takes."""

from __future__ import annotations

from pathlib import Path


def own_memory(pid: int) -> int:
    """Resident bytes of a process, without the rings that it shares; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    kib = {key: int(rest.split()[0]) for key, rest in _pairs(lines) if key in ("VmRSS", "RssShmem")}
    return 1024 * (kib.get("VmRSS", 0) - kib.get("RssShmem", 0))


def _pairs(lines: list[str]) -> list[tuple[str, str]]:
    return [(key, rest) for key, _, rest in (line.partition(":") for line in lines)]
