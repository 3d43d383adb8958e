from __future__ import annotations

import math

import pytest
import torch

from captioning.captioners.share_captioner.dimensions import Dimensions, ResamplerChoices
from captioning.captioners.share_captioner.layout import ROTARY, check_names, published_name, source_of
from captioning.captioners.share_captioner.model import ShareCaptionerModel

PUBLISHED = Dimensions(
    image_size=448,
    patch_size=14,
    vision_width=1408,
    vision_depth=39,
    vision_heads=16,
    vision_mlp=6144,
    vision_ln_eps=1e-6,
    ln_vision_eps=1e-5,
    num_queries=256,
    connector=ResamplerChoices(),
    connector_width=4096,
    hidden_size=4096,
    intermediate_size=11008,
    num_layers=32,
    num_heads=32,
    vocab_size=103168,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    max_positions=2048,
)


def test_the_published_file_has_979_tensors_and_16_8_gb() -> None:
    """The counts that the published index and file sizes give; nothing is allocated."""
    with torch.device("meta"):
        model = ShareCaptionerModel(PUBLISHED)
    state = model.state_dict()
    names = {name for ours in state for name in source_of(ours, (), 1.0).names}
    rotary = {f"internlm_model.model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in range(32)}
    assert all(ROTARY.fullmatch(name) for name in rotary)
    assert len(names | rotary) == 979
    key_biases = 39 * 1408  # ours has them, as zeros
    num_values = sum(math.prod(tensor.shape) for tensor in state.values()) - key_biases + 32 * 64
    assert 2 * num_values == 16_801_459_456
    check_names(names | rotary, [source_of(ours, names, 1.0) for ours in state], "the published file")


@pytest.mark.parametrize(
    ("ours", "published"),
    [
        ("vision.embeddings.position_embedding", "visual_encoder.pos_embed"),
        ("vision.encoder.layers.3.layer_norm2.bias", "visual_encoder.blocks.3.norm2.bias"),
        ("vision.encoder.layers.3.self_attn.projection.bias", "visual_encoder.blocks.3.attn.proj.bias"),
        ("vision.post_layernorm.weight", "ln_vision.weight"),
        ("connector.attn.in_proj_weight", "Qformer.attn.in_proj_weight"),
        ("connector.qformer.layernorm.weight", "Qformer.bert.embeddings.LayerNorm.weight"),
        (
            "connector.qformer.encoder.layer.2.crossattention.attention.key.weight",
            "Qformer.bert.encoder.layer.2.crossattention.self.key.weight",
        ),
        (
            "connector.qformer.encoder.layer.2.attention.output.dense.weight",
            "Qformer.bert.encoder.layer.2.attention.output.dense.weight",
        ),
        ("language.lm_head.weight", "internlm_model.lm_head.weight"),
        ("flag_image_end", "flag_image_end"),
    ],
)
def test_every_tensor_has_its_published_name(ours: str, published: str) -> None:
    assert published_name(ours) == published
