"""Results in a folder: `results.jsonl`, one line a result, and label maps as PNG."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from edgeperc.errors import ConfigError
from edgeperc.plain import about, content
from edgeperc.png import write_png
from edgeperc.result import LabelMap, Result
from edgeperc.sink import Inventory


class File:
    """Writes results into a folder that is new or empty.

    `labels/<end_us>.png` holds uint8 class indices in the sensor's own pixels, 255 where the
    network did not look; with several pipelines, `labels/<source>/<model>/<end_us>.png`. A line of
    results.jsonl has source, seq, start_us, end_us, model, latency_ms, and file or what was found.
    Raises ConfigError if the folder holds an earlier run or cannot be written.
    """

    def __init__(self, folder: str, *, inventory: Inventory) -> None:
        self.where = folder
        self._root = Path(folder)
        self._several = len(inventory.models) > 1
        try:
            if self._root.exists() and (not self._root.is_dir() or any(self._root.iterdir())):
                raise ConfigError(f"{folder}: is not an empty folder", hint="name a new one")
            (self._root / "labels").mkdir(parents=True, exist_ok=True)
            self._lines = (self._root / "results.jsonl").open("wb")
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error
        self._lock = threading.Lock()

    def write(self, result: Result) -> None:
        """Write one result; a label map's file is complete before its line appears."""
        line = about(result) | {"latency_ms": round(result.timings.total_ns * 1e-6, 3)}
        line |= content(result)
        if isinstance(result, LabelMap):
            line["file"] = self._write_labels(result)
        with self._lock:
            if not self._lines.closed:
                self._lines.write(msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Flush and release; may be called twice."""
        with self._lock:
            self._lines.close()

    def _write_labels(self, result: LabelMap) -> str:
        several = f"/{result.stamp.source}/{result.model.name}" if self._several else ""
        name = f"labels{several}/{result.stamp.end_ns // 1000}.png"
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_png(result.labels))
        return name
