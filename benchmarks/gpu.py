"""Everything a GPU can tell about the trainer, in one command of under ten minutes; `make bench-gpu`.

Needs torch, numpy and safetensors. diffusers and came-pytorch are compared with where they are installed.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.kv_compression import PAPER_SAVING, saving
from benchmarks.training_step import Batch, caption_lengths, diffusers_twin
from training.came import CAME
from training.memory import GIB, USABLE, predict
from training.model import KVCompression, PixArt, PixArtConfig
from training.model.recompute import Keep
from training.speed import training_flops
from training.timing import median_seconds, paired

Row = dict[str, Any]
KEEPS: tuple[Keep, ...] = ("none", "selective", "full")


@dataclass(frozen=True)
class Bench:
    """What runs where, how large, and until when.

    Attributes:
        batches: pictures per step at each resolution, px.
        deadline: `time.monotonic()` after which nothing new is begun.
    """

    device: torch.device
    model: PixArtConfig
    batches: dict[int, int]
    rounds: int
    compiler: str
    deadline: float = float("inf")

    def config(self, px: int, kv: bool = False) -> PixArtConfig:
        """The model of a resolution; `kv` compresses its last half."""
        layers = tuple(range(self.model.depth // 2, self.model.depth))
        compression = KVCompression(layers, 2) if kv else None
        return replace(self.model, image_size=px, pe_interpolation=px / 512, kv_compression=compression)

    def new(self, config: PixArtConfig) -> PixArt:
        with torch.device(self.device):
            return PixArt(config).train()

    def inputs(self, config: PixArtConfig, batch: int) -> Batch:
        side = config.image_size // 16
        return Batch.random(config, (side, side), caption_lengths(config, batch), self.device)

    def memory_bytes(self) -> int:
        """Of the device; a CPU is taken to have enough."""
        return torch.cuda.get_device_properties(self.device).total_memory if self.device.type == "cuda" else 2**50


PAPER_BATCHES = {256: 64, 512: 32, 1024: 12, 2048: 4, 4096: 1}
"""Per GPU; the paper's, but one picture at 4K."""


def xl(device: torch.device, minutes: float) -> Bench:
    """PixArt-Σ-XL/2 at the paper's batch sizes."""
    return Bench(device, PixArtConfig(), PAPER_BATCHES, 5, "inductor", time.monotonic() + 60 * minutes)


def tiny(device: torch.device) -> Bench:
    """The same code in seconds, for a machine without a GPU."""
    model = PixArtConfig(depth=2, hidden_size=48, num_heads=2, caption_channels=32, max_caption_tokens=20)
    return Bench(device, model, {64: 3}, 1, "aot_eager")


