"""A daemon of several processes, whose app may change while it runs.

daemon = supervise(plan)            # loads the models, opens the sinks
daemon.run.start()
daemon.reload()                     # SIGHUP: the app's and the rig's file were edited
daemon.apply(toml, etag)            # the same, over the network
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgeperc import places, plugin
from edgeperc.assemble import prepare_sink, sources_of
from edgeperc.config import read_text
from edgeperc.control import AppText, ControlError, DaemonStatus
from edgeperc.daemon import LocalDaemon
from edgeperc.errors import EdgepercError
from edgeperc.foreign import check_foreign
from edgeperc.plan import Plan, check_names
from edgeperc.sink import Inventory
from edgeperc.supervise.run import SupervisedRun
from edgeperc.supervise.sinks import Sinks

log = logging.getLogger("edgeperc")


def supervise(plan: Plan) -> SupervisedRun:
    """The run of a plan's daemon, for whoever needs no more. Raises as `open_daemon`."""
    return open_daemon(plan).run


def open_daemon(plan: Plan) -> SupervisedDaemon:
    """A plan's daemon, its models loaded and its sinks open. Raises ConfigError or ModelError."""
    run = SupervisedRun(plan)
    try:
        return SupervisedDaemon(plan, run)
    except BaseException:
        run.stop()
        raise


class SupervisedDaemon(LocalDaemon):
    """One run, its plan, and whatever becomes of both. Loads the models, and opens the sinks: those
    that answer somebody before that. Raises ConfigError or ModelError.

    on_reload, on_reloaded: called around each change, whether it succeeds or not.
    """

    def __init__(self, plan: Plan, run: SupervisedRun) -> None:
        super().__init__(plan)
        self.run = run
        self.on_reload: Callable[[], None] = lambda: None
        self.on_reloaded: Callable[[], None] = lambda: None
        self._lock = threading.Lock()  # of changes
        self._reload_waits = False
        self._trouble = ""
        self._toml = read_text(plan.app_path)
        self._sinks = Sinks(self, add=run.add, remove=run.remove)
        self.bind(run)
        self._sinks.become(self._sinks.prepare(plan, early=True))  # they tell how it gets on
        run.load()
        sinks = self._sinks.prepare(plan, models=run.refs, trackers=run.trackers)
        self._sinks.become(sinks)

    def errors(self) -> tuple[str, ...]:
        """What the run suffers from, and what was wrong with the last change."""
        return (*self.run.errors, *([self._trouble] if self._trouble else []))

    def status(self) -> DaemonStatus:
        """How it is now, and what was wrong with the last change."""
        status = super().status()
        if not self._trouble:
            return status
        state = "degraded" if status.state == "serving" else status.state
        return replace(status, state=state, errors=self.errors())

    def app(self) -> AppText:
        """What it runs: the file's text, or what was applied since."""
        return AppText(name=self._plan.app_path.stem, toml=self._toml, etag=_etag(self._toml))

    def validate(self, toml: str) -> None:
        """See Daemon."""
        self._checked(toml)

    def apply(self, toml: str, etag: str) -> AppText:
        """See Daemon. The app's file is written, too, where it may be and is not the package's."""
        with self._lock:
            if etag != _etag(self._toml):
                raise ControlError(
                    "the app has changed since it was read", why="conflict", hint="read it again"
                )
            self._become(self._checked(toml), toml, write=True)
            return self.app()

    def reload(self) -> None:
        """Run what the app's and the rig's file say now; one that is broken changes nothing."""
        if self._reload_waits:  # that one reads the files after now
            return
        self._reload_waits = True
        with self._lock:
            self._reload_waits = False
            path = self._plan.app_path
            try:
                toml = read_text(path)
                plan = Plan.of_text(toml, path, self._plan.changes)
                _check(plan)
                self._become(plan, toml)
            except EdgepercError as error:
                self._trouble = f"not reloaded: {error}"
                log.error("not reloaded: %s", error)
            except Exception as error:
                self._trouble = f"not reloaded: {error!r}"
                log.exception("not reloaded")

    def _checked(self, toml: str) -> Plan:
        check_foreign(toml, self._plan)
        plan = Plan.of_text(toml, self._plan.app_path, self._plan.changes)
        _check(plan)
        return plan

    def _become(self, plan: Plan, toml: str, *, write: bool = False) -> None:
        """Change to another plan, or raise and change nothing. write: its file, too."""
        run, sinks = self.run, self._sinks
        self.on_reload()
        try:
            change = run.prepare(plan)
            try:
                made = (each.made.ref for each in change.pipelines.values() if each.made.ref)
                models, trackers = (*made, *run.search_refs), run.trackers_of(change.pipelines)
                ways_out = sinks.prepare(plan, models=models, trackers=trackers)
                try:
                    run.become(change)
                except BaseException:
                    sinks.discard(ways_out)
                    raise
            except BaseException:
                change.discard()
                raise
            if write:
                _persist(plan.app_path, toml)
            sinks.inventory.become(sources_of(plan), run.refs)
            self._plan, self._toml = plan, toml
            self._trouble = "; ".join(sinks.become(ways_out))
        finally:
            self.on_reloaded()
        self.changed()
        begun = ", ".join(worker.name for worker in change.fresh) or "no process"
        log.info("the app was changed; started anew: %s", begun)
        if self._trouble:
            log.error("a sink did not open: %s", self._trouble)


def _check(plan: Plan) -> None:
    """Raise ConfigError for what is wrong with a plan, without opening anything."""
    check_names(plan)
    for each in plan.app.pipelines:
        plan.model(each.name)
    given = {"inventory": Inventory(), "trackers": (), "daemon": None, "plan": plan}
    for number in range(1, len(plan.app.sinks) + 1):
        prepare_sink(plan, number, given)
    if plan.app.search:
        plugin.check_name(plan.app.search.scheduler, "scheduler", f"{plan.app_where} [search]")


def _etag(toml: str) -> str:
    return hashlib.sha256(toml.encode()).hexdigest()[:16]


def _persist(path: Path, toml: str) -> None:
    """Write an app's file in one step; where that may not be, the change lasts as the daemon does.

    The files that come with the package stay as they are.
    """
    if path.resolve().is_relative_to(places.share().resolve() / "apps"):
        return
    scratch = path.with_name(f".{path.name}.new")
    try:
        mode = path.stat().st_mode
        if not os.access(path, os.W_OK):
            return
        scratch.write_text(toml, encoding="utf-8")
        scratch.chmod(mode)
        scratch.replace(path)
    except OSError as error:
        log.warning("%s was not written: %s; the change lasts until the daemon ends", path, error)
