"""List a folder or a pattern, local or remote: every image once, in an order that depends on nothing but the names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Protocol

from PIL import Image

from curation.images.header import NOT_PICTURES
from curation.sources.captions import TABLE_NAMES, CaptionTable, read_caption_table
from curation.sources.item import Item, SourceListing, member_name
from curation.sources.patterns import is_pattern, match_all, split_pattern
from curation.sources.sorting import sorted_on_disk
from curation.sources.storage import RemoteError, filesystem, patiently
from schemas.locations import is_remote
from schemas.reasons import TRANSIENT
from schemas.sources import FolderSource

UNDECODED = frozenset(
    {".heic", ".heif", ".hif", ".jxl", ".avif", ".jxr", ".wdp", ".bpg", ".flif", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
)
"""Extensions of image formats that Pillow may lack a decoder for: listed all the same, and reported as unsupported."""

_SIDECARS = (".json", ".txt")

_DATASET = {"recipe.yaml", "tables"}
"""What lies in a folder that holds a dataset."""


def list_folder(source: FolderSource) -> SourceListing:
    """The inputs of a folder, found recursively, in the byte order of their relative paths.

    An input is a file whose extension names an image format, in any case. Links to files are followed, links to
    folders are not. Hidden files and folders, and folders that hold a dataset, are left out and counted. A folder
    that cannot be listed is an input itself, so that it ends in the ledger as unreadable. Of a pattern every folder
    and image that matches is listed; inputs are named below the last folder before the first `*`, `?` or `[`.

    Raises:
        ValueError: no such folder, not a folder, cannot be opened, no image in it, or an unusable captions table; the
            last two while the items are read.
    """
    location = source.location()
    root = split_pattern(location)[0] if is_pattern(location) else location
    if not is_remote(root):
        _check_folder(Path(root))
    listing = _ignoring()
    return SourceListing(_items(location, root, listing), listing.ignored)


def _items(location: str, root: str, listing: SourceListing) -> Iterator[Item]:
    entries = partial(_remote_entries, root) if is_remote(root) else partial(_entries, Path(root))
    try:
        names = _table_names(root, entries)
    except RemoteError as error:
        raise ValueError(f"{location}: cannot be listed ({error.detail}); check the spelling and the rights") from None
    captions = read_caption_table(root, names)
    found = _walk(entries, "", captions, listing)
    if location != root:
        found = _walk_matches(entries, _matches(location, root), captions, listing)
    num_items = 0
    for item in found:
        num_items += 1
        yield item if location == root else replace(item, source=root)
    if not num_items and location != root:
        raise ValueError(f"{location}: matches no image; check the pattern")
    if not num_items:
        raise ValueError(f"{location}: holds no image; name a folder with .jpg, .png or .webp files in it or below it")
    if captions is not None:
        listing.count("captions without an image", captions.num_left())
        listing.count("further captions of an image", captions.num_repeated)


def _table_names(root: str, entries: _Entries) -> list[str]:
    if is_remote(root):
        return [entry.name for entry in entries("", _ignoring()).entries if entry.name in TABLE_NAMES]
    return [name for name in TABLE_NAMES if (Path(root) / name).is_file()]


def _ignoring() -> SourceListing:
    """A listing whose counts nobody reads."""
    return SourceListing([], {})


@lru_cache(maxsize=1)
def image_extensions() -> frozenset[str]:
    """Lower-case extensions, dot included, of what counts as an image."""
    readable = {
        extension
        for extension, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in NOT_PICTURES
    }
    return frozenset(readable) | UNDECODED


def _check_folder(root: Path) -> None:
    try:
        str(root).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{os.fsencode(root)!r}: its name is not UTF-8; rename the folder, or link to it") from None
    if not root.exists():
        raise ValueError(f"{root}: no such folder; check the spelling of images: (or sources: path:) in the recipe")
    if not root.is_dir():
        raise ValueError(f"{root}: is a file, not a folder; name the folder that holds it")
    try:
        os.scandir(root).close()
    except OSError as error:
        raise ValueError(f"{root}: cannot be opened ({error.strerror}); give yourself leave to read it") from None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A name in a folder, with what sorting and counting need to know of it."""

    name: str
    is_folder: bool
    num_bytes: int | None


