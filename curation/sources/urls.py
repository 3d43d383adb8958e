"""A list of URLs: img2dataset fetches it into tars, and every URL is an input, fetched or not."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from curation.sources.captions import raw_caption
from curation.sources.img2dataset_output import list_shard
from curation.sources.item import Item, SourceListing, inside
from curation.sources.patterns import find_files
from curation.sources.records import Row, read_lines, read_rows, require_columns
from curation.sources.storage import filesystem
from schemas.locations import absolute, is_remote
from schemas.reasons import FetchError
from schemas.seal import read_json, write_json
from schemas.sources import Img2dataset, UrlSource
from schemas.texts import clean_text, clean_url

EXTENSIONS = (".txt", ".csv", ".jsonl", ".parquet")
SHARDS_PER_LIST = 100
"""img2dataset reads a whole file of its list into memory; none holds the rows of more tars than this."""

_SENT = "%/?:@!$&'()*+,;=~-._[]|"
"""Characters of a URL that stay as they are; `%` begins what is encoded already."""
_SPACE = re.compile(r"[\x00-\x20\x7f]")

WANTED = pa.schema(
    [
        pa.field("number", pa.int64()),  # of the URL in the list, from 0
        pa.field("url", pa.string()),  # the address to fetch; empty where the text is no http address
        pa.field("given", pa.string()),  # the text of the list
        pa.field("caption", pa.string()),
        pa.field("others", pa.list_(pa.string())),  # further captions
        pa.field("license", pa.string()),
    ]
)
"""The list that img2dataset gets. It is kept, so that a row keeps its URL if the user's list changes."""


@dataclass(frozen=True)
class Download:
    """One run of img2dataset: its list, its output and its options."""

    work: Path
    """Local folder for the list and img2dataset's log."""
    into: str
    """Folder or URL of the tars."""
    options: Img2dataset


def list_urls(source: UrlSource, fetch_into: str) -> SourceListing:
    """Fetch the URLs that are not fetched yet, then list all of them in the order of the list. Raises ValueError: the
    list cannot be read, or img2dataset could not finish; run again, and it continues."""
    fetch = first_fetch(source, fetch_into)
    _refuse_other_list(source, fetch.work)
    listing = SourceListing([], {})
    rows = (dict(row, number=number) for number, row in enumerate(_read_list(source, listing)))
    return SourceListing((item for _, item in fetch_rows(fetch, rows)), listing.ignored)


def _refuse_other_list(source: UrlSource, work: Path) -> None:
    """Refuse to continue a download of another list: its rows would get the pictures of this one."""
    path = work / "list.json"
    made_for = {"path": source.location(), **source.listing_options()}
    if not (work / "urls").is_dir():  # the list was not taken yet, as where it could not be read
        work.mkdir(parents=True, exist_ok=True)
        write_json(path, made_for)
        return
    try:
        is_same = read_json(path) == json.loads(json.dumps(made_for))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error}); delete {work}, what was fetched is fetched again") from None
    if not is_same:
        raise ValueError(
            f"{work}: holds what was fetched for another list, or with other options ({path.name} says which); set the "
            "recipe back, or delete this folder"
        )


def first_fetch(source: UrlSource, fetch_into: str) -> Download:
    """The download of a whole list. Raises ValueError: img2dataset cannot write where it is fetched to."""
    into = f"{fetch_into}/tars" if source.into is None else absolute(source.into)
    _check_client(into)
    return Download(Path(fetch_into), into, source.img2dataset)


def retry_of(fetch: Download, number: int) -> Download:
    """The `number`th download of the URLs that failed before, counted from 1."""
    name = f"retry-{number:03d}"
    return Download(fetch.work / name, f"{fetch.into}/{name}", fetch.options)


