"""An encoder that leaves out windows in which nothing is expected: Efficient-SAM2's window routing.

    encoder = RoutedEncoder(model, threads=2)
    features = encoder(tensor, wish)

Three files take the place of one. The head sees the whole picture, the middle only chosen windows,
the tail everything again, where tokens that were left out went through a small adapter. A frame is
encoded whole when the session asks for it, when it is the first one after that, and when what was
seen last says little about what is to be seen now: after a cut, in fast motion, when an object is
lost. Source: Zhang et al., Efficient-SAM2, ICLR 2026; when to distrust it is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgeperc.config import Input
from edgeperc.errors import ModelError
from edgeperc.inference.providers import Providers
from edgeperc.places import ModelFolder
from edgeperc.prompting.networks import STRIDE_PX, DenseEncoder, Network, Sizes, prompt_table
from edgeperc.prompting.seam import F32, Features, Wish
from edgeperc.prompting.windows import choose, merge, partition

CUT, FAST = 0.17, 0.14
"""Another scene: this share of the pixels changed their bin in the histogram of a channel. Fast
motion: blocks of 1/16 of the picture's side changed by this share of the range of pixels, on
average. On DAVIS, frames that follow each other reach 0.12 and, 98 of 100, 0.14; pictures of
different sequences have 0.24 and 0.15 at least."""

_SAMPLES, _BLOCKS, _BINS = 256, 16, 16


class RoutedEncoder:
    """Encodes what is worth it. `sizes`, `fine`, `provider`, `precision` as those of DenseEncoder.

    buckets: numbers of windows that the middle is run for; it is filled up to the next one with
    windows of nothing. None: any number, as onnxruntime takes it; an engine that is built for few
    shapes wants some.
    """

    fine = True

    def __init__(
        self,
        model: ModelFolder,
        *,
        threads: int,
        providers: Providers = (),
        buckets: Sequence[int] | None = None,
    ) -> None:
        table = prompt_table(model.card)
        side = table.picture_px
        self._grid = grid = side // STRIDE_PX
        self._head = Network(model, "encoder_head", threads, providers)
        self._middle = Network(model, "encoder_middle", threads, providers)
        self._tail = Network(model, "encoder_tail", threads, providers)
        self._head.expect({"picture": (1, 3, side, side)}, {"tokens": (1, grid, grid, "C")})
        self._tail.expect(
            {"tokens": (1, grid, grid, "C"), "chosen": (1, grid, grid, 1)},
            {"embedding": (1, "D", grid, grid)},
        )
        embedding = self._tail.session.output_shapes["embedding"]
        _, window, _, channels = self._middle.session.input_shapes["tokens"]
        if not isinstance(window, int) or not isinstance(embedding[1], int):
            raise ModelError(f"model '{model.card.name}': its middle is for windows of any size")
        self.window: int = window
        """Side of a window in places of the grid."""
        self._middle.expect(
            {
                "tokens": ("windows", self.window, self.window, channels),
                "valid": ("windows", self.window, self.window, 1),
            },
            {"encoded": ("windows", self.window, self.window, channels)},
        )
        self.sizes = Sizes(table=table, grid=grid, width=embedding[1])
        self._head.expect({"picture": (1, 3, side, side)}, self.sizes.high)
        self.provider = self._head.session.provider
        self.precision = self._head.session.precision
        self._valid = partition(np.ones((grid, grid, 1), np.float32), self.window)
        self._buckets = sorted(buckets or range(1, len(self._valid) + 1))
        if self._buckets[-1] < len(self._valid):
            self._buckets.append(len(self._valid))
        self._glance = Glance(model.card.input)
        self._prompted = False
        self._counts = dict.fromkeys(
            ("dense_frames", "routed_frames", "scene_cuts", "fast_frames", "lost_frames"), 0
        ) | {"windows": 0}

    @property
    def counters(self) -> Mapping[str, int]:
        """dense_frames and routed_frames; why not routed, where that was not asked for: scene_cuts,
        fast_frames, lost_frames; windows: encoded in routed frames.
        """
        return dict(self._counts)

    def __call__(self, tensor: F32, wish: Wish, /) -> Features:
        """tensor: (3, S, S)."""
        chosen = self._choose(tensor, wish)
        head = self._head.run(tensor[None])
        cut = partition(head["tokens"][0], self.window)
        rows = np.flatnonzero(chosen)
        cut[rows] = self._encode(cut[rows], self._valid[rows])
        marks = np.zeros_like(self._valid)
        marks[rows] = 1
        tail = self._tail.run(merge(cut, self._grid)[None], merge(marks, self._grid)[None])
        whole = chosen.all()
        self._counts["dense_frames" if whole else "routed_frames"] += 1
        self._counts["windows"] += 0 if whole else len(rows)
        high = tuple(head[name] for name in self.sizes.high)
        return Features(embedding=tail["embedding"], high=high)

    def close(self) -> None:
        """Free the networks; may be called twice."""
        for network in (self._head, self._middle, self._tail):
            network.session.close()

    def _choose(self, tensor: F32, wish: Wish) -> NDArray[np.bool_]:
        """Windows to look at; all of them where what is known is not to be trusted."""
        every = np.ones(len(self._valid), np.bool_)
        cut, fast = self._glance(tensor)
        first, self._prompted = self._prompted, wish.whole
        if wish.whole or first or not wish.last:
            return every
        lost = any(decoded.object_logit <= 0 for decoded in wish.last)
        for name, found in (("scene_cuts", cut), ("fast_frames", fast), ("lost_frames", lost)):
            if found:
                self._counts[name] += 1
                return every
        chosen = choose(wish.last, self._grid, self.window)
        return chosen if chosen.any() else every

    def _encode(self, tokens: F32, valid: F32) -> F32:
        count = len(tokens)
        size = next(bucket for bucket in self._buckets if bucket >= count)
        fill = ((0, size - count), (0, 0), (0, 0), (0, 0))
        if size > count:
            tokens, valid = np.pad(tokens, fill), np.pad(valid, fill)
        return self._middle.run(tokens, valid)["encoded"][:count]


def open_encoder(
    model: ModelFolder, *, routing: bool | None, threads: int, providers: Providers = ()
) -> DenseEncoder | RoutedEncoder:
    """The encoder of a model. routing: whether it leaves windows out; None is as its card says."""
    wanted = prompt_table(model.card).window_routing if routing is None else routing
    return (RoutedEncoder if wanted else DenseEncoder)(model, threads=threads, providers=providers)


class Glance:
    """A rough look at every frame: is it another scene, or has much moved, since the one before?"""

    def __init__(self, card: Input) -> None:
        mean, std = (np.asarray(values, np.float32) for values in (card.mean, card.std))
        self._low: F32 = (-mean / std)[:, None, None]
        self._range: F32 = (np.float32(255) / std)[:, None, None]
        self._before: tuple[F32, F32] | None = None

    def __call__(self, tensor: F32) -> tuple[bool, bool]:
        """tensor: (3, S, S) as the network eats it. Returns cut, fast."""
        step = max(1, tensor.shape[-1] // _SAMPLES)
        pixels: F32 = (tensor[:, ::step, ::step] - self._low) / self._range
        now = _histogram(pixels), _blocks(pixels)
        before, self._before = self._before, now
        if before is None:
            return False, False
        moved = float(np.abs(now[0] - before[0]).sum()) / 2 / len(tensor)
        changed = float(np.abs(now[1] - before[1]).mean())
        return moved > CUT, changed > FAST


def _histogram(pixels: F32) -> F32:
    """Shares of the pixels 0..1 of each channel in each bin: (3, bins)."""
    bins = (pixels * (_BINS - 1e-3)).astype(np.int64).clip(0, _BINS - 1)
    counts = np.stack([np.bincount(each.ravel(), minlength=_BINS) for each in bins])
    shares: F32 = (counts / bins[0].size).astype(np.float32)
    return shares


def _blocks(pixels: F32) -> F32:
    """Means of 16 x 16 blocks."""
    side = pixels.shape[-1] // _BLOCKS
    cut = pixels[:, : side * _BLOCKS, : side * _BLOCKS]
    means: F32 = cut.reshape(len(pixels), _BLOCKS, side, _BLOCKS, side).mean((2, 4))
    return means
