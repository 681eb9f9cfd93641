"""Logs of a daemon: one line a happening, for a program to read, and never the same line all day.

    logs = start("json")            # or "text": key=value
    time=2026-01-31T12:00:00.123Z level=warning worker=sensors/wide msg="sensor 'wide' lost: ..."

A line that comes again within ten seconds is counted instead; the next one says how often, as
repeated=N. What happens for every packet is counted by meters and is not logged at all.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import OrderedDict
from typing import Literal, TextIO

Style = Literal["text", "json"]

QUIET_S = 10.0
_MOST_KEPT = 256


def start(style: Style, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Let all loggers write lines of this style to `stream`, standard error, and nothing else."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Json() if style == "json" else KeyValue())
    handler.addFilter(Repeats())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class Repeats(logging.Filter):
    """Lets a line through once in `quiet_s`, with how many were held back since the last time."""

    def __init__(self, quiet_s: float = QUIET_S) -> None:
        super().__init__()
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it."""
        key = (record.levelname, getattr(record, "worker", ""), record.getMessage())
        now_s = time.monotonic()
        with self._lock:
            since_s, held = self._seen.pop(key, (float("-inf"), 0))
            if now_s - since_s < self._quiet_s:
                self._seen[key] = since_s, held + 1
                return False
            self._seen[key] = now_s, 0
            while len(self._seen) > _MOST_KEPT:
                self._seen.popitem(last=False)
        record.repeated = held
        return True


def fields(record: logging.LogRecord) -> dict[str, str | int]:
    """What a line says, in order. worker: "front", or the process that it came from."""
    at = time.gmtime(record.created)
    said: dict[str, str | int] = {
        "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', at)}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "worker": getattr(record, "worker", "front"),
        "msg": record.getMessage(),
    }
    if repeated := getattr(record, "repeated", 0):
        said["repeated"] = repeated
    return said


class KeyValue(logging.Formatter):
    """key=value, values in quotes where they have spaces; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = " ".join(f"{key}={_quoted(value)}" for key, value in fields(record).items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Json(logging.Formatter):
    """One JSON object a line, a traceback in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        said = fields(record)
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def _quoted(value: str | int) -> str:
    text = str(value)
    is_plain = text.isprintable() and text and not any(mark in text for mark in ' "=\\')
    return text if is_plain else json.dumps(text, ensure_ascii=False)
