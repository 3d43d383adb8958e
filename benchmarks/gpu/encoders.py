"""The encoders at full size with random weights: pictures and captions per second, their share of the peak, and limits.

Codec, text encoder and CLIP are the jobs' own. Decoding, resizing and tokenising are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu.bench import Bench, Measurement, Row, by_batch, flops_of, limits, rates
from benchmarks.training_step import CAPTION_LENGTHS
from engine.ahead import in_batches
from models.device import coming_back, sent

if TYPE_CHECKING:  # imported where they are used: diffusers and transformers may be missing
    from models.clip import Clip
    from training.encoders.pretrained import SdxlVae, T5Text

GOAL = 0.5
"""Of the measured bf16 peak, at the best batch."""
MOST_PIXELS = 16 * 1024**2
"""Of a batch of the VAE."""

SDXL_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "scaling_factor": 0.13025,
}  # fmt: skip
TINY_VAE = SDXL_VAE | {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
T5_XXL: dict[str, Any] = {
    "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip
TINY_T5 = T5_XXL | {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
CLIP_TEXT: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768,
}  # fmt: skip
TINY_CLIP_TEXT = CLIP_TEXT | {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2
}  # fmt: skip
CLIP_L14: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
TINY_CLIP = CLIP_L14 | {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
}  # fmt: skip


def random_module(bench: Bench, make: Any, dtype: torch.dtype | None = None) -> Any:
    """A frozen module with random weights, made on the device in the dtype that it is measured in."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype or bench.dtype)
    try:
        with torch.device(bench.device):
            module: nn.Module = make()
    finally:
        torch.set_default_dtype(before)
    return module.eval().requires_grad_(False)


def random_vae(bench: Bench, dtype: torch.dtype | None = None) -> SdxlVae:
    """The SDXL VAE as a codec that takes the pictures of a batch together."""
    from diffusers import AutoencoderKL

    from training.encoders.pretrained import SdxlVae

    sizes = TINY_VAE if bench.is_toy else SDXL_VAE
    return SdxlVae(random_module(bench, lambda: AutoencoderKL(**sizes), dtype), together=True)


class Words:
    """Stands in for a tokenizer: as many ids as a text has words."""

    def __call__(self, text: str, *, max_length: int = 300, **_: object) -> dict[str, list[int]]:
        """The ids of a text, cut."""
        return {"input_ids": [hash(word) % 32_000 for word in text.split()][:max_length]}


def random_t5(bench: Bench) -> T5Text:
    """The T5 encoder as a text encoder."""
    from transformers import T5Config, T5EncoderModel

    from training.encoders.pretrained import T5Text

    config = T5Config(**(TINY_T5 if bench.is_toy else T5_XXL))
    words: Any = Words()
    return T5Text(random_module(bench, lambda: T5EncoderModel(config)), words, 300)


def random_clip(bench: Bench) -> Clip:
    """CLIP ViT-L/14 with its own preprocessing, for pictures alone."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    from models.clip import Clip

    vision, text = (TINY_CLIP, TINY_CLIP_TEXT) if bench.is_toy else (CLIP_L14, CLIP_TEXT)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=vision["projection_dim"])
    no_tokenizer: Any = None
    dtype = torch.float16 if bench.is_gpu else torch.float32  # as the jobs load it
    model = random_module(bench, lambda: CLIPModel(config), dtype)
    return Clip(model, CLIPImageProcessorPil(), no_tokenizer, "random")


def as_the_jobs(
    bench: Bench,
    rows: Sequence[Any],
    model: Callable[[list[Any]], Callable[[], Iterable[Any]]],
    size: int,
    kind: Callable[[Any], Hashable] = lambda row: True,
) -> float:
    """Rows per second of the loop that feeds a model in the jobs, rows and results in the host's memory."""

    def run() -> None:
        for _ in in_batches(lambda row: row, rows, model, threads=2, size=size, kind=kind, within=len(rows)):
            pass

    return len(rows) / bench.median_s(run, 2)


