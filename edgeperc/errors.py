"""The error tree: everything a user can mend is an EdgepercError; a bug keeps its own type.

EdgepercError
├── ConfigError   a mistake in a TOML file or on the command line (exit code 2)
├── DeviceError   a sensor or mirror is unplugged, timed out or refused
├── ModelError    a network is missing, has the wrong hash or the wrong shape
└── DataError     a recording or dataset cannot be read (further)
"""

from __future__ import annotations


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
