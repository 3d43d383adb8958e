"""Encodes a dataset once: each shard's pictures and captions become a tar of features, committed shard by shard."""

from __future__ import annotations

import hashlib
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.dataset import Dataset
from engine.flow import Observer
from engine.runner import Committed, LazyRunner, PartJob, Progress, Runner, Task
from schemas.commit import Digested, atomic_write, write_bytes
from schemas.features import (
    CUT_COLUMN,
    MADE_BY_KEY,
    MEMBER_DOTS,
    NULL_FILE,
    PLACE,
    SOURCE_KEY,
    TAR_BYTES_KEY,
    TAR_DIGEST_KEY,
    SetRecord,
    encode_npy,
    member_name,
    places_schema,
    read_record,
    write_record,
)
from schemas.files import (
    TEMPORARY,
    at_hand,
    delete_files,
    find_files,
    is_file,
    is_folder,
    kept,
    parquet_source,
    place_of,
    read_file,
    remove_folder,
    size_of,
    sizes_of,
)
from schemas.seal import check_file, check_footer, sealed_write
from schemas.shard import END_OF_ARCHIVE, member_header, padding
from schemas.shard_index import INDEX_FILE, ShardIndex
from schemas.strict import fingerprint
from schemas.training import TrainingRecipe
from schemas.unread import is_unread
from training.data.captions import cut_of
from training.data.reader import ShardReader
from training.data.stored import as_stored
from training.encoders.make import codec_for, text_encoder_for
from training.features import FeatureSet, index_digest, latents_set, refuse_other, text_set
from training.shard_encoders import Encoded, LatentsEncoder, ShardEncoder, TextFeaturesEncoder


@dataclass(frozen=True, kw_only=True)
class EncodeJob(PartJob):
    """The encoding of a set; its parts are the shards."""

    recipe: TrainingRecipe
    wanted: FeatureSet
    shards: tuple[str, ...]
    index: str
    """Its digest."""

    def run_part(
        self, dataset: Dataset, worker: Callable[[], ShardEncoder], task: Task, progress: Progress
    ) -> Committed:
        """Encode and commit a shard; see `engine.runner.PartJob`."""
        shard, images = self.shards[task.number], dataset.root / "shards"
        index = _index_at_hand(images / INDEX_FILE, self.index)
        check_footer(index)
        wanted = [("shard", "=", shard)]
        rows = pq.read_table(index, filters=wanted, partitioning=None, page_checksum_verification=True)
        if self.is_stored(shard, rows) and self.has_null():
            progress(rows.num_rows)
            return Committed()
        encoder = worker()
        if not self.has_null() and (null := encoder.null()) is not None:
            write_bytes(self.wanted.folder / NULL_FILE, encode_npy(as_stored(null, "fp32")))
        tar = self.wanted.folder / shard
        delete_files(tar)  # an outdated tar must not be next to the new table
        reader = ShardReader(images, rows, cut_of(self.recipe))
        images_tar = at_hand(reader.folder / shard)
        try:
            with atomic_write(tar) as opened:
                file = Digested(opened, tar)
                places = list(self._write(file, rows["image_id"].to_pylist(), encoder(reader, rows), progress))
                file.write(END_OF_ARCHIVE)
                self._commit_places(file, tar, places, rows)
        finally:
            reader.close()
            if kept(images_tar) is not None:  # a copy
                images_tar.unlink()
        return Committed((shard,))

    def has_null(self) -> bool:
        """Whether the null caption is there, or the set needs none."""
        return self.wanted.stage is not None or is_file(self.wanted.folder / NULL_FILE)

    def is_stored(self, shard: str, rows: pa.Table) -> bool:
        """Whether a shard was encoded whole from these very index rows."""
        tar = self.wanted.folder / shard
        try:
            check_file(tar.with_suffix(".parquet"))
            with parquet_source(tar.with_suffix(".parquet")) as source:
                found = pq.read_schema(source).metadata or {}
            num_bytes = size_of(tar)
        except (OSError, pa.ArrowException) as error:
            if is_unread(error):
                raise
            return False
        return all(found.get(key) == value for key, value in self._metadata(rows, num_bytes).items())

    def _write(
        self, tar: Digested, keys: Sequence[str], samples: Iterator[Encoded], progress: Progress
    ) -> Iterator[dict[str, Any]]:
        dtype = self.recipe.features.dtype
        for key, (arrays, damage, cut) in zip(keys, samples, strict=True):
            place: dict[str, Any] = {"key": key, "damage": damage}
            if self.wanted.stage is None:
                place[CUT_COLUMN] = cut
            written: dict[int, tuple[int, int, int]] = {}  # the place of each array; equal captions share one
            for name, values in arrays.items():
                if id(values) not in written:
                    data = encode_npy(as_stored(values, dtype))
                    tar.write(member_header(member_name(key, name), len(data), MEMBER_DOTS))
                    written[id(values)] = (tar.tell(), len(data), zlib.crc32(data))
                    tar.write(data)
                    tar.write(bytes(padding(len(data))))
                place |= {f"{name}_{what}": found for what, found in zip(PLACE, written[id(values)], strict=True)}
            yield place
            progress(1)

    def _commit_places(self, tar: Digested, name: Path, places: list[dict[str, Any]], rows: pa.Table) -> None:
        metadata = self._metadata(rows, tar.tell())
        metadata[TAR_DIGEST_KEY] = tar.digest.hexdigest().encode()
        schema = places_schema(self.wanted.arrays).with_metadata(metadata)
        with sealed_write(name.with_suffix(".parquet")) as file:
            pq.write_table(pa.Table.from_pylist(places, schema=schema), file, compression="zstd")

    def _metadata(self, rows: pa.Table, num_bytes: int) -> dict[bytes, bytes]:
        made_by = fingerprint(self.wanted.made_by)
        return {
            MADE_BY_KEY: made_by.encode(),
            SOURCE_KEY: rows_digest(rows).encode(),
            TAR_BYTES_KEY: str(num_bytes).encode(),
        }


