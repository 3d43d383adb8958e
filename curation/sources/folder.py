"""List a folder of images: every input once, in an order that depends on nothing but the names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from curation.probe import NOT_PICTURES
from curation.sources.captions import TABLE_NAMES, CaptionTable, read_caption_table
from curation.sources.item import Item, SourceListing, member_name
from schemas.recipe import FolderSource

UNDECODED = frozenset(
    {".heic", ".heif", ".hif", ".jxl", ".avif", ".jxr", ".wdp", ".bpg", ".flif", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
)
"""Extensions of image formats that Pillow may lack a decoder for: listed all the same, and reported as unsupported."""

_SIDECARS = (".json", ".txt")


def list_folder(source: FolderSource) -> SourceListing:
    """The inputs of a folder, found recursively, in the byte order of their relative paths.

    An input is a file whose extension names an image format, in any case. Links to files are followed, links to
    folders are not. Hidden files and folders, and folders that hold a dataset, are left out and counted. A folder
    that cannot be listed is an input itself, so that it ends in the ledger as unreadable.

    Raises:
        ValueError: no such folder, not a folder, cannot be opened, no image in it, or an unusable captions table.
    """
    root = source.resolved_path()
    _check_folder(root)
    captions = read_caption_table(root)
    ignored: dict[str, int] = {}
    items = list(_walk(root, "", captions, ignored))
    if not items:
        raise ValueError(f"{root}: holds no image; name a folder with .jpg, .png or .webp files in it or below it")
    if captions is not None and captions.captions:
        ignored["captions without an image"] = len(captions.captions)
    if captions is not None and captions.num_repeated:
        ignored["further captions of an image"] = captions.num_repeated
    return SourceListing(items, ignored)


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


@dataclass(frozen=True)
class _Entry:
    """A name in a folder, with what sorting and counting need to know of it."""

    name: str
    is_folder: bool
    num_bytes: int | None


def _walk(root: Path, prefix: str, captions: CaptionTable | None, ignored: dict[str, int]) -> Iterator[Item]:
    """Depth first. A folder sorts as its name with the `/` that follows it, which gives the order of whole paths."""
    try:
        entries = _entries(root / prefix, ignored)
    except OSError:
        yield Item(member=_member(prefix.rstrip("/")), num_bytes=None)
        return
    names = {entry.name for entry in entries}
    if prefix and {"recipe.yaml", "tables"} <= names:
        _count("dataset folder", ignored)
        return
    sidecars = {"".join(_split(name)): name for name in names if _split(name)[1] in _SIDECARS}
    used: set[str] = set()
    others: list[str] = []
    for entry in entries:
        if entry.is_folder:
            yield from _walk(root, f"{prefix}{entry.name}/", captions, ignored)
        elif _split(entry.name)[1] in image_extensions():
            beside = _sidecars_of(entry.name, sidecars)
            used.update(beside)
            yield _item(prefix, entry, beside[0] if beside else None, captions)
        else:
            others.append(entry.name)
    for name in others:
        is_captions = name in used or (not prefix and name in TABLE_NAMES)
        kind = _member(_split(name)[1].removeprefix(".")) or "no extension"
        _count(f"{kind} (captions)" if is_captions else kind, ignored)


def _entries(folder: Path, ignored: dict[str, int]) -> list[_Entry]:
    """What lies in a folder, sorted; hidden names, linked folders and special files are counted and left out."""
    entries = []
    with os.scandir(folder) as scan:
        for entry in scan:
            is_folder, is_file = _look(entry)
            if entry.name.startswith("."):
                _count("hidden", ignored)
            elif is_folder and entry.is_symlink():
                _count("linked folder", ignored)
            elif is_folder:
                entries.append(_Entry(entry.name, True, None))
            elif is_file or entry.is_symlink():  # a link that leads nowhere is an input that cannot be read
                entries.append(_Entry(entry.name, False, _size(entry)))
            else:
                _count("special file", ignored)
    return sorted(entries, key=lambda entry: os.fsencode(entry.name + "/" if entry.is_folder else entry.name))


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
    names = (base + extension for base in (_split(name)[0], name) for extension in _SIDECARS)
    return [sidecars[name] for name in names if name in sidecars]


def _split(name: str) -> tuple[str, str]:
    """Stem and lower-case extension, its dot included."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension.lower()) if stem else (name, "")


def _member(path: str) -> str:
    return member_name(os.fsencode(path))


def _count(kind: str, ignored: dict[str, int]) -> None:
    ignored[kind] = ignored.get(kind, 0) + 1
