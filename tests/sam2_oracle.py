"""transformers' SAM 2 with our weights: small, random, fed by hand, nothing downloaded."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from edgeperc.offline.nets.prompt_encoder import LayerNorm2d
from edgeperc.offline.nets.sam2 import Sam2, Sam2Config

SMALL = Sam2Config(
    name="small",
    picture_px=256,
    embed=16,
    heads=1,
    stages=(1, 2, 3, 2),
    global_blocks=(4,),
    windows=(8, 4, 14, 7),  # 14 does not divide 16: the edge is padded
    background_px=(7, 7),
    width=128,
    memory_layers=2,
    feed_forward=96,
    decoder_feed_forward=112,
    iou_hidden=80,
)

RENAMES = (
    (r"^image_encoder\.trunk", "vision_encoder.backbone"),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv", r"vision_encoder.neck.convs.\1"),
    (r"patch_embed\.proj", "patch_embed.projection"),
    (r"^sam_prompt_encoder", "prompt_encoder"),
    (r"^sam_mask_decoder", "mask_decoder"),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
    (r"^obj_ptr_proj", "object_pointer_proj"),
    (r"^obj_ptr_tpos_proj", "temporal_positional_encoding_projection_layer"),
    (r"(mlp)\.layers\.0", r"\1.proj_in"),
    (r"(mlp)\.layers\.1", r"\1.proj_out"),
    (r"(mlps\.\d|head|object_pointer_proj)\.layers\.0", r"\1.proj_in"),
    (r"(mlps\.\d|head|object_pointer_proj)\.layers\.1", r"\1.layers.0"),
    (r"(mlps\.\d|head|object_pointer_proj)\.layers\.2", r"\1.proj_out"),
    (r"mask_downsampler\.encoder\.12", "mask_downsampler.final_conv"),
    (r"^memory_encoder\.pix_feat_proj", "memory_encoder.feature_projection"),
    (r"^memory_encoder\.out_proj", "memory_encoder.projection"),
    (r"^memory_encoder\.fuser", "memory_encoder.memory_fuser"),
    (r"dwconv", "depthwise_conv"),
    (r"pwconv", "pointwise_conv"),
    (r"gamma$", "scale"),
    (r"\.out_proj\.", ".o_proj."),
    (r"norm_final_attn", "layer_norm_final_attn"),
    (r"\.norm(\d?)\.", r".layer_norm\1."),
    (r"^maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed", "no_memory_embedding"),
    (r"^no_mem_pos_enc", "no_memory_positional_encoding"),
    (r"^no_obj_ptr", "no_object_pointer"),
    (r"^no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
)


def renamed(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict of ours by transformers' names."""
    theirs = {}
    points = []
    for name, values in ours.items():
        if "point_embeddings" in name:
            points.append(values)
            continue
        to_name, stage = name, re.search(r"mask_downsampler\.encoder\.(\d+)\.", name)
        if stage and int(stage[1]) < 12:
            level, what = divmod(int(stage[1]), 3)
            to = f"mask_downsampler.layers.{level}.{('conv', 'layer_norm')[what]}."
            to_name = name.replace(stage[0], to)
        for pattern, to in RENAMES:
            to_name = re.sub(pattern, to, to_name)
        theirs[to_name] = values
    theirs["prompt_encoder.point_embed.weight"] = torch.cat(points)
    shared = theirs["prompt_encoder.shared_embedding.positional_embedding"]
    theirs["shared_image_embedding.positional_embedding"] = shared
    return theirs


def lively(config: Sam2Config, seed: int = 0, *, presence: float = 0.5) -> Sam2:
    """A network in which every parameter matters. presence: bias of "the object is there"."""
    torch.manual_seed(seed)
    network = Sam2(config).eval()
    scales = {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, nn.LayerNorm | LayerNorm2d)
    }
    with torch.no_grad():
        for name, values in network.named_parameters():
            noise = torch.randn(values.shape)
            if name in scales:
                values.copy_(1 + 0.2 * noise)
            elif name.endswith("gamma"):
                values.copy_(0.5 * noise)
            elif values.dim() < 2 or "no_" in name or "pos" in name:
                values.copy_(0.2 * noise)
            elif any(part in name for part in ("trunk.blocks", "mlp", "head", "ptr")):
                values.copy_(1.5 * noise * values[0].numel() ** -0.5)
        network.sam_mask_decoder.pred_obj_score_head.layers[2].bias.fill_(presence)
    return network


