from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgeperc.errors import ConfigError
from edgeperc.offline.compress.adapters import Subject
from edgeperc.offline.compress.adapters.prompts import STD
from edgeperc.offline.compress.adapters.sam import SamSubject
from edgeperc.offline.compress.adapters.sam2 import Sam2Subject
from edgeperc.offline.compress.adapters.sltnet import SltnetSubject
from edgeperc.offline.compress.calibrate import synthetic
from edgeperc.offline.compress.calibrate.evolve import ellipses
from edgeperc.offline.compress.calibrate.pictures import View, coloured, pixels_of, step_rms
from edgeperc.offline.compress.calibrate.sources import draw
from edgeperc.offline.compress.calibrate.synthetic import (
    Making,
    synthesise,
    synthesise_examples,
)
from edgeperc.offline.nets.sltnet import SLTNet
from edgeperc.offline.nets.taps import Tap

from .conftest import SHARED
from .tiny_promptable import TINY, tiny_sam, tiny_sam2

FEW = 9


def subject() -> Subject:
    return Sam2Subject(tiny_sam2())


def equal(one, other) -> bool:
    return all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("make", [subject, lambda: SamSubject(tiny_sam())])
def test_samples_are_pictures_with_prompts(make):
    samples = synthesise(make(), 3, 0, iterations=FEW)
    assert len(samples) == 3
    for sample in samples:
        assert sample["picture"].shape == (1, 3, 64, 64)
        assert torch.isfinite(sample["picture"]).all()
        assert sample["points"].shape == (*sample["labels"].shape, 2)
        assert {1.0, 2.0} <= set(sample["labels"].flatten().tolist())  # clicks and boxes
        outputs = make().run(make().net, sample)
        assert len(outputs["masks"]) == len(sample["points"])
    assert make().score(make().net, samples) == {}, "what the network sees is no truth"


def test_same_seed_same_samples():
    first = synthesise(subject(), 2, 5, iterations=FEW)
    assert equal(first, synthesise(subject(), 2, 5, iterations=FEW))
    other = synthesise(subject(), 2, 6, iterations=FEW)
    assert not torch.equal(first[0]["picture"], other[0]["picture"])
    assert not torch.equal(first[0]["picture"], first[1]["picture"])


def test_the_network_is_left_as_it_was():
    made = subject()
    before = {name: values.clone() for name, values in made.net.state_dict().items()}
    made.net.no_mem_embed.requires_grad_(False)
    synthesise(made, 1, 0, iterations=3)
    assert all(torch.equal(before[name], v) for name, v in made.net.state_dict().items())
    wanted = {name for name, p in made.net.named_parameters() if p.requires_grad}
    assert wanted == {name for name, _ in made.net.named_parameters()} - {"no_mem_embed"}
    assert all(p.grad is None for p in made.net.parameters())
    assert all(m.work is None for m in made.net.modules() if isinstance(m, Tap))


def test_synthesis_sees_what_calibration_will_see(monkeypatch):
    """Both normalise: the network's picture is the sample's, up to the rounding to 8 bits."""
    made = subject()
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(synthetic, "JITTER", (0.0,))
    monkeypatch.setattr(Making, "_view", lambda *_: View(0, 0, False))
    monkeypatch.setattr(synthetic, "RATE", 0.0)
    encode = made.net.encode
    monkeypatch.setattr(made.net, "encode", lambda x: seen.append(x.detach()) or encode(x))
    samples = synthesise(made, 2, 0, iterations=1)
    level = 0.5 / torch.tensor(STD)[:, None, None]
    for row, sample in zip(seen[0], samples, strict=True):
        assert ((row - sample["picture"][0]).abs() <= level + 1e-4).all()
        assert sample["picture"].std() > 0.8


def test_pictures_can_be_photographs():
    for example in synthesise_examples(subject(), 2, 0, iterations=FEW):
        assert example.picture.shape == (64, 64, 3)
        assert example.picture.dtype == np.uint8
        assert example.maps[0].max() >= 1
    assert pixels_of(torch.full((3, 2, 2), -9.0)).max() == 0


