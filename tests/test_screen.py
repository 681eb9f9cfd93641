from __future__ import annotations

import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SAYS = "from edgeperc import screen\nscreen.prepare()\nc = screen.screen()\n"
LOOP = "for n in range(2_000):\n    c.print(f'line {n}')\n"
END = "screen.settle()\nopen('done', 'w').close()\n"
SERVE = ["-m", "edgeperc", "serve", "--inproc"]
QUIET = ["--set", "sinks=[]"]


def python(*args: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    here = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(here), **options.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=env, timeout=120, check=False, **options
    )  # type: ignore[call-overload, no-any-return]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_what_a_full_disk_does_not_take_is_lost_and_no_more(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = python("-c", SAYS + LOOP + END, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert (tmp_path / "done").exists()


def test_a_reader_that_leaves_takes_nothing_with_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = python("-c", SAYS + LOOP + END, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert (tmp_path / "done").exists()


def test_no_streams_and_a_poor_encoding(tmp_path: Path) -> None:
    (tmp_path / "says.py").write_text(SAYS + LOOP + END)
    shell = ["sh", "-c", f"{sys.executable} says.py >&- 2>&-"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run(shell, cwd=tmp_path, env=env, timeout=120, check=False).returncode == 0
    assert (tmp_path / "done").exists()
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    ended = python(
        "-c", SAYS + "c.print('a · b')", cwd=tmp_path, stdout=subprocess.PIPE, env=ascii_only
    )
    assert ended.stdout == b"a ? b\n"


def test_a_daemon_ends_with_its_terminal_and_not_before(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execv(sys.executable, [sys.executable, *SERVE, *QUIET])
    try:
        said = b""
        while b"Ctrl-C" not in said:
            said += os.read(terminal, 4096)
        os.kill(child, signal.SIGHUP)  # of no terminal that was closed: a reload
        while b"SIGHUP" not in said:
            said += os.read(terminal, 4096)
    finally:
        os.close(terminal)
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("it goes on without its terminal")
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_verb_that_cannot_print_says_why_in_one_line(tmp_path: Path) -> None:
    verb = ["-m", "edgeperc", "models", "show", "sltnet-twin", "--json"]
    with Path("/dev/full").open("wb") as full:
        ended = python(*verb, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE)
        assert python(*verb, cwd=tmp_path, stdout=full, stderr=full).returncode == 1
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"error: [Errno 28] No space left on device")
    assert b"Traceback" not in ended.stderr


def test_a_daemon_permits_itself_more_open_files_than_a_shell_does(tmp_path: Path) -> None:
    code = (
        "from resource import *\n"
        "_, most = getrlimit(RLIMIT_NOFILE)\n"
        "setrlimit(RLIMIT_NOFILE, (min(most, 256), most))\n"
        "from edgeperc.serve import _many_files\n"
        "_many_files()\n"
        "print('soft', getrlimit(RLIMIT_NOFILE)[0])"
    )
    ended = python("-c", code, cwd=tmp_path, stdout=subprocess.PIPE)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if most == resource.RLIM_INFINITY else min(most, 65_536)
    assert ended.stdout == b"soft %d\n" % wanted
