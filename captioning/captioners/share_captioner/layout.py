"""Maps every tensor of the model to the published tensors that it is made of."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

ROTARY = re.compile(r"internlm_model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
UNUSED = re.compile(r"Qformer\.bert\.embeddings\.position_ids")
"""Published tensors that say nothing: a count 0, 1, 2, ... of text positions that the model never reads."""

PUBLISHED = (
    (r"^vision\.embeddings\.class_embedding$", "visual_encoder.cls_token"),
    (r"^vision\.embeddings\.position_embedding$", "visual_encoder.pos_embed"),
    (r"^vision\.embeddings\.patch_embedding\.", "visual_encoder.patch_embed.proj."),
    (r"^vision\.encoder\.layers\.(\d+)\.layer_norm([12])\.", r"visual_encoder.blocks.\1.norm\2."),
    (r"^vision\.encoder\.layers\.(\d+)\.self_attn\.projection\.", r"visual_encoder.blocks.\1.attn.proj."),
    (r"^vision\.encoder\.layers\.(\d+)\.self_attn\.", r"visual_encoder.blocks.\1.attn."),
    (r"^vision\.encoder\.layers\.(\d+)\.mlp\.", r"visual_encoder.blocks.\1.mlp."),
    (r"^vision\.post_layernorm\.", "ln_vision."),
    (r"^connector\.query_tokens$", "query_tokens"),
    (r"^connector\.qformer\.layernorm\.", "Qformer.bert.embeddings.LayerNorm."),
    (r"^connector\.qformer\.(.*attention)\.attention\.", r"Qformer.bert.\1.self."),
    (r"^connector\.qformer\.", "Qformer.bert."),
    (r"^connector\.", "Qformer."),
    (r"^projection\.", "internlm_proj."),
    (r"^language\.", "internlm_model."),
)
"""Our name -> the published one; the first rule that fits is taken."""


@dataclass(frozen=True)
class TensorSource:
    """The published tensors that one of ours is made of, with the function that makes it."""

    names: tuple[str, ...]
    make: Callable[[Sequence[Tensor]], Tensor]


def source_of(ours: str, published: Collection[str], lora_scale: float) -> TensorSource:
    """The published tensors that a tensor of the model is made of. `published`: the names in the files, which show
    whether a matrix has a LoRA pair. `lora_scale`: alpha / rank, the factor of the pair's product."""
    name = published_name(ours)
    if name.endswith(".attn.qkv.bias"):
        stem = name.removesuffix("qkv.bias")
        return TensorSource((stem + "q_bias", stem + "v_bias"), _joined_bias)
    pair = tuple(name.removesuffix("weight") + f"lora_{half}.weight" for half in "AB")
    if name.endswith(".weight") and any(half in published for half in pair):
        return TensorSource((name, *pair), partial(_merged_lora, lora_scale))
    return TensorSource((name,), lambda tensors: tensors[0])


def published_name(ours: str) -> str:
    """The published name of one of our tensors; `...attn.qkv.bias` is made of two, `q_bias` and `v_bias`."""
    for pattern, published in PUBLISHED:
        name, count = re.subn(pattern, published, ours)
        if count:
            return name
    return ours


def check_names(published: Collection[str], sources: Iterable[TensorSource], where: str) -> None:
    """Check that every tensor of the files is used, and that none is missing. Raises ValueError: one is unknown or
    missing; the message gives the first names and their number."""
    wanted = {name for source in sources for name in source.names}
    foreign = sorted(name for name in set(published) - wanted if not (ROTARY.fullmatch(name) or UNUSED.fullmatch(name)))
    if foreign:
        raise ValueError(f"{where}: no tensor of this model: {first_names(foreign)}")
    missing = sorted(wanted - set(published))
    if missing:
        raise ValueError(f"{where}: missing from the files: {first_names(missing)}")


def first_names(names: Iterable[str]) -> str:
    """The first three of some names and how many more there are, for a message."""
    listed = sorted(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _joined_bias(biases: Sequence[Tensor]) -> Tensor:
    """One bias for query, key and value; the published key has none."""
    query, value = biases
    return torch.cat((query, torch.zeros_like(query), value))


def _merged_lora(scale: float, tensors: Sequence[Tensor]) -> Tensor:
    """weight + scale * up @ down, computed in float32."""
    weight, down, up = (tensor.float() for tensor in tensors)
    return weight + scale * (up @ down)
