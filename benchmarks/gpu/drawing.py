"""Drawing pictures: pictures per second in twenty steps, and 4K in the memory of a small card."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench, Measurement, Row, that_fits
from benchmarks.gpu.encoders import random_vae
from training.diffusion import guided, sample
from training.diffusion.sampler import NoiseModel
from training.speed import forward_flops
from training.timing import seconds

STEPS, STEPS_AT_4K = 20, 2
GUIDANCE = 4.5
ROOM_GIB = 24.0
"""What 4K may take."""


def drawing(bench: Bench) -> Iterator[Measurement]:
    """Noise to pixels: the model with and without the caption at each step, then the VAE's decoder.

    Peaks are of what is allocated with the model and the VAE; the text encoder is not there, as it need not be.
    """

    def measure(px: int, steps: int, kv: bool, batch: int) -> Row:
        config = bench.config(px, kv)
        model, codec, inputs = bench.new(config).eval(), random_vae(bench), bench.inputs(config, batch)

        def noise_model(dropped: bool) -> NoiseModel:
            drop = torch.full((batch,), dropped, device=bench.device)

            def predict(latents: Tensor, timestep: Tensor) -> Tensor:
                with torch.autocast(bench.device.type, torch.bfloat16):
                    output = model(latents, timestep, inputs.caption, inputs.mask, drop)
                return output.float().chunk(2, dim=1)[0]

            return predict

        predict = guided(noise_model(False), noise_model(True), GUIDANCE)
        sample(predict, inputs.noise, 1)
        row: Row = {}
        with bench.peak_gib(row, "peak_gib_steps"):
            steps_s = seconds(lambda: sample(predict, inputs.noise, steps), bench.device)
        with bench.peak_gib(row, "peak_gib_decoder"):
            decoder_s = seconds(lambda: codec.decode(inputs.latents), bench.device)
        lengths, grid = inputs.mask.sum(1).tolist(), (px // 16, px // 16)
        flops = 2 * steps * sum(forward_flops(config, grid, length) for length in lengths)
        all_s = steps_s / steps * STEPS + decoder_s
        row |= {"per_s": batch / all_s, "step_s": steps_s / steps, "decoder_s": decoder_s, "steps_run": steps}
        row |= bench.shares(flops / steps_s)
        if px == 4096 and bench.is_gpu:
            row |= {"ratio": ROOM_GIB / max(row["peak_gib_steps"], row["peak_gib_decoder"]), "goal": 1.0}
        return row

    runs = ((512, 16, STEPS, False, 15, 0), (1024, 4, STEPS, False, 15, 1), (4096, 1, STEPS_AT_4K, True, 25, 2))
    for px, batch, steps, kv, cost_s, turn in ((64, 2, 2, True, 2, 0),) if bench.is_toy else runs:
        what = f"drawing at {px} px, batch {batch}, {STEPS} steps" + (f" ({ROOM_GIB:.0f} GiB)" if px == 4096 else "")
        yield Measurement(
            "drawing", what, cost_s, turn, partial(that_fits, bench, batch, partial(measure, px, steps, kv))
        )
