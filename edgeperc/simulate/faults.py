"""What may go wrong with a simulated device, and the words in which to ask for it.

NAME=VALUE@START:LIMIT, all but NAME as needed: `unplug@5s:2s`, `nak:3x`, `slow-reply=80ms@1s`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edgeperc.errors import ConfigError

FAULTS = {
    "dropped-reply": "does what it is told, does not answer",
    "nak": "refuses, and says so",
    "hang": "neither reads nor answers",
    "garbage": "puts random bytes before its answer",
    "unplug": "the port goes away; at LIMIT it is back, without its state",
    "reboot": "forgets everything, once",
    "slow-reply": "answers after VALUE, 200ms if not given",
    "wrong-handshake": "greets with the text VALUE, HELLO if not given",
}
GRAMMAR = """\
NAME=VALUE@START:LIMIT, all but NAME as needed, such as unplug@5s:2s, nak:3x, slow-reply=80ms@1s. \
START is a time from now, at once if not given. LIMIT is how long (2s, 500ms) or how often (3x), \
for ever if not given."""
WITHOUT_ANSWERS = {"dropped-reply", "nak", "slow-reply", "wrong-handshake"}
"""Faults that a device cannot have that never answers."""

_DURATION = r"\d+(?:\.\d+)?(?:ms|s)"
_FAULT = re.compile(
    rf"(?P<name>[a-z-]+)(?:=(?P<value>.*?))?(?:@(?P<start>{_DURATION}))?"
    rf"(?::(?:(?P<span>{_DURATION})|(?P<times>\d+)x))?"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: from start_s on, for span_s or so many times, whichever is over first."""

    name: str
    text: str = "HELLO"
    delay_s: float = 0.2
    start_s: float = 0.0
    span_s: float = math.inf
    times: float = math.inf


def parse(wanted: str) -> Fault:
    """A fault from its words. Raises ConfigError, whose hint is the grammar."""
    found = _FAULT.fullmatch(wanted)
    if found is None or found["name"] not in FAULTS:
        raise ConfigError(f"'{wanted}' is no fault", hint=f"{GRAMMAR} NAME: {', '.join(FAULTS)}")
    name, value = found["name"], found["value"]
    if found["times"] and name in {"hang", "unplug", "reboot"}:
        raise ConfigError(f"'{wanted}': {name} takes a time, not how often", hint=GRAMMAR)
    if name == "slow-reply" and value is not None and not re.fullmatch(_DURATION, value):
        raise ConfigError(f"'{wanted}': {value} is no time, as 80ms", hint=GRAMMAR)
    if value is not None and name not in {"slow-reply", "wrong-handshake"}:
        raise ConfigError(f"'{wanted}': {name} takes no value", hint=GRAMMAR)
    return Fault(
        name=name,
        text=value if name == "wrong-handshake" and value is not None else "HELLO",
        delay_s=_seconds(value) if name == "slow-reply" and value else 0.2,
        start_s=_seconds(found["start"]) if found["start"] else 0.0,
        span_s=_seconds(found["span"]) if found["span"] else math.inf,
        times=int(found["times"]) if found["times"] else math.inf,
    )


def _seconds(duration: str) -> float:
    if duration.endswith("ms"):
        return float(duration[:-2]) * 1e-3
    return float(duration[:-1])
