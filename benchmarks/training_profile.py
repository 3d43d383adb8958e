"""The parts of a training step on the CPU, ours and diffusers', and the ratio that matrix products alone would give."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks.training_speed import INSTALL
from benchmarks.training_step import Batch, diffusers_twin
from training.model import PixArt, PixArtConfig

KINDS = (("matrix products", ("mm", "conv")), ("attention", ("attention",)), ("copies and casts", ("copy",)))
OTHER = "norms, GELU, sums and the rest"


def training_profile(_folder: Path, tokens: int = 300, batch: int = 4, rounds: int = 3) -> Iterator[str]:
    """Two blocks of XL/2 at 256 px in bf16, captions without padding. Of each operation and shape the fastest of the
    rounds counts, so that another program's turn does not; the ratio is of CPU time, in turn."""
    ours, cpu = PixArt(PixArtConfig(depth=2, image_size=256, pe_interpolation=0.5)), torch.device("cpu")
    try:
        theirs = diffusers_twin(ours)
    except ImportError:
        yield f"| training profile | {INSTALL} | | |"
        return
    inputs = Batch.random(ours.config, (16, 16), [tokens] * batch, cpu)
    works = {"ours": partial(inputs.ours, ours), "diffusers": partial(inputs.theirs, theirs)}
    best: dict[str, dict[tuple[str, str], float]] = {name: {} for name in works}
    cpu_s: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            begun = time.process_time()
            work()
            cpu_s[name].append(time.process_time() - begun)
        for name, work in works.items():
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as found:
                work()
            for event in found.key_averages(group_by_input_shape=True):
                key = (event.key, str(event.input_shapes))
                best[name][key] = min(best[name].get(key, float("inf")), event.self_cpu_time_total / 1e6)
    ratio = median(b / a for a, b in zip(cpu_s["ours"], cpu_s["diffusers"], strict=True))
    for name, times in best.items():
        shares = _shares(times)
        cells = "; ".join(f"{kind} {share:.1%}" for kind, share in shares.items())
        yield f"| {name}, captions of {tokens} tokens | {min(cpu_s[name]):.2f} CPU-s | {cells} | |"
    products = sum(_shares(best["ours"])[kind] for kind in ("matrix products", "attention"))
    yield f"| diffusers over ours | {ratio:.2f} | with nothing but products and attention {ratio / products:.2f} | |"


def _shares(times: dict[tuple[str, str], float]) -> dict[str, float]:
    """The share of each kind of operation, the largest first."""
    total = sum(times.values())
    shares: dict[str, float] = {}
    for (name, _), spent in times.items():
        kind = next((kind for kind, words in KINDS if any(word in name for word in words)), OTHER)
        shares[kind] = shares.get(kind, 0.0) + spent / total
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


BENCHMARKS = (training_profile,)
