"""A pruned memory is the whole one but for the tokens that it drops, and which those are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgeperc import places
from edgeperc.errors import ModelError
from edgeperc.offline.export_efficient import add_efficient
from edgeperc.offline.nets.efficient_memory import strongest
from edgeperc.offline.nets.sam2 import Sam2
from edgeperc.places import ModelFolder
from edgeperc.prompt import Efficient, Prompt, VideoSession
from edgeperc.prompting.bank import Bank, Remembered
from edgeperc.prompting.memory import Constants, DenseMemory
from edgeperc.prompting.networks import DenseEncoder, Sizes
from edgeperc.prompting.retrieval import PrunedMemory, kept_tokens
from edgeperc.prompting.seam import Features

from .retrieval_oracle import masked_attention
from .tiny_promptable import exported, film, frame, tiny_sam2

SHARE, KEPT, TOKENS = 0.25, 4, 16
FRAMES = 12


@pytest.fixture(scope="module")
def net() -> Sam2:
    return tiny_sam2(4).requires_grad_(False)


@pytest.fixture(scope="module")
def folders(net: Sam2, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFolder]:
    """Files that take any number of whole frames, that are fixed, and that have room for all."""
    root, made = tmp_path_factory.mktemp("retrieval"), {}
    for name, share, static in (("open", SHARE, False), ("fixed", SHARE, True), ("all", 1, False)):
        exported(net, root / name)
        add_efficient(root / name, net, None, keep_share=share, static=static)
        made[name] = places.find_model(str(root / name))
    return made


def memory_of(model: ModelFolder, share: float) -> tuple[PrunedMemory, DenseMemory, Sizes]:
    encoder = DenseEncoder(model, threads=1)
    constants, sizes = Constants.of(model, encoder.sizes)
    pruned = PrunedMemory(model, sizes, constants, keep_share=share, threads=1)
    return pruned, DenseMemory(model, sizes, constants, threads=1), sizes


def bank_of(sizes: Sizes) -> Bank:
    table = sizes.table
    return Bank(
        prompt_frames=table.prompt_frames,
        memory_frames=table.memory_frames,
        max_pointers=table.max_pointers,
    )


class Noise:
    """Frames and memories of nothing in particular."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes, self._rng = sizes, np.random.default_rng(8)

    def features(self) -> Features:
        return Features(embedding=self._values(*self._sizes.embedding))

    def entry(self, number: int) -> Remembered:
        tokens = self._values(self._sizes.grid**2, self._sizes.memory_width)
        return Remembered(frame=number, tokens=tokens, pointer=self._values(self._sizes.width))

    def _values(self, *shape: int) -> NDArray[np.float32]:
        return self._rng.normal(size=shape).astype(np.float32)


class Plain:
    """Memory retrieval in torch, as it is written down: everything is there, masks say what counts.

    warm_up: masks count only when the memory is full.
    """

    def __init__(self, net: Sam2, *, kept: int, warm_up: bool, memory_frames: int = 7) -> None:
        self.net, self.kept, self.warm_up = net, kept, warm_up
        self.memory_frames = memory_frames
        self.marks: dict[int, torch.Tensor] = {}
        self.dropped = 0

    def __call__(self, features: Features, bank: Bank, now: int) -> torch.Tensor:
        net = self.net
        there = sorted(bank.places(now), key=lambda each: each[0].frame)
        tokens = [torch.from_numpy(np.asarray(each.tokens)) for each, _ in there]
        positions = [net.frame_position(offset) for _, offset in there]
        pointers, ages = zip(*bank.pointers(now), strict=True)
        for pointer in pointers:
            tokens.append(net.pointer_tokens(torch.from_numpy(pointer)[None])[0])
        positions.append(net.pointer_position(torch.tensor(ages, dtype=torch.float32)))
        memory, position = torch.cat(tokens)[None], torch.cat(positions)[None]
        first = min(each.frame for each in (*bank.prompted, *bank.tracked))
        keep = torch.ones(2, memory.shape[1], dtype=torch.bool)
        if not self.warm_up or now - first >= self.memory_frames:
            for slot, (entry, offset) in enumerate(there[:-1]):
                if offset and entry.frame in self.marks:
                    keep[:, slot * TOKENS : (slot + 1) * TOKENS] = self.marks[entry.frame]
        self.dropped = int((~keep).sum())
        last = len(there) - 1
        embedding = torch.from_numpy(features.embedding)
        x = (embedding + 0.1 * torch.as_tensor(net.position)).flatten(2).transpose(1, 2)
        found, scores = masked_attention(
            net.memory_attention,
            x,
            memory,
            position,
            len(pointers) * net.config.pieces,
            keep=keep,
            newest=slice(last * TOKENS, (last + 1) * TOKENS),
        )
        self.marks.setdefault(there[-1][0].frame, strongest(scores, self.kept))
        return found.transpose(1, 2).reshape(embedding.shape)


