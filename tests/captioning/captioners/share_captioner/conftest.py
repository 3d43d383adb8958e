"""A tiny Share-Captioner in the published layout: random weights, a tokenizer trained on a few sentences."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor

from captioning.captioners.share_captioner import ShareCaptioner
from captioning.captioners.share_captioner.resampler import sincos_2d

WIDTH, DIM, HIDDEN, QUERIES, PATCHES = 32, 64, 64, 4, 16
CONFIG = {
    "vision_heads": 4,
    "resampler_heads": 4,
    "resampler_cls": "keep",
    "resampler_key_pos": True,
    "resampler_ln_eps": 1e-6,
    "num_attention_heads": 4,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_query_token": 64,  # stale in the published file too
}
SENTENCES = [
    "The image captures a quiet street in the early morning, its houses painted in warm colours.",
    "In the foreground a brown dog lies on a wooden bench and looks at the camera.",
    "Analyze the image in a comprehensive and detailed manner.",
    "<|User|>: what is that? <|Bot|>: a photograph of two people who walk along the beach at sunset.",
]
WORDS = [
    f"{first}{second}"
    for first in ("Small", "Large", "Red", "Blue", "Old")
    for second in ("Dog", "Cat", "House", "Tree", "Boat", "Car", "Bird", "Lamp", "Road", "Hill", "Cup", "Hat")
]


@pytest.fixture(scope="session")
def words() -> list[str]:
    """Texts of one id each, whose every sequence is encoded as just these ids."""
    return WORDS


@pytest.fixture(scope="session")
def tokenizer_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def train_tokenizer(folder: Path) -> Path:
    """A sentencepiece model of InternLM's kind, with 400 pieces."""
    prefix = folder / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_prefix=str(prefix),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=["<TOKENS_UNUSED_0>", "<TOKENS_UNUSED_1>", *WORDS],
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


@pytest.fixture(scope="session")
def tensors() -> Callable[..., dict[str, Tensor]]:
    """Random tensors under the published names, for a number of vocabulary rows and, optionally, a width."""
    return random_tensors


@pytest.fixture(scope="session")
def checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tokenizer_model: Path
) -> Callable[[dict[str, Tensor] | None], Path]:
    """Writes a folder that `ShareCaptioner.load` reads: these tensors, or the usual ones."""

    def write(state: dict[str, Tensor] | None = None) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        write_checkpoint(folder, tokenizer_model, random_tensors(404) if state is None else state)
        return folder

    return write


def write_checkpoint(folder: Path, tokenizer_model: Path, state: dict[str, Tensor]) -> None:
    """The files of a published checkpoint."""
    save_file(state, folder / "model.safetensors")
    own = {"hidden_size": state["internlm_proj.bias"].shape[0]} if "internlm_proj.bias" in state else {}
    (folder / "config.json").write_text(json.dumps(CONFIG | own))
    (folder / "added_tokens.json").write_text(json.dumps({"<box>": 400, "</box>": 401}))
    (folder / "tokenizer.model").write_bytes(tokenizer_model.read_bytes())


@pytest.fixture(scope="session")
def captioner(checkpoint: Callable[[dict[str, Tensor] | None], Path]) -> ShareCaptioner:
    return ShareCaptioner.load(checkpoint(None))


def random_tensors(vocab_size: int, hidden: int = HIDDEN, queries: int = QUERIES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 100
        return torch.randn(shape, generator=generator) * scale / math.sqrt(fan_in)

    def norm(name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + draw(width), f"{name}.bias": draw(width)}

    state = {
        "visual_encoder.cls_token": draw(1, 1, WIDTH),
        "visual_encoder.pos_embed": draw(1, 1 + PATCHES, WIDTH, scale=5),
        "visual_encoder.patch_embed.proj.weight": draw(WIDTH, 3, 14, 14, scale=8),
        "visual_encoder.patch_embed.proj.bias": draw(WIDTH),
        "Qformer.pos_embed": sincos_2d(DIM, math.isqrt(queries)),
        "Qformer.query": draw(queries, DIM, scale=8),
        "Qformer.kv_proj.weight": draw(DIM, WIDTH),
        "Qformer.attn.in_proj_weight": draw(3 * DIM, DIM, scale=3),
        "Qformer.attn.in_proj_bias": draw(3 * DIM),
        "Qformer.attn.out_proj.weight": draw(DIM, DIM),
        "Qformer.attn.out_proj.bias": draw(DIM),
        "flag_image_start": draw(1, 1, hidden),
        "flag_image_end": draw(1, 1, hidden),
        "internlm_proj.weight": draw(hidden, DIM),
        "internlm_proj.bias": draw(hidden),
        "internlm_model.model.embed_tokens.weight": draw(vocab_size, hidden, scale=4),
        "internlm_model.model.norm.weight": 1 + draw(hidden),
        "internlm_model.lm_head.weight": draw(vocab_size, hidden, scale=2),
    }
    for name in ("ln_q", "ln_kv", "ln_post"):
        state |= norm(f"Qformer.{name}", DIM)
    for block in ("visual_encoder.blocks.0", "visual_encoder.blocks.1"):
        state |= norm(f"{block}.norm1", WIDTH) | norm(f"{block}.norm2", WIDTH)
        state |= {f"{block}.attn.q_bias": draw(WIDTH), f"{block}.attn.v_bias": draw(WIDTH)}
        state |= {f"{block}.attn.qkv.weight": draw(3 * WIDTH, WIDTH), f"{block}.attn.proj.weight": draw(WIDTH, WIDTH)}
        state |= {f"{block}.attn.proj.bias": draw(WIDTH), f"{block}.mlp.fc1.bias": draw(48)}
        state |= {f"{block}.mlp.fc1.weight": draw(48, WIDTH), f"{block}.mlp.fc2.weight": draw(WIDTH, 48)}
        state |= {f"{block}.mlp.fc2.bias": draw(WIDTH)}
    for layer in ("internlm_model.model.layers.0", "internlm_model.model.layers.1"):
        for name in "qkvo":
            state[f"{layer}.self_attn.{name}_proj.weight"] = draw(hidden, hidden, scale=2)
            state[f"{layer}.self_attn.{name}_proj.bias"] = draw(hidden)
        exact = 10_000 ** (-torch.arange(0, hidden // 4, 2) / (hidden // 4))
        state[f"{layer}.self_attn.rotary_emb.inv_freq"] = exact.bfloat16().float()
        state[f"{layer}.mlp.gate_proj.weight"] = draw(96, hidden)
        state[f"{layer}.mlp.up_proj.weight"] = draw(96, hidden)
        state[f"{layer}.mlp.down_proj.weight"] = draw(hidden, 96)
        state[f"{layer}.input_layernorm.weight"] = 1 + draw(hidden)
        state[f"{layer}.post_attention_layernorm.weight"] = 1 + draw(hidden)
    return state
