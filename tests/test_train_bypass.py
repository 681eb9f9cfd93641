"""The adapter's training, on the twin alone."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from edgeperc import places
from edgeperc.errors import ConfigError, ModelError
from edgeperc.offline import clip_data, trainers
from edgeperc.offline.clips import Clip
from edgeperc.offline.export_efficient import load_bypass, published_bypass
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.offline.train_bypass import BypassTask, Settings, follow, train
from edgeperc.offline.training_run import Pace, save_state
from edgeperc.prompt import VideoSession

from .tiny_promptable import card_of, tiny_sam2

SETTINGS = Settings(
    pace=Pace(steps=3, rate=1e-3, warm_up_steps=1, checkpoint_every=1, validate_every=100),
    frames=4,
    held_out=1,
)
SIDE = 64


@pytest.fixture(scope="module")
def net() -> Sam2:
    sizes = {"stages": (1, 1, 4, 1), "global_blocks": (3, 5), "windows": (8, 4, 2, 2)}
    return tiny_sam2(1, width=64, decoder_heads=2, **sizes)


@pytest.fixture
def weights(net: Sam2, tmp_path: Path) -> Path:
    folder = tmp_path / "promptable"
    folder.mkdir()
    save_state({"config": asdict(net.config), "net": net.state_dict()}, folder / "weights.pt")
    return folder / "weights.pt"


def moving(side_px: int = SIDE, frames: int = 4) -> Clip:
    """A disk that moves to the right."""
    row, column = np.mgrid[:side_px, :side_px]
    masks = np.stack([(column - 12 - 2 * t) ** 2 + (row - 12) ** 2 < 64 for t in range(frames)])
    pictures = np.where(masks[..., None], 230, 60 + column[..., None] // 2).astype(np.uint8)
    return Clip(pictures=pictures.repeat(3, axis=-1), masks=masks[None])


class Source:
    """Always the same clip."""

    def clips(self, rng: object, *, count: int, frames: int, objects: int) -> list[Clip]:
        return [moving(frames=frames)]


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of a disk; and what the decoder expects next is where the disk began."""

    def data(folder: Path, *, side_px: int, cache: Path) -> object:
        return type("Data", (), {"training": Source(), "held_out": Source()})()

    monkeypatch.setattr("edgeperc.offline.train_bypass.ClipData", data)
    chosen = np.array([True, True, False, False])
    monkeypatch.setattr("edgeperc.offline.train_bypass.choose", lambda *_: chosen)


def run(out: Path, weights: Path | None = None, **options: object) -> object:
    quiet = Console(file=io.StringIO())
    options = {"settings": SETTINGS, **options}
    return train("bypass", out, weights=weights, threads=1, console=quiet, **options)  # type: ignore[arg-type]


def test_it_learns_and_the_network_stays(net: Sam2, weights: Path, tmp_path: Path) -> None:
    pace = replace(SETTINGS.pace, steps=25, rate=1e-2)
    trained = run(tmp_path / "bypass", settings=replace(SETTINGS, pace=pace))
    assert trained.scores.after < 0.9 * trained.scores.before  # type: ignore[attr-defined]
    assert trained.scores.windows == 0.5  # type: ignore[attr-defined]
    held = torch.load(tmp_path / "bypass" / "weights.pt", weights_only=True)
    assert set(held) == {"config", "net", "bypass"}
    for name, values in net.state_dict().items():
        torch.testing.assert_close(held["net"][name], values, rtol=0, atol=0)


def test_a_killed_run_goes_on_as_if_it_had_not_been(weights: Path, tmp_path: Path) -> None:
    run(tmp_path / "whole")
    run(tmp_path / "parts", steps=1)
    run(tmp_path / "parts", steps=3)
    states = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["net"]
        for name in ("whole", "parts")
    ]
    # The rate of the first step hangs on the number of all: the same run was told another.
    for whole, parts in zip(*(state.values() for state in states), strict=True):
        torch.testing.assert_close(whole, parts, atol=5e-3, rtol=0.1)
    before = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    assert before["step"] == 3