@dataclass(frozen=True)
class _Folder:
    """What lies in a folder, sorted."""

    entries: Iterable[_Entry]
    holds_dataset: bool


class _Entries(Protocol):
    def __call__(self, prefix: str, listing: SourceListing) -> _Folder: ...


def _walk(
    list_entries: _Entries,
    prefix: str,
    captions: CaptionTable | None,
    listing: SourceListing,
    folder: _Folder | None = None,
) -> Iterator[Item]:
    """Depth first. A folder sorts as its name with the `/` that follows it, which gives the order of whole paths.

    Args:
        list_entries: gives what lies in a folder, sorted.
        folder: what lies in this one, where it is known.
    """
    if folder is None:
        try:
            folder = list_entries(prefix, listing)
        except RemoteError as error:
            member = _member(prefix.rstrip("/"))
            yield Item(
                member, None, reason=error.reason.value, detail=f"a folder that cannot be listed: {error.detail}"
            )
            return
        except OSError:
            yield Item(member=_member(prefix.rstrip("/")), num_bytes=None)
            return
    if prefix and folder.holds_dataset:
        listing.count("dataset folder")
        return
    for together in _neighbours(folder.entries):
        sidecars = {  # of `a.TXT` and `a.txt` the last in the order, which is the one in small letters
            "".join(_split(entry.name)): entry.name for entry in together if _split(entry.name)[1] in _SIDECARS
        }
        used: set[str] = set()
        others: list[str] = []
        for entry in together:
            if entry.is_folder:
                yield from _walk(list_entries, f"{prefix}{entry.name}/", captions, listing)
            elif _split(entry.name)[1] in image_extensions():
                beside = _sidecars_of(entry.name, sidecars)
                used.update(beside)
                yield _item(prefix, entry, beside[0] if beside else None, captions)
            else:
                others.append(entry.name)
        for name in others:
            is_captions = name in used or (not prefix and name in TABLE_NAMES)
            kind = _member(_split(name)[1].removeprefix(".")) or "no extension"
            listing.count(f"{kind} (captions)" if is_captions else kind)


def _neighbours(entries: Iterable[_Entry]) -> Iterator[list[_Entry]]:
    """Sorted entries in groups that hold every caption file of their images, so that no folder is held whole.

    An image `a.b.jpg` and its caption files all begin with `a.b.`, and so does what lies between them in the order;
    whichever of them comes first opens the group, or lies in one that was opened with fewer letters.
    """
    together: list[_Entry] = []
    begins = ""
    for entry in entries:
        if together and not entry.name.startswith(begins):
            yield together
            together = []
        if not together:
            stem, extension = _split(entry.name)
            alone = extension not in _SIDECARS and extension not in image_extensions()
            begins = f"{entry.name}/" if alone else f"{stem}."
        together.append(entry)
    if together:
        yield together


def _order(entry: _Entry) -> bytes:
    return os.fsencode(entry.name + "/" if entry.is_folder else entry.name)


def _entries(root: Path, prefix: str, listing: SourceListing) -> _Folder:
    """What lies in a folder, sorted; hidden names, linked folders and special files are counted and left out.

    Raises:
        OSError: it cannot be listed.
        ValueError: it is too large to be sorted in memory, and there is no room in the temporary folder.
    """
    marks: set[str] = set()

    def marking() -> Iterator[_Entry]:
        for entry in _scan(root / prefix, listing):
            if entry.name in _DATASET:
                marks.add(entry.name)
            yield entry

    entries = sorted_on_disk(marking(), _order)
    return _Folder(entries, marks == _DATASET)


def _scan(folder: Path, listing: SourceListing) -> Iterator[_Entry]:
    with os.scandir(folder) as scan:
        for entry in scan:
            is_folder, is_file = _look(entry)
            if entry.name.startswith("."):
                listing.count("hidden")
            elif is_folder and entry.is_symlink():
                listing.count("linked folder")
            elif is_folder:
                yield _Entry(entry.name, True, None)
            elif is_file or entry.is_symlink():  # a link that leads nowhere is an input that cannot be read
                yield _Entry(entry.name, False, _size(entry))
            else:
                listing.count("special file")


