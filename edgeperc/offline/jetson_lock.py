"""Write the lists of wheels in apps/jetson/: `make lock-jetson`. Asks the package index by uv.

    python -m edgeperc.offline.jetson_lock

aarch64-cp310.txt, -cp312.txt: all that edgeperc needs at run time, for any 64-bit Arm board.
jetson-cp310.txt, -cp312.txt: the same for Dockerfile.jetson, where OpenCV comes from the system,
which was built for NumPy 1, and onnxruntime from NVIDIA's index. Each line has the hashes of the
wheels that fit, and the name of the best as a comment; `pip install --no-deps --require-hashes`
takes them as they are.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeperc.config import read_toml
from edgeperc.errors import ConfigError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "apps" / "jetson"
PYTHONS = ("3.10", "3.12")
"""Of JetPack 6 and 7."""
PLATFORM = "aarch64-manylinux_2_35"
"""Ubuntu 22.04, on which JetPack 6 stands."""
FROM_ELSEWHERE = ("onnxruntime", "opencv-python-headless")
"""What the image has from NVIDIA's index, and from the system."""
NUMPY = "numpy==1.26.4"
"""The last for which the system's OpenCV was built."""


def lock(*, jetson: bool, python: str) -> str:
    """The text of one list. Raises ConfigError if uv is not there, or finds no solution."""
    requirements: list[str] = read_toml(ROOT / "pyproject.toml")["project"]["dependencies"]
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    if jetson:
        requirements = [line for line in requirements if name_of(line) not in FROM_ELSEWHERE]
        mine = ("numpy", *FROM_ELSEWHERE)
        constraints = [line for line in constraints if name_of(line) not in mine] + [NUMPY]
    with tempfile.TemporaryDirectory() as folder:
        found = _resolve(Path(folder), requirements, constraints, python)
    return "\n".join([*_head(jetson=jetson, python=python), *_lines(found)]) + "\n"


def name_of(requirement: str) -> str:
    """The package that a line asks for; "" for a comment."""
    return re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0].lower()


def file_of(*, jetson: bool, python: str) -> Path:
    """Where a list lies."""
    return FOLDER / f"{'jetson' if jetson else 'aarch64'}-cp{python.replace('.', '')}.txt"


def _resolve(
    folder: Path, requirements: Sequence[str], constraints: Sequence[str], python: str
) -> list[dict[str, Any]]:
    (folder / "in.txt").write_text("\n".join(requirements))
    (folder / "held.txt").write_text("\n".join(constraints))
    call = [sys.executable, "-m", "uv", "pip", "compile", "in.txt", "-c", "held.txt"]
    call += ["--python-version", python, "--python-platform", PLATFORM, "--only-binary", ":all:"]
    call += ["--format", "pylock.toml", "-o", "pylock.toml", "--no-config", "--quiet"]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(
            f"uv finds no wheels for Python {python}: {done.stderr.strip()}",
            hint="make lock-jetson installs uv",
        )
    packages: list[dict[str, Any]] = read_toml(folder / "pylock.toml")["packages"]
    return packages


def _head(*, jetson: bool, python: str) -> Iterator[str]:
    yield "# Made by: make lock-jetson"
    if jetson:
        yield f"# For Dockerfile.jetson, Python {python}, in place of what edgeperc lists: OpenCV"
        yield "# is the system's, which was built for NumPy 1, and onnxruntime of NVIDIA's index."
    else:
        yield f"# What edgeperc needs at run time on 64-bit Arm, Python {python}, glibc 2.35."
    yield "#   pip install --no-deps --require-hashes -r THIS_FILE"


def _lines(packages: Sequence[dict[str, Any]]) -> Iterator[str]:
    for package in packages:
        # A wheel for this processor is better than one for any.
        wheels = sorted(package["wheels"], key=lambda wheel: "none-any" in _file(wheel))
        hashes = " ".join(f"--hash=sha256:{wheel['hashes']['sha256']}" for wheel in wheels)
        yield f"{package['name']}=={package['version']} {hashes}  # {_file(wheels[0])}"


def _file(wheel: dict[str, Any]) -> str:
    return str(wheel["url"]).rpartition("/")[2]


def main() -> None:
    """Write all lists."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for python in PYTHONS:
        for jetson in (False, True):
            path = file_of(jetson=jetson, python=python)
            path.write_text(lock(jetson=jetson, python=python))
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
