"""How busy the jobs that show pictures and captions to a model keep a GPU: a stand-in of known time takes its place.

`python -m benchmarks encoder_overhead`; with devices of a fifth of the speed `python -m benchmarks.encoder_overhead .2`
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from benchmarks.loader_speed import write_shards
from benchmarks.made_captions import CaptionWriter
from benchmarks.screens_sheet import photo
from captioning import ground
from curation.scores import aesthetic, screen
from curation.scores.classifier import ImageClassifier
from engine.dataset import Dataset
from engine.job import State
from engine.map_job import MapJob
from engine.ray_worker import PartWorker
from engine.runner import LocalRunner, Queue
from models.clip import Clip
from models.preprocessing import Pixels, Preprocessing
from schemas import tables
from schemas.recipe import DataRecipe
from schemas.training import TrainingRecipe
from tests.building import put, table_of
from tests.tiny_models import clip_tokenizer_files, save_aesthetic_head
from tests.training.encoding import encode
from training.encoders.offline import HashedText

GOAL = 0.95
PROXY_PX, ORIGINAL_PX = (1024, 683), (1536, 1024)
NUM_PARTS, PART_ROWS, DISTINCT = 4, 512, 64
NUM_SHARDS, SHARD_ROWS = 5, 100
WIDTH = 768
T5_WIDTH = 4096
CAPTION_TOKENS = 53
"""Of a caption of `write_shards`."""
RATES = {"aesthetic": 100, "screens": 100, "ground": 75, "latents": 40, "text": 125}
"""Pictures or captions a second of the stand-ins, on an idle machine."""
Wait = Callable[[], None]


class Device:
    """It is given work and does it in that order, each piece in its time. This process has nothing to do for it."""

    def __init__(self) -> None:
        self.busy_s = self._free_at = 0.0
        self._lock = Lock()

    def give(self, seconds: float) -> Wait:
        """Return the function that waits until the work is done."""
        with self._lock:
            self.busy_s += seconds
            self._free_at = done_at = max(time.perf_counter(), self._free_at) + seconds
        return lambda: time.sleep(max(0.0, done_at - time.perf_counter()))


class PacedClip(Clip):
    """CLIP ViT-L/14 without its networks: its own preprocessing, a tokenizer of letters, and the time of a device."""

    def __init__(self, device: Device, picture_s: float, text_s: float) -> None:
        from transformers import CLIPImageProcessorPil, CLIPTokenizer

        vocabulary, merges = clip_tokenizer_files()
        self._tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
        self.shown, self.name, self.max_tokens = Preprocessing(CLIPImageProcessorPil()), "paced", 77
        self._device, self._picture_s, self._text_s = device, picture_s, text_s

    @property
    def dim(self) -> int:
        return WIDTH

    def embedding_pixels(self, pixels: Sequence[Pixels]) -> Callable[[], np.ndarray]:
        np.stack(pixels)
        return self._after(len(pixels), self._picture_s)

    def embedding_tokens(self, texts: Sequence[list[int]]) -> Callable[[], np.ndarray]:
        return self._after(len(texts), self._text_s)

    def _after(self, count: int, seconds: float) -> Callable[[], np.ndarray]:
        wait, found = self._device.give(count * seconds), np.ones((count, WIDTH), np.float32)
        return lambda: (wait(), found)[1]


class PacedClassifier(ImageClassifier):
    """A ViT of 224 px in the same way."""

    def __init__(self, device: Device, picture_s: float) -> None:
        from transformers import ViTImageProcessorPil

        self.shown, self.name, self._paced = Preprocessing(ViTImageProcessorPil()), "paced", (device, picture_s)

    def scoring(self, pixels: Sequence[Pixels]) -> Callable[[], np.ndarray]:
        np.stack(pixels)
        device, picture_s = self._paced
        wait = device.give(len(pixels) * picture_s)
        return lambda: (wait(), np.zeros(len(pixels), np.float32))[1]


class PacedVae:
    """A VAE whose moments come at the time of a device. They are waited for where they are copied back from a GPU."""

    channels, scale = 4, 1.0

    def __init__(self, device: Device, picture_s: float) -> None:
        self._device, self._picture_s = device, picture_s
        self._waits: dict[int, tuple[Wait, torch.Tensor]] = {}

    def moments(self, pixels: torch.Tensor) -> torch.Tensor:
        """Of (B, 3, H, W)."""
        found = torch.zeros(len(pixels), 2, 4, pixels.shape[2] // 8, pixels.shape[3] // 8)
        self._waits[id(found)] = self._device.give(len(pixels) * self._picture_s), found
        return found

    def coming_back(self, result: torch.Tensor) -> Callable[[], torch.Tensor]:
        """In place of `models.device.coming_back`."""
        wait, found = self._waits.pop(id(result))
        return lambda: (wait(), found)[1]


class PacedT5(HashedText):
    """T5-XXL in bf16 at the time of a device: a tokenizer of words, vectors of the real width."""

    def __init__(self, device: Device, token_s: float) -> None:
        super().__init__(16, 300)
        self._device, self._token_s = device, token_s
        self._vectors = torch.randn(32, 300, T5_WIDTH).bfloat16()

    def encoding(self, captions: Sequence[tuple[int, ...]]) -> Callable[[], Iterable[torch.Tensor]]:
        wait = self._device.give(sum(map(len, captions)) * self._token_s)
        found = self._vectors[: len(captions), : len(captions[0])].clone()
        return lambda: (wait(), found)[1]


def encoder_overhead_of_proxies(folder: Path, factor: float = 1.0) -> Iterator[str]:
    """The share of a worker's wall time in which a device is at work, for each job that looks at proxies, from reading
    the first part to the commit of the last; and the CPU time of the process.

    Args:
        factor: of the device's rate: less than 1 on a machine whose cores are at other work.
    """
    dataset, writer = Dataset(folder), CaptionWriter(0)
    jpegs = _jpegs(PROXY_PX)
    captions = [writer.synthetic() for _ in range(DISTINCT)]
    for number in range(NUM_PARTS):
        rows = [
            {"row_id": row, "image_id": f"{row:032x}", "jpeg": jpegs[row % DISTINCT], "width": 4000, "height": 2667,
             "source": "s", "source_name": "s", "member": "m", "captioner": "c", "parameters": "{}",
             "caption": captions[row % DISTINCT]}
            for row in range(number * PART_ROWS, (number + 1) * PART_ROWS)
        ]  # fmt: skip
        for table in ("listing", "images", "proxies", "captions"):
            put(dataset, table, number, _table(table, rows))
        put(dataset, "nouns", number, tables.schema_of("nouns").empty_table())
    head = save_aesthetic_head(folder / "head.pth", WIDTH)
    classifiers: dict[str, dict[str, str]] = {"nsfw": {}, "watermark": {}}
    recipe = DataRecipe.from_mapping(
        {"images": "a", "out": "b", "aesthetic": {"scorer": "laion", "head": str(head)}, "ground": {"enabled": True},
         "screen": {"classifiers": classifiers}}
    )  # fmt: skip
    for name, job in (("aesthetic", aesthetic), ("screens", screen), ("ground", ground)):
        rate, device = RATES[name] * factor, Device()
        picture_s = 1 / rate if name == "aesthetic" else 0.5 / rate
        clip = PacedClip(device, picture_s, 0.5 / rate / _num_sentences(captions))
        vit = PacedClassifier(device, 1 / rate / len(classifiers))
        with (
            mock.patch.object(Clip, "load", lambda *_, clip=clip, **__: clip),
            mock.patch.object(ImageClassifier, "load", lambda *_, vit=vit, **__: vit),
        ):
            yield _row(name, rate, device, NUM_PARTS * PART_ROWS, partial(_run, dataset, job.map_job(recipe)))


def _num_sentences(captions: Sequence[str]) -> float:
    return float(np.mean([len(ground.sentences(caption)) for caption in captions]))


def _run(dataset: Dataset, stage: MapJob) -> None:
    stage.prepare(dataset, State.NEW, redo=True)
    tasks = stage.tasks(dataset.held(), range(NUM_PARTS))
    OneActor().run(dataset, stage, tasks, lambda *_: None)


class OneActor(LocalRunner):
    """Computes parts as an actor with a GPU does, two at a time."""

    def run_queues(self, dataset: Dataset, queues: Sequence[Queue]) -> None:
        """See `engine.runner.Runner`."""
        actor = PartWorker(str(dataset.root), holds_one=True)
        with ThreadPoolExecutor(2) as threads:
            for place, queue in enumerate(queues):
                tasks = [queue.take() for _ in range(len(queue.waiting))]
                done = threads.map(partial(actor.run, 0, place, queue.job), tasks)
                for task, (part, _) in zip(tasks, done, strict=True):
                    queue.committed(task, part)


def encoder_overhead_of_shards(folder: Path, factor: float = 1.0) -> Iterator[str]:
    """The same of the features of pictures at 512 px and of captions."""
    num_samples = NUM_SHARDS * SHARD_ROWS
    write_shards(folder / "images" / "shards", _jpegs(ORIGINAL_PX), ORIGINAL_PX, num_samples // DISTINCT, SHARD_ROWS)
    recipe = TrainingRecipe.from_mapping(
        {"dataset": str(folder / "images"), "out": str(folder / "out"), "latents": {"channels": 4},
         "features": {"folder": str(folder / "features"), "pictures_at_once": 16}, "text": {"channels": 16},
         "stages": [{"name": "s", "resolution": 512, "steps": 1}]}
    )  # fmt: skip
    for name in ("latents", "text"):
        rate, device = RATES[name] * factor, Device()
        vae, t5 = PacedVae(device, 1 / rate), PacedT5(device, 1 / rate / CAPTION_TOKENS)
        with (
            mock.patch("engine.runner.LocalRunner", OneActor),
            mock.patch("training.shard_encoders.codec_for", lambda *_, vae=vae, **__: vae),
            mock.patch("training.shard_encoders.coming_back", vae.coming_back),
            mock.patch("training.shard_encoders.text_encoder_for", lambda *_, t5=t5: t5),
        ):
            yield _row(name, rate, device, num_samples, partial(encode, recipe, kind=name, redo=True))


def _row(name: str, rate: float, device: Device, count: int, run: Callable[[], Any]) -> str:
    begun, cpu = time.perf_counter(), time.process_time()
    run()
    took_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    share, load = device.busy_s / took_s, os.getloadavg()[0]
    return (
        f"| `{name}`, a device of {rate:g} a second: share of the worker's time in it | {share:.3f} | "
        f"{1e3 * cpu_s / count:.1f} ms of CPU each, {cpu_s / took_s:.2f} cores, load {load:.0f} | | {GOAL}, "
        f"{'reached' if share >= GOAL else 'missed'} |"
    )


def _jpegs(size: tuple[int, int]) -> list[bytes]:
    """Photographs with some grain, no two alike."""
    rng, found = np.random.default_rng(0), []
    for number in range(DISTINCT):
        name = ("coffee.png", "astronaut.png", "chelsea.png", "rocket.jpg")[number % 4]
        pixels = np.asarray(photo(name).resize(size, Image.Resampling.BICUBIC), np.int16)
        grain = rng.integers(-5, 6, pixels.shape, np.int16)
        file = io.BytesIO()
        Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def _table(name: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    columns = tables.SCHEMAS[name].names
    return table_of(name, ({key: value for key, value in row.items() if key in columns} for row in rows))


BENCHMARKS = (encoder_overhead_of_proxies, encoder_overhead_of_shards)


def main() -> None:
    """With the factor of the devices' rates."""
    for benchmark in BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder:
            for line in benchmark(Path(folder), float(sys.argv[1])):
                print(line, flush=True)


if __name__ == "__main__":
    main()
