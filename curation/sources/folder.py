"""List a folder or a pattern, local or remote: every image once, in an order that depends on nothing but the names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path

from PIL import Image

from curation.images.header import NOT_PICTURES
from curation.sources.captions import TABLE_NAMES, CaptionTable
from curation.sources.entries import (
    FolderEntry,
    ListEntries,
    SortedFolder,
    entry_order,
    local_entries,
    remote_entries,
    sorted_folder,
)
from curation.sources.item import Item, SourceListing, member_name
from curation.sources.patterns import is_pattern, match_all, split_pattern
from curation.sources.read import file_of
from curation.sources.storage import RemoteError, filesystem, is_there, not_listed, patiently
from schemas.foreign_tars import as_source, kind_of_tars
from schemas.locations import is_remote
from schemas.reasons import ImageError
from schemas.sources import FolderSource

UNDECODED = frozenset(
    {".heic", ".heif", ".hif", ".jxl", ".avif", ".jxr", ".wdp", ".bpg", ".flif"}
    | {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".3fr", ".x3f"}
)
"""Extensions of image formats that Pillow may lack a decoder for: listed all the same, and reported as unsupported."""

_SIDECARS = (".json", ".txt", ".caption")
_OTHER_KINDS = {"csv": "table", "jsonl": "table", "parquet": "table", "tar": "webdataset", "arrow": "hf_dataset"}
"""Extension of files that are no images -> the kind of source that reads them; a list of addresses is one of `urls`."""
_LEADS_OUT = "a link that leads out of the folder; follow_links: true in its entry of sources reads it"


def list_folder(source: FolderSource) -> SourceListing:
    """The inputs of a folder, found recursively, in the byte order of their relative paths. An input is a file whose
    extension names an image format, in any case. Links to files inside the folder are followed; one that leads out of
    it is an input with a reason unless `follow_links` is set, and links to folders are not followed. Hidden files and
    folders, and folders that hold a dataset, are left out and counted. A folder that cannot be listed is an input
    itself, so that it ends in the ledger as unreadable. Of a pattern every folder and image that matches is listed;
    inputs are named below the last folder before the first `*`, `?` or `[`. Raises ValueError: no such folder, not a
    folder, cannot be opened, no image in it, or an unusable captions table; the last two while the items are read."""
    location = source.location()
    root = split_pattern(location)[0] if is_pattern(location) else location
    if not is_remote(root):
        _check_folder(Path(root))
    listing = _ignoring()
    walk = _Walk(root, source.follow_links, listing)
    return SourceListing(walk.items(location), listing.ignored, listing.links)


def _ignoring() -> SourceListing:
    """A listing whose counts are not used."""
    return SourceListing([], {})


@lru_cache(maxsize=1)
def image_extensions() -> frozenset[str]:
    """Lower-case extensions, dot included, of the files that count as images."""
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
        raise ValueError(f"{root}: is a file, not a folder; {_instead(str(root), 'name the folder that holds it')}")
    try:
        os.scandir(root).close()
    except OSError as error:
        raise ValueError(f"{root}: cannot be opened ({error.strerror}); give yourself leave to read it") from None


class _Walk:
    """A way through a folder: what it lists with, and the captions that it has come by."""

    def __init__(self, root: str, follow_links: bool, listing: SourceListing) -> None:
        self.root, self.listing = root, listing
        self.captions = CaptionTable()
        self._list: ListEntries = (
            partial(remote_entries, root) if is_remote(root) else partial(local_entries, Path(root), follow_links)
        )

    def items(self, location: str) -> Iterator[Item]:
        """The inputs below the root, or those that the pattern `location` matches."""
        num_items = 0
        try:
            if location != self.root:
                self.captions.read(self.root, "", self._list("", _ignoring()).marks, self.listing)
            for item in self._below("") if location == self.root else self._matching(location):
                num_items += 1
                yield item if location == self.root else item._replace(source=self.root)
        except RemoteError as error:
            raise not_listed(location, error) from None
        if not num_items and location != self.root:
            raise ValueError(f"{location}: matches no image; check the pattern")
        kind = None if num_items or is_remote(location) else kind_of_tars(Path(location))
        if kind is not None:
            raise ValueError(
                f"{location}: holds {kind} tars and no image; name them in the recipe in place of images: "
                f"{as_source(kind, Path(location))}"
            )
        if not num_items:
            usual = "name a folder with .jpg, .png or .webp files in it or below it"
            raise ValueError(f"{location}: holds no image; {_instead(location, usual)}")
        if self.captions.tables:
            self.listing.count("captions without an image", self.captions.num_left())
            self.listing.count("further captions of an image", self.captions.num_repeated)

    def _below(self, prefix: str, folder: SortedFolder | None = None) -> Iterator[Item]:
        """The inputs below a folder, depth first. `folder`: the entries of the folder itself, where they are known."""
        if folder is None:
            try:
                folder = self._list(prefix, self.listing)
            except RemoteError as error:
                if not prefix:
                    raise
                detail = f"a folder that cannot be listed: {error.detail}"
                yield Item(_member(prefix.rstrip("/")), None, reason=error.reason.value, detail=detail)
                return
            except OSError:
                if not is_there(self.root):
                    raise ValueError(f"{self.root}: went away while it was listed; run again once it is back") from None
                yield Item(member=_member(prefix.rstrip("/")), num_bytes=None)
                return
        if prefix and folder.holds_dataset:
            self.listing.count("dataset folder")
            return
        self.captions.read(self.root, prefix, folder.marks, self.listing)
        extensions = image_extensions()
        for together in _neighbours(folder.entries):
            sidecars = {  # of `a.TXT` and `a.txt` the last in the order, which is the one in small letters
                stem + extension: entry.name
                for entry, stem, extension in together
                if extension in _SIDECARS and not entry.leads_out
            }
            used: set[str] = set()
            others: list[FolderEntry] = []
            for entry, _, extension in together:
                if entry.is_folder:
                    yield from self._below(f"{prefix}{entry.name}/")
                elif extension in extensions:
                    found = _sidecars_of(entry.name, sidecars) if sidecars else ()
                    used.update(found)
                    yield self._item(prefix, entry, found[0] if found else None)
                else:
                    others.append(entry)
            for entry in others:
                is_captions = entry.name in used or entry.name == self.captions.tables.get(prefix)
                self.listing.count(_kind(entry, is_captions))

    def _matching(self, location: str) -> Iterator[Item]:
        """The inputs in the folders that a pattern matches, and the matched images with their caption files."""
        matches = _matches(location, self.root)
        for parent, group in groupby(matches, key=lambda entry: entry.name[: entry.name.rfind("/") + 1]):
            matched = {entry.name.removeprefix(parent) for entry in group}
            entries = [
                entry
                for entry in self._list(parent, _ignoring()).entries
                if entry.name in matched or (not entry.is_folder and _may_hold_captions(entry.name))
            ]
            yield from self._below(parent, sorted_folder(entries))

    def _item(self, prefix: str, entry: FolderEntry, sidecar: str | None) -> Item:
        member = _member(prefix + entry.name)
        item = Item(member, entry.num_bytes, None if sidecar is None else _member(prefix + sidecar))
        if entry.link is not None:
            self.listing.links[entry.link] = self.listing.links.get(entry.link, 0) + 1
            if entry.leads_out:
                item = item._replace(reason=ImageError.UNREADABLE.value, detail=_LEADS_OUT)
        if self.captions.has_any and (raw := self.captions.take(member, partial(self._is_other_file, member))):
            item = item._replace(raw_caption=raw.caption, url=raw.url, license=raw.license, other_captions=raw.others)
        return item

    def _is_other_file(self, member: str, name: str) -> bool:
        """Whether a name is exactly that of a file other than `member`."""
        path = file_of(self.root, name)
        if is_remote(path):
            fs, path = filesystem(path)
            return bool(patiently(lambda: fs.exists(path)))
        try:  # some file systems find a file by other spellings of its name
            return not os.path.samestat(os.lstat(path), os.lstat(file_of(self.root, member)))
        except OSError:
            return False


def _kind(entry: FolderEntry, is_captions: bool) -> str:
    """The kind of a file that is no input, and how it would be one."""
    kind = _member(_split(entry.name)[1].removeprefix(".")) or "no extension"
    if is_captions:
        return f"{kind} (captions)"
    if entry.leads_out:
        return f"{kind} (links out of the folder, not read without follow_links)"
    return f"{kind} (not read; a source of kind {_OTHER_KINDS[kind]} reads it)" if kind in _OTHER_KINDS else kind


def _instead(location: str, usual: str) -> str:
    """What to do where a file is named as the folder: what another kind of source reads is one of its own."""
    kind = {"txt": "urls", **_OTHER_KINDS}.get(_split(location)[1].removeprefix("."))
    lists = ", or of kind urls where it lists addresses" if kind == "table" else ""
    return usual if kind is None else f"name it in the recipe in place of images: {as_source(kind, location)}{lists}"


def _may_hold_captions(name: str) -> bool:
    return _split(name)[1] in _SIDECARS or name in TABLE_NAMES


def _neighbours(entries: Iterable[FolderEntry]) -> Iterator[list[tuple[FolderEntry, str, str]]]:
    """Sorted entries with stem and extension, in groups that hold every caption file of their images, so that no folder
    is held whole. The names of an image `a.b.jpg` and of its caption files all begin with `a.b.`, and so do the names
    between them. The first of them opens the group, unless it is part of one that was opened with fewer letters."""
    together: list[tuple[FolderEntry, str, str]] = []
    begins, opens = "", image_extensions().union(_SIDECARS)
    for entry in entries:
        name = entry.name
        if together and not name.startswith(begins):
            yield together
            together = []
        stem, extension = _split(name)
        if not together:
            begins = f"{stem}." if extension in opens else f"{name}/"
        together.append((entry, stem, extension))
    if together:
        yield together


def _matches(location: str, root: str) -> list[FolderEntry]:
    """The folders and files that a pattern matches, named below `root`, and folders that cannot be listed. Matches
    inside a matched folder are left out."""
    fs, path = filesystem(location)
    top = filesystem(root)[1].rstrip("/")
    found, failed = match_all(fs, path)
    closed = {folder: {"type": "directory"} for folder in failed}  # each becomes a row with a reason
    kept: list[FolderEntry] = []
    last_folder = None
    entries = (
        FolderEntry(name.rstrip("/").removeprefix(top + "/"), info["type"] == "directory", info.get("size"))
        for name, info in (closed | found).items()
    )
    for entry in sorted(entries, key=entry_order):
        if last_folder is None or not entry.name.startswith(last_folder):
            kept.append(entry)
            last_folder = entry.name + "/" if entry.is_folder else last_folder
    return kept


def _sidecars_of(name: str, sidecars: dict[str, str]) -> list[str]:
    """The caption files of an image, the one that counts first: `<stem>.json`, `<stem>.txt`, `<name>.json`, ..."""
    names = (base + extension for base in (_split(name)[0], name) for extension in _SIDECARS)
    return [sidecars[name] for name in names if name in sidecars]


def _split(name: str) -> tuple[str, str]:
    """Stem and lower-case extension, its dot included."""
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension.lower()) if stem else (name, "")


def _member(path: str) -> str:
    if path.isascii() and "%" not in path:
        return path
    return member_name(os.fsencode(path))
