"""An environment of its own for onnxruntime with OpenVINO, which takes the place of onnxruntime.

    python = make(Path(".venv-openvino"))             # or: python -m edgeperc.bench.openvino_venv
    subprocess.run([python, "-m", "edgeperc", "serve", ...])

Both packages are called `onnxruntime` when imported and overwrite each other's files, so one
environment has one of them. What edgeperc needs besides is installed as its package lists it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from edgeperc import __version__
from edgeperc.errors import ConfigError

_ROOT = Path(__file__).parents[2]
NATIVE = ("openvino", "nncf")
"""OpenVINO by itself, to compare with."""


def make(folder: Path, *, native: bool = False) -> Path:
    """Make the environment, unless it is there and its OpenVINO starts; returns its Python.

    native: also NATIVE. Raises ConfigError if it cannot be made, or OpenVINO does not start in it.
    """
    python = folder.resolve() / "bin" / "python"
    if python.is_file() and not _lacks(python, native=native):
        return python
    try:
        venv.create(folder, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"{folder}: no environment can be made: {error}",
            hint="on Debian and Ubuntu: apt install python3-venv",
        ) from error
    constraints = _ROOT / "constraints.txt"
    held = ("-c", str(constraints)) if constraints.is_file() else ()
    _pip(python, *held, "onnxruntime-openvino", *requirements(), *(NATIVE if native else ()))
    checkout = (_ROOT / "pyproject.toml").is_file()
    _pip(python, "--no-deps", *(("-e", str(_ROOT)) if checkout else (f"edgeperc=={__version__}",)))
    if lacking := _lacks(python, native=native):
        raise ConfigError(f"{folder}: its OpenVINO does not start: {lacking}")
    return python


def requirements() -> Iterator[str]:
    """What edgeperc needs at run time, but for onnxruntime."""
    for line in metadata.requires("edgeperc") or []:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        if name != "onnxruntime" and "extra ==" not in line:
            yield line


def _lacks(python: Path, *, native: bool) -> str:
    """Why an environment is not what is wanted; empty if it is."""
    program = "import edgeperc, onnxruntime as o; print(*o.get_available_providers())"
    if native:
        program += f"; import {', '.join(NATIVE)}"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it ends at once"
    found = done.stdout.splitlines()[0]
    return "" if "OpenVINOExecutionProvider" in found else f"it has {found}"


def _pip(python: Path, *arguments: str) -> None:
    call = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        *arguments,
    ]
    done = subprocess.run(call, stdout=sys.stderr, check=False)
    if done.returncode:
        raise ConfigError(
            f"pip cannot install {' '.join(arguments[:3])} ...", hint="its own words are above"
        )


def main(arguments: Sequence[str]) -> None:
    """`python -m edgeperc.bench.openvino_venv FOLDER [--native]`."""
    folder = next((each for each in arguments if not each.startswith("-")), ".venv-openvino")
    print(make(Path(folder), native="--native" in arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
