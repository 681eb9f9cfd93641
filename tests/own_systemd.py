"""A real systemd as the first process of namespaces of its own: its units, its users, its cgroup.

    with OwnSystemd(folder) as systemd:
        systemd.ctl("start", "edgeperc")

Nothing of the machine's own is touched but an empty cgroup, which is removed. Needs root.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
SYSTEMD = Path("/lib/systemd/systemd")
TOOLS = ("unshare", "nsenter", "systemctl", "mount")
CGROUPS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
UNITS = ("basic", "sysinit", "shutdown", "network", "time-sync", "local-fs", "umount")
NAMESPACES = ("--pid", "--mount", "--uts", "--ipc", "--cgroup", "--net", "--fork", "--mount-proc")
USER = 4711

INSIDE = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir /run/lock
mount -t tmpfs tmpfs /opt
mkdir -p /opt/edgeperc/bin /opt/edgeperc/python
mount --bind {base} /opt/edgeperc/python
cp {folder}/edgeperc /opt/edgeperc/bin/edgeperc
mount --bind {folder}/lib /var/lib
mount --bind {folder}/cache /var/cache
mount --bind {folder}/passwd /etc/passwd
mount --bind {folder}/group /etc/group
umount -R /sys/fs/cgroup
mount -t tmpfs tmpfs /sys/fs/cgroup || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /usr/lib/systemd/system-generators
exec env -i container=edgeperc-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    SYSTEMD_UNIT_PATH={folder}/units {systemd} --system --unit=basic.target
"""
COMMAND = """#!/bin/sh
export PYTHONPATH={path} LD_LIBRARY_PATH=/opt/edgeperc/python/lib
exec /opt/edgeperc/python/bin/{python} -m edgeperc "$@"
"""
DROP_IN = """[Service]
Environment="EDGEPERC_APP={app}"
StandardOutput=append:/var/lib/said.txt
StandardError=append:/var/lib/said.txt
"""


def why_not() -> str:
    """What this machine lacks for it; "" if nothing."""
    if os.geteuid() != 0:
        return "namespaces need root"
    if not SYSTEMD.is_file() or not all(map(shutil.which, TOOLS)):
        return f"needs systemd, {', '.join(TOOLS)}"
    return "" if _cgroups() else "no cgroups of version 2"


def _cgroups() -> Path | None:
    return next((path for path in CGROUPS if (path / "cgroup.procs").is_file()), None)


class OwnSystemd:
    """A systemd with the unit of `apps/systemd`. app: name, and what is changed."""

    def __init__(self, folder: Path, app: str) -> None:
        self._folder = folder
        for name in ("units/edgeperc.service.d", "lib", "cache"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        shutil.copy(ROOT / "apps/systemd/edgeperc.service", folder / "units")
        drop_in = folder / "units/edgeperc.service.d/test.conf"
        drop_in.write_text(DROP_IN.format(app=app))
        for unit in UNITS:
            shutil.copy(f"/lib/systemd/system/{unit}.target", folder / "units")
        path = ":".join([str(ROOT), *site.getsitepackages()])
        command = folder / "edgeperc"
        command.write_text(COMMAND.format(path=path, python=Path(sys.executable).resolve().name))
        command.chmod(0o755)
        groups = Path("/etc/group").read_text()
        for number, name in enumerate(("edgeperc", "video", "render", "dialout")):
            if f"\n{name}:" not in groups:
                groups += f"{name}:x:{USER + number}:\n"
        (folder / "group").write_text(groups)
        user = f"edgeperc:x:{USER}:{USER}::/var/lib/edgeperc:/usr/sbin/nologin\n"
        users = Path("/etc/passwd").read_text().splitlines(keepends=True)
        (folder / "passwd").write_text("".join([*users, user]))
        cgroups = _cgroups()
        assert cgroups
        self._cgroup = cgroups / f"edgeperc-test-{os.getpid()}"
        self._pid = 0

    def __enter__(self) -> OwnSystemd:
        inside = INSIDE.format(folder=self._folder, base=sys.base_prefix, systemd=SYSTEMD)
        self._cgroup.mkdir()
        join = f"echo $$ > {self._cgroup}/cgroup.procs; exec unshare {' '.join(NAMESPACES)} sh -c"
        self._outer = subprocess.Popen(
            ["sh", "-c", f'{join} "$0"', inside], stdin=subprocess.DEVNULL, start_new_session=True
        )
        try:
            self.until(lambda: bool(self._first()), "has a first process")
            self._pid = self._first()
            self.until(lambda: self.ctl("is-active", "basic.target") == "active", "is up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pid in (self._first(), self._outer.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, 9) if pid else None
        self._outer.wait()
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            folders = sorted(self._cgroup.rglob("*/"), reverse=True)
            with suppress(OSError):
                for path in (*(each for each in folders if each.is_dir()), self._cgroup):
                    path.rmdir()
                return
            time.sleep(0.1)

    def ctl(self, *words: str) -> str:
        """What `systemctl` says to that, without the last newline."""
        command = ["nsenter", "-t", str(self._pid), "-a", "systemctl", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=180, cwd="/"
        )
        return done.stdout.strip()

    def show(self, key: str) -> str:
        """A property of the service."""
        return self.ctl("show", "edgeperc", "-p", key, "--value")

    def until(self, condition: Callable[[], bool], what: str, patience_s: float = 120.0) -> None:
        """Wait for a condition."""
        deadline_s = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < deadline_s, f"never {what}: {self.said()[-2000:]}"
            time.sleep(0.2)

    def said(self) -> str:
        """What the daemon printed."""
        path = self._folder / "lib/said.txt"
        return path.read_text() if path.is_file() else ""

    def pids(self) -> dict[int, str]:
        """The service's processes and their command lines, by the machine's count."""
        found = {}
        for cgroup in self._cgroup.rglob("edgeperc.service/cgroup.procs"):
            for pid in map(int, cgroup.read_text().split()):
                with suppress(OSError):
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    found[pid] = b" ".join(words).decode()
        return found

    def _first(self) -> int:
        """The systemd, as the machine counts it."""
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        with suppress(OSError, IndexError):
            return int(children.read_text().split()[0])
        return 0