@pytest.mark.parametrize("kind", ["open", "fixed"])
@pytest.mark.parametrize("prompted_at", [(0,), (0, 8), (0, 3, 9)], ids=str)
def test_as_written_down(
    net: Sam2, folders: dict[str, ModelFolder], kind: str, prompted_at: tuple[int, ...]
) -> None:
    memory, _, sizes = memory_of(folders[kind], SHARE)
    plain = Plain(net, kept=KEPT, warm_up=kind == "open")
    noise, bank, dropped = Noise(sizes), bank_of(sizes), []
    bank.remember(noise.entry(0), prompted=True)
    for now in range(1, 16):
        features = noise.features()
        wanted = plain(features, bank, now)
        found = memory(features, bank, now)
        np.testing.assert_allclose(found, wanted, atol=3e-5)
        dropped.append(plain.dropped)
        bank.remember(noise.entry(now), prompted=now in prompted_at)
    assert dropped[5 if kind == "open" else 0] == 0
    if prompted_at == (0,):
        full = 2 * 5 * (TOKENS - KEPT)
        begins = 6 if kind == "open" else 2
        assert [each > 0 for each in dropped] == [now >= begins for now in range(15)]
        assert dropped[6:] == [full] * 9
        assert memory.counters == {
            "memory_reads": 15,
            "pruned_reads": sum(each > 0 for each in dropped),
        }
        kept = [each.kept for each in bank.tracked[:-1] if each.tokens is not None]
        assert len(kept) == 5
        for each in kept:
            assert each is not None
            assert each.shape == (2, KEPT)
            assert (np.diff(each, axis=1) > 0).all()


def test_keeping_all_is_the_whole_memory(folders: dict[str, ModelFolder]) -> None:
    memory, dense, sizes = memory_of(folders["all"], 1.0)
    noise, bank = Noise(sizes), bank_of(sizes)
    bank.remember(noise.entry(0), prompted=True)
    for now in range(1, FRAMES):
        features = noise.features()
        wanted = dense(features, bank, now)
        np.testing.assert_allclose(memory(features, bank, now), wanted, atol=3e-5)
        bank.remember(noise.entry(now), prompted=now == 4)
    assert memory.counters["pruned_reads"] > 0


def test_fewer_than_there_is_room_for(net: Sam2, folders: dict[str, ModelFolder]) -> None:
    memory, _, sizes = memory_of(folders["all"], 0.125)
    plain, noise, bank = Plain(net, kept=2, warm_up=True), Noise(sizes), bank_of(sizes)
    bank.remember(noise.entry(0), prompted=True)
    for now in range(1, FRAMES):
        features = noise.features()
        wanted = plain(features, bank, now)
        np.testing.assert_allclose(memory(features, bank, now), wanted, atol=3e-5)
        bank.remember(noise.entry(now), prompted=False)
    assert plain.dropped == 2 * 5 * (TOKENS - 2)


def test_more_than_there_is_room_for(folders: dict[str, ModelFolder]) -> None:
    with pytest.raises(ModelError, match="room for 4 tokens"):
        memory_of(folders["open"], 0.5)


def test_kept_tokens() -> None:
    assert kept_tokens(0.05, 4096) == 204
    assert kept_tokens(1.0, 4096) == 4096
    assert kept_tokens(0.29, 100) == 29
    assert kept_tokens(0.0, 100) == 1


def test_a_session_prunes(folders: dict[str, ModelFolder]) -> None:
    prompts = {1: Prompt(points=np.array([[40, 20]], np.float32))}
    visible = {}
    for share in (1.0, SHARE):
        session = VideoSession(
            folders["open"], threads=1, efficient=Efficient(memory_keep_share=share)
        )
        visible[share] = [
            session.step(frame(picture, index), {} if index else prompts).visible[0]
            for index, picture in enumerate(film(FRAMES))
        ]
        assert session.counters.get("pruned_reads", 0) == (5 if share < 1 else 0)
    np.testing.assert_allclose(visible[1.0][:7], visible[SHARE][:7], atol=1e-4)
    assert not np.allclose(visible[1.0], visible[SHARE], atol=1e-6), "nothing was dropped"


def test_without_its_file(net: Sam2, tmp_path: Path) -> None:
    plain = exported(net, tmp_path / "plain")
    with pytest.raises(ModelError, match="memory_retrieval"):
        VideoSession(plain, threads=1, efficient=Efficient(memory_keep_share=0.5))
