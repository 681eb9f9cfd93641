"""The committed stubs are what the .proto says, and import under old and new protobuf."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeperc.proto.generate import ROOT, generate

ROUND_TRIP = """
import google.protobuf, grpc, numpy as np
from edgeperc.client import connect
from edgeperc.errors import ConfigError
from edgeperc.packet import Stamp
from edgeperc.result import LabelMap, ModelRef
from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks.grpc import Grpc

sink = Grpc(listen="127.0.0.1:0", inventory=Inventory(sources=(SourceInfo(name="s", driver="d"),)))
labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
stamp = Stamp(source="s", seq=7, start_ns=1, end_ns=2)
with connect(sink.address) as client:
    for encoding in ("raw", "zstd", "rle"):
        results = client.subscribe(encoding=encoding)
        sink.write(LabelMap(stamp=stamp, labels=labels, classes=("a",), model=ModelRef(name="m")))
        np.testing.assert_array_equal(next(results).result.labels, labels)
    try:
        client.track()
    except ConfigError as error:
        assert "there is: none" in str(error)
sink.close()
print(google.protobuf.__version__, grpc.__version__)
"""


def test_committed_stubs_are_what_the_generator_writes(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    for stub in generate(tmp_path):
        committed = ROOT / stub.relative_to(tmp_path)
        assert committed.read_text() == stub.read_text(), f"{committed} is old: make proto"


@pytest.mark.slow
@pytest.mark.parametrize(("protobuf", "grpcio"), [("6.30.0", "1.72.2"), ("7.36.2", "1.85.1")])
def test_daemon_and_client_run_under_lowest_and_highest_protobuf(
    protobuf: str, grpcio: str, tmp_path: Path
) -> None:
    wanted = [f"protobuf=={protobuf}"]
    wanted += [f"{name}=={grpcio}" for name in ("grpcio", *SERVICES)]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path)]
    if subprocess.run([*install, *wanted], capture_output=True, check=False).returncode:
        pytest.skip(f"pip cannot install {' '.join(wanted)}")
    found = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", ROUND_TRIP],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.stdout.split() == [protobuf, grpcio], found.stderr


SERVICES = ("grpcio-health-checking", "grpcio-reflection")