@pytest.mark.parametrize("aim", ["MASK", "ENTROPY", "SMOOTH"])
def test_each_aim_is_served(aim, monkeypatch):
    """Boxes answered, patches that differ more, smoother: each alone, and seen straight, as random
    weights know nothing of how an object looks elsewhere.
    """
    for other in {"MASK", "ENTROPY", "SMOOTH"} - {aim}:
        monkeypatch.setattr(synthetic, other, 0.0)
    monkeypatch.setattr(Making, "_view", lambda *_: View(0, 0, False))
    monkeypatch.setattr(synthetic, "PROMPTED", synthetic.OBJECTS)
    making = Making(tiny_sam2(), synthetic.Plan(count=2, seed=0, iterations=30), None)

    @torch.no_grad()
    def loss() -> float:
        if aim == "SMOOTH":
            return float((step_rms(making.pictures) - making._smoothness).abs().mean())
        with synthetic.PatchTaps(making._net.image_encoder, picture_px=64) as taps:
            seen = synthetic.Seen(making._net, making.pictures)
        if aim == "ENTROPY":
            return -float(taps.entropy(2, torch.Generator().manual_seed(0)).mean())
        return float(making._mask_loss(seen, making.labels, np.random.default_rng(0)))

    before = loss()
    making.run(None)
    assert loss() < before - 0.05 * abs(before)


def test_batches_one_after_the_other(monkeypatch):
    monkeypatch.setattr(synthetic, "BATCH_PIXELS", 2 * 64 * 64)
    samples = synthesise(subject(), 3, 0, iterations=FEW)
    assert len(samples) == 3
    noise = Making(subject().net, synthetic.Plan(count=3, seed=0, iterations=FEW), None).pictures
    for sample, start in zip(samples, noise, strict=True):
        assert (sample["picture"][0] - start).abs().mean() > 0.1


@pytest.mark.parametrize(
    "killed_at",
    [pytest.param(4, marks=pytest.mark.slow), pytest.param(7, marks=pytest.mark.slow), 13],
)
def test_a_killed_run_goes_on_as_if_it_was_not(killed_at, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "BATCH_PIXELS", 2 * 64 * 64)
    monkeypatch.setattr(synthetic, "KEEP_EVERY", 2)
    whole = synthesise(subject(), 3, 0, iterations=FEW)
    keep, iterate, calls = tmp_path / "new" / "pictures.pt", Making._iterate, []

    def killed(self, *args):
        calls.append(args)
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        return iterate(self, *args)

    monkeypatch.setattr(Making, "_iterate", killed)
    with pytest.raises(KeyboardInterrupt):
        synthesise(subject(), 3, 0, iterations=FEW, keep=keep)
    calls.clear()
    killed_at = 0
    assert equal(whole, synthesise(subject(), 3, 0, iterations=FEW, keep=keep))
    assert 0 < len(calls) < 2 * FEW
    calls.clear()
    assert equal(whole, synthesise(subject(), 3, 0, iterations=FEW, keep=keep))
    assert not calls
    for other, count, seed, iterations in (
        (subject(), 3, 1, FEW),
        (subject(), 2, 0, FEW),
        (subject(), 3, 0, FEW + 1),
        (Sam2Subject(tiny_sam2(seed=1)), 3, 0, FEW),
    ):
        with pytest.raises(ConfigError, match=r"pictures\.pt"):
            synthesise(other, count, seed, iterations=iterations, keep=keep)


def test_labels_move_with_their_picture():
    masks = torch.from_numpy(ellipses(2, 64, np.random.default_rng(0)))
    picture = masks.any(0).float().expand(3, -1, -1)
    for view in (View(5, -9, False), View(-20, 3, True)):
        moved = view.of(picture)
        assert not torch.equal(moved, picture)
        assert torch.equal(moved[0] > 0, view.of(masks).any(0))
        assert torch.equal(view.undone(moved), picture)