def wanted_rows(work: Path, numbers: set[int]) -> Iterator[dict[str, Any]]:
    """The rows of a list that was handed to img2dataset before, by number."""
    for path in sorted((work / "urls").glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches():
            yield from (row for row in batch.to_pylist() if row["number"] in numbers)


def fetch_rows(fetch: Download, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Item]]:
    """Download rows of `WANTED`; every one with the item it became, in their order. Where the list was written before,
    it is the one that counts: a download that was cut off goes on with it."""
    lists = fetch.work / "urls"
    if not lists.is_dir():
        _write_lists(lists, rows, fetch.options.number_sample_per_shard)
    files = sorted(lists.glob("*.parquet"))
    per_shard = fetch.options.number_sample_per_shard
    num_shards = sum(-(-pq.read_metadata(path).num_rows // per_shard) for path in files)
    if _unfinished(fetch, num_shards):
        _run_img2dataset(fetch, lists)
    if missing := _unfinished(fetch, num_shards):
        raise ValueError(
            f"img2dataset left {len(missing)} of {num_shards} tars unfinished; see {_log(fetch)}, then run again"
        )
    yield from _fetched(fetch, files)


def _read_list(source: UrlSource, listing: SourceListing) -> Iterator[Mapping[str, Any]]:
    columns = source.columns
    for file in find_files(source.location(), EXTENSIONS, "URL list"):
        if file.lower().endswith(".txt"):
            found: Iterable[Row] = (Row("", {columns.url: line}) for line in read_lines(file))
        else:
            wanted = [name for name in (columns.url, columns.caption, columns.license) if name is not None]
            texts = (columns.url, columns.caption)
            found = read_rows(file, partial(require_columns, file, wanted), wanted, texts)
        for row in found:
            if row.broken is not None:
                listing.count("rows of the list that cannot be read", first=f"{file}, {row.place} {row.broken}")
            given = clean_text(row.cells.get(columns.url))
            raw = raw_caption(row, [columns.caption] if columns.caption else [], None, columns.license, file, listing)
            yield {
                "url": "" if given is None else http_address(given),
                "given": given,
                "caption": raw.caption,
                "others": list(raw.others),
                "license": raw.license,
            }


def http_address(text: str) -> str:
    """A URL in the letters that are sent, as a browser writes it: others are percent-encoded, a host in other scripts
    is in Punycode. '' where the text is no http address, or has a user before its host, which img2dataset looks up as
    one; and never `file:`, which would read this machine's own files."""
    try:
        parts = urlsplit(text)
        host = (parts.hostname or "").encode("ascii" if text.isascii() else "idna").decode()
        port = parts.port
    except ValueError:  # a UnicodeError is one
        return ""
    if parts.scheme not in ("http", "https") or not host or _SPACE.search(host) or "@" in parts.netloc:
        return ""
    if text.isascii() and not _SPACE.search(text):
        return text
    place = f"{f'[{host}]' if ':' in host else host}{'' if port is None else f':{port}'}"
    return urlunsplit((parts.scheme, place, quote(parts.path, _SENT), quote(parts.query, _SENT), ""))


def _write_lists(lists: Path, rows: Iterable[Mapping[str, Any]], per_shard: int) -> None:
    """Write the list in files of whole tars; the folder is there whole or not at all."""
    aside = lists.with_name(".tmp-urls")
    aside.mkdir(parents=True, exist_ok=True)
    for old in aside.iterdir():
        old.unlink()
    rest = iter(rows)
    number = 0
    while some := list(islice(rest, per_shard * SHARDS_PER_LIST)):
        pq.write_table(
            pa.Table.from_pylist([dict(row) for row in some], schema=WANTED), aside / f"{number:05d}.parquet"
        )
        number += 1
    if not number:
        aside.rmdir()
        raise ValueError("the URL list is empty; name one with a URL per row")
    aside.rename(lists)


def _unfinished(fetch: Download, num_shards: int) -> list[int]:
    """Tars that img2dataset has not finished: it writes their statistics last."""
    fs, into = filesystem(fetch.into)
    names = {name.rpartition("/")[2] for name in (fs.ls(into, detail=False) if fs.exists(into) else ())}
    return [shard for shard in range(num_shards) if f"{shard:05d}_stats.json" not in names]


def _log(fetch: Download) -> Path:
    return fetch.work / "img2dataset.log"


def _run_img2dataset(fetch: Download, lists: Path) -> None:
    options = fetch.options
    arguments = {
        "url_list": str(lists),
        "input_format": "parquet",
        "caption_col": "caption",
        "output_folder": fetch.into,
        "output_format": "webdataset",
        "resize_mode": "no",
        "disable_all_reencoding": True,  # skip_reencode would still turn PNG and WebP into JPEG
        "extract_exif": False,
        "incremental_mode": "incremental",
        **options.resolved(),
    }
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
    with _log(fetch).open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "curation.sources.fetch_child"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(arguments).encode() + b"\n")
            child.stdin.flush()
            code = child.wait()
        finally:  # it ends when its input does
            child.stdin.close()
            child.wait()
    if code:
        raise ValueError(f"img2dataset stopped with exit status {code}; see {_log(fetch)}, then run again")


def _check_client(into: str) -> None:
    """img2dataset writes with fsspec's own clients, which reading does without."""
    try:
        fsspec.get_filesystem_class(into.partition("://")[0].lower() if is_remote(into) else "file")
    except ImportError as error:
        raise ValueError(
            f"{into}: img2dataset cannot write there ({' '.join(str(error).split())}); pip install "
            "s3fs, gcsfs or adlfs, or name a local folder with into"
        ) from None


def _fetched(fetch: Download, files: list[Path]) -> Iterator[tuple[int, Item]]:
    """Every row of the list with the item it became: joined by img2dataset's key, which is its place."""
    per_shard = fetch.options.number_sample_per_shard
    digits = math.ceil(math.log10(per_shard))
    shard = 0
    for path in files:
        rows = (row for batch in pq.ParquetFile(path).iter_batches() for row in batch.to_pylist())
        while some := list(islice(rows, per_shard)):
            found: dict[str, Item] = {}
            rest: list[Item] = []
            for item in list_shard(f"{fetch.into}/{shard:05d}", SourceListing([], {})):
                inner = item.member.partition("#")[2]
                if inner:
                    found[inner.partition(".")[0]] = item
                else:
                    rest.append(item)
            for place, row in enumerate(some):
                key = f"{10**digits * shard + place:0{digits + 5}d}"
                item = found.get(key) or _lost(fetch, shard, key, rest)
                if key in found and item.url != clean_url(row["url"]):
                    raise ValueError(f"{fetch.into}: holds the tars of another list; name another folder with into")
                yield row["number"], _described(item, row)
            shard += 1


def _lost(fetch: Download, shard: int, key: str, rest: list[Item]) -> Item:
    detail = (rest[0].detail if rest else None) or "img2dataset has no row for it"
    reason = FetchError.FETCH_FAILED.value
    return Item(inside(f"{shard:05d}.tar", key), None, source=fetch.into, reason=reason, detail=detail)


def _described(item: Item, row: Mapping[str, Any]) -> Item:
    others = tuple(row.get("others") or ())  # which the list of an earlier version lacks
    words = {"raw_caption": row["caption"], "other_captions": others, "license": row["license"]}
    return item._replace(url=clean_url(row["given"]), **words)