def rows_digest(rows: pa.Table) -> str:
    """The digest of a shard's keys, of its members' offsets and sizes, and of its pictures and captions."""
    digest = hashlib.sha256("\n".join(rows["key"].to_pylist()).encode())
    for column in ("image_offset", "image_size", "txt_offset", "txt_size", "json_offset", "json_size"):
        digest.update(rows[column].to_numpy().astype(np.int64).tobytes())
    if "content" in rows.column_names:  # else the index is of before there was the column
        digest.update("".join(rows["content"].drop_null().to_pylist()).encode())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class SetDone:
    """A finished set; `num_computed` shards were encoded now, the others before."""

    name: str
    folder: Path
    num_shards: int
    num_computed: int
    record: SetRecord
    seconds: float

    @property
    def bytes_per_image(self) -> float:
        return self.record.num_bytes / max(1, self.record.num_samples)


def encode_features(
    recipe: TrainingRecipe,
    observer: Observer,
    *,
    only_stage: str | None = None,
    only_kind: str | None = None,
    redo: bool = False,
) -> Iterator[SetDone]:
    """Bring the features of the recipe's stages up to date, set after set: the text, then latents per resolution.

    The shards of a set go to the runner that the recipe names; the dataset is locked meanwhile.

    Args:
        only_kind: `text` or `latents`; None is both.
        redo: encode again what exists.

    Raises:
        ValueError: a set was made by another encoder (and no `redo`), or an encoder is not on this machine.
    """
    recipe = with_absolute_paths(recipe)
    digest = index_digest(recipe)  # refuses a folder that is no dataset, before a lock is made in it
    stages = recipe.stages if only_stage is None else (recipe.stage_named(only_stage),)
    texts = [text_set(recipe)] if only_kind != "latents" else []
    latents = [latents_set(recipe, stage) for stage in stages] if only_kind != "text" else []
    sets = {found.name: found for found in (*texts, *latents)}
    for wanted in sets.values():
        record = read_record(wanted.folder)
        if record is not None and not redo and _has_shards(wanted.folder):
            refuse_other(wanted, record.made_by)
        for knob, value in wanted.made_by.items():
            if value is None:  # says in one line what is missing and how to get it, before a worker fails on it
                (text_encoder_for(recipe.text) if knob.startswith("text.") else codec_for(recipe.latents))
    index = ShardIndex(recipe.dataset_folder / "shards")
    names = (name for part in index.parts(["shard"]) for name in part["shard"].unique().to_pylist())
    shards = tuple(dict.fromkeys(names))
    dataset, knobs = Dataset(recipe.dataset_folder), recipe.features
    with dataset.lock(), LazyRunner(knobs.runner, knobs.workers, knobs.retries) as runners:
        for wanted in sets.values():
            observer.begin(wanted.name, index.num_rows)
            of_texts, of_latents = partial(TextFeaturesEncoder, recipe), partial(LatentsEncoder, recipe, wanted)
            job = EncodeJob(
                job=f"encode {wanted.name}",
                build=of_texts if wanted.stage is None else of_latents,
                workers=knobs.workers,
                num_gpus=knobs.gpus_per_worker,
                overlaps=True,
                recipe=recipe,
                wanted=wanted,
                shards=shards,
                index=digest,
            )
            yield encode_set(job, dataset, runners.get, partial(observer.advance, wanted.name), redo)


