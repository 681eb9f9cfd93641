"""Many daemons behind one router, by Zenoh: who is there, what they see, and orders to them."""

from __future__ import annotations


def joining(router: str | None) -> list[str]:
    """The change of an app, as of `--set`, by which it joins a fleet. Raises ConfigError."""
    if router is None:
        return []
    from edgeperc.fleet.link import endpoint

    return [f"sinks.+={{kind = 'fleet', router = '{endpoint(router)}'}}"]
