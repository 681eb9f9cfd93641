"""The sinks of a daemon whose app may change: those whose table stays are kept open.

    sinks = Sinks(daemon, add=run.add, remove=run.remove)
    change = sinks.prepare(plan, models=refs, trackers=trackers)    # raises, and changes nothing
    sinks.become(change)                                            # or sinks.discard(change)

A new sink is opened while the old ones still run. Where it wants the address of an old one, it is
tried at another port first, so that one which cannot work costs nobody a connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from edgeperc import plugin
from edgeperc.assemble import open_sink, sources_of
from edgeperc.control import Daemon
from edgeperc.errors import EdgepercError
from edgeperc.plan import Plan
from edgeperc.result import ModelRef
from edgeperc.sink import AppSink, Inventory, Sink, SourceInfo
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
    """What a sink is made of. number: of its table in the app, from 1.

    given: what of the plan it asks for, beside the inventory and the daemon. port: that it listens
    at; "" where it does not, or takes any. answers: whether it listens, and stays when the app
    changes.
    """

    plan: Plan
    number: int
    table: dict[str, Any]
    given: dict[str, Any]
    port: str
    answers: bool

    def suits(self, other: _Wish, sink: Sink) -> bool:
        """Whether a sink that is open by `other` will do."""
        stays = isinstance(sink, AppSink) or self.given == other.given
        return self.table == other.table and stays


_Open = tuple[_Wish, Sink]


@dataclass
class SinkChange:
    """What becomes of the sinks. fresh: open already. late: those that wait for an address."""

    plan: Plan
    trackers: tuple[RemoteTracker, ...]
    kept: list[_Open] = field(default_factory=list)
    left: list[_Open] = field(default_factory=list)
    fresh: list[_Open] = field(default_factory=list)
    late: list[_Wish] = field(default_factory=list)
    before: tuple[tuple[SourceInfo, ...], tuple[ModelRef, ...]] = ((), ())


class Sinks:
    """Opens what an app's [[sinks]] name. add, remove: let a run have them, and close them."""

    def __init__(
        self, daemon: Daemon, *, add: Callable[[Sink], None], remove: Callable[[Sink], None]
    ) -> None:
        self.inventory = LiveInventory()
        self._daemon = daemon
        self._add, self._remove = add, remove
        self._open: list[_Open] = []

    def prepare(
        self,
        plan: Plan,
        *,
        models: tuple[ModelRef, ...] = (),
        trackers: Sequence[RemoteTracker] = (),
        early: bool = False,
    ) -> SinkChange:
        """Open what is new in `plan`. Raises ConfigError; then all is as it was before.

        early: the models are not loaded yet, so only those that answer somebody, and learn later
        what there is.
        """
        change = SinkChange(plan, tuple(trackers))
        change.before = self.inventory.sources, self.inventory.models
        change.left = list(self._open)
        wishes = []
        for wish in _wishes(plan, trackers):
            if early and not wish.answers:
                continue
            there = next((each for each in change.left if wish.suits(*each)), None)
            if there:
                change.left.remove(there)
                change.kept.append((wish, there[1]))
            else:
                wishes.append(wish)
        taken = {wish.port for wish, _ in change.left if wish.port}
        self.inventory.become(sources_of(plan), models)
        try:
            for wish in wishes:
                if wish.port in taken:
                    self._make(wish, _elsewhere(wish)).close()
                    change.late.append(wish)
                else:
                    change.fresh.append((wish, self._make(wish)))
        except BaseException:
            self.discard(change)
            raise
        return change

    def become(self, change: SinkChange) -> tuple[str, ...]:
        """Close those that are not wanted any more, and let the run have the others.

        Returns what went wrong after all; then what was there before is opened again.
        """
        errors = []
        for _, sink in change.left:
            self._remove(sink)
        self._open = change.kept
        for _, sink in self._open:
            if isinstance(sink, AppSink):
                try:
                    sink.adapt(change.plan, change.trackers)
                except EdgepercError as error:  # it goes on with what it has
                    errors.append(str(error))
        for wish, sink in change.fresh:
            self._begin(wish, sink)
        for wish in change.late:
            try:
                self._begin(wish, self._make(wish))
            except EdgepercError as error:  # somebody else was faster
                errors.append(str(error))
                self._reopen(old for old, _ in change.left if old.port == wish.port)
        return tuple(errors)

    def discard(self, change: SinkChange) -> None:
        """Go on as before."""
        for _, sink in change.fresh:
            sink.close()
        self.inventory.become(*change.before)

    def _make(self, wish: _Wish, table: Mapping[str, Any] | None = None) -> Sink:
        injected = {"inventory": self.inventory, "daemon": self._daemon, **wish.given}
        return open_sink(wish.plan, wish.number, injected, table)

    def _begin(self, wish: _Wish, sink: Sink) -> None:
        self._open.append((wish, sink))
        self._add(sink)

    def _reopen(self, wishes: Any) -> None:
        for wish in wishes:
            with suppress(EdgepercError):
                self._begin(wish, self._make(wish))


def _wishes(plan: Plan, trackers: Sequence[RemoteTracker]) -> list[_Wish]:
    offers = {"plan": plan, "trackers": tuple(trackers)}
    wishes = []
    for number, table in enumerate(plan.app.sinks, start=1):
        sink = _sink(plan, table)
        takes = _takes(sink)
        given = {name: value for name, value in offers.items() if name in takes}
        port = str({**takes, **table}.get("listen", "")).rpartition(":")[2]
        answers = "listen" in takes and (not given or hasattr(sink, "adapt"))
        wishes.append(_Wish(plan, number, table, given, port if port != "0" else "", answers))
    return wishes


def _elsewhere(wish: _Wish) -> dict[str, Any]:
    """The table of a sink that listens at any free port."""
    host = str({**_takes(_sink(wish.plan, wish.table)), **wish.table}["listen"]).rpartition(":")[0]
    return {**wish.table, "listen": f"{host}:0"}


def _sink(plan: Plan, table: Mapping[str, Any]) -> Callable[..., Any]:
    """The constructor of a sink. Raises ConfigError."""
    where, folder = f"{plan.app_where} [[sinks]] kind", plan.app_path.parent
    return plugin.resolve(str(table.get("kind")), kind="sink", where=where, folder=folder)


def _takes(sink: Callable[..., Any]) -> dict[str, Any]:
    """What a constructor takes, and what that is if left out."""
    return {name: each.default for name, each in signature(sink).parameters.items()}
