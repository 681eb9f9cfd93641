"""The running system never imports torch, nor any of the training room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PROGRAM = """
import sys
import edgeperc, edgeperc.cli, edgeperc.serve, edgeperc.client.watch, edgeperc.bench
from pathlib import Path
from edgeperc import plugin
for kind, table in plugin.TABLES.items():
    for name in table:
        plugin.resolve(name, kind=kind, where="", folder=Path())
print([name for name in sys.modules if name.split(".")[0] == "torch" or "edgeperc.offline" in name])
"""


def test_importing_everything_that_runs_does_not_import_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


FRONT = """
import sys
import edgeperc.cli, edgeperc.serve
from pathlib import Path
from edgeperc import plugin
for name in ("grpc", "web", "metrics", "record", "null", "file"):
    plugin.resolve(name, kind="sink", where="", folder=Path())
print([name for name in ("numba", "onnxruntime", "scipy") if name in sys.modules])
"""


def test_a_daemons_front_does_without_what_runs_networks() -> None:
    """35 MiB, and a third of a second at each start."""
    done = subprocess.run(
        [sys.executable, "-c", FRONT], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_linter_refuses_torch_outside_the_training_room(tmp_path: Path) -> None:
    offender = "import torch\n"
    for name, expected in (("edgeperc/inference/session.py", 1), ("edgeperc/offline/train.py", 0)):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--select=TID253", "--stdin-filename", name],
            check=False,
            input=offender,
            cwd=ROOT,
            text=True,
            capture_output=True,
        )
        assert done.returncode == expected, done.stdout


def test_only_the_training_extras_need_torch() -> None:
    from importlib.metadata import requires

    needs = [line for line in requires("edgeperc") or [] if line.startswith("torch")]
    assert needs
    assert all("extra ==" in line for line in needs)
