"""Our own small promptable network: SAM 2's parts at 256 px, and two that help it learn."""

from __future__ import annotations

from edgeperc.offline.nets.sam2 import Sam2Config

PROMPTABLE = Sam2Config(
    name="promptable",
    picture_px=256,
    stem=(24, 32),
    pyramid=True,
    prompt_maps=True,
    embed=32,
    heads=1,
    stages=(1, 2, 6, 1),
    global_blocks=(5, 8),
    windows=(8, 4, 4, 8),
    background_px=(8, 8),
    width=128,
    memory_width=64,
    memory_layers=2,
    feed_forward=512,
    decoder_feed_forward=512,
    decoder_heads=4,
    iou_hidden=128,
    layer_scale=0.1,
)
