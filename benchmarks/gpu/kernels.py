"""The optimizer against came-pytorch, and the time that KV compression saves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.autograd import DeviceType

from benchmarks.gpu.bench import Bench, Measurement, Row, that_fits
from benchmarks.kv_compression import PAPER_SAVING, saving
from training.came import CAME
from training.model import KVCompression


def came(bench: Bench) -> Iterator[Measurement]:
    """An optimizer step on all tensors, its launches, and the drift from came-pytorch after a hundred steps."""

    def optimizers() -> tuple[list[nn.Parameter], CAME]:
        params = list(bench.new(bench.model).parameters())
        for p in params:
            p.grad = torch.randn_like(p) * 1e-3
        return params, CAME(params, lr=2e-5)

    def alone() -> Row:
        params, optimizer = optimizers()
        row: Row = {"tensors": len(params), "ours_s": bench.median_s(optimizer.step, 4 * bench.rounds)}
        if bench.is_gpu:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
                optimizer.step()
                torch.cuda.synchronize(bench.device)
            row["kernels"] = sum(
                event.count
                for event in profiler.key_averages()
                if event.device_type == DeviceType.CUDA and not event.key.startswith("Optimizer.")  # an annotation
            )
        return row | {"goal": "10 ms, 1,000 kernels"}

    def against_peer() -> Row:
        import came_pytorch

        params, optimizer = optimizers()
        copies = [nn.Parameter(p.detach().clone()) for p in params]
        for p, copy in zip(params, copies, strict=True):
            copy.grad = p.grad
        theirs = came_pytorch.CAME(copies, lr=2e-5)
        steps = 0

        def ours_step() -> None:
            nonlocal steps
            steps += 1
            optimizer.step()

        times = bench.paired(ours_step, theirs.step, 2 * bench.rounds)
        for _ in range(100 - steps):
            optimizer.step(), theirs.step()
        drift = max(((p - q).norm() / q.norm()).item() for p, q in zip(params, copies, strict=True) if q.norm() > 0)
        return {
            "ours_s": times.first_s, "theirs_s": times.second_s, "ratio": times.ratio, "goal": 8,
            "drift_after_100": drift,
        }  # fmt: skip

    yield Measurement("came", "CAME against came-pytorch", 25, 0, against_peer)
    yield Measurement("came", "CAME step on all tensors", 5, 1, alone)


def kv_compression(bench: Bench) -> Iterator[Measurement]:
    """Share of the saved FLOPs that the clock shows; a quarter of the depth, which changes no share by much."""
    depth = max(2, bench.model.depth // 4)
    layers = tuple(range(depth // 2, depth))

    def measure(px: int, batch: int) -> Row:
        config = replace(bench.config(px), depth=depth, kv_compression=KVCompression(layers, 2))
        found = saving(config, px // 16, batch, bench.device, rounds=bench.rounds, most_s=bench.most_s)
        return {
            "ours_s": found.compressed_s, "theirs_s": found.plain_s, "time_saved": found.time_share,
            "flops_saved": found.flops_share, "ratio": found.reached, "goal": 0.85,
            "paper_time_saved": PAPER_SAVING.get(px),
        }  # fmt: skip

    for px, cost_s, turn in ((64, 2, 0), (1024, 10, 0), (2048, 15, 1), (4096, 25, 1)):
        if px in bench.batches:
            yield Measurement(
                "kv_compression", f"KV compression, {px} px, {len(layers)} of {depth} blocks", cost_s, turn,
                partial(that_fits, bench, bench.batches[px], partial(measure, px)),
            )  # fmt: skip