def test_labels_become_what_the_network_answers(monkeypatch):
    """Where it answers all prompts with one square, that is a label, where the picture has it."""
    made = subject()
    square = torch.full((16, 16), -9.0)
    square[2:6, 8:12] = 9.0
    views: list[View] = []
    draw_view = Making._view
    monkeypatch.setattr(Making, "_view", lambda *a: views.append(draw_view(*a)) or views[-1])
    monkeypatch.setattr(
        synthetic,
        "selected",
        lambda answered, kinds: (square.expand(len(kinds), 16, 16), torch.full((len(kinds),), 0.9)),
    )
    making = Making(made.net, synthetic.Plan(count=2, seed=0, iterations=18), None)
    start = making.labels.clone()
    making.run(None)
    large = torch.nn.functional.interpolate(square[None, None], (64, 64), mode="bilinear") > 0
    answer = views[5].undone(large[0, 0])  # of the sixth iteration, the only one that evolves
    for before, after in zip(start, making.labels, strict=True):
        assert torch.equal(after[0], answer)
        assert all(any(torch.equal(mask, old) for old in before) for mask in after[1:])


def test_the_network_is_asked_by_clicks_and_by_the_labels_own_boxes(monkeypatch):
    """Answers that it is not sure of change nothing."""
    asked: list[torch.Tensor] = []
    monkeypatch.setattr(synthetic, "EVOLVE_EVERY", 2)
    monkeypatch.setattr(synthetic, "sureness", lambda *_: (2.0, 2.0))
    select = synthetic.selected
    monkeypatch.setattr(
        synthetic, "selected", lambda out, kinds: asked.append(kinds) or select(out, kinds)
    )
    making = Making(tiny_sam2(), synthetic.Plan(count=1, seed=0, iterations=FEW), None)
    monkeypatch.setattr(Making, "_view", lambda *_: View(0, 0, False))
    start = making.labels.clone()
    making.run(None)
    assert [kinds[:, 0].tolist() for kinds in asked] == [[1] * 9 + [2] * 3]
    assert torch.equal(making.labels, start)


def test_each_phase_begins_anew_slowly_and_ends_slowly():
    making = Making(tiny_sam2(), synthetic.Plan(count=1, seed=0, iterations=30), None)
    rates, steps = [], []
    for step in range(20):
        making._iterate(slice(0, 1), step)
        making.done += 1
        rates.append(making._adam["param_groups"][0]["lr"])
        steps.append(int(making._adam["state"][0]["step"]))
    assert steps == [*range(1, 11)] * 2
    assert max(rates) == pytest.approx(synthetic.RATE)
    assert rates[0] < rates[1] == max(rates) > 5 * rates[9]
    assert rates[:10] == rates[10:]


def test_a_picture_is_seen_from_elsewhere_each_time(monkeypatch):
    views: list[View] = []
    draw_view = Making._view
    monkeypatch.setattr(Making, "_view", lambda *a: views.append(draw_view(*a)) or views[-1])
    synthesise(subject(), 1, 0, iterations=FEW)
    assert len(set(views)) > 5
    assert {view.mirrored for view in views} == {True, False}


def test_no_masks_evolve_after_the_first_phase(monkeypatch):
    at: list[int] = []
    evolved = Making._evolved
    monkeypatch.setattr(
        Making, "_evolved", lambda self, *a: at.append(self.done) or evolved(self, *a)
    )
    synthesise(subject(), 1, 0, iterations=48)
    assert at == [5, 10, 15]


def test_step_rms_by_hand():
    stripes = torch.zeros(1, 3, 4, 4)
    stripes[..., ::2] = 1  # every step across is 1, none down is
    assert step_rms(stripes).tolist() == pytest.approx([3 / 4])
    noise = torch.randn(1, 3, 200, 200, generator=torch.Generator().manual_seed(0))
    assert float(step_rms(noise)) == pytest.approx(2**0.5, rel=0.02)


