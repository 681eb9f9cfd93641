from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeperc.jit import kernel


def test_import_and_use_without_a_writable_cache(tmp_path: Path) -> None:
    """A read-only installation without a home folder compiles in memory."""
    package = Path(__file__).parents[1] / "edgeperc"
    installed = tmp_path / "site/edgeperc"
    installed.mkdir(parents=True)
    names = "__init__ config errors jit packet pairs represent result sink"
    for name in names.split():
        (installed / f"{name}.py").write_text((package / f"{name}.py").read_text())
    (tmp_path / "site/run.py").write_text(
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"  # what numba finds where nothing is writable
        "import numpy as np\n"
        "from edgeperc import represent\n"
        "from edgeperc.packet import Events, Stamp\n"
        "stamp = Stamp(source='', seq=0, start_ns=0, end_ns=0)\n"
        "zeros = np.zeros(3, np.uint16)\n"
        "events = Events(stamp=stamp, t=np.arange(3), x=zeros, y=zeros, p=zeros > 0,"
        " width_px=2, height_px=2)\n"
        "print(represent.__file__, represent.event_count(events)[0, 0])\n"
    )
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path / "site", check=True, capture_output=True,
        text=True, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.stdout.split() == [str(installed / "represent.py"), "3"]


def test_a_cache_that_cannot_be_written_or_read_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def cut(*_: object) -> None:
        raise EOFError("Ran out of input")

    @kernel()
    def double(number: int) -> int:
        return 2 * number

    monkeypatch.setattr(double._cache._impl, "reduce", full)  # type: ignore[attr-defined]
    monkeypatch.setattr(double._cache._cache_file, "load", cut)  # type: ignore[attr-defined]
    assert double(21) == 42
    said = caplog.text
    assert "what was compiled is not kept: [Errno 28]" in said
    assert "what was compiled before cannot be read: Ran out" in said
