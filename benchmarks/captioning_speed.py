"""Share-Captioner: batches against a loop, the job around the model, and, on a GPU, pictures per second at full size.

`python -m benchmarks.captioning_speed` builds the full model with random weights on a GPU, measures, and says how
many GPU-days 33 million pictures take. `--device cpu --tiny` runs the same lines on a toy.
"""

from __future__ import annotations

import argparse
import io
import resource
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from transformers import GenerationConfig

from benchmarks.captioning_cost import least_seconds
from benchmarks.made_captions import CaptionWriter
from benchmarks.share_captioner import FULL, IDS, NUM_PICTURES, TINY, random_model
from captioning import recaption
from captioning.captioners.base import Answer, Generated, InBatches, Plain
from captioning.captioners.share_captioner import Decoding, ShareCaptioner
from captioning.captioners.share_captioner.dimensions import Dimensions
from captioning.captioners.share_captioner.generation import Mode, generate_ids
from captioning.captioners.share_captioner.model import preprocess
from captioning.texts.gate import judge
from engine.dataset import Dataset
from engine.job import State
from schemas import tables
from schemas.recipe import DataRecipe
from tests.building import put


def random_captioner(dimensions: Dimensions, device: str, dtype: torch.dtype) -> ShareCaptioner:
    """The model with random weights and no tokenizer, made on the device."""
    return ShareCaptioner(random_model(dimensions, torch.device(device), dtype), None, "random")


def ids_of(captioner: ShareCaptioner, pictures: Sequence[Image.Image], decoding: Decoding) -> list[list[int]]:
    """Pictures to ids, all together; none ends before `max_new_tokens`."""
    prompt = captioner.prompt(preprocess(pictures, captioner.image_size), *IDS)
    return generate_ids(captioner.model.language, prompt, decoding, range(len(pictures)), [])


def ids_one_by_one(captioner: ShareCaptioner, pictures: Sequence[Image.Image], decoding: Decoding) -> list[list[int]]:
    """Pictures to ids by a plain loop over transformers' `generate`, greedily, as a script would do it."""
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        repetition_penalty=decoding.repetition_penalty,
        do_sample=False,
        eos_token_id=2**31 - 1,
        pad_token_id=2,
    )
    rows = []
    for picture in pictures:
        prompt = captioner.prompt(preprocess([picture], captioner.image_size), *IDS)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Passing `repetition_penalty`")
            rows += captioner.model.language.generate(inputs_embeds=prompt, generation_config=config).tolist()
    return rows


