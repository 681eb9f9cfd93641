"""A console that outlives its reader: a daemon goes on when nobody reads what it prints.

console = screen()
console.print("...")  # lost where the pipe is closed or the log's disk is full
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console


def screen(*, stderr: bool = False, **options: Any) -> Console:
    """A console on standard output, or standard error, that never raises OSError."""
    stream = _Lasting(sys.stderr if stderr else sys.stdout)
    return Console(file=cast(IO[str], stream), **options)


def is_terminal() -> bool:
    """Whether standard output is a terminal that is still there."""
    try:
        return os.isatty(sys.stdout.fileno())
    except (OSError, ValueError):
        return False


def settle() -> None:
    """Write out what is still buffered; what cannot be written is let go, without a word.

    Before a process ends, which would else complain with a traceback and an exit code of 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def prepare() -> None:
    """Standard streams that are there, and that replace letters that their encoding lacks."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream: Any = getattr(sys, name)
        if stream is None:  # closed by the caller, `>&-`; its number is not for a socket of ours
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "w" if number else "r"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


class _Lasting:
    """A stream whose failures are its own."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
