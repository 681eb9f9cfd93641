"""Artifacts: whole or not there, and as the simulated network says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import onnx
import pytest
import torch

from edgeperc.config import ModelCard, load
from edgeperc.errors import ModelError
from edgeperc.offline.compress import artifact, artifact_promptable, report
from edgeperc.offline.compress.adapters.opening import subject_for
from edgeperc.offline.compress.context import Context
from edgeperc.offline.compress.ledger import Ledger
from edgeperc.offline.compress.quantize import quantize
from edgeperc.offline.compress.report import HEADING_PX
from edgeperc.offline.compress.simulate import Simulated
from edgeperc.offline.compress.sites import choose
from edgeperc.offline.compress.written import Written
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.places import ModelFolder
from edgeperc.prompting.golden import agreement

from .tiny_promptable import tiny_sam2

AT = ("image_encoder.*", "!*.patch_embed", "!*.neck", "sam_mask_decoder.transformer")


def made(at: tuple[str, ...] = AT) -> tuple[Context, Ledger]:
    """A tiny network in 8 bits."""
    torch.manual_seed(0)
    subject = subject_for(tiny_sam2())
    samples = subject.noise(2)
    sim = Simulated(subject.net)
    ctx = Context(subject=subject, sim=sim, samples=samples, held_out=samples)
    quantize(ctx, choose(sim.sites, at), softmax="uniform8-minmax")
    sim.fold()
    ledger = Ledger("tiny", "w8a8", "0" * 64, 0, "noise", 2, 2)
    return ctx, ledger


@dataclass(frozen=True)
class Artifact:
    """What was written. early: whether its folder was there before all of it was. scored: networks
    that were asked how good they are.
    """

    written: Written
    folder: Path
    early: list[bool]
    ctx: Context
    ledger: Ledger
    exact: Sam2
    scored: list[torch.nn.Module]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    ctx, ledger = made()
    torch.manual_seed(0)
    exact, folder = tiny_sam2(), tmp_path_factory.mktemp("artifact") / "out"
    early: list[bool] = []
    scored: list[torch.nn.Module] = []
    report_of = report.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctx.subject, "score", lambda net, _: scored.append(net) or {"miou": 0.5})
        patch.setattr(
            report, "write", lambda *a, **k: early.append(folder.exists()) or report_of(*a, **k)
        )
        written = artifact.write(  # random weights
            ctx, ledger, folder, exact=exact, time_it=False, min_agreement=0.9
        )
    return Artifact(written, folder, early, ctx, ledger, exact, scored)


def test_the_report_shows_masks_of_three_networks_side_by_side(there: Artifact) -> None:
    shown = cv2.imread(str(there.folder / "masks.png"))
    side = there.exact.config.picture_px
    assert shown.shape == (HEADING_PX + 2 * side, 3 * side, 3)
    first, last = shown[HEADING_PX:, :side], shown[HEADING_PX:, 2 * side :]
    assert 0 < (first != last).mean() < 0.5  # alike, not the same
    heading = shown[:HEADING_PX]
    assert all((heading[:, i * side : (i + 1) * side] < 128).any() for i in range(3))


def test_steadiness_is_of_the_network_as_it_is() -> None:
    ctx, _ = made()
    with ctx.sim.off():
        assert artifact.steadiness(ctx) > 0.999
    assert 0 < artifact.steadiness(ctx) <= 1


def test_an_artifact_is_a_model_that_runs_and_agrees(there: Artifact) -> None:
    card = load(there.folder / "model.toml", ModelCard)
    assert there.written.agreement >= 0.9
    assert min(agreement(ModelFolder(card, there.folder))) > 0.9  # random weights
    assert {each.role for each in card.files} >= {"encoder", "decoder", "memory_attention"}
    table = json.loads((there.folder / "quant.json").read_text())
    assert (table["agreement_wanted"], table["agreement_lowered_by_recipe"]) == (0.9, True)
    told = (there.folder / "report.md").read_text()
    assert "the recipe's min_agreement of 0.9 is in place of 0.99" in told
    assert table["runs_in_integers"]["encoder"]["in integers"] > 0
    kinds = {node.op_type for node in onnx.load(there.folder / "encoder.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Gemm"} <= kinds
    assert "Split" not in kinds
    sums = (there.folder / "SHA256SUMS").read_text()
    assert all(entry.sha256 in sums for entry in card.files)
    there.ctx.sim.check()  # the network itself is as it was


def test_it_is_not_there_before_it_is_whole(there: Artifact) -> None:
    assert there.early == [False]
    assert [path.name for path in there.folder.parent.iterdir()] == ["out"]


def test_scores_of_a_file_in_integers_are_of_biases_in_whole_units(there: Artifact) -> None:
    assert there.ledger.scores["compressed"] == {"miou": 0.5}
    assert there.scored[0] is not there.ctx.net


def test_files_that_answer_otherwise_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, ledger = made(AT[-1:])
    monkeypatch.setattr(artifact_promptable, "agreement", lambda *_: 0.989)
    with pytest.raises(ModelError, match=r"overlap by 0\.9890, 0\.99 is asked for"):
        artifact.write(ctx, ledger, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # a process that imports torch
def test_a_kill_leaves_no_half_artifact(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from edgeperc.offline.compress import report\n"
        "from tests.test_compress_artifact import made, artifact\n"
        "report.write = lambda *a, **k: (print('here', flush=True), time.sleep(60))\n"
        "artifact.write(*made(), Path(sys.argv[1]), min_agreement=0.5)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdout is not None
        assert b"here" in process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.1)
    assert not (tmp_path / "out").exists()
