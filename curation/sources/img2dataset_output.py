"""List the output of img2dataset: every row of its tables, fetched or failed, in the order of its keys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow.parquet as pq

from curation.sources.folder import image_extensions
from curation.sources.item import Item, SourceListing, inside, member_name
from curation.sources.patterns import find_files
from curation.sources.records import batch_rows, check_texts
from curation.sources.rows import open_table
from curation.sources.storage import RemoteError, filesystem, patiently
from curation.sources.stores import reason_of_status
from curation.sources.tars import list_tar, split_key
from engine.damage import damage
from schemas.locations import is_remote
from schemas.pixels import clean
from schemas.reasons import FetchError, ImageError
from schemas.sources import Img2datasetSource, TarCaptions
from schemas.texts import captions_in, clean_text, clean_url

_COLUMNS = ("key", "status", "error_message", "url", "caption", "license")
_IMAGE_COLUMNS = ("jpg", "png", "webp")
"""Columns of images in output_format `parquet`."""

_SAYS: tuple[tuple[str, FetchError], ...] = (
    ("x-robots-tag", FetchError.OPTED_OUT),
    ("timed out", FetchError.TIMEOUT),
    ("timeout", FetchError.TIMEOUT),
    ("incompleteread", FetchError.TIMEOUT),
    ("unknown url type", FetchError.BAD_URL),
    ("no host given", FetchError.BAD_URL),
    ("url can't contain", FetchError.BAD_URL),
    ("nonnumeric port", FetchError.BAD_URL),
    ("codec can't encode", FetchError.BAD_URL),
    ("urlopen error", FetchError.UNREACHABLE),
    ("connection", FetchError.UNREACHABLE),
    ("errno", FetchError.UNREACHABLE),
)
"""Words of img2dataset's messages (urllib's), in lower case -> reason; the first that fits counts."""


def list_img2dataset(source: Img2datasetSource) -> SourceListing:
    """Every row of its tables and every image without a row, shard by shard, in the order of the keys. Raises
    ValueError: the folder holds nothing of img2dataset."""
    listing = SourceListing([], {})
    stems = stems_of(source, listing)
    return SourceListing((item for stem in stems for item in list_shard(stem, listing)), listing.ignored)


def stems_of(source: Img2datasetSource, listing: SourceListing) -> list[str]:
    """The paths of its shards without their extensions, in order; raises as `list_img2dataset`."""
    found = find_files(source.location(), (".parquet", ".tar"), "img2dataset shard", listing)
    return sorted({path.rpartition(".")[0] for path in found})


@dataclass
class _Images:
    """The images of a shard by key, and why there may have been more."""

    by_key: dict[str, list[Item]] = field(default_factory=dict)
    broken: list[Item] = field(default_factory=list)


def list_shard(stem: str, listing: SourceListing) -> Iterator[Item]:
    """The items of one shard: `<stem>.parquet` with `<stem>.tar`, a folder `<stem>/`, or its images in itself."""
    folder, _, name = stem.rpartition("/")
    images = _Images()
    try:
        names, rows = _read_table(f"{stem}.parquet")
    except damage() as error:
        names, rows = [], []
        if not isinstance(error, FileNotFoundError):
            detail = "img2dataset's table cannot be read: what it failed to fetch for this shard is not known"
            images.broken.append(
                Item(f"{name}.parquet", None, source=folder, reason=ImageError.CORRUPT.value, detail=detail)
            )
    column = next((column for column in _IMAGE_COLUMNS if column in names), None)
    if column is None:
        _find_images(stem, images, listing)
    for number, row in sorted(enumerate(rows), key=lambda numbered: str(numbered[1].get("key"))):
        if column is not None:
            member = inside(f"{name}.parquet", f"{number}/{column}")
            here = [Item(member, None, byte_offset=number, source=folder)]
        else:
            here = images.by_key.pop(str(row.get("key")), [])
        yield from _row_items(row, here, f"{name}.tar", folder)
    for items in images.by_key.values():  # of a table that was not finished
        yield from items
    yield from images.broken


def _read_table(path: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Its columns, and those of its rows that matter here."""
    try:
        opened = patiently(lambda: open_table(path)) if is_remote(path) else path
    except RemoteError as error:
        if error.reason is FetchError.NOT_FOUND:
            raise FileNotFoundError(path) from None
        raise ValueError(f"{path}: cannot be read ({error.detail}); run again once it can be") from None
    with pq.ParquetFile(opened) as table:
        names = table.schema_arrow.names
        if lacking := [column for column in ("key", "status") if column not in names]:
            raise ValueError(f"{path}: is no table of img2dataset, it lacks the column {lacking[0]!r}")
        wanted = [column for column in _COLUMNS if column in names]
        check_texts(path, table.schema_arrow, {"caption"} & set(wanted))
        rows = [row for batch in table.iter_batches(columns=wanted) for row in batch_rows(batch)]
    return names, [row | {name: _word(row.get(name)) for name in ("key", "status", "error_message")} for row in rows]


