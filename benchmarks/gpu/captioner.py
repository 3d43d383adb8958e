"""Share-Captioner at full size with random weights: pictures per second by decoding and batch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.gpu.bench import Bench, Measurement, Row
from training.timing import seconds

TOKENS = 180
"""As many as a caption has; none ends before."""
RUNS = (
    ("greedy", 64, 60, 1),
    ("published", 32, 45, 3),
    ("sampled", 64, 60, 4),
    ("greedy", 128, 60, 5),
    ("greedy", 8, 40, 5),
)
"""Decoding, batch, seconds and turn. Compiling takes half of the time of those that take one beam."""
TOY_RUNS = (("greedy", 2, 1, 0), ("published", 2, 1, 0))


def captioner(bench: Bench) -> Iterator[Measurement]:
    """Pixels to ids, the picture's tower and the prompt included; the second run of a shape counts.

    `of_bandwidth` is the time in which the device copies what the steps read, weights, keys and values, over the time
    that they took.
    """

    def measure(mode: str, batch: int) -> Row:
        from benchmarks.captioning_cost import least_seconds
        from benchmarks.share_captioner import FULL, NUM_PICTURES, TINY, ids_of_pixels, random_model
        from captioning.captioners.share_captioner.generation import Decoding

        tokens = 4 if bench.is_toy else TOKENS
        sizes = TINY if bench.is_toy else FULL
        model = random_model(sizes, bench.device, bench.dtype)
        decoding = Decoding(mode, max_new_tokens=tokens)  # type: ignore[arg-type]
        pixels = torch.randn(batch, 3, sizes.image_size, sizes.image_size, device=bench.device, dtype=bench.dtype)
        row: Row = {"first_s": seconds(lambda: ids_of_pixels(model, pixels, decoding), bench.device)}
        with bench.peak_gib(row, "peak_gib"):
            row["ours_s"] = seconds(lambda: ids_of_pixels(model, pixels, decoding), bench.device)
        sequences = batch * (decoding.num_beams if mode == "published" else 1)
        return row | {
            "per_s": batch / row["ours_s"], "days_for_33_million": NUM_PICTURES * row["ours_s"] / batch / 86_400,
            "of_bandwidth": least_seconds(sequences, tokens, bench.copied_bytes_per_s) / row["ours_s"],
        }  # fmt: skip

    for mode, batch, cost_s, turn in TOY_RUNS if bench.is_toy else RUNS:
        what = f"Share-Captioner, {mode}, batch {batch}, {TOKENS} tokens"
        yield Measurement("captioner", what, cost_s, turn, partial(measure, mode, batch))
