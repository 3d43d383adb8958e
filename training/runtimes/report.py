"""What each export costs on this machine: every figure from a process of its own, which did nothing else."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.runtimes.manifest import MANIFEST, NULL_CAPTION_FILE, Manifest

COLUMNS = ("export", "file MB", "load s", "s a pass", "s a picture", "peak MB", "SQNR dB at timestep", "worst layers")
ROUNDS = 3
TOKENS = 120


def report(
    folders: Sequence[Path], *, size: tuple[int, int] | None = None, calls: int = 40, threads: int = 1
) -> Iterator[tuple[str, ...]]:
    """One row of `COLUMNS` per export.

    Args:
        size: (height, width) px of the passes; None is the size that the model was trained for.
        calls: passes of a picture: twice the steps where the sampler guides.

    Raises:
        ValueError: a folder is no export, was changed, or cannot draw the size.
    """
    manifests = [Manifest.read(folder) for folder in folders]
    shapes = []
    for manifest in manifests:
        side = manifest.architecture["image_size"]
        shape = size or next(iter(manifest.sizes.fixed), (side, side))
        manifest.sizes.refuse(*shape)
        shapes.append(shape)
    return (_row(*each, calls, threads) for each in zip(folders, manifests, shapes, strict=True))


def _row(folder: Path, manifest: Manifest, shape: tuple[int, int], calls: int, threads: int) -> tuple[str, ...]:
    found = _in_process(folder, shape, threads)
    graph = [name for name in manifest.files if name not in (MANIFEST, NULL_CAPTION_FILE)]
    return (
        f"{manifest.origin.stage or manifest.origin.name}, {manifest.runtime} {manifest.runtime_version}, "
        f"{manifest.recipe}, {shape[0]}x{shape[1]} px",
        f"{sum((folder / name).stat().st_size for name in graph) / 1e6:,.1f}",
        f"{found['load_s']:.2f}",
        f"{found['pass_s']:.3f}",
        f"{found['pass_s'] * calls:,.1f} ({calls} passes)",
        f"{found['peak_mb']:,.0f}",
        ", ".join(f"{decibel:.0f} at {timestep:g}" for timestep, decibel in signal(manifest)),
        ", ".join(f"{each.name} {each.relative_error:.1%}" for each in manifest.worst_layers) or "-",
    )


def signal(manifest: Manifest) -> list[tuple[float, float]]:
    """The lowest signal over error at each timestep, as the export measured it."""
    worst: dict[float, float] = {}
    for each in manifest.parity:
        worst[each.timestep] = min(worst.get(each.timestep, each.sqnr_db), each.sqnr_db)
    return sorted(worst.items())


def machine(threads: int) -> str:
    """One line on where this was measured, which no row is without."""
    name = next(
        (line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return f"{name}, {os.cpu_count()} cores, {threads} of them used, load {os.getloadavg()[0]:.1f}"


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _in_process(folder: Path, shape: tuple[int, int], threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", "training.runtimes.report", str(folder), *map(str, (*shape, threads))]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise ValueError(f"{folder}: cannot be measured ({said[-1].removeprefix('ValueError: ')})")
    return json.loads(done.stdout.splitlines()[-1])


def measured(folder: Path, shape: tuple[int, int], threads: int) -> dict[str, float]:
    """Load an export in this process and time passes of it: the median of `ROUNDS`, after one that is not counted."""
    import torch

    from training.model.pixart import LATENT_DOWNSAMPLING
    from training.runtimes.denoiser import load_runtime

    torch.set_num_threads(threads)
    begun = time.perf_counter()
    denoise = load_runtime(folder, threads)
    load_s = time.perf_counter() - begun
    config = denoise.config
    latents = torch.randn(1, config.in_channels, *(side // LATENT_DOWNSAMPLING for side in shape))
    caption = torch.randn(1, min(TOKENS, config.max_caption_tokens), config.caption_channels)
    seconds = []
    for _ in range(ROUNDS + 1):
        begun = time.perf_counter()
        denoise(latents, torch.tensor([500.0]), caption)
        seconds.append(time.perf_counter() - begun)
    pass_s = sorted(seconds[1:])[ROUNDS // 2]
    load_s += max(0.0, seconds[0] - pass_s)  # a graph is compiled as it is first used
    return {"load_s": load_s, "pass_s": pass_s, "peak_mb": peak_bytes() / 1e6}


def peak_bytes() -> int:
    """The most memory that this process has held.

    Of Linux's two answers that of `getrusage` counts the process that started this one too.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    where, *numbers = sys.argv[1:]
    rows, columns, used = map(int, numbers)
    print(json.dumps(measured(Path(where), (rows, columns), used)))
