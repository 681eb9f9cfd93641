"""From weights to a client's answer: compressed by the command, served by `--set`, prompted."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeperc import client
from edgeperc.errors import EdgepercError
from edgeperc.prompt import Prompt
from tests.tiny_promptable import tiny_sam2

pytestmark = pytest.mark.slow

EDGEPERC = [sys.executable, "-m", "edgeperc"]
RECIPE = """
[calibration]
source = "noise"
take = 2
held_out = 2
[accept]
min_agreement = 0.5 # random weights
[[passes]]
kind = "quantize"
at = ["image_encoder.*", "sam_mask_decoder.transformer"]
softmax = "uniform8-minmax"
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compressed")
    net = tiny_sam2()
    torch.save({"config": asdict(net.config), "net": net.state_dict()}, folder / "weights.pt")
    (folder / "quick.recipe.toml").write_text(RECIPE)
    words = [folder / "weights.pt", "--recipe", folder / "quick.recipe.toml", "--threads", 1]
    command = [*EDGEPERC, "compress", *words, "--out", folder / "small"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, timeout=900)
    return folder / "small"


@contextmanager
def served(model: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A daemon of the app `prompt` with this model, and its address."""
    with socket.socket() as probe:  # a port that is free now
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    changes = (f"pipelines.0.model={model}", f'sinks.0.listen="{address}"')
    words = [word for change in changes for word in ("--set", change)]
    with subprocess.Popen(
        [*EDGEPERC, "serve", "prompt", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as daemon:
        try:
            yield address, daemon
        finally:
            daemon.kill()


def connected(address: str, daemon: subprocess.Popen[str]) -> client.Client:
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s and daemon.poll() is None:
        try:
            client.connect(address, timeout_s=1).close()
            return client.connect(address, timeout_s=60)
        except EdgepercError:
            time.sleep(0.1)
    pytest.fail(f"no daemon: {daemon.communicate()}")


def test_a_daemon_answers_prompts_with_what_was_compressed(artifact: Path) -> None:
    with served(artifact) as (address, daemon):
        with connected(address, daemon) as there, there.track() as session:
            (ref,) = there.models()
            session.prompt(7, Prompt(points=np.array([[60.0, 150.0]])))
            found = next(each for each in session if len(each.ids))
        daemon.terminate()
        said = daemon.communicate(timeout=20)[0]
    assert ref.name == "tiny-quick"
    assert ref.precision == "int8+fp32"
    assert list(found.ids) == [7]
    assert "tiny-quick on onnxruntime (CPUExecutionProvider, int8+fp32)" in said
    assert f"--set pipelines.0.model={artifact}" in said


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx"])
def test_a_daemon_refuses_a_file_in_which_a_bit_has_flipped(
    name: str, artifact: Path, tmp_path: Path
) -> None:
    shutil.copytree(artifact, tmp_path / "small")
    content = bytearray((tmp_path / "small" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "small" / name).write_bytes(content)
    with served(tmp_path / "small") as (_, daemon):
        out, err = daemon.communicate(timeout=60)
    assert daemon.returncode == 1, out
    assert f"{name}: sha256 is not the one in its model.toml" in " ".join(err.split())
