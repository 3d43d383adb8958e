"""What all measurements on a GPU share: the device and its peaks, the sizes, clocks, memory, and what limits a run."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training_step import Batch, caption_lengths
from training.memory import GIB
from training.model import KVCompression, PixArt, PixArtConfig
from training.speed import peak_flops_per_s
from training.timing import Paired, Work, median_seconds, paired, seconds

Row = dict[str, Any]
"""The figures of one measurement by name; its section and what it measures among them."""


@dataclass(frozen=True)
class Measurement:
    """One row of the table, before it is measured.

    Attributes:
        section, what: the names of the row.
        cost_s: seconds that it takes on an H100 or H200, by estimate, its models' making included.
        turn: measurements of a lower turn go first, within a turn in the order of the sections.
    """

    section: str
    what: str
    cost_s: float
    turn: int
    make: Callable[[], Row]


@dataclass(frozen=True)
class Bench:
    """What runs where, and how large.

    Attributes:
        model: the transformer at 512 px.
        batches: pictures per training step at each resolution, px.
        rounds: most runs of which a time is the median.
        most_s: seconds after which no further run is begun for a time.
        is_toy: the other models are toys as well.
    """

    device: torch.device
    model: PixArtConfig
    batches: dict[int, int]
    rounds: int
    compiler: str
    most_s: float
    is_toy: bool

    def config(self, px: int, kv: bool = False) -> PixArtConfig:
        """The model of a resolution; `kv` compresses its last half."""
        layers = tuple(range(self.model.depth // 2, self.model.depth))
        compression = KVCompression(layers, 2) if kv else None
        return replace(self.model, image_size=px, pe_interpolation=px / 512, kv_compression=compression)

    def new(self, config: PixArtConfig) -> PixArt:
        """A model whose output is not zero."""
        with torch.device(self.device):
            model = PixArt(config).train()
        nn.init.normal_(model.final_layer.linear.weight, std=0.02)
        return model

    def inputs(self, config: PixArtConfig, batch: int) -> Batch:
        """Random ones at the model's own resolution, with captions as long as captions are."""
        side = config.image_size // 16
        return Batch.random(config, (side, side), caption_lengths(config, batch), self.device)

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """Of the encoders' weights: bf16, but float32 on a CPU, where not every product has a 16-bit form."""
        return torch.bfloat16 if self.is_gpu else torch.float32

    def memory_bytes(self) -> int:
        """Of the device; a CPU is taken to have enough."""
        return torch.cuda.get_device_properties(self.device).total_memory if self.is_gpu else 2**50

    def median_s(self, work: Work, rounds: int | None = None) -> float:
        """Seconds of one run, the median of a few after one that is not counted."""
        return median_seconds(work, rounds or self.rounds, self.device, self.most_s)

    def paired(self, first: Work, second: Work, rounds: int | None = None) -> Paired:
        """Both in turn, as `training.timing.paired`."""
        return paired(first, second, rounds or self.rounds, self.device, self.most_s)

    @cached_property
    def gemm_flops_per_s(self) -> float:
        """Rate of a large bf16 matrix product: what this very device can do at best."""
        side, times = (8192, 20) if self.is_gpu else (256, 1)
        a, b = torch.randn(2, side, side, device=self.device, dtype=torch.bfloat16)

        def multiply() -> None:
            for _ in range(times):
                torch.mm(a, b)

        return 2 * side**3 * times / self.median_s(multiply)

    @cached_property
    def copied_bytes_per_s(self) -> float:
        """Bytes read and written per second by a copy that no cache holds."""
        numbers = 2**30 if self.is_gpu else 2**18
        source = torch.zeros(numbers, device=self.device, dtype=torch.bfloat16)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self.median_s(lambda: target.copy_(source))

    @cached_property
    def sheet_flops_per_s(self) -> float | None:
        """The bf16 peak of the card's data sheet; None where its name is not known."""
        return peak_flops_per_s(torch.cuda.get_device_name(self.device)) if self.is_gpu else None

    def shares(self, flops_per_s: float) -> Row:
        """A rate as teraflops, and as a share of the measured peak and of the data sheet's."""
        row: Row = {"tflops_per_s": flops_per_s / 1e12, "share_of_gemm": flops_per_s / self.gemm_flops_per_s}
        if self.sheet_flops_per_s is not None:
            row["share_of_sheet"] = flops_per_s / self.sheet_flops_per_s
        return row

    @contextmanager
    def peak_gib(self, row: Row, name: str) -> Iterator[None]:
        """Write into `row[name]` the most memory that was allocated inside the block; on a CPU nothing."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        if self.is_gpu:
            torch.cuda.synchronize(self.device)
            row[name] = torch.cuda.max_memory_allocated(self.device) / GIB

    def free(self) -> None:
        """Give the device's memory back, of models that nothing refers to any more."""
        if self.is_gpu:
            torch._dynamo.reset()  # compiled code, and the memory of its recorded graphs
            gc.collect()
            torch.cuda.empty_cache()


def that_fits(bench: Bench, batch: int, measure: Callable[[int], Row]) -> Row:
    """The row of the largest batch that fits: half of it, and half again, where the memory does not suffice.

    Raises:
        torch.OutOfMemoryError: a single picture does not fit.
    """
    least = batch
    while True:
        try:
            row = measure(least)
        except torch.OutOfMemoryError:
            if least == 1:
                raise
        else:
            return row if least == batch else row | {"batch_that_fits": least}
        bench.free()  # the error is gone by here, and with it what its frames held
        least //= 2


def rates(bench: Bench, batches: Sequence[int], work: Callable[[int], Work]) -> dict[int, float]:
    """Items per second by batch, from small to large; those that do not fit into memory are left out.

    Args:
        work: the run for a batch size, with its inputs made.

    Raises:
        torch.OutOfMemoryError: the smallest does not fit.
    """
    found: dict[int, float] = {}
    for batch in batches:
        try:
            found[batch] = batch / bench.median_s(work(batch))
        except torch.OutOfMemoryError:
            if not found:
                raise
            break
    bench.free()
    return found


def by_batch(found: dict[int, float]) -> str:
    """Rates in one cell of the table."""
    return "; ".join(f"{batch}: {rate:.4g}" for batch, rate in found.items())


def flops_of(work: Work) -> int:
    """Operations of matrix products, convolutions and attention in one run; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "conv", "attention")
"""Words in the names of operations that the matrix units compute."""


def limits(bench: Bench, work: Work) -> Row:
    """What a run waits for: the device's time by operation, and the share of the clock that the device was busy.

    Where `busy` is far from 1 launches limit it, where `matrix_time` is, memory traffic of the other operations.
    """
    wall_s = bench.median_s(work, 3)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if bench.is_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        seconds(work, bench.device)
    times: dict[str, float] = {}
    for event in profiler.key_averages():
        if event.device_type == DeviceType.CPU and event.key.startswith("aten::"):
            # microseconds that the operation itself took, on the device where there is one
            times[event.key] = event.self_device_time_total if bench.is_gpu else event.self_cpu_time_total
    total = max(sum(times.values()), 1e-9)
    largest = sorted(times, key=lambda name: -times[name])[:5]
    matrix = sum(spent for name, spent in times.items() if any(word in name for word in PRODUCTS))
    return {
        "limited_by": ", ".join(f"{name.removeprefix('aten::')} {times[name] / total:.0%}" for name in largest),
        "matrix_time": matrix / total,
        "busy": total / 1e6 / wall_s,
    }
