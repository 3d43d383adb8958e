"""The dimensions of a checkpoint: sizes are read from its tensors, the rest from its `config.json`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from captioning.captioners.share_captioner.layout import first_names

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape."""
Cls = Literal["keep", "drop"]


@dataclass(frozen=True)
class ResamplerChoices:
    """The properties of the resampler that the published file's shapes leave open. The defaults are the best guess for
    the 4096-wide model; `validate` settles them."""

    heads: int = 16
    """Attention heads; `resampler_heads` in config.json. The alternative is 32."""
    cls: Cls = "keep"
    """`keep` if the queries see the CLS token; `resampler_cls`."""
    key_pos: bool = True
    """True if the keys of the patches carry positions; `resampler_key_pos`."""
    ln_eps: float = 1e-6
    """Epsilon of its three LayerNorms; `resampler_ln_eps`. The alternative is 1e-5."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], dim: int) -> ResamplerChoices:
        """The choices of a config.json; those it does not name are guessed. Raises ValueError: one is impossible."""
        given = {key: config[name] for key, name in OPEN_POINTS.items() if config.get(name) is not None}
        if "heads" not in given and dim != 4096:
            raise ValueError(f"config.json: resampler_heads is missing, and there is no guess for a width of {dim}")
        choices = cls(**given)
        if type(choices.heads) is not int or choices.heads < 1 or dim % choices.heads:
            raise ValueError(f"resampler_heads={choices.heads!r} does not divide the resampler's width, {dim}")
        if choices.cls not in get_args(Cls):
            raise ValueError(f"resampler_cls={choices.cls!r}: one of keep, drop")
        if not isinstance(choices.key_pos, bool):
            raise ValueError(f"resampler_key_pos={choices.key_pos!r}: true or false")
        if not isinstance(choices.ln_eps, float) or not 0 < choices.ln_eps < 1:
            raise ValueError(f"resampler_ln_eps={choices.ln_eps!r}: a number above 0, such as 1e-06")
        return choices

    def as_config(self) -> dict[str, Any]:
        return {name: getattr(self, key) for key, name in OPEN_POINTS.items()}


OPEN_POINTS = {field.name: f"resampler_{field.name}" for field in fields(ResamplerChoices)}
"""Field -> its key in config.json."""


@dataclass(frozen=True)
class QFormerDimensions:
    """The Q-Former of the v1 base, InternLM-XComposer-7B."""

    width: int
    depth: int
    heads: int
    mlp: int
    cross_attention_every: int
    ln_eps: float


@dataclass(frozen=True)
class Dimensions:
    """All sizes and constants that the model is built from."""

    image_size: int
    patch_size: int
    vision_width: int
    vision_depth: int
    vision_heads: int
    vision_mlp: int
    vision_ln_eps: float
    ln_vision_eps: float
    num_queries: int
    connector: ResamplerChoices | QFormerDimensions
    connector_width: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    max_positions: int


def read_dimensions(shapes: Shapes, config: Mapping[str, Any]) -> Dimensions:
    """Sizes from the tensors, the rest from config.json or, where it is silent, from the published models. Raises
    ValueError: a tensor is missing or of another rank, config.json contradicts, or a value is impossible."""
    if not any(name.startswith("visual_encoder.") for name in shapes):
        raise ValueError(
            "no tensor visual_encoder.*: neither Share-Captioner nor InternLM-XComposer-7B; "
            f"found {first_names(shapes) or 'nothing'}"
        )
    width, _, patch, _ = _shape(shapes, "visual_encoder.patch_embed.proj.weight", 4)
    num_positions = _shape(shapes, "visual_encoder.pos_embed", 3)[1]
    side = math.isqrt(num_positions - 1)
    if side * side != num_positions - 1:
        raise ValueError(f"visual_encoder.pos_embed: {num_positions} positions are not CLS and a square of patches")
    vocab_size, hidden = _shape(shapes, "internlm_model.model.embed_tokens.weight", 2)
    connector, num_queries, connector_width = _connector(shapes, config)
    dimensions = Dimensions(
        image_size=side * patch,
        patch_size=patch,
        vision_width=width,
        vision_depth=_depth(shapes, r"visual_encoder\.blocks\.(\d+)\."),
        vision_heads=_heads(config, "vision_heads", width, head_dim=88),
        vision_mlp=_shape(shapes, "visual_encoder.blocks.0.mlp.fc1.weight", 2)[0],
        vision_ln_eps=float(config.get("vision_ln_eps", 1e-6)),
        ln_vision_eps=float(config.get("ln_vision_eps", 1e-5)),
        num_queries=num_queries,
        connector=connector,
        connector_width=connector_width,
        hidden_size=hidden,
        intermediate_size=_shape(shapes, "internlm_model.model.layers.0.mlp.gate_proj.weight", 2)[0],
        num_layers=_depth(shapes, r"internlm_model\.model\.layers\.(\d+)\."),
        num_heads=_heads(config, "num_attention_heads", hidden, head_dim=128),
        vocab_size=vocab_size,
        rms_norm_eps=float(config.get("rms_norm_eps", 1e-5)),
        rope_theta=float(config.get("rope_theta", 10_000.0)),
        max_positions=int(config.get("max_position_embeddings", 2048)),
    )
    for key, found in (
        ("hidden_size", dimensions.hidden_size),
        ("intermediate_size", dimensions.intermediate_size),
        ("num_hidden_layers", dimensions.num_layers),
        ("vision_depth", dimensions.vision_depth),
    ):
        if config.get(key, found) != found:
            raise ValueError(f"config.json says {key}={config[key]}, the tensors {found}: is a file missing or cut?")
    return dimensions


def _connector(shapes: Shapes, config: Mapping[str, Any]) -> tuple[ResamplerChoices | QFormerDimensions, int, int]:
    """The part that joins the vision tower to the language model, its number of queries, and its width."""
    if not any(name.startswith("Qformer.bert.") for name in shapes):
        num_queries, width = _shape(shapes, "Qformer.query", 2)
        if math.isqrt(num_queries) ** 2 != num_queries:
            raise ValueError(f"Qformer.query: {num_queries} queries are not a square grid")
        return ResamplerChoices.from_config(config, width), num_queries, width
    _, num_queries, width = _shape(shapes, "query_tokens", 3)
    layer = "Qformer.bert.encoder.layer."
    crossing = sorted({int(found[1]) for name in shapes if (found := re.match(rf"{layer}(\d+)\.crossattention", name))})
    every = crossing[1] if len(crossing) > 1 else config.get("qformer_cross_attention_freq", 2)
    qformer = QFormerDimensions(
        width=width,
        depth=_depth(shapes, rf"{re.escape(layer)}(\d+)\."),
        heads=_heads(config, "qformer_heads", width, head_dim=64),
        mlp=_shape(shapes, f"{layer}0.intermediate_query.dense.weight", 2)[0],
        cross_attention_every=every,
        ln_eps=float(config.get("qformer_ln_eps", 1e-12)),
    )
    return qformer, num_queries, width


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None:
        raise ValueError(f"no tensor {name}: a file of the checkpoint is missing, or it is another model")
    if len(shape) != rank:
        raise ValueError(f"{name}: shape {list(shape)}, expected {rank} axes")
    return shape


def _depth(shapes: Shapes, pattern: str) -> int:
    """Layers, counted from the names; a gap among them shows later as missing names."""
    numbers = [int(found[1]) for name in shapes if (found := re.match(pattern, name))]
    if not numbers:
        raise ValueError(f"no tensor like {pattern}: a file of the checkpoint is missing, or it is another model")
    return max(numbers) + 1


def _heads(config: Mapping[str, Any], key: str, width: int, head_dim: int) -> int:
    heads = config.get(key)
    if heads is None and width % head_dim == 0:
        return width // head_dim
    if type(heads) is not int or heads < 1 or width % heads:
        raise ValueError(f"config.json: {key}={heads!r} does not divide a width of {width}")
    return heads
