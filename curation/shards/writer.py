"""Write the shards: original bytes are copied into a tar, and the place of each member is noted."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from curation.ingest.away import AwayCheck
from curation.shards.dataset_card import CARD_FILE, dataset_card
from curation.shards.files import (
    PICTURES_FILE,
    PREVIOUS_SHARDS,
    WIDS_FILE,
    OldSample,
    OldTars,
    ShardFiles,
    index_rows,
    keep_previous,
)
from engine.ahead import of_each
from engine.damage import damage
from engine.dataset import ROW_GROUP_ROWS, Dataset, read_parquet
from engine.map_job import MapJob, naming
from engine.names import DIGITS, Held
from engine.part_file import commit_batches
from engine.runner import Progress
from schemas.commit import Digested, atomic_write, write_bytes
from schemas.files import delete_files, is_file, parquet_source, sizes_of
from schemas.late import late
from schemas.reasons import PixelError, ShardError
from schemas.recipe import DataRecipe, Shard
from schemas.seal import check_footer

with late(__name__):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curation.sources import read_original
    from schemas import shard, shard_index
    from schemas.pixels import open_rgb
    from schemas.tables import schema_of


def map_job(recipe: DataRecipe, dataset: Dataset) -> MapJob:
    """The packing half of the shard job: part n of `samples` is shard n."""
    knobs = {
        "shard.resize_longest_px": recipe.shard.resize_longest_px,
        "shard.resize_quality": recipe.shard.resize_quality,
    }
    away = AwayCheck(recipe.all_sources(), None if recipe.shard.drop_lost else recipe.ingest.stop_after_failures)
    return MapJob(
        job="shard",
        outputs=("samples",),
        inputs=("shard_plan",),
        build=partial(ShardWriter, str(dataset.root), recipe.shard, away),
        knobs=knobs,
        files=ShardFiles(),
        after=update_index,
    )


@dataclass(frozen=True)
class PackedImage:
    """The image member of a sample."""

    data: bytes
    extension: str
    width: int
    height: int
    resized: bool
    image_sha256: str | None = None
    """Hash of re-encoded bytes; None for the original's bytes, whose sha256 is in the plan."""


