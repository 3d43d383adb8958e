"""The measures of evaluation at full size, each in a process of its own with one thread: CPU time and peak memory.

`python -m benchmarks.evaluation_speed MEASURE FOLDER` is such a process.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data

from benchmarks.dedup_speed import peak_gb
from evaluation.features import inception_features
from evaluation.frechet import Moments, frechet_distance, jackknife, moments, standard_error
from evaluation.inception import Inception
from evaluation.manifold import precision_recall
from evaluation.mmd import cmmd, kid
from evaluation.resize import INCEPTION_PROTOCOLS
from models.fetching import place_of
from models.weights import FID_INCEPTION
from tests.evaluation.conftest import evaluation_of, write_trained

NUM_ROWS, NUM_FEATURES, NUM_EMBEDDED = 30_000, 2_048, 768
NUM_NEIGHBOURS = 10_000
NUM_PICTURES = 24
GIB = 2**30


def write_features(folder: Path) -> None:
    """Two sets as Inception gives them, at least 0 and of unlike spreads, and two of unit length as CLIP's."""
    rng = np.random.default_rng(1)
    spread = np.geomspace(0.05, 1, NUM_FEATURES, dtype=np.float32)
    for name, shift in (("a", 0.0), ("b", 0.1)):
        rows = np.maximum(rng.standard_normal((NUM_ROWS, NUM_FEATURES), dtype=np.float32) + shift, 0) * spread
        np.save(folder / f"inception_{name}.npy", rows)
        rows = rng.standard_normal((NUM_ROWS, NUM_EMBEDDED), dtype=np.float32) + np.float32(0.5 + shift)
        np.save(folder / f"clip_{name}.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))


def features(folder: Path, network: str, mapped: bool = False) -> list[np.ndarray]:
    return [np.load(folder / f"{network}_{name}.npy", mmap_mode="r" if mapped else None) for name in "ab"]


def fid(folder: Path) -> Callable[[], float]:
    """From features on disk, reading included."""

    def run() -> float:
        x, y = (moments(rows) for rows in features(folder, "inception", mapped=True))
        return frechet_distance(*x, *y)

    return run


def fid_from_moments(folder: Path) -> Callable[[], float]:
    """From means and covariances."""
    x, y = (moments(rows) for rows in features(folder, "inception", mapped=True))
    return lambda: frechet_distance(*x, *y)


def fid_of_few(folder: Path) -> Callable[[], float]:
    """From moments of fewer rows than features, which takes singular values."""
    x, y = (moments(rows[:1000]) for rows in features(folder, "inception", mapped=True))
    return lambda: frechet_distance(*x, *y)


def fid_jackknife(folder: Path) -> Callable[[], float]:
    """From the moments of tenths."""
    x, y = features(folder, "inception", mapped=True)
    parts, reference = [Moments.of(part) for part in np.array_split(x, 10)], moments(y)
    return lambda: standard_error(jackknife(parts, *reference))


def cmmd_in_full(folder: Path) -> Callable[[], float]:
    """30,000 x 30,000 pairs three times, of 768."""
    x, y = features(folder, "clip")
    return lambda: cmmd(x, y)


def kid_of_100(folder: Path) -> Callable[[], float]:
    """100 subsets of 1,000."""
    x, y = features(folder, "inception")
    return lambda: kid(x, y).mean


def manifold(folder: Path) -> Callable[[], float]:
    """10,000 rows a side."""
    x, y = (rows[:NUM_NEIGHBOURS] for rows in features(folder, "inception", mapped=True))
    return lambda: precision_recall(x, y).precision


def network(folder: Path) -> Callable[[], float]:
    """The network alone, over pictures that are resized already."""
    loaded, pictures = Inception.load(), _pictures()
    inputs = torch.stack([INCEPTION_PROTOCOLS["clean"].network_input(pixels) for pixels in pictures])

    def run() -> float:
        with torch.inference_mode():
            return float(torch.cat([loaded(part) for part in inputs.split(8)]).mean())

    return run


def from_files(folder: Path) -> Callable[[], float]:
    """The same pictures as JPEG: decoded, checked to be whole and resized on threads, and the network."""
    files = []
    for pixels in _pictures():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    loaded = Inception.load()
    return lambda: float(inception_features(files, network=loaded, device="cpu", batch=8).rows.mean())


def resume(folder: Path) -> Callable[[], float]:
    """`sigma evaluate` of an evaluation with five prompts that has nothing left to do, start of Python included."""
    (folder / "trained").mkdir()
    write_trained(folder / "trained")
    (folder / "evaluation.yaml").write_text(json.dumps(evaluation_of(folder / "trained", folder)))
    command = [str(Path(sys.executable).with_name("sigma")), "evaluate", str(folder / "evaluation.yaml")]

    def run() -> float:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return float("finished already" in done.stdout)

    run()
    return run


def _pictures() -> list[np.ndarray]:
    """Photographs of 512 px, which compress as such."""
    photographs = [data.astronaut(), data.cat(), data.coffee(), data.rocket()]
    crops = [np.asarray(Image.fromarray(photograph).resize((512, 512))) for photograph in photographs]
    return [np.ascontiguousarray(np.rot90(crops[i % 4], i // 4)) for i in range(NUM_PICTURES)]


SIZES = f"{NUM_ROWS:,} x {NUM_FEATURES:,} a side"
ROWS: dict[str, tuple[Callable[[Path], Callable[[], float]], str]] = {
    f"FID from features on disk, {SIZES}": (fid, "8 s, 1.2 GiB in all"),
    "FID from moments": (fid_from_moments, "2 s"),
    "FID from moments of 1,000 rows": (fid_of_few, ""),
    "jackknife of FID, 10 groups, from their moments": (fid_jackknife, "15 s"),
    f"CMMD, {NUM_ROWS:,} x {NUM_ROWS:,} x {NUM_EMBEDDED}": (cmmd_in_full, "60 s, 0.5 GiB over the inputs"),
    "KID, 100 subsets of 1,000": (kid_of_100, "15 s"),
    f"precision and recall, {NUM_NEIGHBOURS:,} rows a side": (manifold, ""),
    f"Inception, {NUM_PICTURES} pictures": (network, ""),
    f"the same from JPEG files of 512 px, {NUM_PICTURES} pictures": (from_files, "0.9 of the row above"),
    "resume of a finished evaluation": (resume, "2 s"),
}


def measure(place: int, folder: Path) -> dict[str, Any]:
    """One row in this process: CPU seconds, those of its children too, the peak of its memory, and the peak beyond
    what it had before. The short ones are the best of five."""
    make = list(ROWS.values())[place][0]
    run, before, seconds = make(folder), peak_gb(), list[float]()
    for _ in range(5 if make in (network, from_files, resume) else 1):
        begun = sum(os.times()[:4])
        value = run()
        seconds.append(sum(os.times()[:4]) - begun)
    return {"cpu_s": min(seconds), "peak_gb": peak_gb(), "before_gb": before, "value": value}


def evaluation_speed(folder: Path) -> Iterator[str]:
    """Every measure, one line each; the network's where its weights are here."""
    write_features(folder)
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for place, (name, (make, goal)) in enumerate(ROWS.items()):
        if make in (network, from_files) and place_of(FID_INCEPTION) is None:
            continue
        command = [sys.executable, "-m", "benchmarks.evaluation_speed", str(place), str(folder)]
        done = subprocess.run(command, env=os.environ | single, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        peak, more = (gb * 1e9 / GIB for gb in (found["peak_gb"], found["peak_gb"] - found["before_gb"]))
        memory = "" if make is resume else f", peak {peak:.2f} GiB, {more:.2f} of it over what was there"
        yield f"| {name} | {found['cpu_s']:.2f} CPU-s{memory} | | | {goal} |"


BENCHMARKS = (evaluation_speed,)

if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), Path(sys.argv[2]))))