def pictures_of_noise(count: int) -> list[Image.Image]:
    """1024 x 768 px, no two alike."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 12, 16, 3), np.uint8)
    return [Image.fromarray(pixels).resize((1024, 768)) for pixels in small]


def share_captioner_batches(
    _folder: Path, num_pictures: int = 200, num_tokens: int = 40, batch: int = 25
) -> Iterator[str]:
    """A tiny random model in float32: batches against one picture after the other, same weights, same ids."""
    captioner = random_captioner(TINY, "cpu", torch.float32)
    pictures = pictures_of_noise(num_pictures)
    decoding = Decoding("greedy", max_new_tokens=num_tokens)
    ids_of(captioner, pictures[:2], decoding)
    best: dict[str, float] = {}
    for _ in range(3):
        begun = time.perf_counter()
        together = [
            ids for i in range(0, num_pictures, batch) for ids in ids_of(captioner, pictures[i : i + batch], decoding)
        ]
        middle = time.perf_counter()
        alone = ids_one_by_one(captioner, pictures, decoding)
        ended = time.perf_counter()
        assert together == alone, "a batch gives other captions"
        best = {
            "ours": min(best.get("ours", 1e9), middle - begun),
            "plain": min(best.get("plain", 1e9), ended - middle),
        }
    ours, plain = num_pictures / best["ours"], num_pictures / best["plain"]
    yield (
        f"| Share-Captioner, tiny, greedy, {num_tokens} tokens, batches of {batch} against a loop | "
        f"{ours:.0f} pictures/s | {plain:.0f} pictures/s | {ours / plain:.1f} |"
    )


class TinyCaptioner(InBatches):
    """The tiny Share-Captioner as a captioner of the job: real pixels, vision tower and decoding, made-up words."""

    name, revision, prompt, retries_help, batch_size = "tiny", None, None, False, 8

    def __init__(self, num_tokens: int) -> None:
        self.parameters: dict[str, Plain] = {"max_new_tokens": num_tokens}
        self._decoding = Decoding("greedy", max_new_tokens=num_tokens)
        self._captioner = random_captioner(TINY, "cpu", torch.float32)
        writer = CaptionWriter(0)
        self._texts = [writer.synthetic() for _ in range(64)]

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Answer]:
        """The model's time and count of tokens, with a text as long as the paper's: its own would be no language."""
        found = ids_of(self._captioner, images, self._decoding)
        return [
            Generated(self._texts[seed % len(self._texts)], True, len(ids))
            for seed, ids in zip(seeds, found, strict=True)
        ]


def recaption_overhead(folder: Path, num_parts: int = 5, rows: int = 96, num_tokens: int = 180) -> Iterator[str]:
    """The worker of `caption` on parts of proxies of 1024 px: the share of its wall time outside the captioner, which
    is reading, decoding, the gate, the journal and commits; and its peak memory after 2 parts and after `num_parts`.

    A caption has 180 tokens, as long as a real one, which take 0.1 to 0.2 s a picture on a core: what a small model may
    take on a GPU. The slower the model, the higher its share.
    """
    dataset = Dataset(folder)
    jpegs = []
    for picture in pictures_of_noise(rows):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        jpegs.append(file.getvalue())
    for number in range(num_parts):
        ids = [f"{number * rows + row:032x}" for row in range(rows)]
        proxies = _proxies(number * rows, ids, jpegs)
        listed = [{"row_id": row, "source": "s", "source_name": "s", "member": "m"} for row in range(rows)]
        put(dataset, "listing", number, pa.Table.from_pylist(listed, schema=tables.schema_of("listing")))
        put(dataset, "proxies", number, proxies)
        put(dataset, "selection", number, _all_kept(num_parts * rows).slice(number * rows, rows))
    (stage,) = recaption.map_jobs(DataRecipe(images="photos", out=str(folder)))
    counts: Counter[str] = Counter()
    worker = recaption.Recaptioner(lambda: TinyCaptioner(num_tokens), threads=1)
    peaks_mb: dict[int, float] = {}
    judge("Ein Hund liegt auf der Wiese.")  # loads the model of languages, once per worker
    stage.prepare(dataset, State.NEW, redo=False)
    for task in stage.tasks(dataset.held(), range(num_parts)):
        stage.run_part(dataset, lambda: worker, task, lambda rows, more={}: counts.update(more))
        peaks_mb[task.number + 1] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    overhead_s = counts["worker_s"] - counts["model_s"]
    yield (
        f"| a captioning worker's time outside the model, tiny, {num_tokens} tokens, "
        f"{1e3 * counts['model_s'] / counts['images']:.0f} ms a picture | {overhead_s / counts['worker_s']:.1%}, "
        f"{1e3 * overhead_s / counts['images']:.1f} ms a picture | | | 5 % |"
    )
    yield (
        f"| its peak memory after {num_parts} parts, and after 2 | {peaks_mb[num_parts]:.0f} MB | "
        f"{peaks_mb[2]:.0f} MB | {peaks_mb[num_parts] / peaks_mb[2]:.2f} | |"
    )


def _proxies(first: int, image_ids: list[str], jpegs: list[bytes]) -> pa.Table:
    columns = {"row_id": range(first, first + len(jpegs)), "image_id": image_ids, "jpeg": jpegs}
    nothing = [None] * len(jpegs)
    return pa.table(
        {field.name: pa.array(columns.get(field.name, nothing), field.type) for field in tables.schema_of("proxies")},
        schema=tables.schema_of("proxies"),
    )


def _all_kept(num_rows: int) -> pa.Table:
    row: dict[str, object] = {"image_id": None, "kept": True, "subsets": []}
    return pa.Table.from_pylist(
        [{"row_id": number, **row} for number in range(num_rows)], schema=tables.schema_of("selection")
    )


def share_captioner_gpu(
    device: str, tiny: bool, num_tokens: int, batches: Sequence[int], bytes_per_s: float
) -> Iterator[str]:
    """Pictures per second and GPU-days for 33 million, by decoding and batch size; random weights, no early end.

    The last column is the time that the device needs for the weights, keys and values of each step, over the time that
    the decoding took; the goal is 30 % for `greedy` at 64.
    """
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    begun = time.perf_counter()
    captioner = random_captioner(TINY if tiny else FULL, device, dtype)
    size_gb = sum(parameter.nbytes for parameter in captioner.model.parameters()) / 1e9
    built_s = time.perf_counter() - begun
    yield f"{_device_name(device)}, torch {torch.__version__}, {size_gb:.2f} GB of weights, built in {built_s:.0f} s\n"
    yield "| decoding | batch | seconds/batch | pictures/s | GPU-days for 33 million | peak GB | of the bandwidth |"
    yield "|---|---|---|---|---|---|---|"
    modes: tuple[Mode, ...] = ("greedy", "sampled", "published")
    for mode in modes:
        decoding = Decoding(mode, max_new_tokens=num_tokens)
        for batch in batches:
            pictures = pictures_of_noise(batch)
            try:
                ids_of(captioner, pictures, decoding)  # compiles a step of this shape
                _reset_peak(device)
                begun = time.perf_counter()
                ids_of(captioner, pictures, decoding)  # its ids come back to the host: nothing is left to wait for
                seconds = time.perf_counter() - begun
            except torch.OutOfMemoryError:
                yield f"| {mode} | {batch} | out of memory | | | | |"
                continue
            days = NUM_PICTURES * seconds / batch / 86_400
            beams = decoding.num_beams if mode == "published" else 1
            least_s = least_seconds(batch * beams, num_tokens, bytes_per_s)
            yield (
                f"| {mode} | {batch} | {seconds:.2f} | {batch / seconds:.2f} | {days:,.0f} | {_peak_gb(device):.1f} | "
                f"{least_s / seconds:.0%} |"
            )


def _device_name(device: str) -> str:
    return "cpu" if device == "cpu" else torch.cuda.get_device_name(device)


def _reset_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gb(device: str) -> float:
    return 0.0 if device == "cpu" else torch.cuda.max_memory_allocated(device) / 1e9


BENCHMARKS = (share_captioner_batches, recaption_overhead)


def main() -> None:
    """Print the table of `share_captioner_gpu`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="as torch names it")
    parser.add_argument("--tiny", action="store_true", help="a toy model, to try the lines")
    parser.add_argument("--tokens", type=int, default=180, help="new tokens per caption")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 64, 128])
    parser.add_argument(
        "--bandwidth", type=float, default=4.8, help="of the device, TB/s; an H200 has 4.8, an H100 3.35"
    )
    given = parser.parse_args()
    for line in share_captioner_gpu(given.device, given.tiny, given.tokens, given.batches, given.bandwidth * 1e12):
        print(line, flush=True)


if __name__ == "__main__":
    main()