def vae(bench: Bench) -> Iterator[Measurement]:
    """Pictures to moments: by batch on the device, also channels last; as the jobs encode; in float32; what limits."""

    def pixels(batch: int, px: int) -> Tensor:
        return torch.rand(batch, 3, px, px, device=bench.device) * 2 - 1

    def flops_of_one(px: int) -> int:
        """Of the whole picture at once, whatever the codec does; counted from shapes, without the device."""
        shapes = replace(bench, device=torch.device("meta"))
        model, one = random_vae(shapes)._vae, torch.empty(1, 3, px, px, device=shapes.device)
        return flops_of(lambda: model.encode(one))

    def measure(px: int) -> Row:
        codec = random_vae(bench)
        flops = flops_of_one(px)
        batches = [batch for batch in (1, 4, 16, 64) if batch * px**2 <= MOST_PIXELS]
        found = rates(bench, batches, lambda batch: partial(codec.moments, pixels(batch, px)))
        codec._vae.to(memory_format=torch.channels_last)
        last = rates(bench, batches, lambda batch: partial(codec.moments, pixels(batch, px)))
        best = max(*found.values(), *last.values())
        return {
            "per_s": max(found.values()), "ratio": best * flops / bench.gemm_flops_per_s, "goal": GOAL,
            "per_s_by_batch": by_batch(found), "channels_last": by_batch(last), "tflop_each": flops / 1e12,
        }  # fmt: skip

    def job(px: int) -> Row:
        from training.encoders.pretrained import PIXELS_AT_ONCE

        codec = random_vae(bench)
        rng = np.random.default_rng(0)
        seen = [rng.integers(0, 256, (3, px, px), np.uint8) for _ in range(8)]

        def moments(batch: list[Any]) -> Callable[[], Iterable[Any]]:
            return coming_back(codec.moments(sent(batch, bench.device) / 127.5 - 1))

        size = max(1, PIXELS_AT_ONCE // px**2)
        per_s = as_the_jobs(bench, seen * (1 if bench.is_toy else max(1, size // 2)), moments, size)
        return {
            "per_s": per_s,
            "share_of_gemm": per_s * flops_of_one(px) / bench.gemm_flops_per_s,
            "batch": size,
        }

    def in_float32(px: int) -> Row:
        codec, batch = random_vae(bench, torch.float32), max(1, 4 * 512**2 // px**2)
        seen = pixels(1 if bench.is_toy else batch, px)
        return {"per_s": len(seen) / bench.median_s(lambda: codec.moments(seen)), "batch": len(seen)}

    def limited(px: int, batch: int) -> Row:
        codec, seen = random_vae(bench), pixels(batch, px)
        return limits(bench, lambda: codec.moments(seen))

    sides = {16: (1, 0)} if bench.is_toy else {512: (8, 0), 1024: (9, 1), 256: (7, 3), 2048: (12, 3)}
    for px, (cost_s, turn) in sides.items():
        yield Measurement("vae", f"SDXL VAE, {px} px, on the device", cost_s, turn, partial(measure, px))
    for px, turn in ((16, 0),) if bench.is_toy else ((512, 2), (1024, 3), (256, 4)):
        yield Measurement("vae", f"SDXL VAE, {px} px, as the jobs encode", 7, turn, partial(job, px))
    for px, batch, turn in ((16, 1, 0),) if bench.is_toy else ((1024, 4, 2), (256, 16, 4), (2048, 1, 4)):
        what = f"SDXL VAE, {px} px, batch {batch}: what limits it"
        yield Measurement("vae", what, 5, turn, partial(limited, px, batch))
    for px, turn in ((16, 0),) if bench.is_toy else ((512, 3), (1024, 4)):
        yield Measurement("vae", f"SDXL VAE, {px} px, in float32", 5, turn, partial(in_float32, px))


def t5(bench: Bench) -> Iterator[Measurement]:
    """Captions to vectors: by length and batch on the device, and a part's captions as the jobs encode them."""

    def inputs(batch: int, length: int) -> Tensor:
        return torch.randint(0, 32_000, (batch, length), device=bench.device)

    @torch.no_grad()
    def measure(length: int) -> Row:
        model = random_t5(bench)._model
        flops = flops_of(lambda: model(inputs(1, length)))
        batches = (1, 2) if bench.is_toy else (1, 8, 32, 128)
        found = rates(bench, batches, lambda batch: partial(model, inputs(batch, length)))
        share = max(found.values()) * flops / bench.gemm_flops_per_s
        return {
            "per_s": max(found.values()), "ratio": share, "goal": GOAL, "per_s_by_batch": by_batch(found),
            "tflop_each": flops / 1e12,
        }  # fmt: skip

    def job() -> Row:
        encoder = random_t5(bench)
        lengths = _lengths(16 if bench.is_toy else 1024)
        captions = [" ".join(f"{place}-{word}" for word in range(length)) for place, length in enumerate(lengths)]
        tokens = [encoder.tokens(caption) for caption in captions]
        per_token = flops_of(lambda: encoder._model(inputs(1, 150))) / 150  # attention is a few percent of it
        per_s = as_the_jobs(bench, tokens, encoder.encoding, encoder.at_once, len)
        tokens_per_s = per_s * sum(lengths) / len(lengths)
        share = tokens_per_s * per_token / bench.gemm_flops_per_s
        return {"per_s": per_s, "tokens_per_s": tokens_per_s, "share_of_gemm": share, "batch": encoder.at_once}

    @torch.no_grad()
    def limited(length: int, batch: int) -> Row:
        model, ids = random_t5(bench)._model, inputs(batch, length)
        return limits(bench, lambda: model(ids))

    for length, turn in ((12, 0),) if bench.is_toy else ((180, 0), (300, 2), (35, 3)):
        yield Measurement("t5", f"T5-XXL, captions of {length} tokens", 8, turn, partial(measure, length))
    yield Measurement("t5", "T5-XXL, captions of 35 to 300 tokens, as the jobs encode", 12, 1, job)
    for length, batch, turn in ((12, 2, 0),) if bench.is_toy else ((180, 8, 4), (180, 1, 4)):
        what = f"T5-XXL, {batch} captions of {length} tokens: what limits it"
        yield Measurement("t5", what, 6, turn, partial(limited, length, batch))


def _lengths(number: int) -> list[int]:
    """Tokens of a part's captions: those of the training step, spread by a few so that not all have company."""
    rng = np.random.default_rng(0)
    means = rng.choice(CAPTION_LENGTHS, number)
    return [int(length) for length in np.clip(means + rng.integers(-30, 80, number), 35, 300)]


def clip(bench: Bench) -> Iterator[Measurement]:
    """Pictures to embeddings by batch on the device, and as the job `aesthetic` scores them, with LAION's head."""
    side = TINY_CLIP["image_size"] if bench.is_toy else CLIP_L14["image_size"]

    def pixels(batch: int) -> Tensor:
        dtype = torch.float16 if bench.is_gpu else torch.float32
        return torch.randn(batch, 3, side, side, device=bench.device, dtype=dtype)

    @torch.inference_mode()
    def measure() -> Row:
        model = random_clip(bench)._model
        flops = flops_of(lambda: model.get_image_features(pixel_values=pixels(1)))
        batches = (1, 2) if bench.is_toy else (16, 64, 256, 1024)
        found = rates(bench, batches, lambda batch: partial(model.get_image_features, pixel_values=pixels(batch)))
        share = max(found.values()) * flops / bench.gemm_flops_per_s
        return {
            "per_s": max(found.values()), "ratio": share, "goal": GOAL, "per_s_by_batch": by_batch(found),
            "tflop_each": flops / 1e12,
        }  # fmt: skip

    def job(batch: int) -> Row:
        embedder = random_clip(bench)
        rng = np.random.default_rng(0)
        seen = [rng.integers(0, 256, (3, side, side), np.uint8) for _ in range(4 if bench.is_toy else 256)]
        rows = seen * (1 if bench.is_toy else 16)
        head = rng.standard_normal(embedder.dim)  # LAION's is one affine map

        def score(pixels: list[Any]) -> Callable[[], Iterable[Any]]:
            embedding = embedder.embedding_pixels(pixels)
            return lambda: embedding() @ head

        flops = flops_of(lambda: embedder.embed_pixels(seen[:1]))
        per_s = as_the_jobs(bench, rows, score, batch)
        return {"per_s": per_s, "share_of_gemm": per_s * flops / bench.gemm_flops_per_s}

    @torch.inference_mode()
    def limited(batch: int) -> Row:
        model, seen = random_clip(bench)._model, pixels(batch)
        return limits(bench, lambda: model.get_image_features(pixel_values=seen))

    yield Measurement("clip", "CLIP ViT-L/14, pictures that are on the device", 8, 0, measure)
    sizes: Sequence[tuple[int, int]] = ((2, 0),) if bench.is_toy else ((32, 2), (256, 3))
    for batch, turn in sizes:
        what = f"CLIP ViT-L/14 and LAION's head, batch {batch}, as the jobs score"
        yield Measurement("clip", what, 6, turn, partial(job, batch))
    most = sizes[-1][0]
    yield Measurement("clip", f"CLIP ViT-L/14, batch {most}: what limits it", 5, 4, partial(limited, most))
