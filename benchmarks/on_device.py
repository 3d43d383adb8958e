"""Exported models beside torch: seconds, files and memory of each recipe, every measurement in a process of its own.

`python -m benchmarks.on_device [depth]` writes XL/2's width with random weights, exports it and measures it at 512 px;
`python -m benchmarks on_device` does that at depth 2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from training.export.weights import StoredModel, write_weights
from training.model import KVCompression, PixArt, PixArtConfig
from training.runtimes.report import peak_bytes

SIDE_PX, TOKENS, ROUNDS = 512, 120, 3
RECIPES = ("fp32", "bf16", "int8-dynamic", "int4-g128")
SPEED_GOAL, FILE_GOAL = 2.5, 0.15
PEAK_GOAL_GB = {"int8-dynamic": 1.5, "int4-g128": 1.0}


def write_random(path: Path, depth: int) -> None:
    """XL/2's width with random weights, the later half of its blocks with KV compression, and no output zero."""
    torch.manual_seed(0)
    compression = KVCompression(layers=tuple(range(depth // 2, depth)), ratio=2)
    model = PixArt(PixArtConfig(depth=depth, kv_compression=compression))
    for block in model.blocks:
        torch.nn.init.xavier_uniform_(block.get_parameter("cross_attn.proj.weight"))
    torch.nn.init.xavier_uniform_(model.final_layer.linear.weight)
    write_weights(StoredModel(path, model.state_dict(), model.config, ()), path, "sigma")


def measure(source: Path, dtype: str = "fp32") -> dict[str, float]:
    """CPU seconds per forward of an export, or of weights in torch, on one thread, and the peak of this process."""
    from training.runtimes.denoiser import Denoiser, eager, load_runtime

    torch.set_num_threads(1)
    begun = time.process_time()
    if source.is_dir():
        denoise: Denoiser = load_runtime(source, threads=1)
    else:
        from training.export.weights import read_model
        from training.runtimes.export import assembled

        model = assembled(read_model(source))
        denoise = eager(model if dtype == "fp32" else model.bfloat16())
    loaded = time.process_time() - begun
    side = SIDE_PX // 8
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, side, side, generator=generator)
    caption = torch.randn(1, TOKENS, 4096, generator=generator)
    seconds = []
    for _ in range(ROUNDS + 1):
        begun = time.process_time()
        noise = denoise(latents, torch.tensor([500.0]), caption)
        seconds.append(time.process_time() - begun)
    assert noise.isfinite().all()
    return {"load_s": loaded, "forward_s": sorted(seconds[1:])[ROUNDS // 2], "peak_gb": peak_bytes() / 1e9}


def in_process(what: str, *arguments: object) -> dict[str, Any]:
    """Run one of this module's tasks in a fresh process on one thread."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.on_device", what, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def export(source: Path, target: Path, recipe: str) -> dict[str, float]:
    """Export, and say the CPU seconds, the peak and the largest error."""
    from training.runtimes.export import export_model

    torch.set_num_threads(1)
    begun = time.process_time()
    done = export_model(source, target, "openvino", recipe)  # type: ignore[arg-type]
    error = max(each.relative_error for each in done.manifest.parity)
    return {"export_s": time.process_time() - begun, "export_peak_gb": peak_bytes() / 1e9, "error": error}


def rows(depth: int, folder: Path, recipes: tuple[str, ...] = RECIPES) -> dict[str, dict[str, float]]:
    """Every recipe's figures at a depth, and torch's in fp32 and bf16."""
    source = folder / "model.safetensors"
    write_random(source, depth)
    found = {}
    if recipes == RECIPES:
        found = {f"torch {dtype}": in_process("measure", source, dtype) for dtype in ("fp32", "bf16")}
    for recipe in recipes:
        target = folder / recipe
        figures = in_process("export", source, target, recipe)
        size = sum(path.stat().st_size for path in target.iterdir() if path.name.startswith("model."))
        found[f"openvino {recipe}"] = figures | in_process("measure", target) | {"file_mb": size / 1e6}
    return found


def main() -> None:
    """A task of `in_process`, or the table at a depth."""
    what, *given = sys.argv[1:] or ["2"]
    if what == "measure":
        print(json.dumps(measure(Path(given[0]), *given[1:])))
    elif what == "export":
        print(json.dumps(export(Path(given[0]), Path(given[1]), given[2])))
    else:
        with tempfile.TemporaryDirectory() as folder:
            for name, figures in rows(int(what), Path(folder), tuple(given) or RECIPES).items():
                shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
                print(f"| {name} | {shown} | load {os.getloadavg()[0]:.1f} |", flush=True)


def on_device(folder: Path) -> Iterator[str]:
    """One line per comparison at depth 2, for the table of all benchmarks."""
    found = rows(2, folder)
    plain, whole = found["torch fp32"]["forward_s"], found["openvino fp32"]["file_mb"]
    for recipe in RECIPES[1:]:
        of = found[f"openvino {recipe}"]
        goal = f"{SPEED_GOAL}" if recipe == "int8-dynamic" else ""
        yield (
            f"| XL/2's width, depth 2, {SIDE_PX} px, OpenVINO {recipe} beside torch in fp32 "
            f"| {of['forward_s']:.3f} CPU-s | {plain:.3f} CPU-s | {plain / of['forward_s']:.1f}x | {goal} |"
        )
    share = found["openvino int4-g128"]["file_mb"] / whole
    yield (
        f"| its int4 file over fp32 | {found['openvino int4-g128']['file_mb']:.0f} MB | {whole:.0f} MB | {share:.1%} "
        f"| {FILE_GOAL:.0%} |"
    )


BENCHMARKS = (on_device,)

if __name__ == "__main__":
    main()
