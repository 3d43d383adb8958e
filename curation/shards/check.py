"""Check every shard against the tables, byte for byte where they know the bytes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from curation.shards.dataset_card import CARD_FILE
from curation.shards.files import WIDS_FILE, in_index
from curation.shards.writer import PackedImage, card_of, index_is_current, metadata_of, wids_index
from engine.ahead import ahead
from engine.dataset import Dataset, read_parquet, read_some
from engine.names import Held
from schemas import shard
from schemas.columns import SHARDS_PER_PART
from schemas.files import is_file, open_file, read_file, size_of
from schemas.tables import with_added

Row = Mapping[str, Any]

_MEMBERS = ("image", "txt", "json")


@dataclass(frozen=True)
class CheckedShard:
    """The outcome for one shard; `number` is its part of `samples`, None where it is in no plan."""

    shard: str
    problem: str | None
    number: int | None
    num_unchecked: int
    """Re-encoded images without a checksum: the shard was written before there were any."""


def check_shards(
    dataset: Dataset, index: pa.Table, threads: int, progress: Callable[[int], None]
) -> Iterator[CheckedShard]:
    """The shards that an index names, in its order. `progress`: called with the number of samples looked at since the
    last call."""
    counts = Counter(index["shard"].to_pylist())
    begins = dict(zip(counts, _begins(counts), strict=True))
    numbers, held = _numbers(dataset), dataset.held()

    def check(name: str) -> CheckedShard:
        rows = index.slice(begins[name], counts[name]).to_pylist()
        number = numbers.get(name)
        problem, num_unchecked, digest = _shard_problem(dataset.shards / name, rows, _plan(held, number))
        if problem is None and number in held.parts("samples"):
            problem = _differs_from_samples(held.path("samples", number), rows, digest)
        progress(len(rows))
        return CheckedShard(name, problem, number, num_unchecked)

    yield from ahead(check, counts, threads)


def _begins(counts: Counter[str]) -> Iterator[int]:
    begin = 0
    for count in counts.values():
        yield begin
        begin += count


def _numbers(dataset: Dataset) -> dict[str, int]:
    """Shard -> its number in the plan; nothing where the plan is missing or damaged."""
    try:
        plan = dataset.read_table("shard_plan", ["shard", "shard_id"])
    except ValueError:
        return {}
    return dict(zip(plan["shard"].to_pylist(), plan["shard_id"].to_pylist(), strict=True))


def _plan(held: Held, number: int | None) -> dict[str, Row]:
    """image_id -> row of the plan, where the shard was written from the plan that is there now."""
    if number is None or number not in held.parts("samples"):
        return {}
    try:
        path = held.path("shard_plan", number // SHARDS_PER_PART)
        plan = read_some(path, "shard_id", [number])
    except ValueError:
        return {}  # a finding of its own
    return {row["image_id"]: row for row in plan.to_pylist()}


def _differs_from_samples(path: Path, rows: list[dict[str, Any]], digest: str) -> str | None:
    try:
        samples = with_added("samples", read_parquet(path))
    except ValueError:
        return None  # a finding of its own
    if {*samples["shard_sha256"].drop_null().to_pylist()} - {digest}:
        return "is another tar than the table samples names"
    is_same = in_index(samples).to_pylist() == rows
    return None if is_same else "has other rows in index.parquet than in the table samples"


class _Reading:
    """A tar that is read from its beginning to its end, and the sha256 of what was read."""

    def __init__(self, tar: IO[bytes]) -> None:
        self._tar, self.digest = tar, hashlib.sha256()
        self.seek = tar.seek

    def read(self, size: int = -1) -> bytes:
        data = self._tar.read(size)
        self.digest.update(data)
        return data


def _shard_problem(path: Path, rows: list[dict[str, Any]], plan: Mapping[str, Row]) -> tuple[str | None, int, str]:
    """Compare every member's header with the index, the json member's own id with the key, the image's bytes with
    their sha256, and both texts with the plan. Returns the first problem, the number of images without sha256, and the
    sha256 of a tar without a problem."""
    num_unchecked = 0
    if not is_file(path):
        return "missing", 0, ""
    with open_file(path) as file:
        tar = _Reading(file)
        for row in rows:
            problem, is_checked = _sample_problem(tar, row, plan.get(row["image_id"]))
            num_unchecked += not is_checked
            if problem:
                return problem, num_unchecked, ""
        end = max(row[f"{member}_offset"] + row[f"{member}_size"] for row in rows for member in _MEMBERS)
        end += shard.padding(end)
        tar.seek(end)
        if tar.read() != shard.END_OF_ARCHIVE:
            return _wrong_end(size_of(path), end + len(shard.END_OF_ARCHIVE)), num_unchecked, ""
    return None, num_unchecked, tar.digest.hexdigest()


def _wrong_end(size: int, expected: int) -> str:
    if size == expected:
        return "does not end in zeros"
    return "is cut short" if size < expected else "holds more than the index says"


def _sample_problem(tar: _Reading, row: Row, planned: Row | None) -> tuple[str | None, bool]:
    """The first problem of a sample, and whether its image could be checked."""
    key, found = row["key"], {}
    for member in sorted(_MEMBERS, key=lambda member: row[f"{member}_offset"]):
        name = f"{key}.{row['image_ext'] if member == 'image' else member}"
        tar.seek(row[f"{member}_offset"] - shard.BLOCK)
        if tar.read(shard.BLOCK) != shard.member_header(name, row[f"{member}_size"]):
            return f"does not hold {name} where the index says", True
        found[member] = tar.read(row[f"{member}_size"])
        if any(tar.read(shard.padding(len(found[member])))):
            return f"holds something behind {name}, where zeros belong", True
    try:
        metadata = shard.decode_json(found["json"])
    except ValueError:
        return f"{key}.json is damaged", True
    if metadata["image_id"] != row["image_id"]:
        return f"{key}.json speaks of another image", True
    resized, stored = metadata.get("resized", False), metadata.get("image_sha256")
    expected = stored if resized else metadata.get("sha256")
    image_sha256 = hashlib.sha256(found["image"]).hexdigest()
    if expected is not None and image_sha256 != expected:
        return f"{key}.{row['image_ext']} has other bytes than {'were packed' if resized else 'the original'}", True
    if planned is not None:
        image = PackedImage(b"", row["image_ext"], row["width"], row["height"], resized, stored)
        if found["json"] != shard.encode_json(metadata_of(planned, image)):
            return f"{key}.json is not what the plan says", True
        if found["txt"] != planned["caption"].encode():
            return f"{key}.txt is not the caption of the plan", True
    text = found["txt"].decode(errors="replace")
    if row["content"] not in (None, shard.content_of(image_sha256, text, metadata)):
        return f"does not hold the picture and captions of {key} that were packed", True
    return None, expected is not None


def index_problem(dataset: Dataset, index: pa.Table, broken: Container[str]) -> str | None:
    """The first problem of the indexes; None where they fit each other, the samples and the sizes of the tars.
    `broken`: shards that have a problem of their own; their sizes are not compared."""
    path, card = dataset.shards / WIDS_FILE, dataset.shards / CARD_FILE
    if not is_file(path):
        return "wids index missing"
    if not is_file(card):
        return f"{CARD_FILE}, the dataset card, is missing"
    if (held := dataset.held()).is_whole("samples") and not index_is_current(held):
        return "index.parquet was made from other samples"
    counts = Counter(index["shard"].to_pylist())
    if read_file(card) != card_of(index["image_ext"].unique().to_pylist(), counts):
        return f"{CARD_FILE} is not the dataset card that belongs here"
    if not any(name in broken for name in counts) and read_file(path) != wids_index(dataset, counts):
        return "wids index says something else than the index"
    return None