def test_noise_that_pictures_begin_as():
    noise = coloured(torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    assert torch.allclose(noise.mean((-2, -1)), torch.zeros(4, 3), atol=1e-4)
    assert torch.allclose(noise.std((-2, -1)), torch.ones(4, 3), atol=1e-4)
    power = torch.fft.rfft2(noise).abs().square()
    near, far = power[..., 1:9, 1:9].mean(), power[..., 33:41, 33:41].mean()
    assert 20 < float(near / far) < 150  # (37 / 5)^2 = 55, were all frequencies of a cell alike


def test_what_cannot_be_synthesised():
    spiking = SltnetSubject(SLTNet(3, width=8, blocks=(1, 1, 1)))
    with pytest.raises(ConfigError, match="not promptable"):
        synthesise(spiking, 2, 0)
    with pytest.raises(ConfigError, match="0 pictures"):
        synthesise(subject(), 0, 0)
    with pytest.raises(ConfigError, match="2 iterations"):
        synthesise(subject(), 1, 0, iterations=2)


GUARD = """
import json, sys
from pathlib import Path

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".mat", ".npz", ".npy"}
DATA = Path(sys.argv[1])

def refuse(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        path = Path(args[0] if isinstance(args[0], str) else args[0].decode())
        if path.suffix.lower() in PICTURES or DATA in path.absolute().parents:
            raise RuntimeError(f"a data set was opened: {path}")
    if event in ("socket.connect", "socket.getaddrinfo", "os.listdir", "os.scandir"):
        where = Path(str(args[0])).absolute()
        if event.startswith("socket") or where == DATA or DATA in where.parents:
            raise RuntimeError(f"a data set was looked for: {args}")

import cv2, torch
from edgeperc.offline.compress.adapters import open_subject
from edgeperc.offline.compress.calibrate.sources import draw
from edgeperc.offline.compress.calibrate.synthetic import synthesise

def refuse_imread(path, *_):
    raise RuntimeError(f"a data set was opened: {path}")

cv2.imread = refuse_imread
synthesise.__kwdefaults__["iterations"] = 6
sys.addaudithook(refuse)
subject = open_subject("weights.pt")
for source, data in json.loads(sys.argv[2]):
    try:
        samples, _ = draw(source, subject, data=data or None, count=1, held_out=1, seed=0)
        print(len(samples), "samples")
    except Exception as refused:
        print(" ".join(str(refused).split()))
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder, and what is said of each source that samples are drawn from there, where opening
    any picture or data set is an error.
    """
    folder = tmp_path_factory.mktemp("guarded")
    torch.save({"config": asdict(TINY), "net": tiny_sam2().state_dict()}, folder / "weights.pt")
    (folder / "photographs").mkdir()
    assert cv2.imwrite(str(folder / "photographs" / "a.png"), np.zeros((9, 9, 3), np.uint8))
    asked = [("synthetic", ""), ("real", "photographs"), ("real", str(SHARED / "bsds500"))]
    done = subprocess.run(
        [sys.executable, "-c", GUARD, str(SHARED), json.dumps(asked)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout.splitlines()


def test_no_data_set_is_opened(guarded):
    """With the network and nothing else."""
    folder, said = guarded
    assert said[0] == "1 samples"
    assert {path.name for path in folder.iterdir()} == {"weights.pt", "photographs"}


def test_the_guard_would_notice(guarded):
    _, said = guarded
    assert "a data set was opened: " in said[1]
    if SHARED.is_dir():
        assert "a data set was " in said[2]


def test_as_a_source_it_keeps_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setitem(synthesise.__kwdefaults__, "iterations", 3)
    options = {"count": 2, "held_out": 1, "seed": 0, "work": tmp_path / "unfinished"}
    drawn, judges = draw("synthetic", subject(), **options)
    assert (len(drawn), len(judges)) == (2, 1)
    assert (tmp_path / "unfinished" / "synthetic.pt").is_file()
    monkeypatch.setattr(Making, "_iterate", lambda *_: pytest.fail("made already"))
    again, _ = draw("synthetic", subject(), **options)
    assert equal(drawn, again)