def _word(value: Any) -> str | None:
    """A cell as text, whatever type the table gives it."""
    return clean_text(value) if value is None or isinstance(value, str | bytes) else str(value)


def _row_items(row: dict[str, Any], images: list[Item], container: str, folder: str) -> Iterator[Item]:
    words = {"url": clean_url(row.get("url")), "license": clean_text(row.get("license"))}
    captions = captions_in(row, ["caption"])
    if row.get("status") != "success":
        reason, detail = explain_failure(row.get("status"), row.get("error_message"))
        images = [Item(inside(container, str(row.get("key"))), None, source=folder, reason=reason, detail=detail)]
    elif not images:
        detail = "img2dataset's table says it was fetched, but it is not there"
        reason = ImageError.UNREADABLE.value
        images = [Item(inside(container, str(row.get("key"))), None, source=folder, reason=reason, detail=detail)]
    for item in images:
        yield item._replace(
            raw_caption=captions[0] if captions else item.raw_caption,
            other_captions=tuple(captions[1:]) if captions else item.other_captions,
            url=words["url"] or item.url,
            license=words["license"] or item.license,
        )


def _find_images(stem: str, images: _Images, listing: SourceListing) -> None:
    """Collect the images of a shard from its tar or its folder."""
    folder, _, name = stem.rpartition("/")
    fs, path = filesystem(stem)
    if patiently(lambda: fs.exists(f"{path}.tar")):
        for item in list_tar(f"{stem}.tar", TarCaptions(), listing):
            if item.byte_offset is None:
                images.broken.append(item)
            else:
                key = split_key(item.member.partition("#")[2])[0]
                images.by_key.setdefault(key, []).append(item)
    elif patiently(lambda: fs.exists(path)):
        for found in sorted(patiently(lambda: fs.ls(path, detail=True)), key=lambda entry: str(entry["name"])):
            base = found["name"].rstrip("/").rpartition("/")[2]
            key, extension = split_key(base)
            if "." + extension in image_extensions():
                item = Item(member_name(os.fsencode(f"{name}/{base}")), found.get("size"), source=folder)
                images.by_key.setdefault(key, []).append(item)
            else:
                listing.count(extension or "no extension")


def explain_failure(status: str | None, message: str | None) -> tuple[str, str]:
    """(reason, detail) of a row that img2dataset did not fetch or did not keep."""
    said = clean(re.sub(r"\w+://\S+", "URL", message or "no message"))
    if status == "failed_to_resize":
        broken = "decod" in said.lower()
        return (ImageError.CORRUPT if broken else FetchError.FETCH_FAILED).value, f"img2dataset: {said}"
    if status_code := re.match(r"HTTP Error (\d{3})", said):
        return reason_of_status(int(status_code[1])).value, said
    for words, reason in _SAYS:
        if words in said.lower():
            return reason.value, "no address that can be fetched" if reason is FetchError.BAD_URL else said
    return FetchError.FETCH_FAILED.value, f"{status or 'no status'}: {said}"