def step_against_diffusers(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Forward and backward against diffusers eager, and against its gradient checkpointing."""

    def measure(px: int, checkpointed: bool) -> Row:
        config = bench.config(px)
        ours, inputs = bench.new(config), bench.inputs(config, bench.batches[px])
        nn.init.normal_(ours.final_layer.linear.weight, std=0.02)
        theirs = diffusers_twin(ours)
        if checkpointed:
            theirs.enable_gradient_checkpointing()  # type: ignore[operator]
        times = paired(lambda: inputs.ours(ours), lambda: inputs.theirs(theirs), bench.rounds, bench.device)
        goal = 1.5 if checkpointed else {256: 1.3, 512: 1.3, 1024: 1.2}.get(px)
        peer = "diffusers, gradient checkpointing" if checkpointed else "diffusers eager"
        return {
            "what": f"{px} px, batch {bench.batches[px]}, against {peer}", "ours_s": times.first_s,
            "theirs_s": times.second_s, "ratio": times.ratio, "goal": goal,
        }  # fmt: skip

    for px in [px for px in bench.batches if px <= 1024]:
        for checkpointed in (False, True):
            yield partial(measure, px, checkpointed)


def compiled_block(bench: Bench) -> Iterator[Callable[[], Row]]:
    """`torch.compile` of the block: speed, difference, and compilations over aspect buckets."""

    def measure(px: int) -> Row:
        from torch._dynamo.utils import counters

        config = bench.config(px)
        eager, inputs = bench.new(config), bench.inputs(config, bench.batches[px])
        nn.init.normal_(eager.final_layer.linear.weight, std=0.02)
        compiled = bench.new(config)
        compiled.load_state_dict(eager.state_dict())
        compiled.compile_blocks(bench.compiler)
        torch._dynamo.reset()
        counters.clear()
        begun = time.monotonic()
        inputs.ours(compiled)
        first_s, graphs = time.monotonic() - begun, counters["stats"]["unique_graphs"]
        times = paired(lambda: inputs.ours(compiled), lambda: inputs.ours(eager), bench.rounds, bench.device)
        side = px // 16
        for rows, columns in ((side + 1, side), (side // 2, 2 * side), (2 * side, side // 2)):
            lengths = caption_lengths(config, bench.batches[px] + 1)[1:]
            Batch.random(config, (rows, columns), lengths, bench.device).ours(compiled)
        recompiled = counters["stats"]["unique_graphs"] - graphs
        with torch.no_grad(), torch.autocast(bench.device.type, torch.bfloat16):
            a, b = (model(inputs.noised, inputs.timestep, inputs.caption, inputs.mask) for model in (eager, compiled))
        return {
            "what": f"{px} px, batch {bench.batches[px]}, compiled against eager", "ours_s": times.first_s,
            "theirs_s": times.second_s, "ratio": times.ratio, "first_step_s": first_s,
            "recompiled": recompiled,
            "relative_difference": ((a - b).norm() / a.norm()).item(),
        }  # fmt: skip

    for px in [px for px in bench.batches if px <= 1024]:
        yield partial(measure, px)


def came(bench: Bench) -> Iterator[Callable[[], Row]]:
    """An optimizer step on all tensors, its launches, and the drift from came-pytorch after a hundred steps."""

    def optimizers(config: PixArtConfig) -> tuple[list[nn.Parameter], CAME]:
        params = list(bench.new(config).parameters())
        for p in params:
            p.grad = torch.randn_like(p) * 1e-3
        return params, CAME(params, lr=2e-5)

    def alone() -> Row:
        params, optimizer = optimizers(bench.model)
        row: Row = {"what": f"CAME step, {len(params)} tensors"}
        row["ours_s"] = median_seconds(optimizer.step, 4 * bench.rounds, bench.device)
        if bench.device.type == "cuda":
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
                optimizer.step()
            row["kernels"] = sum(event.count for event in profiler.key_averages())
        return row | {"goal": "10 ms, 1,000 kernels"}

    def against_peer() -> Row:
        import came_pytorch

        params, optimizer = optimizers(bench.model)
        copies = [nn.Parameter(p.detach().clone()) for p in params]
        for p, copy in zip(params, copies, strict=True):
            copy.grad = p.grad
        theirs = came_pytorch.CAME(copies, lr=2e-5)
        times = paired(optimizer.step, theirs.step, 2 * bench.rounds, bench.device)
        for _ in range(99 - 2 * bench.rounds):
            optimizer.step(), theirs.step()
        drift = max(((p - q).norm() / q.norm()).item() for p, q in zip(params, copies, strict=True) if q.norm() > 0)
        return {
            "what": "CAME against came-pytorch", "ours_s": times.first_s, "theirs_s": times.second_s,
            "ratio": times.ratio, "goal": 8, "drift_after_100": drift,
        }  # fmt: skip

    yield alone
    yield against_peer


def kv_compression(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Share of the saved FLOPs that the clock shows; a quarter of the depth, which changes no share by much."""

    def measure(px: int) -> Row:
        depth = max(2, bench.model.depth // 4)
        layers = tuple(range(depth // 2, depth))
        config = replace(bench.config(px), depth=depth, kv_compression=KVCompression(layers, 2))
        found = saving(config, px // 16, bench.batches[px], bench.device, rounds=bench.rounds)
        return {
            "what": f"KV compression, {px} px, {len(layers)} of {depth} blocks", "ours_s": found.compressed_s,
            "theirs_s": found.plain_s, "time_saved": found.time_share, "flops_saved": found.flops_share,
            "ratio": found.reached, "goal": 0.85, "paper_time_saved": PAPER_SAVING.get(px),
        }  # fmt: skip

    for px in list(bench.batches)[-3:]:
        yield partial(measure, px)


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


def memory(bench: Bench) -> Iterator[Callable[[], Row]]:
    """Peak memory of a whole step, predicted and measured; a CPU can only predict."""

    def measure(px: int, batch: int, keep: Keep) -> Row:
        config = bench.config(px)
        inputs = bench.inputs(config, batch)
        peak = predict(config, (px // 16, px // 16), int(inputs.mask.sum(1).max()), batch, keep)
        row: Row = {"what": f"peak memory, {px} px, batch {batch}, {keep}", "predicted_gib": peak.total / GIB}
        if bench.device.type == "cuda":
            torch.cuda.synchronize(bench.device)
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated(bench.device)
        training = Training(bench.new(config), inputs)
        training.model.activation_checkpointing = keep
        training.step()
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(bench.device)
            row["step_s"] = median_seconds(training.step, 2, bench.device)
            row["measured_gib"] = (torch.cuda.max_memory_allocated(bench.device) - before) / GIB
            row["ratio"] = row["predicted_gib"] / row["measured_gib"]
        return row

    for px, batch in list(bench.batches.items())[:3]:
        for keep in KEEPS:
            yield partial(measure, px, max(1, batch // 2), keep)


def stages(bench: Bench) -> Iterator[Callable[[], Row]]:
    """A whole training step of every resolution, with and without KV compression: images per second and MFU."""
    gemm = gemm_flops_per_s(bench.device)

    def measure(px: int, kv: bool) -> Row:
        config, batch = bench.config(px, kv), bench.batches[px]
        inputs, grid = bench.inputs(config, batch), (px // 16, px // 16)
        lengths = inputs.mask.sum(1).tolist()
        budget = USABLE * bench.memory_bytes()
        fits = [keep for keep in KEEPS if predict(config, grid, max(lengths), batch, keep).total < budget]
        keep = fits[0] if fits else "full"
        training = Training(bench.new(config), inputs)
        training.model.activation_checkpointing = keep
        step_s = median_seconds(training.step, max(1, bench.rounds - 2), bench.device)
        rate = sum(training_flops(config, grid, length) for length in lengths) / step_s
        return {
            "what": f"stage step, {px} px, batch {batch}, KV {'on' if kv else 'off'}, {keep}", "ours_s": step_s,
            "images_per_s": batch / step_s, "model_tflops_per_s": rate / 1e12, "share_of_gemm_rate": rate / gemm,
        }  # fmt: skip

    for px in bench.batches:
        for kv in (False, True):
            yield partial(measure, px, kv)


def gemm_flops_per_s(device: torch.device) -> float:
    """Rate of one large bf16 matrix product: what this very device can do at best."""
    side = 8192 if device.type == "cuda" else 512
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / median_seconds(lambda: a @ b, 10, device)


SECTIONS = (step_against_diffusers, came, stages, memory, kv_compression, compiled_block)


def run(bench: Bench, out: Path, wanted: str = "") -> list[Row]:
    """Every measurement of every section, written as it comes; one that fails is a row that says why."""
    out.mkdir(parents=True, exist_ok=True)
    where = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else platform.machine()
    rows: list[Row] = [{"section": "machine", "what": f"{where}, torch {torch.__version__}"}]
    with (out / "results.jsonl").open("w") as file:
        for section in SECTIONS:
            if wanted not in section.__name__:
                continue
            for measure in section(bench):
                row: Row = {"section": section.__name__}
                if time.monotonic() > bench.deadline:
                    row |= {"what": "the rest", "not_run": "out of time"}
                else:
                    row |= _guarded(measure)
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(json.dumps(row), flush=True)
                if "not_run" in row and row["not_run"] == "out of time":
                    break
    (out / "table.md").write_text(table(rows))
    return rows


def _guarded(measure: Callable[[], Row]) -> Row:
    begun = time.monotonic()
    try:
        row = measure()
    except ImportError as error:
        row = {"what": "a peer", "not_run": f"{error.name} is not installed"}
    except torch.OutOfMemoryError as error:
        row = {"what": "a measurement", "failed": f"out of memory: {str(error)[:120]}"}
    except RuntimeError as error:  # what a kernel or the compiler raises; the other measurements still count
        row = {"what": "a measurement", "failed": str(error)[:300]}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return row | {"took_s": round(time.monotonic() - begun, 1)}


def table(rows: list[Row]) -> str:
    """Markdown, one line per measurement."""
    lines = ["| section | what | figures |", "|---|---|---|"]
    for row in rows:
        figures = (
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in row.items()
            if name not in ("section", "what", "took_s") and value is not None
        )
        lines.append(f"| {row['section']} | {row['what']} | {', '.join(figures)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """`python -m benchmarks.gpu [--device cuda] [--tiny] [--out FOLDER] [--minutes 9.5] [--only SECTION]`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a toy model, to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("bench-gpu"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", default="", help="sections whose name holds this")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu --tiny shows that everything runs")
    bench = tiny(device) if options.tiny else xl(device, options.minutes)
    run(bench, options.out, options.only)
    print((options.out / "table.md").read_text())


if __name__ == "__main__":
    main()
