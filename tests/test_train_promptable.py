"""The promptable network's training, on a folder of made-up data as the published ones lie."""

import io

import cv2
import numpy as np
import pytest
import scipy.io
import torch
from rich.console import Console

from edgeperc.errors import ConfigError
from edgeperc.offline import clip_data, trainers
from edgeperc.offline.nets.sam2 import Sam2, Sam2Config
from edgeperc.offline.prompting_task import Load, PromptingTask, validate_prompting
from edgeperc.offline.train_promptable import Settings, train
from edgeperc.offline.training_run import Pace

NETWORK = Sam2Config(
    name="made-up",
    picture_px=64,
    stem=(8, 8),
    embed=8,
    heads=1,
    stages=(1, 1, 2, 1),
    global_blocks=(3,),
    windows=(4, 2, 2, 2),
    background_px=(2, 2),
    width=32,
    memory_width=16,
    memory_layers=1,
    feed_forward=32,
    decoder_feed_forward=32,
    decoder_heads=2,
    iou_hidden=16,
    layer_scale=0.1,
)
SETTINGS = Settings(
    network=NETWORK,
    pace=Pace(steps=4, rate=1e-3, average=0.9, checkpoint_every=2, validate_every=100),
    load=Load(stills=2, objects=2, clips=2, frames=3, clip_objects=2, first_clip=1),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """BSDS500 and DAVIS with a disk in each picture."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:72, :96]
    for split in ("train", "val"):
        for kind in ("images", "groundTruth"):
            (root / "bsds500" / kind / split).mkdir(parents=True)
        disk = ((columns - 48) ** 2 + (rows - 36) ** 2 < 400).astype(np.uint8)
        picture = np.where(disk[..., None] > 0, 220, rng.integers(0, 90, (72, 96, 3)))
        cv2.imwrite(str(root / "bsds500/images" / split / "1.jpg"), picture)
        cells = np.empty((1, 1), object)
        cells[0, 0] = {"Segmentation": disk.astype(np.uint16) + 1}
        scipy.io.savemat(root / "bsds500/groundTruth" / split / "1.mat", {"groundTruth": cells})
    for name in ("dog", "libby"):
        for kind in ("JPEGImages", "Annotations"):
            (root / "davis" / kind / name).mkdir(parents=True)
        for t in range(10):
            mask = ((columns - 30 - 3 * t) ** 2 + (rows - 36) ** 2 < 200).astype(np.uint8) * 255
            picture = np.where(mask[..., None] > 0, 220, rng.integers(0, 90, (72, 96, 3)))
            cv2.imwrite(str(root / f"davis/JPEGImages/{name}/{t:05d}.jpg"), picture)
            cv2.imwrite(str(root / f"davis/Annotations/{name}/{t:05d}.png"), mask)
    return root


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """One avenue of the twin, and a short look at held-out data."""
    monkeypatch.setattr(clip_data, "TRAINING_AVENUES", range(11_000, 11_001))
    monkeypatch.setattr(clip_data, "HELD_OUT_AVENUES", range(11_000, 11_001))
    monkeypatch.setattr(validate_prompting, "__kwdefaults__", {"stills": 2, "clips": 1})


def run(folder, data, **options):
    """The twin is drawn once for all, beside the data."""
    folder.mkdir(exist_ok=True)
    if not (folder / "cache").exists():
        (data / "cache").mkdir(exist_ok=True)
        (folder / "cache").symlink_to(data / "cache")
    console = Console(file=io.StringIO())
    return train(
        "promptable", folder, data=data, threads=1, settings=SETTINGS, console=console, **options
    )


def test_a_run_that_was_killed_comes_to_the_same_end(tmp_path, data, monkeypatch):
    whole = run(tmp_path / "whole", data)
    held = torch.load(whole.weights, weights_only=True)
    net = Sam2(Sam2Config(**held["config"]))
    net.load_state_dict(held["net"], strict=True)
    assert 0 <= whole.scores.track_miou <= 1
    assert "box" in str(whole.scores)

    parts, loss = tmp_path / "parts", PromptingTask.loss

    def killed(task, step):
        if step == 2:
            raise KeyboardInterrupt
        return loss(task, step)

    monkeypatch.setattr(PromptingTask, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        run(parts, data)
    begun = torch.load(parts / "checkpoint.pt", weights_only=True)["net"]
    monkeypatch.setattr(PromptingTask, "loss", loss)
    rest = torch.load(run(parts, data).weights, weights_only=True)["net"]
    assert all(torch.equal(held["net"][name], rest[name]) for name in rest)
    ended = torch.load(parts / "checkpoint.pt", weights_only=True)["net"]
    still = {name for name in begun if torch.equal(begun[name], ended[name])}
    assert len(still) < 0.1 * len(begun), f"never learnt: {still}"


def test_another_seed_or_schedule_is_another_run(tmp_path, data):
    run(tmp_path, data, steps=1)
    for other in ({"seed": 1}, {"steps": 3}):
        with pytest.raises(ConfigError, match="another seed or other settings"):
            run(tmp_path, data, **{"steps": 1, **other})


def test_nothing_held_out_is_learnt_from(data, tmp_path):
    """The held-out half of the folder may be missing where only training data is drawn."""
    training = clip_data._mixture(data, tmp_path, 64, training=True)
    held_out = clip_data._mixture(data, tmp_path, 64, training=False)
    names = [len(source._sequences) for source, _ in training._videos[:1]]
    assert names == [1], "libby alone; dog is held out"
    assert [len(source._sequences) for source, _ in held_out._videos[:1]] == [1]
    libby, dog = (m._videos[0][0]._sequences[0][0] for m in (training, held_out))
    assert not np.array_equal(libby, dog)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        trainers.train("promptable", tmp_path / "out", data=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="learns from the twin alone"):
        trainers.train("finder-twin", tmp_path / "out", data=tmp_path)