def with_absolute_paths(recipe: TrainingRecipe) -> TrainingRecipe:
    """The recipe with paths that a worker on another node, or in another folder, can use."""
    weights = {
        section: knobs.model_copy(update={"weights": str(Path(knobs.weights).absolute())})
        for section, knobs in (("latents", recipe.latents), ("text", recipe.text))
        if knobs.weights is not None and Path(knobs.weights).is_dir()
    }
    dataset = place_of(recipe.dataset)
    folder = (recipe.features.folder or dataset / "features").absolute()
    features = recipe.features.model_copy(update={"folder": folder})
    return recipe.model_copy(update={"dataset": str(dataset), "features": features, **weights})


@lru_cache(1)
def _index_at_hand(path: Path, _digest: str) -> Path:
    """The index on the disk of this machine; of one in a store a process makes one copy."""
    return at_hand(path)


def encode_set(
    job: EncodeJob, dataset: Dataset, runner: Callable[[], Runner], progress: Progress, redo: bool
) -> SetDone:
    """Bring one set up to date. Its record names the index only once every shard is there."""
    started = time.perf_counter()
    wanted, folder = job.wanted, job.wanted.folder
    if is_folder(folder) and (redo or not _has_shards(folder)):
        remove_folder(folder)
    for path in folder.parent.glob(f"{TEMPORARY}*{folder.name}"):
        shutil.rmtree(path)
    for path in folder.rglob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)
    record = read_record(folder)
    num_computed = 0
    files = {str(Path(shard).with_suffix(suffix)) for shard in job.shards for suffix in (".tar", ".parquet")}
    is_there = job.has_null() and len(sizes_of(folder, files)) == len(files)
    if record is None or record.index != job.index or not is_there:
        write_record(folder, SetRecord(wanted.made_by))
        parts = runner().run(dataset, job, [Task(number) for number in range(len(job.shards))], progress)
        num_computed = sum(part.computed for part in parts)
        found = [*find_files(folder, "**/*.tar"), *find_files(folder, "**/*.parquet")]
        delete_files(
            *(path for path in found if str(path.relative_to(folder)) not in files)
        )  # of shards that are no more
        record = _measured(job)
        write_record(folder, record)
    return SetDone(wanted.name, folder, len(job.shards), num_computed, record, time.perf_counter() - started)


def _has_shards(folder: Path) -> bool:
    """Whether anything was encoded: a set that failed before its first shard may be begun with another encoder."""
    return bool(find_files(folder, "**/[!.]*.tar"))


def _measured(job: EncodeJob) -> SetRecord:
    num_samples = num_damaged = num_bytes = 0
    for shard in job.shards:
        tar = job.wanted.folder / shard
        check_file(tar.with_suffix(".parquet"))
        with parquet_source(tar.with_suffix(".parquet")) as source:
            damage = pq.ParquetFile(source).read(["damage"])["damage"]
        num_samples += len(damage)
        num_damaged += len(damage) - damage.null_count
        num_bytes += size_of(tar)
    null = job.wanted.folder / NULL_FILE
    null_crc32 = zlib.crc32(read_file(null)) if is_file(null) else None
    return SetRecord(job.wanted.made_by, job.index, num_samples, num_damaged, num_bytes, null_crc32)
