"""The training step: against diffusers, compiled, and whole at every stage of the chain; and its memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from benchmarks.gpu.bench import Bench, Measurement, Row, that_fits
from benchmarks.training_step import Batch, caption_lengths, diffusers_twin
from training.came import CAME
from training.memory import GIB, USABLE, predict
from training.model import PixArt
from training.model.recompute import Keep
from training.speed import training_flops

KEEPS: tuple[Keep, ...] = ("none", "selective", "full")
GOALS = {256: 1.3, 512: 1.3, 1024: 1.2}
"""Of diffusers' eager step over ours, compiled or not."""
CHECKPOINTED_GOAL = 1.5


def step_against_diffusers(bench: Bench) -> Iterator[Measurement]:
    """Forward and backward against diffusers eager, and against its gradient checkpointing; ours keeps everything."""

    def measure(px: int, checkpointed: bool, batch: int) -> Row:
        config = bench.config(px)
        ours, inputs = bench.new(config), bench.inputs(config, batch)
        theirs = diffusers_twin(ours)
        if checkpointed:
            theirs.enable_gradient_checkpointing()  # type: ignore[operator]
        times = bench.paired(lambda: inputs.ours(ours), lambda: inputs.theirs(theirs))
        return {
            "ours_s": times.first_s, "theirs_s": times.second_s, "ratio": times.ratio,
            "goal": CHECKPOINTED_GOAL if checkpointed else GOALS.get(px),
            **bench.shares(step_flops(inputs, ours) / times.first_s),
        }  # fmt: skip

    for px, turns in ((512, (0, 2)), (1024, (1, 1)), (256, (1, 2)), (64, (0, 0))):
        for checkpointed, turn in zip((False, True), turns, strict=True):
            if px in bench.batches:
                peer = "diffusers, gradient checkpointing" if checkpointed else "diffusers eager"
                yield Measurement(
                    "step_against_diffusers",
                    f"{px} px, batch {bench.batches[px]}, against {peer}",
                    18 if turn == 0 else 10,  # the first imports diffusers
                    turn,
                    partial(that_fits, bench, bench.batches[px], partial(measure, px, checkpointed)),
                )


def compiled_block(bench: Bench) -> Iterator[Measurement]:
    """`torch.compile` of the block: speed, difference, and compilations over aspect buckets."""

    def measure(px: int, batch: int) -> Row:
        from torch._dynamo.utils import counters

        config = bench.config(px)
        eager, inputs = bench.new(config), bench.inputs(config, batch)
        compiled = bench.new(config)
        compiled.load_state_dict(eager.state_dict())
        compiled.compile_blocks(bench.compiler)
        torch._dynamo.reset()
        counters.clear()
        begun = time.monotonic()
        inputs.ours(compiled)
        first_s, graphs = time.monotonic() - begun, counters["stats"]["unique_graphs"]
        times = bench.paired(lambda: inputs.ours(compiled), lambda: inputs.ours(eager))
        row: Row = {
            "ours_s": times.first_s, "theirs_s": times.second_s, "ratio": times.ratio, "first_step_s": first_s,
            **bench.shares(step_flops(inputs, compiled) / times.first_s),
        }  # fmt: skip
        side = px // 16
        for rows, columns in ((side + 1, side), (side // 2, 2 * side), (2 * side, side // 2)):
            lengths = caption_lengths(config, batch + 1)[1:]
            Batch.random(config, (rows, columns), lengths, bench.device).ours(compiled)
        row["recompiled"] = counters["stats"]["unique_graphs"] - graphs
        with torch.no_grad(), torch.autocast(bench.device.type, torch.bfloat16):
            a, b = (model(inputs.noised, inputs.timestep, inputs.caption, inputs.mask) for model in (eager, compiled))
        row["relative_difference"] = ((a - b).norm() / a.norm()).item()
        del a, b
        try:
            theirs = diffusers_twin(eager)
        except ImportError:
            return row
        beside = bench.paired(lambda: inputs.ours(compiled), lambda: inputs.theirs(theirs), 3)
        return row | {"ratio_to_diffusers": beside.ratio, "goal_of_it": GOALS.get(px)}

    for px, cost_s, turn in ((512, 50, 2), (1024, 40, 4), (256, 35, 4), (64, 5, 0)):
        if px in bench.batches:
            yield Measurement(
                "compiled_block", f"{px} px, batch {bench.batches[px]}, compiled against eager", cost_s, turn,
                partial(that_fits, bench, bench.batches[px], partial(measure, px)),
            )  # fmt: skip


@dataclass
class Training:
    """All that a stage holds on the device, and its step without the data."""

    model: PixArt
    inputs: Batch

    def __post_init__(self) -> None:
        self.average = deepcopy(self.model).requires_grad_(False)
        self.optimizer = CAME(self.model.parameters(), lr=2e-5)

    def step(self) -> None:
        with torch.autocast(self.inputs.latents.device.type, torch.bfloat16):
            predicted = self.model(self.inputs.noised, self.inputs.timestep, self.inputs.caption, self.inputs.mask)
        self.inputs.loss(predicted).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.01)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1e-4)


