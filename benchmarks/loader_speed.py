"""Reading samples from tars, whole and decoded, against webdataset; and planning 33 million samples."""

from __future__ import annotations

import io
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from PIL import Image

from benchmarks.curation_speed import write_photos
from schemas import shard
from schemas.buckets import LABELS, nearest_codes, sizes
from schemas.shard_index import INDEX_FILE, INDEX_SCHEMA, ShardIndex
from schemas.training import TrainingRecipe
from training.data.reader import ShardReader
from training.data.selection import Selection
from training.identity import identity
from training.stages import stage_data

UNDECODED_GOAL, DECODED_GOAL = 2.5, 1.5
PLANNING_GOAL_GB = 2.0
SHARD_ROWS = 10_000


def bucket_of(size: tuple[int, int]) -> str:
    """The label of the bucket of a picture of (width, height)."""
    return LABELS[nearest_codes(np.array([size[1] / size[0]]))[0]]


def write_shards(
    folder: Path, pictures: Sequence[bytes], size: tuple[int, int], copies: int, each: int = 100
) -> list[str]:
    """Tars of `each` samples and their index; every picture comes `copies` times. Returns the tars' paths."""
    bucket = bucket_of(size)
    rows: list[dict[str, Any]] = []
    for begin in range(0, len(pictures) * copies, each):
        name = f"{bucket}/{bucket}-{begin // each:06d}.tar"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as tar:
            for number in range(begin, min(begin + each, len(pictures) * copies)):
                key = f"{number:032x}"
                caption = f"Picture {number}, described in a sentence or two of plain words. " * 4
                facts = {"image_id": key, "caption_raw": caption, "captions_synthetic": [], "url": "x" * 500}
                row: dict[str, Any] = {"key": key, "image_id": key, "shard": name, "bucket": bucket, "image_ext": "jpg"}
                row |= {"width": size[0], "height": size[1]}
                contents = {"image": pictures[number % len(pictures)], "txt": caption.encode()}
                contents["json"] = shard.encode_json(facts)
                for kind, extension in (("image", "jpg"), ("json", "json"), ("txt", "txt")):
                    data = contents[kind]
                    tar.write(shard.member_header(f"{key}.{extension}", len(data)))
                    row |= {f"{kind}_offset": tar.tell(), f"{kind}_size": len(data)}
                    tar.write(data + bytes(shard.padding(len(data))))
                rows.append(row)
            tar.write(shard.END_OF_ARCHIVE)
    pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), folder / INDEX_FILE)
    return [str(folder / name) for name in dict.fromkeys(row["shard"] for row in rows)]