def test_the_loss_of_a_step_hangs_on_its_number_alone(net: Sam2) -> None:
    from edgeperc.offline.nets.efficient import bypass_of

    torch.manual_seed(0)
    bypass = bypass_of(net.config)
    net.requires_grad_(False)
    task = BypassTask(net, bypass, Source(), 4, 7)  # type: ignore[arg-type]
    first, second = task.loss(5), task.loss(5)
    assert first == second
    assert first > 0
    first.backward()  # type: ignore[no-untyped-call]
    assert bypass.down_project.weight.grad is not None


def test_clips_are_followed_from_their_box(net: Sam2) -> None:
    seen = list(follow(net.requires_grad_(False), moving()))
    assert len(seen) == 2, "neither the frame with the prompt nor the one after it"
    for picture, each in seen:
        torch.testing.assert_close(each.embedding, net.encode(picture).embedding)
        assert each.windows.tolist() == [0, 1]
    attention = net.sam_mask_decoder.transformer.final_attn_token_to_image
    assert attention.tap_softmax.work is None, "the taps were left in the decoder"


def test_another_network_or_none(weights: Path, tmp_path: Path, net: Sam2) -> None:
    run(tmp_path / "bypass", steps=1)
    other = {key: value + 1 for key, value in net.state_dict().items()}
    save_state({"config": asdict(net.config), "net": other}, weights)
    with pytest.raises(ConfigError, match="belongs to a run"):
        run(tmp_path / "bypass")
    with pytest.raises(ConfigError, match="edgeperc train promptable|no such file"):
        run(tmp_path / "elsewhere" / "bypass")


def test_by_its_name_without_data(weights: Path, tmp_path: Path) -> None:
    assert trainers.TRAINERS["bypass"].train is train
    with pytest.raises(ConfigError, match="no folder"):
        trainers.train("bypass", tmp_path / "bypass", data=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="builds on no other network"):
        trainers.train("finder-twin", tmp_path / "finder", weights=weights)


def test_exported_with_its_network(weights: Path, tmp_path: Path, net: Sam2) -> None:
    run(tmp_path / "bypass", steps=1)
    card = card_of(net, window_routing=True, memory_keep_share=0.25)
    report = trainers.export_trained(card, tmp_path / "bypass" / "weights.pt", tmp_path / "model")
    assert "encoder_middle.onnx" in report.summary()
    model = places.find_model(str(tmp_path / "model"))
    assert model.card.prompt == card.prompt
    assert {"routed_frames", "pruned_reads"} <= set(VideoSession(model, threads=1).counters)
    with pytest.raises(ModelError, match="no adapter"):
        trainers.export_trained(card, weights, tmp_path / "other")
    assert load_bypass(weights) is None


def test_published_files_of_another_network(net: Sam2, tmp_path: Path) -> None:
    from edgeperc.offline.nets.efficient import Bypass

    torch.save(Bypass(4 * net.config.embed).state_dict(), tmp_path / "right.pth")
    torch.save(Bypass(448).state_dict(), tmp_path / "wrong.pth")
    published_bypass(net, tmp_path / "right.pth")
    with pytest.raises(ModelError, match="no adapter of 'tiny'"):
        published_bypass(net, tmp_path / "wrong.pth")
    with pytest.raises(ModelError, match="No such file"):
        published_bypass(net, tmp_path / "missing.pth")


@pytest.mark.slow
def test_clips_of_the_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_data, "TRAINING_AVENUES", range(11_000, 11_001))
    monkeypatch.setattr(clip_data, "HELD_OUT_AVENUES", range(11_000, 11_001))
    source = clip_data.ClipData(tmp_path / "none", side_px=SIDE, cache=tmp_path / "cache")
    clips = source.training.clips(np.random.default_rng(0), count=1, frames=4, objects=1)
    assert clips[0].pictures.shape == (4, SIDE, SIDE, 3)