class Unpackable(Exception):
    """There is no image to pack; ends as a row with a reason."""

    def __init__(self, reason: ShardError, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")


_MEND = "bring the originals back and run the same command again, or leave out what is lost with shard.drop_lost=true"


class ShardWriter:
    """Writes shards into a dataset's `shards/` folder. A picture that a tar holds is copied from it, and the original
    is read where no tar has it."""

    def __init__(self, root: str, recipe: Shard, away: AwayCheck) -> None:
        self.dataset = Dataset(Path(root))
        self._recipe, self._away = recipe, away

    def __call__(self, inputs: Mapping[str, pa.Table], progress: Progress) -> Mapping[str, pa.Table]:
        """One shard. A sample whose original is gone or changed is left out, with a reason in its row. Raises
        SourceAway: the originals of a source cannot be had now."""
        plan = inputs["shard_plan"].to_pylist()
        if not plan:  # every sample of the shard was taken out; its number stays, so that no other shard moves
            return {"samples": schema_of("samples").empty_table()}
        path, number = self.dataset.shards / plan[0]["shard"], plan[0]["shard_id"]
        opened = OldTars(self.dataset, number) if self._has_old_tars else nullcontext()
        with opened as old, atomic_write(path) as file:
            tar = Digested(file, path)
            rows = list(self._write(tar, plan, old, progress))
            tar.write(shard.END_OF_ARCHIVE)
            if old is not None:
                keep_previous(self.dataset, plan[0]["shard"])
        if all(row["shard"] is None for row in rows):
            delete_files(path)
        digest = {"shard_sha256": tar.digest.hexdigest()}
        rows = [row if row["shard"] is None else row | digest for row in rows]
        return {"samples": pa.Table.from_pylist(rows, schema=schema_of("samples"))}

    @cached_property
    def _has_old_tars(self) -> bool:
        return is_file(self.dataset.shards / PREVIOUS_SHARDS / PICTURES_FILE)

    def _write(
        self, tar: Digested, plan: list[dict[str, Any]], old: OldTars | None, progress: Progress
    ) -> Iterator[dict[str, Any]]:
        for sample in plan:
            with naming(f"{sample['source_name']}/{sample['member']}"):
                row = self._write_sample(tar, sample, old)
            is_missing = row["reason"] == ShardError.SOURCE_MISSING
            self._away.see(sample, (row["reason"], row["detail"]) if is_missing else None)
            yield row
            progress(1)

    def _write_sample(self, tar: Digested, sample: dict[str, Any], old: OldTars | None) -> dict[str, Any]:
        row: dict[str, Any] = {name: sample.get(name) for name in schema_of("samples").names} | {"shard": None}
        try:
            image = self.image_of(sample, old)
        except Unpackable as error:
            return row | {"reason": error.reason.value, "detail": error.detail}
        key = sample["image_id"]
        row |= {"key": key, "shard": sample["shard"], "image_ext": image.extension}
        row |= {"width": image.width, "height": image.height}
        facts = metadata_of(sample, image)
        sha256 = image.image_sha256 if image.resized else sample["sha256"]
        row["content"] = sha256 and shard.content_of(sha256, sample["caption"], facts)
        members = (
            ("image", f"{key}.{image.extension}", image.data),
            ("txt", f"{key}.txt", sample["caption"].encode()),
            ("json", f"{key}.json", shard.encode_json(facts)),
        )
        for name, member, content in sorted(members, key=lambda named: named[1]):
            tar.write(shard.member_header(member, len(content)))
            row |= {f"{name}_offset": tar.tell(), f"{name}_size": len(content)}
            tar.write(content)
            tar.write(bytes(shard.padding(len(content))))
        return row

    def image_of(self, sample: Mapping[str, Any], old: OldTars | None = None) -> PackedImage:
        """The image member of a row of the plan.

        Args:
            old: the tars that may hold its picture.

        Raises:
            Unpackable: the original is gone or changed, and no tar holds the picture.
            ValueError: a tar held it, and its bytes there are damaged or of another size than the recipe wants.
        """
        held = old.samples_of(sample["image_id"]) if old is not None else []
        found = (self._stored(sample, each, *read) for each in held if old is not None for read in old.read(each))
        stored, is_same = next((each for each in found if each is not None), (None, False))
        if stored is not None and is_same:
            return stored
        try:
            return self._original(sample)
        except Unpackable as error:
            if stored is not None:
                return stored
            if not held or self._recipe.drop_lost:
                raise
            wants = f"{held[0].shard} does not hold what the recipe wants of it"
            raise ValueError(f"its original is gone ({error.detail}), and {wants}; {_MEND}") from None

    def _original(self, sample: Mapping[str, Any]) -> PackedImage:
        try:
            data = read_original(sample["source"], sample["member"], sample["byte_offset"], sample["num_bytes"])
        except OSError as error:
            raise Unpackable(ShardError.SOURCE_MISSING, error.strerror or "cannot be read") from None
        if hashlib.sha256(data).hexdigest() != sample["sha256"]:
            raise Unpackable(ShardError.SOURCE_CHANGED, "other bytes than when it was ingested")
        return self._pack(data, sample)

    def _stored(
        self, sample: Mapping[str, Any], old: OldSample, data: bytes, words: bytes
    ) -> tuple[PackedImage, bool] | None:
        """The image member out of bytes that a tar has for it and its metadata, and whether the original would give the
        very same ones; None where they are others, damaged or of another size than it should have."""
        if not self.resizes(sample):
            if hashlib.sha256(data).hexdigest() != sample["sha256"]:
                return None
            return PackedImage(data, old.image_ext, sample["width"], sample["height"], resized=False), True
        try:
            picture, metadata = open_rgb(data), shard.decode_json(words)
        except (PixelError, ValueError):
            return None
        image, promised = re_encoded(data, old.image_ext, *picture.size), metadata.get("image_sha256")
        is_whole = promised in (None, image.image_sha256) and metadata["image_id"] == sample["image_id"]
        if not is_whole or max(picture.size) != self._recipe.resize_longest_px:
            return None
        return image, promised is not None and metadata.get("recipe") == sample["recipe"]

    def resizes(self, sample: Mapping[str, Any]) -> bool:
        """Whether the image member is not the original's bytes."""
        longest = self._recipe.resize_longest_px
        return longest is not None and max(sample["width"], sample["height"]) > longest

    def _pack(self, data: bytes, sample: Mapping[str, Any]) -> PackedImage:
        if not self.resizes(sample):
            extension = shard.extension(sample["format"])
            return PackedImage(data, extension, sample["width"], sample["height"], resized=False)
        picture = open_rgb(data, longest_px=self._recipe.resize_longest_px)
        jpeg = io.BytesIO()
        picture.save(jpeg, "JPEG", quality=self._recipe.resize_quality)
        return re_encoded(jpeg.getvalue(), "jpg", picture.width, picture.height)


def re_encoded(data: bytes, extension: str, width: int, height: int) -> PackedImage:
    """An image member whose bytes are not the original's, with their checksum."""
    return PackedImage(data, extension, width, height, True, hashlib.sha256(data).hexdigest())


def metadata_of(sample: Mapping[str, Any], image: PackedImage) -> shard.SampleMetadata:
    """The `.json` member of a row of the plan."""
    synthetic = []
    if sample["synthetic_caption"] is not None:
        synthetic = [shard.SyntheticCaption(captioner=sample["captioner"], caption=sample["synthetic_caption"])]
    further = zip(sample.get("further_captioners") or (), sample.get("further_captions") or (), strict=True)
    synthetic += [shard.SyntheticCaption(captioner=who, caption=caption) for who, caption in further if caption]
    metadata = shard.SampleMetadata(
        image_id=sample["image_id"],
        caption_raw=sample["raw_caption"],
        caption_raw_reason=sample["raw_reason"],
        caption_raw_from=sample["raw_caption_from"],
        caption_original=sample["original_caption"],
        captions_synthetic=synthetic,
        caption_source=sample["caption_source"],
        caption_coin=sample["coin"],
        caption_fallback=sample["fallback"],
        width=image.width,
        height=image.height,
        aspect=image.height / image.width,
        bucket=sample["bucket"],
        aesthetic=sample["aesthetic"],
        aesthetic_scorer=sample["aesthetic_scorer"],
        phash=f"{sample['phash']:016x}",
        subsets=sample["subsets"],
        source=f"{sample['source_name']}/{sample['member']}",
        url=sample["url"],
        license=sample["license"],
        sha256=sample["sha256"],
        resized=image.resized,
        recipe=sample["recipe"],
    )
    if sample.get("other_captions"):
        metadata["captions_original"] = [sample["original_caption"], *sample["other_captions"]]
    if image.image_sha256 is not None:  # no null elsewhere: the bytes of untouched samples stay as they always were
        metadata["image_sha256"] = image.image_sha256
    return metadata


INDEX_KEY = b"sigma.samples"
"""Parquet metadata of the index: digest of the samples it was made from."""

_OLD_DIGITS = 16
"""Digits of that digest in the index of an earlier version, which says something else. Whatever changes a shard deletes
the index first, so that it is as good."""


def index_is_current(held: Held) -> bool:
    """Whether the index was written from the present samples."""
    path = held.dataset.shards / shard_index.INDEX_FILE
    if not all(is_file(each) for each in (path, path.with_name(WIDS_FILE), path.with_name(CARD_FILE))):
        return False
    try:
        with parquet_source(path) as source:
            check_footer(source)
            made_of = (pq.read_schema(source).metadata or {}).get(INDEX_KEY, b"").decode()
    except damage():
        return False
    return len(made_of) == _OLD_DIGITS or made_of == samples_digest(held)


def samples_digest(held: Held) -> str:
    """Names the samples that an index is made from."""
    contents = [name.content for name in held.parts("samples").values()]
    return hashlib.sha256(" ".join(contents).encode()).hexdigest()[:DIGITS]


def update_index(held: Held) -> None:
    """Write the index anew where it is not current."""
    if not index_is_current(held):
        write_index(held)


def write_index(held: Held) -> int:
    """Write `shards/index.parquet` (every sample of a shard, in tar order), `wids.json` and the dataset card. The
    samples are read twice, a part at a time: the other two files count all samples, and the index is written last.
    Returns the number of samples."""
    num_samples, extensions = Counter[str](), set[str]()
    dataset, paths = held.dataset, held.paths("samples")
    for rows in of_each(partial(read_parquet, columns=["shard", "image_ext"]), paths):
        part = rows.drop_null()
        num_samples.update(part["shard"].to_pylist())
        extensions.update(part["image_ext"].unique().to_pylist())
    write_bytes(dataset.shards / WIDS_FILE, wids_index(dataset, num_samples))
    write_bytes(dataset.shards / CARD_FILE, card_of(extensions, num_samples))
    path, metadata = dataset.shards / shard_index.INDEX_FILE, {INDEX_KEY.decode(): samples_digest(held)}
    batches = (batch for rows in of_each(index_rows, paths) for batch in rows.to_batches())
    return commit_batches(path, batches, shard_index.INDEX_SCHEMA, metadata, ROW_GROUP_ROWS)


def card_of(image_extensions: Iterable[str], num_samples: Counter[str]) -> bytes:
    """The content of the dataset card; arguments as in `dataset_card` and `wids_index`."""
    return dataset_card(set(image_extensions), num_samples.total(), len(num_samples)).encode()


def wids_index(dataset: Dataset, num_samples: Mapping[str, int]) -> bytes:
    """The content of `wids.json`. `num_samples`: of each shard. Raises ValueError: a shard is missing."""
    sizes = sizes_of(dataset.shards, num_samples)
    if missing := [path for path in num_samples if path not in sizes]:
        raise ValueError(
            f"{dataset.shards / missing[0]}: missing; sigma doctor {dataset.root} --repair writes it again"
        )
    entries: list[dict[str, Any]] = [
        {"url": path, "nsamples": count, "filesize": sizes[path]} for path, count in num_samples.items()
    ]
    wids: dict[str, Any] = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": "sigma",
        "base": "",
        "shardlist": sorted(entries, key=lambda entry: entry["url"]),
    }
    return json.dumps(wids, indent=1).encode()
