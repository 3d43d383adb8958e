"""Ten ratios beside the bounds they may not fall below, in about a minute and a half; `make bench-smoke`.

Each ratio is of CPU time in one process, so that another machine, or other work on this one, moves it little. The
bounds are about two thirds of what was measured, so that a regression is seen and a busy machine is none. A ratio that
falls below its bound is measured once more, and the better one counts.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import spacy
import torch
import webdataset
from PIL import Image

from benchmarks import captioning_speed, dedup_speed, long_captions, noun_speed
from benchmarks.curation_speed import write_photos
from benchmarks.kv_compression import half_compressed, saving
from benchmarks.loader_speed import bucket_of, cover_and_crop, write_shards
from benchmarks.peers_probe import write_many
from benchmarks.training_step import Batch, caption_lengths, diffusers_twin
from captioning.captioners.share_captioner import Decoding
from captioning.nouns import LEXICON, load_extractor
from curation.ingest.headers import Listed, header_row
from schemas.buckets import sizes
from schemas.pixels import MAX_PIXELS
from schemas.shard_index import ShardIndex
from training.data.reader import ShardReader
from training.data.selection import Selection
from training.model import PixArt, PixArtConfig

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Check:
    """A ratio, higher is better, and the least it may be."""

    what: str
    """Ours over what, of the same work."""
    bound: float
    measure: Callable[[Path], float]
    """From an empty folder to the ratio."""


def spent(work: Callable[[], object]) -> float:
    """CPU seconds of this process for one call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def against(ours: Callable[[], object], theirs: Callable[[], object], rounds: int = 3) -> float:
    """Best time of theirs over the best of ours, in turn, after a call of each that is not counted."""
    ours(), theirs()
    pairs = [(spent(ours), spent(theirs)) for _ in range(rounds)]
    return min(their for _, their in pairs) / min(our for our, _ in pairs)


def headers(folder: Path) -> float:
    write_many(folder / "photos", 2000)
    paths = sorted((folder / "photos").iterdir())
    rows: list[Listed] = [
        (number, str(folder / "photos"), path.name, None, None, None, None) for number, path in enumerate(paths)
    ]

    def pillow() -> None:
        for path in paths:
            with Image.open(path) as image:
                assert image.size

    return against(lambda: [header_row(row, MAX_PIXELS) for row in rows], pillow)


def nouns(_: Path) -> float:
    extractor, blank = load_extractor(LEXICON), spacy.blank("en")
    texts = iter([noun_speed.captions("raw", 1024, seed) for seed in range(8)])  # neither may know them from before
    return against(lambda: noun_speed.extract(extractor, next(texts)), lambda: noun_speed.tokenize(blank, next(texts)))


def long_caption(_: Path) -> float:
    """The worst of a few jobs and kinds: a text of 20,000 characters over one of a million."""
    short, long = (long_captions.texts(number) for number in (20_000, 1_000_000))
    jobs = long_captions.jobs()
    ratios = []
    for job in ("clean", "caption", "nouns"):
        for kind in ("sentences", "brackets in no order", "quotation marks"):
            ratios.append(against(partial(jobs[job], long[kind]), partial(jobs[job], short[kind]), 2))
    return min(ratios)


def dedup_growth(folder: Path) -> float:
    small, large = (dedup_speed.measure(folder / str(rows), rows) for rows in (100_000, 400_000))
    assert large["recall"] == 1, "a planted pair is not found"
    seconds = [found["dedup_cpu"] + found["select_cpu"] for found in (small, large)]
    return 4 * seconds[0] / seconds[1]


def batched_captions(_: Path) -> float:
    captioner = captioning_speed.random_captioner(captioning_speed.TINY, "cpu", torch.float32)
    pictures = captioning_speed.pictures_of_noise(24)
    decoding = Decoding("greedy", max_new_tokens=24)
    return against(
        lambda: captioning_speed.ids_of(captioner, pictures, decoding),
        lambda: captioning_speed.ids_one_by_one(captioner, pictures, decoding),
        1,
    )