def configs(config: Sam2Config) -> dict[str, Any]:
    """Keywords of transformers' Sam2Config, which Sam2VideoConfig takes too."""
    from transformers import (
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    side, width = config.picture_px, config.width
    widths = [config.embed * 2**stage for stage in range(4)]
    trunk = Sam2HieraDetConfig(
        hidden_size=config.embed,
        num_attention_heads=config.heads,
        image_size=[side, side],
        blocks_per_stage=list(config.stages),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[config.heads * 2**stage for stage in range(4)],
        window_size_per_stage=list(config.windows),
        global_attention_blocks=list(config.global_blocks),
        window_positional_embedding_background_size=list(config.background_px),
    )
    return {
        "vision_config": Sam2VisionConfig(
            backbone_config=trunk,
            backbone_channel_list=widths[::-1],
            backbone_feature_sizes=[[side // at, side // at] for at in (4, 8, 16)],
            fpn_hidden_size=width,
        ),
        "prompt_encoder_config": Sam2PromptEncoderConfig(hidden_size=width, image_size=side),
        "mask_decoder_config": Sam2MaskDecoderConfig(
            hidden_size=width,
            mlp_dim=config.decoder_feed_forward,
            num_attention_heads=config.decoder_heads,
            iou_head_hidden_dim=config.iou_hidden,
        ),
    }


def picture_model(network: Sam2) -> Any:
    """transformers' Sam2Model with our weights, all but the memory's."""
    from transformers import Sam2Config as TheirConfig
    from transformers import Sam2Model

    model = Sam2Model(TheirConfig(**configs(network.config))).eval()
    theirs, wanted = renamed(network.state_dict()), model.state_dict()
    model.load_state_dict({name: theirs[name] for name in wanted}, strict=True)
    return model


def video_model(network: Sam2) -> Any:
    """transformers' Sam2VideoModel with our weights; every key finds its place.

    Three of its ways are set to those of Meta's predictor: a drawn mask is remembered by the
    decoder's first token, a memory is hard only for the object that had the prompt, and a mask that
    is corrected on a frame already tracked is shown together with the clicks.
    """
    from transformers import Sam2VideoConfig, Sam2VideoModel

    class MetasWay(Sam2VideoModel):
        def _single_frame_forward(
            self, *args: Any, multimask_output: bool = False, **keys: Any
        ) -> Any:
            out = super()._single_frame_forward(*args, multimask_output=multimask_output, **keys)
            self.iou = float(out.iou_scores.max())
            return out

        def _run_single_frame_inference(self, inference_session: Any, **keys: Any) -> Any:
            frame, each = keys["frame_idx"], inference_session.output_dict_per_obj[keys["obj_idx"]]
            if keys["point_inputs"] is not None and not keys["is_init_cond_frame"]:
                before = each["non_cond_frame_outputs"][frame]["pred_masks"]
                keys["prev_sam_mask_logits"] = before.clamp(-32, 32)
            out = super()._run_single_frame_inference(inference_session, **keys)
            return {**out, "iou": 1.0 if keys["mask_inputs"] is not None else self.iou}

        def _batch_encode_memories(
            self, inference_session: Any, frame_idx: int, **each: Any
        ) -> None:
            for values in zip(*each.values(), strict=True):
                one = {name: [value] for name, value in zip(each, values, strict=True)}
                super()._batch_encode_memories(inference_session, frame_idx, **one)

    config, side = network.config, network.config.picture_px
    theirs = Sam2VideoConfig(
        **configs(config),
        image_size=side,
        num_maskmem=config.memory_frames,
        max_object_pointers_in_encoder=config.max_pointers,
        enable_occlusion_spatial_embedding=config.version_21,
        enable_temporal_pos_encoding_for_object_pointers=config.version_21,
        memory_attention_hidden_size=config.width,
        memory_attention_num_layers=config.memory_layers,
        memory_attention_feed_forward_hidden_size=config.feed_forward,
        memory_attention_rope_feat_sizes=[config.grid, config.grid],
        memory_encoder_hidden_size=config.width,
        memory_encoder_output_channels=config.memory_width,
        mask_downsampler_embed_dim=config.width,
        memory_fuser_embed_dim=config.width,
        memory_fuser_intermediate_dim=4 * config.width,
        memory_fuser_num_layers=config.fuser_layers,
    )
    model = MetasWay(theirs).eval()
    model.load_state_dict(renamed(network.state_dict()), strict=True)
    return model


class Stream:
    """transformers' video model, fed frame by frame like `TorchVideo`."""

    def __init__(self, network: Sam2, *, corrections: str) -> None:
        from transformers import Sam2VideoInferenceSession

        self.model = video_model(network)
        self.session = Sam2VideoInferenceSession(video=None, dtype=torch.float32)
        self.corrections = corrections
        self.frame = 0

    def step(self, picture: Tensor, prompts: dict[int, Any]) -> dict[int, dict[str, Any]]:
        """The same as TorchVideo.step; returns what transformers stored, by object."""
        session, frame = self.session, self.frame
        known = set(session.obj_ids)
        late = {
            object_id: prompt
            for object_id, prompt in prompts.items()
            if object_id in known and hasattr(prompt, "points") and self.corrections == "refine"
        }
        for object_id, prompt in prompts.items():
            if object_id not in late:
                self._prompt(object_id, prompt)
        self.model(session, frame=picture[None], frame_idx=frame)
        for object_id, prompt in late.items():
            self._prompt(object_id, prompt)
        if late:
            self.model(session, frame=picture[None], frame_idx=frame)
        for object_id in late:
            stored = session.output_dict_per_obj[session.obj_id_to_idx(object_id)]
            stored["cond_frame_outputs"][frame] = stored["non_cond_frame_outputs"].pop(frame)
        self.frame += 1
        return {object_id: self._stored(object_id, frame) for object_id in session.obj_ids}

    def _prompt(self, object_id: int, prompt: Any) -> None:
        session, frame = self.session, self.frame
        index = session.obj_id_to_idx(object_id)
        if hasattr(prompt, "points"):
            points, labels = prompt.points[None, None], prompt.labels[None, None].int()
            session.add_point_inputs(index, frame, {"point_coords": points, "point_labels": labels})
        else:
            session.add_mask_inputs(index, frame, prompt.mask[None, None].float())
        session.obj_with_new_inputs.append(object_id)

    def _stored(self, object_id: int, frame: int) -> dict[str, Any]:
        stored = self.session.output_dict_per_obj[self.session.obj_id_to_idx(object_id)]
        kind = "cond" if frame in stored["cond_frame_outputs"] else "non_cond"
        return {**stored[f"{kind}_frame_outputs"][frame], "prompted": kind == "cond"}