def _remote_entries(root: str, prefix: str, listing: SourceListing) -> _Folder:
    """What lies in a remote folder, sorted; hidden names are counted and left out. Its client gives it as one list.

    Raises:
        RemoteError: it cannot be listed.
        ValueError: it does not answer now; what is listed is listed for good, so nothing of it is guessed.
    """
    fs, path = filesystem(root)
    folder = f"{path.rstrip('/')}/{prefix}".rstrip("/")
    entries = []
    index = "/" if root.startswith("http") else ""  # an index page is asked for with its slash
    try:
        listed = patiently(lambda: fs.ls(folder + index, detail=True))
    except RemoteError as error:
        if prefix and error.reason in TRANSIENT:
            shown = f"{root}/{prefix}".rstrip("/")
            raise ValueError(f"{shown}: cannot be listed ({error.detail}); run again once it can be") from None
        raise
    fs.invalidate_cache()  # fsspec would keep every folder it has seen
    for found in listed:
        name = found["name"].rstrip("/")
        inner = name.removeprefix(folder + "/")
        if inner == name or not inner or "/" in inner:  # links out of an index page, and the folder's own marker
            continue
        if inner.startswith("."):
            listing.count("hidden")
        else:
            is_folder = found["type"] == "directory"
            entries.append(_Entry(inner, is_folder, None if is_folder else found.get("size")))
    return _known(sorted(entries, key=_order))


def _known(entries: list[_Entry]) -> _Folder:
    return _Folder(entries, {entry.name for entry in entries} >= _DATASET)


def _matches(location: str, root: str) -> list[_Entry]:
    """The folders and files that a pattern matches, named below `root`, and folders that cannot be looked into; what
    lies in a matched folder is left out."""
    fs, path = filesystem(location)
    top = filesystem(root)[1].rstrip("/")
    found, failed = match_all(fs, path)
    closed = {folder: {"type": "directory"} for folder in failed}  # each becomes a row that says so
    kept: list[_Entry] = []
    last_folder = None
    entries = (
        _Entry(name.rstrip("/").removeprefix(top + "/"), info["type"] == "directory", info.get("size"))
        for name, info in (closed | found).items()
    )
    for entry in sorted(entries, key=_order):
        if last_folder is None or not entry.name.startswith(last_folder):
            kept.append(entry)
            last_folder = entry.name + "/" if entry.is_folder else last_folder
    return kept


def _walk_matches(
    list_entries: _Entries, matches: list[_Entry], captions: CaptionTable | None, listing: SourceListing
) -> Iterator[Item]:
    """What lies in the matched folders, and the matched images with the caption files beside them."""
    for parent, group in groupby(matches, key=lambda entry: entry.name[: entry.name.rfind("/") + 1]):
        matched = {entry.name.removeprefix(parent) for entry in group}
        entries = [
            entry
            for entry in list_entries(parent, _ignoring()).entries
            if entry.name in matched or (not entry.is_folder and _split(entry.name)[1] in _SIDECARS)
        ]
        yield from _walk(list_entries, parent, captions, listing, _known(entries))


def _look(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Whether a name leads to a folder, and whether to a file; neither where it cannot be followed."""
    try:
        return entry.is_dir(), entry.is_file()
    except OSError:
        return False, False


def _size(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat().st_size
    except OSError:
        return None


def _item(prefix: str, entry: _Entry, sidecar: str | None, captions: CaptionTable | None) -> Item:
    member = _member(prefix + entry.name)
    raw = captions.take(member) if captions is not None else None
    return Item(
        member=member,
        num_bytes=entry.num_bytes,
        sidecar=None if sidecar is None else _member(prefix + sidecar),
        raw_caption=raw.caption if raw else None,
        url=raw.url if raw else None,
        license=raw.license if raw else None,
    )


def _sidecars_of(name: str, sidecars: dict[str, str]) -> list[str]:
    """The caption files of an image, the first to be asked first: `<stem>.json`, `<stem>.txt`, `<name>.json`, ..."""
    if not sidecars:
        return []
    names = (base + extension for base in (_split(name)[0], name) for extension in _SIDECARS)
    return [sidecars[name] for name in names if name in sidecars]


def _split(name: str) -> tuple[str, str]:
    """Stem and lower-case extension, its dot included."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension.lower()) if stem else (name, "")


def _member(path: str) -> str:
    return member_name(os.fsencode(path))
