"""List WebDataset tars from their headers: every image member once, with its captions and the place of its bytes."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from curation.images.header import clean
from curation.sources.captions import RawCaption, read_sidecar
from curation.sources.folder import image_extensions
from curation.sources.item import Item, SourceListing, inside, member_name
from curation.sources.patterns import find_files
from curation.sources.storage import RemoteError, filesystem, patiently
from engine.ahead import ahead
from schemas.locations import absolute, is_remote
from schemas.reasons import FetchError, ImageError
from schemas.sources import TarCaptions, WebDatasetSource

BLOCK_BYTES = 1 << 18
"""Bytes fetched at once of a remote tar: its headers are between images that are skipped."""
LONGEST_CAPTION_BYTES = 1 << 20
"""A larger `.txt` or `.json` is no caption; it is counted."""
REMOTE_TARS_AT_ONCE = 8
"""Remote tars whose headers are read at the same time: most of it is waiting."""
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

_LOST = "the rest of it is lost"


def list_webdataset(source: WebDatasetSource) -> SourceListing:
    """Every image member of every tar, tar by tar in the order of their names, within a tar in its own order.

    Members of one sample share their path up to the first dot of the file name, whether or not they are next to each
    other; the caption is that of the sample. A tar that ends too early gives a row for what is lost, and so does a
    compressed one.

    Raises:
        ValueError: no tar is found.
    """
    found = SourceListing([], {})
    tars = [tar for url in source.urls for tar in find_files(absolute(url), (".tar", *COMPRESSED), "tar")]
    repeated = {tar for tar, num in Counter(tars).items() if num > 1} if len(source.urls) > 1 else set()
    if repeated:
        raise ValueError(f"{min(repeated)}: is named by more than one of urls; name it once")
    scan = partial(_scan_patiently, captions=source.captions)
    threads = REMOTE_TARS_AT_ONCE if any(map(is_remote, tars)) else 1
    scanned = zip(tars, ahead(scan, tars, threads), strict=True)
    items = (item for tar, headers in scanned for item in _items(tar, headers, source.captions, found))
    return SourceListing(items, found.ignored)


@dataclass
class _TarContents:
    """The contents of one tar by its headers."""

    images: list[tuple[str, Item]] = field(default_factory=list)
    """Key and item, in the order of the tar."""
    words: dict[str, dict[str, RawCaption]] = field(default_factory=dict)
    """Key -> extension -> caption; the first one counts."""
    others: Counter[str] = field(default_factory=Counter)
    broken: tuple[ImageError | FetchError, str] | None = None
    """The reason why the tar may have held more."""


def list_tar(tar: str, captions: TarCaptions, found: SourceListing) -> Iterator[Item]:
    """The items of one tar; `found` counts its other members.

    Samples are held until the tar ends: their members may be anywhere in it.

    Raises:
        ValueError: a remote tar cannot be reached now; a listing is taken once, so nothing of it is guessed.
    """
    yield from _items(tar, _scan_patiently(tar, captions), captions, found)


def _items(tar: str, scanned: _TarContents, captions: TarCaptions, found: SourceListing) -> Iterator[Item]:
    folder, container = _names(tar)
    keys = {key for key, _ in scanned.images}
    for key, item in scanned.images:
        yield replace(_captioned(item, scanned.words.get(key, {}), captions), source=folder)
    for key, words in scanned.words.items():
        for extension in words:
            found.count(f"{extension} (captions)" if key in keys else extension)
    for kind, num in scanned.others.items():
        found.count(kind, num)
    if scanned.broken is not None:
        reason, detail = scanned.broken
        yield Item(container, None, source=folder, reason=reason.value, detail=detail)


def _names(tar: str) -> tuple[str, str]:
    """The folder of a tar, and its own name as the listing has it."""
    folder, _, name = tar.rpartition("/")
    return folder or "/", member_name(os.fsencode(name))


def split_key(path: str) -> tuple[str, str]:
    """(key, extension) as webdataset has it: the path up to the first dot of the file name, and what follows it in
    lower case."""
    folder, slash, name = path.rpartition("/")
    stem, _, extension = name.partition(".")
    return folder + slash + stem, extension.lower()


def _scan_patiently(tar: str, captions: TarCaptions) -> _TarContents:
    container = _names(tar)[1]
    if tar.lower().endswith(COMPRESSED):
        broken = (ImageError.UNSUPPORTED, "a compressed tar cannot be read by offset: decompress it")
        return _TarContents(broken=broken)
    if is_remote(tar):
        try:
            return patiently(lambda: _scan(tar, container, captions))
        except RemoteError as error:
            if error.reason is FetchError.NOT_FOUND:
                return _TarContents(broken=(error.reason, error.detail))
            raise ValueError(f"{tar}: cannot be read ({error.detail}); run again once it can be") from None
    try:
        return _scan(tar, container, captions)
    except OSError as error:
        return _TarContents(broken=(ImageError.UNREADABLE, error.strerror or type(error).__name__))


def _scan(tar: str, container: str, captions: TarCaptions) -> _TarContents:
    scanned = _TarContents()
    seen: set[str] = set()
    with _open(tar) as file:
        for info in _members(file, scanned):
            path = info.name.removeprefix("./")
            key, extension = split_key(path)
            last = extension.rpartition(".")[2]
            if not info.isreg():
                scanned.others["links and special members"] += not info.isdir()
            elif path.rpartition("/")[2].startswith("."):
                scanned.others["hidden"] += 1
            elif "." + last in image_extensions():
                text = member_name(os.fsencode(path))
                item = Item(inside(container, text), info.size, byte_offset=info.offset_data)
                if info.issparse():
                    item = replace(item, reason=ImageError.UNSUPPORTED.value, detail="a sparse member of a tar")
                scanned.others["images whose name came before (inputs as well)"] += text in seen
                seen.add(text)
                scanned.images.append((key, item))
            elif extension in ("txt", "json") and info.size <= LONGEST_CAPTION_BYTES and not info.issparse():
                file.seek(info.offset_data)
                words = read_sidecar(file.read(info.size), extension == "json", captions.json_fields)
                scanned.words.setdefault(key, {}).setdefault(extension, words)
            else:
                scanned.others[member_name(os.fsencode(extension)) or "no extension"] += 1
    return scanned


def _members(file: IO[bytes], scanned: _TarContents) -> Iterator[tarfile.TarInfo]:
    """The members of a tar up to its end mark, or up to where it breaks off, which goes to `scanned.broken`."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    offset = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
            while (info := archive.next()) is not None:
                vars(archive)["members"] = []  # it would keep them all
                if info.isreg() and not info.issparse() and info.offset_data + info.size > size:
                    name = member_name(os.fsencode(info.name))
                    scanned.broken = (ImageError.TRUNCATED, f"the tar ends at byte {size}, inside {name}: {_LOST}")
                    return
                yield info
                offset = archive.offset
            offset = archive.offset
    except (tarfile.TarError, ValueError, OverflowError, IndexError) as error:
        early = any(word in str(error) for word in ("truncated", "unexpected end", "empty", "subsequent header"))
        reason = ImageError.TRUNCATED if early else ImageError.CORRUPT
        scanned.broken = (reason, f"{clean(str(error))} after byte {offset}: {_LOST}")
        return
    file.seek(offset)
    mark = file.read(tarfile.BLOCKSIZE)  # tarfile takes anything that is no header for the end
    if len(mark) < tarfile.BLOCKSIZE:
        scanned.broken = (ImageError.TRUNCATED, f"the tar ends at byte {size} without its end mark: {_LOST}")
    elif any(mark):
        scanned.broken = (ImageError.CORRUPT, f"no header at byte {offset}: {_LOST}")


def _captioned(item: Item, words: dict[str, RawCaption], captions: TarCaptions) -> Item:
    none = RawCaption(None)
    fields = words.get("json", none)
    text = words.get("txt", none).caption if captions.txt else None
    return replace(item, raw_caption=fields.caption or text, url=fields.url, license=fields.license)


def _open(tar: str) -> Any:
    if not is_remote(tar):
        return Path(tar).open("rb")
    fs, path = filesystem(tar)
    return fs.open(path, "rb", block_size=BLOCK_BYTES, cache_type="readahead")
