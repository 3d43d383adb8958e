"""The two published names of every tensor: the official layout, which is ours too, and diffusers'."""

from __future__ import annotations

import re

import torch
from torch import Tensor

NULL_CAPTION = "y_embedder.y_embedding"
POSITION_TABLE = "pos_embed"
BUFFERS = (NULL_CAPTION, POSITION_TABLE)
"""Entries of an official file that are no parameters."""

DIFFUSERS_BUFFERS = {"caption_projection.y_embedding": NULL_CAPTION, "pos_embed.pos_embed": POSITION_TABLE}
"""Buffers that PixArt-alpha's published folders still hold."""

DIFFUSERS_NAMES = {
    "pos_embed.proj": "x_embedder.proj",
    "caption_projection.linear_1": "y_embedder.y_proj.fc1",
    "caption_projection.linear_2": "y_embedder.y_proj.fc2",
    "adaln_single.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "adaln_single.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "adaln_single.linear": "t_block.1",
    "proj_out": "final_layer.linear",
}
DIFFUSERS_BLOCK_NAMES = {
    "attn1.to_out.0": "attn.proj",
    "attn2.to_q": "cross_attn.q_linear",
    "attn2.to_out.0": "cross_attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
DIFFUSERS_FUSED = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
}


def from_diffusers(weights: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Rename the tensors of a diffusers `PixArtTransformer2DModel` to the official layout. Keys it does not know are
    passed on under their own name, for the caller to refuse by name."""
    left = dict(weights)
    official = {}
    for theirs, ours in DIFFUSERS_BUFFERS.items():
        if theirs in left:
            official[ours] = left.pop(theirs)
    if "scale_shift_table" in left:
        official["final_layer.scale_shift_table"] = left.pop("scale_shift_table")
    for key in list(left):
        stem, _, leaf = key.rpartition(".")
        if stem in DIFFUSERS_NAMES:
            official[f"{DIFFUSERS_NAMES[stem]}.{leaf}"] = left.pop(key)
    blocks = sorted({int(match[1]) for key in left if (match := re.match(r"transformer_blocks\.(\d+)\.", key))})
    for i in blocks:
        theirs, ours = f"transformer_blocks.{i}", f"blocks.{i}"
        if f"{theirs}.scale_shift_table" in left:
            official[f"{ours}.scale_shift_table"] = left.pop(f"{theirs}.scale_shift_table")
        for leaf in ("weight", "bias"):
            for name, target in DIFFUSERS_BLOCK_NAMES.items():
                if f"{theirs}.{name}.{leaf}" in left:
                    official[f"{ours}.{target}.{leaf}"] = left.pop(f"{theirs}.{name}.{leaf}")
            for target, names in DIFFUSERS_FUSED.items():
                parts = [f"{theirs}.{name}.{leaf}" for name in names]
                absent = [part for part in parts if part not in left]
                if absent and len(absent) < len(parts):
                    raise ValueError(f"{origin}: {absent[0]} is missing")
                if not absent:
                    official[f"{ours}.{target}.{leaf}"] = torch.cat([left.pop(part) for part in parts])
    return official | left


def to_diffusers(weights: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Rename and split tensors of the official layout into those of a `PixArtTransformer2DModel`. Values are copied to
    the bit. The null caption and the position table have no place there and are left out. Raises ValueError: a key has
    no counterpart, as those of KV compression and micro-conditioning."""
    renamed = {"final_layer.scale_shift_table": "scale_shift_table"}
    names = {ours: theirs for theirs, ours in DIFFUSERS_NAMES.items()}
    block_names = {ours: theirs for theirs, ours in DIFFUSERS_BLOCK_NAMES.items()}
    out = {}
    for key, value in weights.items():
        if key in BUFFERS:
            continue
        block = re.match(r"blocks\.(\d+)\.(.+)", key)
        prefix, name = (f"transformer_blocks.{block[1]}.", block[2]) if block else ("", key)
        stem, _, leaf = name.rpartition(".")
        known = block_names if block else names
        if key in renamed:
            out[renamed[key]] = value
        elif block and name == "scale_shift_table":
            out[prefix + name] = value
        elif stem in known:
            out[f"{prefix}{known[stem]}.{leaf}"] = value
        elif block and stem in DIFFUSERS_FUSED and len(value) % len(DIFFUSERS_FUSED[stem]) == 0:
            targets = DIFFUSERS_FUSED[stem]
            for target, part in zip(targets, value.chunk(len(targets)), strict=True):
                out[f"{prefix}{target}.{leaf}"] = part
        else:
            raise ValueError(f"{origin}: {key} has no counterpart in diffusers' PixArtTransformer2DModel")
    return out
