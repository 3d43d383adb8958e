"""Check every shard against the tables, byte for byte where they know the bytes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.shards.dataset_card import CARD_FILE
from curation.shards.files import WIDS_FILE, in_index, index_rows
from curation.shards.writer import PackedImage, card_of, index_is_current, metadata_of, wids_index
from engine.ahead import ahead, of_each
from engine.damage import Damaged
from engine.dataset import Dataset, read_parquet, read_some, row_groups
from engine.names import Held
from schemas import shard, shard_index
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
    num_samples: int
    num_unchecked: int
    """Re-encoded images without a checksum: the shard was written before there were any."""
    image_extensions: frozenset[str]


def shards_of_index(path: Path) -> Iterator[pa.Table]:
    """The rows of an index, a table for each shard: no more are held than those and a row group. Raises Damaged: it is
    missing, damaged, or no index, which shows before the first shard where it has a seal."""
    pieces = row_groups(path)
    if next(pieces).schema.names not in (names := shard_index.INDEX_SCHEMA.names, names[: -len(shard_index.ADDED)]):
        raise Damaged(f"{path} has other columns than an index")
    begun: list[pa.Table] = []
    for rows in pieces:
        rows = in_index(with_added("samples", rows))
        ends = pc.run_end_encode(rows["shard"].combine_chunks()).run_ends.to_pylist()
        for begin, end in pairwise([0, *ends]):
            some = rows.slice(begin, end - begin)
            if begun and begun[0]["shard"][0] != some["shard"][0]:
                yield pa.concat_tables(begun)
                begun = []
            begun.append(some)
    if begun:
        yield pa.concat_tables(begun)


def shards_of_samples(dataset: Dataset) -> Iterator[pa.Table]:
    """What the index should hold, a table for each shard, from the parts of `samples` that are whole."""
    for path in dataset.parts("samples"):
        with suppress(ValueError):
            if (rows := index_rows(path)).num_rows:
                yield rows


def check_shards(
    dataset: Dataset, shards: Iterable[pa.Table], threads: int, progress: Callable[[int], None]
) -> Iterator[CheckedShard]:
    """The outcomes for the shards with these rows in an index, in order. `progress`: called with the number of samples
    looked at since the last call."""
    numbers, held = _numbers(dataset), dataset.held()

    def check(indexed: pa.Table) -> CheckedShard:
        rows = indexed.to_pylist()
        name = rows[0]["shard"]
        number = numbers.get(name)
        problem, num_unchecked, digest = _shard_problem(dataset.shards / name, rows, _plan(held, number))
        if problem is None and number in held.parts("samples"):
            problem = _differs_from_samples(held.path("samples", number), rows, digest)
        progress(len(rows))
        extensions = frozenset(row["image_ext"] for row in rows)
        return CheckedShard(name, problem, number, len(rows), num_unchecked, extensions)

    yield from ahead(check, shards, threads)


def _numbers(dataset: Dataset) -> dict[str, int]:
    """Shard -> its number in the plan; nothing where the plan is missing or damaged."""
    found = dict[str, int]()
    with suppress(ValueError):
        for rows in of_each(partial(read_parquet, columns=["shard", "shard_id"]), dataset.parts("shard_plan")):
            each = rows.group_by(["shard", "shard_id"]).aggregate([])
            found.update(zip(each["shard"].to_pylist(), each["shard_id"].to_pylist(), strict=True))
        return found
    return {}


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

    def __init__(self, tar: IO[bytes], num_bytes: int) -> None:
        self._tar, self._num_bytes, self.digest = tar, num_bytes, hashlib.sha256()

    def seek(self, place: int) -> None:
        """Go to a place; to the nearest end where the tar has no such place."""
        self._tar.seek(min(max(0, place), self._num_bytes))

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
        tar = _Reading(file, size_of(path))
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


def _is_header(found: bytes, name: str, size: int) -> bool:
    """Whether a block is the header of a member with this name and size, of which a tar may be able to hold none."""
    with suppress(ValueError):
        return found == shard.member_header(name, size)
    return False


def _sample_problem(tar: _Reading, row: Row, planned: Row | None) -> tuple[str | None, bool]:
    """The first problem of a sample, and whether its image could be checked."""
    key, found = row["key"], {}
    for member in sorted(_MEMBERS, key=lambda member: row[f"{member}_offset"]):
        name = f"{key}.{row['image_ext'] if member == 'image' else member}"
        tar.seek(row[f"{member}_offset"] - shard.BLOCK)
        if not _is_header(tar.read(shard.BLOCK), name, row[f"{member}_size"]):
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


def index_problem(dataset: Dataset, checked: Sequence[CheckedShard]) -> str | None:
    """The first problem of the indexes; None where they fit each other, the samples and the sizes of the tars. The
    sizes are not compared where a shard has a problem of its own."""
    path, card = dataset.shards / WIDS_FILE, dataset.shards / CARD_FILE
    if not is_file(path):
        return "wids index missing"
    if not is_file(card):
        return f"{CARD_FILE}, the dataset card, is missing"
    if (held := dataset.held()).is_whole("samples") and not index_is_current(held):
        return "index.parquet was made from other samples"
    counts = Counter({each.shard: each.num_samples for each in checked})
    if read_file(card) != card_of({name for each in checked for name in each.image_extensions}, counts):
        return f"{CARD_FILE} is not the dataset card that belongs here"
    if not any(each.problem for each in checked) and read_file(path) != wids_index(dataset, counts):
        return "wids index says something else than the index"
    return None
