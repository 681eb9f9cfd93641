"""The sinks of a daemon whose app may change: those whose table stays are kept open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeperc import plugin
from edgeperc.assemble import open_sink, sources_of
from edgeperc.control import Daemon
from edgeperc.errors import EdgepercError
from edgeperc.plan import Plan
from edgeperc.result import Inventory, ModelRef, Sink, SourceInfo
from edgeperc.supervise.remote_sessions import RemoteTracker

log = logging.getLogger("edgeperc")


class LiveInventory(Inventory):
    """An inventory that changes with the app; sinks that kept it see that."""

    def become(self, sources: tuple[SourceInfo, ...], models: tuple[ModelRef, ...]) -> None:
        """Say what runs from now on."""
        object.__setattr__(self, "sources", sources)
        object.__setattr__(self, "models", models)


@dataclass(frozen=True)
class _Wish:
    """What a sink is made of. number: of its table in the app, from 1."""

    plan: Plan
    number: int
    table: dict[str, Any]
    given: dict[str, Any]


class Sinks:
    """Opens what an app's [[sinks]] name. add, remove: let a run have them, and close them."""

    def __init__(
        self, daemon: Daemon, *, add: Callable[[Sink], None], remove: Callable[[Sink], None]
    ) -> None:
        self.inventory = LiveInventory()
        self._daemon = daemon
        self._add, self._remove = add, remove
        self._open: list[tuple[_Wish, Sink]] = []

    def become(
        self, plan: Plan, *, models: tuple[ModelRef, ...], trackers: Sequence[RemoteTracker]
    ) -> None:
        """Close those that are not in `plan` any more, and open what is new there.

        One that was given what has changed since is opened anew, too. Raises ConfigError; then all
        is as it was before, as far as it opens again.
        """
        wishes = [
            _Wish(plan, number, table, _given(plan, table, trackers))
            for number, table in enumerate(plan.app.sinks, start=1)
        ]
        before = self.inventory.sources, self.inventory.models
        kept: list[tuple[_Wish, Sink]] = []
        left = list(self._open)
        for wish in list(wishes):
            for each in left:
                if (each[0].table, each[0].given) == (wish.table, wish.given):
                    kept.append(each)
                    left.remove(each)
                    wishes.remove(wish)
                    break
        for _, sink in left:
            self._remove(sink)
        self._open = kept
        self.inventory.become(sources_of(plan), models)
        fresh: list[tuple[_Wish, Sink]] = []
        try:
            for wish in wishes:
                fresh.append((wish, self._make(wish)))
        except BaseException:
            for _, sink in fresh:
                sink.close()
            self.inventory.become(*before)
            for wish, _ in left:
                self._reopen(wish)
            raise
        for wish, sink in fresh:
            self._open.append((wish, sink))
            self._add(sink)

    def _make(self, wish: _Wish) -> Sink:
        injected = {"inventory": self.inventory, "daemon": self._daemon, **wish.given}
        return open_sink(wish.plan, wish.number, injected)

    def _reopen(self, wish: _Wish) -> None:
        """Open again what was closed for another that did not open."""
        try:
            sink = self._make(wish)
        except EdgepercError as error:
            log.error("a sink did not open again: %s", error)
        else:
            self._open.append((wish, sink))
            self._add(sink)


def _given(plan: Plan, table: dict[str, Any], trackers: Sequence[RemoteTracker]) -> dict[str, Any]:
    """What of a plan a sink of this table asks for, beside the inventory and the daemon."""
    wants = plugin.parameters(table, kind="sink", folder=plan.app_path.parent)
    offers = {"plan": plan, "trackers": tuple(trackers)}
    return {name: value for name, value in offers.items() if name in wants}