def photos_of(folder: Path, width: int, quality: int) -> tuple[list[bytes], tuple[int, int]]:
    """The photographs of the curation benchmark as JPEGs of a width, and their (width, height)."""
    size = (width, width * 2 // 3)
    pictures = []
    for path in write_photos(folder / "photos")[::4]:
        buffer = io.BytesIO()
        Image.open(path).resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
        pictures.append(buffer.getvalue())
    return pictures, size


def alternating(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Best seconds of each, in alternating rounds after one that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for work, kept in zip((first, second), times, strict=True):
            begun = time.perf_counter()
            work()
            kept.append(time.perf_counter() - begun)
    return min(times[0][1:]), min(times[1][1:])


def _ratio(name: str, ours: float, theirs: float, count: int, goal: float | None) -> str:
    ratio = theirs / ours
    verdict = "" if goal is None else f"{goal}, {'reached' if ratio >= goal else 'missed'}"
    rates = f"{count / ours:,.0f} samples/s | webdataset {count / theirs:,.0f}"
    return f"| {name} | {rates} | {ratio:.2f} | {verdict} |"


def undecoded(folder: Path) -> Iterator[str]:
    """All members of all samples, undecoded: by offset in tar order and in random order, against walking the tars."""
    for name, width, quality, copies in (("large", 2000, 90, 60), ("small", 320, 75, 250)):
        pictures, size = photos_of(folder / name, width, quality)
        urls = write_shards(folder / name / "shards", pictures, size, copies)
        reader = ShardReader(folder / name / "shards", Selection(ShardIndex(folder / name / "shards")))
        count = len(reader)
        jumbled = np.random.default_rng(0).permutation(count).tolist()

        def ours(rows: Sequence[int], reader: ShardReader = reader) -> None:
            for row in rows:
                reader.members(row)

        def theirs(urls: list[str] = urls, count: int = count) -> None:
            assert sum(1 for _ in webdataset.WebDataset(urls, shardshuffle=False)) == count

        label = f"undecoded, {sum(map(len, pictures)) / len(pictures) / 1000:,.0f} kB a picture"
        goal = UNDECODED_GOAL
        for rows, way in ((range(count), "in tar order"), (jumbled, "in random order")):
            a, b = alternating(lambda rows=rows, ours=ours: ours(rows), theirs, 5)
            yield _ratio(f"{label}, {way}", a, b, count, goal)
        reader.close()


def decoded(folder: Path) -> Iterator[str]:
    """Pictures cut to their bucket, captions parsed; webdataset's decode, resize and crop as its users do it."""
    pictures = [path.read_bytes() for path in write_photos(folder / "photos")]
    size = Image.open(io.BytesIO(pictures[0])).size
    urls = write_shards(folder / "shards", pictures, size, 1)
    reader = ShardReader(folder / "shards", Selection(ShardIndex(folder / "shards")))
    for resolution in (512, 1024):
        shape = sizes(resolution)[bucket_of(size)]

        def ours(shape: tuple[int, int] = shape) -> None:
            for row in range(len(reader)):
                reader.read(row, shape)

        def theirs(shape: tuple[int, int] = shape) -> None:
            for sample in webdataset.WebDataset(urls, shardshuffle=False).decode("pil"):
                np.asarray(cover_and_crop(sample["jpg"], shape)).transpose(2, 0, 1)

        a, b = alternating(ours, theirs, 3)
        megapixels = size[0] * size[1] / 1e6
        yield _ratio(
            f"decoded, {megapixels:.0f} MP JPEG to {shape[1]} x {shape[0]} px", a, b, len(reader), DECODED_GOAL
        )
    reader.close()


def cover_and_crop(image: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """Resize bicubically until the picture covers (height, width), then crop the centre."""
    height, width = shape
    scale = max(height / image.height, width / image.width)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def write_index(path: Path, num_rows: int, shard_rows: int = SHARD_ROWS) -> None:
    """A synthetic index in the form of a real one: 40 buckets, random ids, photographs of many sizes."""
    random = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    per_bucket = -(-num_rows // 40)
    with pq.ParquetWriter(path, INDEX_SCHEMA, compression="zstd") as writer:
        written = 0
        for bucket, (height, width) in sizes(1024).items():
            count = min(per_bucket, num_rows - written)
            for start in range(0, count, 65536):
                rows = min(65536, count - start)
                writer.write_table(_index_rows(random, bucket, height / width, start, rows, shard_rows))
            written += count


def _index_rows(
    random: np.random.Generator, bucket: str, ratio: float, start: int, rows: int, shard_rows: int
) -> pa.Table:
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)[random.integers(0, 16, rows * 32, np.uint8)]
    ends = pa.py_buffer(np.arange(rows + 1, dtype=np.int32) * 32)
    keys = pa.StringArray.from_buffers(rows, ends, pa.py_buffer(digits))
    shards = [
        f"{bucket}/{bucket}-{number:06d}.tar" for number in range(start // shard_rows, (start + rows) // shard_rows + 1)
    ]
    codes = pa.array((np.arange(start, start + rows) // shard_rows - start // shard_rows).astype(np.int32))
    width = random.integers(800, 6000, rows, np.int32)
    sizes_of = [random.integers(low, high, rows) for low, high in ((50_000, 900_000), (100, 900), (700, 2000))]
    offsets = 512 + np.cumsum(sum(sizes_of) + 3 * 1024) % 2**34
    columns: dict[str, Any] = {
        "key": keys,
        "image_id": keys,
        "shard": pa.DictionaryArray.from_arrays(codes, shards).cast(pa.string()),
        "bucket": pa.repeat(pa.scalar(bucket), rows),
        "width": width,
        "height": np.rint(width * ratio).astype(np.int32),
        "aesthetic": random.normal(5, 1, rows).astype(np.float32),
        "num_tokens": random.integers(10, 300, rows, np.int32),
        "caption_source": pa.repeat(pa.scalar("synthetic"), rows),
        "subsets": pa.ListArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), pa.array([], pa.string())),
        "weight": np.ones(rows, np.float32),
        "image_ext": pa.repeat(pa.scalar("jpg"), rows),
    }
    for kind, size in zip(("image", "json", "txt"), sizes_of, strict=True):
        columns |= {f"{kind}_offset": offsets, f"{kind}_size": size}
        offsets = offsets + size + 512
    return pa.table(
        [pa.array(columns[name], INDEX_SCHEMA.field(name).type) for name in INDEX_SCHEMA.names], schema=INDEX_SCHEMA
    )


def planning(folder: Path, num_rows: int = 33_000_000) -> Iterator[str]:
    """From the index file of 40 buckets to the first batch, as a stage begins; alone in a process of its own."""
    write_index(folder / "shards" / INDEX_FILE, num_rows)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        read, fingerprint, plan, peak_gb = pool.submit(_plan, folder).result()
    seconds = f"{read + fingerprint + plan:.1f} s: index {read:.1f}, fingerprint {fingerprint:.1f}, order {plan:.1f}"
    verdict = f"seconds, under {PLANNING_GOAL_GB:.0f} GB; {'reached' if peak_gb < PLANNING_GOAL_GB else 'missed'}"
    yield f"| planning {num_rows:,} samples | {seconds} | peak memory {peak_gb:.2f} GB | | {verdict} |"


def _plan(folder: Path) -> tuple[float, float, float, float]:
    """Seconds to read the index, to fingerprint it and to plan an epoch; this process's peak memory, libraries too."""
    stage = {"name": "stage", "resolution": 1024, "steps": 1}
    recipe = TrainingRecipe.from_mapping(
        {"dataset": str(folder), "out": str(folder / "out"), "data": {"batch": 2048}, "stages": [stage]}
    )
    begun = time.perf_counter()
    data = stage_data(recipe, recipe.stages[0])
    read = time.perf_counter()
    identity(recipe, recipe.stages[0], data.rows)
    fingerprinted = time.perf_counter()
    for row in data.order.batch(0).rows.tolist():
        data.rows.entry(row)
    planned = time.perf_counter()
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return read - begun, fingerprinted - read, planned - fingerprinted, peak_gb


BENCHMARKS = (undecoded, decoded, planning)
