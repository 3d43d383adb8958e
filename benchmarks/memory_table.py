"""Predicted peak memory of PixArt-Σ-XL/2's stages at the paper's batch sizes; no measurement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.kv_compression import half_compressed
from training.memory import GIB, predict
from training.model.recompute import Keep

BATCHES = {256: 64, 512: 32, 1024: 12, 2048: 4, 4096: 4}
"""Pictures per GPU, px by px, in the paper's table of stages."""
TEXT_TOKENS = 300
KEEPS: tuple[Keep, ...] = ("none", "selective", "full")


def predicted_memory(_folder: Path) -> Iterator[str]:
    """GiB with weights, average, gradients and CAME, without encoders; one picture's share in brackets."""
    for px, batch in BATCHES.items():
        compressed = half_compressed(px, 28)
        for name, config in (("off", replace(compressed, kv_compression=None)), ("on", compressed)):
            cells = []
            for keep in KEEPS:
                whole, more = (
                    predict(config, (px // 16, px // 16), TEXT_TOKENS, b, keep).total for b in (batch, batch + 64)
                )
                cells.append(f"{keep} {whole / GIB:.0f} ({(more - whole) / 64 / GIB:.2f})")
            yield f"| {px} px, batch {batch}, KV {name} | {' | '.join(cells)} |"


BENCHMARKS = (predicted_memory,)
