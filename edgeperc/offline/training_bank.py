"""What a batch of objects, all prompted in their first frame, remembers while a clip is learnt."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeperc.offline.nets.sam2 import Decoded, Sam2


class TrainingBank:
    """Memories and pointers of the frames so far, oldest first; the first one was prompted."""

    def __init__(self, net: Sam2) -> None:
        self._net = net
        self._memories: list[Tensor] = []
        self._pointers: list[Tensor] = []

    def add(
        self,
        embedding: Tensor,
        mask: Tensor,
        pointer: Tensor,
        decoded: Decoded,
        *,
        from_points: bool,
    ) -> None:
        """Remember a frame: embedding (B, width, g, g), the answer's logits (B, h, h), its pointer
        (B, width).
        """
        side = self._net.config.picture_px
        logits = F.interpolate(mask[:, None], (side, side), mode="bilinear")
        memory = self._net.encode_memory(
            embedding, logits, decoded.object_logits, from_points=from_points
        )
        self._memories.append(self._net.frame_tokens(memory))
        self._pointers.append(pointer)

    def attend(self, embedding: Tensor) -> Tensor:
        """The next frame's features in the light of what is remembered."""
        net, now = self._net, len(self._memories)
        recent = range(max(1, now - net.config.memory_frames + 1), now)
        frames = [0, *recent]
        ago = [0, *(now - t for t in recent)]
        tokens = [self._memories[t] for t in frames]
        position = [net.frame_position(a) for a in ago]
        pointed = list(range(max(0, now - net.config.max_pointers + 1), now))
        tokens += [net.pointer_tokens(self._pointers[t]) for t in pointed]
        position.append(net.pointer_position(torch.tensor([float(now - t) for t in pointed])))
        memory = torch.cat([t.to(tokens[0].dtype) for t in tokens], 1)
        places = torch.cat([p.to(memory.dtype) for p in position])
        return net.attend_memory(
            embedding,
            memory,
            places.expand(len(memory), -1, -1),
            len(pointed) * net.config.pieces,
        )