def samples_read(folder: Path) -> float:
    size = (640, 427)
    pictures = [path.read_bytes() for path in write_photos(folder / "photos", 4, size)]
    urls = write_shards(folder / "shards", pictures, size, 500)
    reader = ShardReader(folder / "shards", Selection(ShardIndex(folder / "shards")))
    rows = np.random.default_rng(0).permutation(len(reader)).tolist()
    return against(
        lambda: [reader.members(row) for row in rows],
        lambda: sum(1 for _ in webdataset.WebDataset(urls, shardshuffle=False)),
    )


def pictures_decoded(folder: Path) -> float:
    pictures = [path.read_bytes() for path in write_photos(folder / "photos", 6)]
    size = Image.open(io.BytesIO(pictures[0])).size
    urls = write_shards(folder / "shards", pictures, size, 1)
    reader = ShardReader(folder / "shards", Selection(ShardIndex(folder / "shards")))
    shape = sizes(512)[bucket_of(size)]
    return against(
        lambda: [reader.read(row, shape) for row in range(len(reader))],
        lambda: [
            np.asarray(cover_and_crop(sample["jpg"], shape)).transpose(2, 0, 1)
            for sample in webdataset.WebDataset(urls, shardshuffle=False).decode("pil")
        ],
        2,
    )


def training_step(_: Path) -> float:
    ours = PixArt(PixArtConfig(depth=1, image_size=256, pe_interpolation=0.5))
    theirs = diffusers_twin(ours)
    inputs = Batch.random(ours.config, (16, 16), caption_lengths(ours.config, 2), CPU)
    return against(partial(inputs.ours, ours), partial(inputs.theirs, theirs), 2)


def kv_compression(_: Path) -> float:
    return saving(half_compressed(1024, 1), 64, 1, CPU, rounds=2, backward=False).reached


def start(_: Path) -> float:
    """The command's help beside Python that imports what the command line is made of."""

    def run(*arguments: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    pairs = [(run("-m", "sigma", "--help"), run("-c", "import typer, rich.console, rich.table")) for _ in range(4)]
    return min(bare for _, bare in pairs) / min(ours for ours, _ in pairs)


CHECKS = (
    Check("sizes from headers, over Pillow's open", 0.45, headers),
    Check("nouns of raw captions, over spaCy's tokenizer alone", 0.35, nouns),
    Check("a text of 1 MB, over one of 20,000 characters", 0.05, long_caption),
    Check("dedup and select of 400,000 rows, over 4 times 100,000", 0.6, dedup_growth),
    Check("captions in a batch, over one by one through transformers", 2.0, batched_captions),
    Check("samples read in random order, over webdataset in tar order", 1.4, samples_read),
    Check("6 MP decoded to 512 px, over webdataset and Pillow", 1.5, pictures_decoded),
    Check("training step with captions of many lengths, over diffusers", 0.9, training_step),
    Check("time that KV compression saves at 1024 px, over the FLOPs", 0.6, kv_compression),
    Check("sigma --help, over the import of typer and rich", 0.3, start),
)


def run(checks: Sequence[Check], folder: Path) -> list[str]:
    """Print a line for each ratio; returns what fell below its bound."""
    missed = []
    for number, check in enumerate(checks):
        begun = time.perf_counter()
        ratio = check.measure(folder / f"{number}")
        if ratio < check.bound:
            ratio = max(ratio, check.measure(folder / f"{number}-again"))
        holds = ratio >= check.bound
        took = time.perf_counter() - begun
        print(f"{'ok    ' if holds else 'MISSED'} {ratio:6.2f}, at least {check.bound:<5g} {check.what} ({took:.0f} s)")
        if not holds:
            missed.append(f"{check.what}: {ratio:.2f}, at least {check.bound:g}")
    return missed


def main() -> None:
    """`python -m benchmarks.smoke [substring ...]`: the checks whose name holds one of them; 1 where one is missed."""
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or [""]
    checks = [check for check in CHECKS if any(part in check.what for part in wanted)]
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        missed = run(checks, Path(folder))
    print(f"{len(checks) - len(missed)} of {len(checks)} ratios hold, {time.perf_counter() - begun:.0f} s")
    sys.exit("slower than the bounds allow:\n" + "\n".join(missed) if missed else 0)


if __name__ == "__main__":
    main()
