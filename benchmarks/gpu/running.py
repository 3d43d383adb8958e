"""Runs the measurements in the order of their worth until the time is over, and writes each row as it comes."""

from __future__ import annotations

import json
import math
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import FrameType

import torch

from benchmarks.gpu.bench import Bench, Measurement, Row
from benchmarks.gpu.captioner import captioner
from benchmarks.gpu.drawing import drawing
from benchmarks.gpu.encoders import clip, t5, vae
from benchmarks.gpu.kernels import came, kv_compression
from benchmarks.gpu.step import compiled_block, memory, stages, step_against_diffusers
from training.memory import GIB
from training.model import PixArtConfig

PAPER_BATCHES = {256: 64, 512: 32, 1024: 12, 2048: 4, 4096: 1}
"""Per GPU; the paper's, but one picture at 4K."""
SLOWER, SHORTEST_S = 3.0, 20.0
"""A measurement is stopped after this many times its estimate, and not before these seconds."""
AGAIN_S = 5.0
"""A stop that some library has swallowed is repeated."""
RESERVE_S = 5.0
"""Left at the end, so that a stopped measurement still ends in time."""


def xl(device: torch.device) -> Bench:
    """PixArt-Σ-XL/2 at the paper's batch sizes."""
    return Bench(device, PixArtConfig(), PAPER_BATCHES, 5, "inductor", most_s=4.0, is_toy=False)


def tiny(device: torch.device) -> Bench:
    """The same code in seconds, for a machine without a GPU."""
    model = PixArtConfig(depth=2, hidden_size=48, num_heads=2, caption_channels=32, max_caption_tokens=20)
    return Bench(device, model, {64: 3}, 1, "eager", most_s=0.0, is_toy=True)


def machine(bench: Bench) -> Iterator[Measurement]:
    """The device, and what it can do at best: shares in other rows are of these."""

    def measure() -> Row:
        sheet = bench.sheet_flops_per_s
        return {
            "torch": torch.__version__, "memory_gib": bench.memory_bytes() / GIB if bench.is_gpu else None,
            "gemm_tflops_per_s": bench.gemm_flops_per_s / 1e12, "sheet_tflops_per_s": sheet and sheet / 1e12,
            "copied_tb_per_s": bench.copied_bytes_per_s / 1e12,
        }  # fmt: skip

    name = torch.cuda.get_device_name(bench.device) if bench.is_gpu else platform.machine()
    yield Measurement("machine", name, 10, -1, measure)


SECTIONS: tuple[Callable[[Bench], Iterator[Measurement]], ...] = (
    machine, step_against_diffusers, stages, kv_compression, came, vae, t5, clip, drawing, captioner, memory,
    compiled_block,
)  # fmt: skip


def planned(bench: Bench, wanted: str = "") -> list[Measurement]:
    """All measurements, the most telling first: a cut run has a row of each section early."""
    chosen = [section for section in SECTIONS if wanted in section.__name__ or section is machine]
    return sorted(chain.from_iterable(section(bench) for section in chosen), key=lambda each: each.turn)


def run(bench: Bench, out: Path, wanted: str = "", deadline: float = float("inf")) -> list[Row]:
    """Measure all that fits; a measurement that fails, or for which the time does not suffice, is a row that says so.

    Args:
        out: the folder of `results.jsonl` and `table.md`, both of which are whole after each row.
        wanted: sections whose name holds this.
        deadline: of `time.monotonic`.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    took: list[tuple[float, float]] = []  # expected and real, of those that were measured
    with (out / "results.jsonl").open("wb", buffering=0) as file:  # a row is one write: a kill leaves whole lines
        for each in planned(bench, wanted):
            expected_s, spent_s = map(sum, zip(*took, strict=True)) if len(took) > 3 else (1.0, 1.0)
            pace = max(1.0, spent_s / expected_s)  # a slower card takes longer for all
            left_s = deadline - RESERVE_S - time.monotonic()
            row: Row = {"section": each.section, "what": each.what}
            if left_s < each.cost_s * pace:
                row["not_run"] = "out of time"
            else:
                begun = time.monotonic()
                most_s = max(SHORTEST_S, SLOWER * pace * each.cost_s) if left_s < float("inf") else left_s
                row |= _guarded(each.make, min(left_s, most_s))
                bench.free()
                row["took_s"] = round(time.monotonic() - begun, 1)
                if "not_run" not in row and "failed" not in row:
                    took.append((each.cost_s, row["took_s"]))
            rows.append(row)
            file.write(json.dumps(row).encode() + b"\n")
            _replace(out / "table.md", table(rows))
            print(json.dumps(row), flush=True)
    return rows


class OutOfTime(BaseException):
    """A measurement took too long; not an `Exception`, which a library might handle."""


def _guarded(make: Callable[[], Row], most_s: float) -> Row:
    """The row, or why there is none. What fails in one measurement says nothing about the others."""
    try:
        with _stopped_after(most_s):
            return {name: _plain(value) for name, value in make().items()}
    except OutOfTime:
        return {"failed": f"stopped after {most_s:.0f} s"}
    except ModuleNotFoundError as error:
        return {"not_run": f"{error.name} is not installed"}
    except torch.OutOfMemoryError as error:
        return {"failed": f"out of memory: {_one_line(error)[:120]}"}
    except Exception as error:  # noqa: BLE001 - a kernel, the compiler, or a library of another version
        return {"failed": f"{type(error).__name__}: {_one_line(error)[:300]}"}


def _plain(value: object) -> object:
    """What JSON has: it has no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextmanager
def _stopped_after(most_s: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block after `most_s` seconds, as soon as Python gets its turn."""
    if most_s == float("inf") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(most_s, 1e-3), AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _replace(path: Path, text: str) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def table(rows: list[Row]) -> str:
    """Markdown, one line per measurement, section by section."""
    lines = ["| section | what | ours | beside | ratio | goal | more |", "|---|---|---|---|---|---|---|"]
    order = {section.__name__: place for place, section in enumerate(SECTIONS)}
    for row in sorted(rows, key=lambda each: order.get(each["section"], len(order))):
        ratio, goal = row.get("ratio"), row.get("goal")
        if ratio is not None and isinstance(goal, int | float):
            goal = f"{goal}, {'reached' if ratio >= goal else 'missed'}"
        said = ("section", "what", "ours_s", "per_s", "theirs_s", "ratio", "goal", "took_s")
        more = [f"{name} {_shown(value)}" for name, value in row.items() if name not in said and value is not None]
        ours = [_seconds(row["ours_s"])] if "ours_s" in row else []
        ours += [f"{_shown(row['per_s'])}/s"] if "per_s" in row else []
        beside = _seconds(row["theirs_s"]) if "theirs_s" in row else ""
        cells = (row["section"], row["what"], ", ".join(ours), beside, _shown(ratio), _shown(goal), ", ".join(more))
        lines.append(f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.3g} ms"