def stages(bench: Bench) -> Iterator[Measurement]:
    """A whole training step of every resolution, with and without KV compression: images per second and MFU."""

    def measure(px: int, kv: bool, batch: int) -> Row:
        config = bench.config(px, kv)
        inputs, grid = bench.inputs(config, batch), (px // 16, px // 16)
        longest, budget = int(inputs.mask.sum(1).max()), USABLE * bench.memory_bytes()
        fits = [keep for keep in KEEPS if predict(config, grid, longest, batch, keep).total < budget]
        keep = fits[0] if fits else "full"
        training = Training(bench.new(config), inputs)
        training.model.activation_checkpointing = keep
        step_s = bench.median_s(training.step, max(1, bench.rounds - 2))
        return {
            "ours_s": step_s, "images_per_s": batch / step_s, "kept": keep,
            **bench.shares(step_flops(inputs, training.model) / step_s),
        }  # fmt: skip

    costs = {64: (2, 0, 0), 256: (5, 2, 3), 512: (5, 0, 3), 1024: (8, 1, 3), 2048: (12, 2, 2), 4096: (25, 3, 2)}
    for px, batch in bench.batches.items():
        cost_s, *turns = costs[px]
        for kv, turn in zip((False, True), turns, strict=True):
            yield Measurement(
                "stages", f"stage step, {px} px, batch {batch}, KV {'on' if kv else 'off'}", cost_s, turn,
                partial(that_fits, bench, batch, partial(measure, px, kv)),
            )  # fmt: skip


def memory(bench: Bench) -> Iterator[Measurement]:
    """Peak memory of a whole step, predicted and measured; a CPU can only predict."""

    def measure(px: int, batch: int, keep: Keep) -> Row:
        config = bench.config(px)
        inputs = bench.inputs(config, batch)
        before = torch.cuda.memory_allocated(bench.device) if bench.is_gpu else 0
        peak = predict(config, (px // 16, px // 16), int(inputs.mask.sum(1).max()), batch, keep)
        row: Row = {"predicted_gib": peak.total / GIB}
        training = Training(bench.new(config), inputs)
        training.model.activation_checkpointing = keep
        training.step()  # the optimizer's state is made
        with bench.peak_gib(row, "measured_gib"):
            row["step_s"] = bench.median_s(training.step, 1)
        if bench.is_gpu:
            row["measured_gib"] -= before / GIB
            row["ratio"] = row["predicted_gib"] / row["measured_gib"]
        return row

    for px, turn in ((1024, 2), (512, 4), (256, 4), (64, 0)):
        for keep in KEEPS:
            if px in bench.batches:
                batch = max(1, bench.batches[px] // 2)
                yield Measurement(
                    "memory", f"peak memory, {px} px, batch {batch}, {keep}", 4, turn,
                    partial(measure, px, batch, keep),
                )  # fmt: skip


def step_flops(inputs: Batch, model: PixArt) -> int:
    """The model's operations in a training step; padding is no work of the model."""
    patch = model.config.patch_size
    height, width = inputs.latents.shape[-2:]
    grid = (height // patch, width // patch)
    return sum(training_flops(model.config, grid, length) for length in inputs.mask.sum(1).tolist())
