"""Where things are in a fleet: keys of Zenoh, `edgeperc/v1/<fleet>/<device>/...`.

.../alive                        a liveliness token; while it is there, the device is
.../status                       a control.GetStatusResponse, each second
.../results/<source>/<model>     a perception.Result
.../control/<rpc>                a queryable: request and answer of that rpc of ControlService
"""

from __future__ import annotations

import re

from edgeperc.errors import ConfigError

ROOT = "edgeperc/v1"


def check(what: str, name: str) -> str:
    """A fleet's or device's name. Raises ConfigError for one that would not be a single part."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise ConfigError(
            f"{what} '{name}': must be letters, digits, '-', '_' and '.', at most 63",
            hint="a name such as robot-7",
        )
    return name


def device(fleet: str, name: str) -> str:
    """What all keys of a device begin with. name: "*" is every device."""
    return f"{ROOT}/{fleet}/{name}"


def part(name: str) -> str:
    """A source's or model's name as one part of a key."""
    return re.sub(r"[/*$?#@]", "_", name) or "_"
