"""The error tree: everything a user can mend is an EdgepercError; a bug keeps its own type.

EdgepercError
├── ConfigError   a mistake in a TOML file or on the command line (exit code 2)
├── DeviceError   a sensor or mirror is unplugged, timed out or refused
├── ModelError    a network is missing, has the wrong hash or the wrong shape
├── DataError     a recording or dataset cannot be read (further)
└── StoppedError  Ctrl-C or SIGTERM came before the end (exit code 130)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class EdgepercError(Exception):
    """Something the user can mend. `hint` is one sentence on how, or empty."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(EdgepercError):
    """A mistake in an operator's file or on the command line; names file, table and key."""

    exit_code = 2


class DeviceError(EdgepercError):
    """A sensor or mirror is unplugged, timed out or refused."""


class ModelError(EdgepercError):
    """A network is missing, has the wrong hash or the wrong shape."""


class DataError(EdgepercError):
    """A recording or dataset cannot be read; what was readable before it has been delivered."""


class StoppedError(EdgepercError):
    """Ctrl-C or SIGTERM came before the end; what was done until then is kept."""

    exit_code = 130


@contextmanager
def blame(where: str) -> Iterator[None]:
    """Put `where`, a file, table and key, before what an EdgepercError raised inside says.

    A DataError passes: it names the recording itself.
    """
    try:
        yield
    except DataError:
        raise
    except EdgepercError as error:
        if where in str(error):
            raise
        raise type(error)(f"{where}: {error}", hint=error.hint) from error
