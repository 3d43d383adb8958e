"""List what is in one folder, local or remote, in the byte order of the names, however many there are."""

from __future__ import annotations

import heapq
import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from curation.sources.captions import TABLE_NAMES
from curation.sources.item import SourceListing
from curation.sources.storage import RemoteError, filesystem, is_within, may_pass, not_listed, patiently

_DATASET = frozenset({"recipe.yaml", "tables"})
"""Names in a folder that holds a dataset."""
_MARKS = _DATASET | set(TABLE_NAMES)

RUN_ENTRIES = 1 << 17
"""Entries sorted at once: some 30 MB of names."""
CHUNK_ENTRIES = 256
"""Entries of a run that are read at once; each run holds that many while runs are merged."""

LEADS_OUT = "out of the folder, not read without follow_links"
LINKS = ("to files of the folder", "out of the folder", LEADS_OUT, "to no file")
"""Where links lead, as it is counted of those that are inputs."""

Sortable = TypeVar("Sortable")


class FolderEntry(NamedTuple):
    """A name in a folder, and the facts that sorting and counting need."""

    name: str
    is_folder: bool
    num_bytes: int | None
    link: str | None = None
    """Where it leads, if it is a link: one of `LINKS`."""

    @property
    def leads_out(self) -> bool:
        """Whether it is a link to a file outside the source, which is not to be followed."""
        return self.link == LEADS_OUT


@dataclass(frozen=True)
class SortedFolder:
    """The entries of a folder in the order of their names."""

    entries: Iterable[FolderEntry]
    marks: frozenset[str]
    """Those of the names that mark a dataset or a captions table."""

    @property
    def holds_dataset(self) -> bool:
        return self.marks >= _DATASET


ListEntries = Callable[[str, SourceListing], SortedFolder]
"""Lists the folder of a prefix below a root, and counts in the listing what it leaves out."""


def entry_order(entry: FolderEntry) -> bytes:
    """A sort key: a folder sorts as its name with the `/` that follows it, which gives the order of whole paths."""
    return os.fsencode(entry.name + "/" if entry.is_folder else entry.name)


def local_entries(root: Path, follow_links: bool, prefix: str, listing: SourceListing) -> SortedFolder:
    """The entries of a local folder; hidden names, linked folders and special files are counted and left out. Raises
    OSError: it cannot be listed. Raises ValueError: it is too large to be sorted in memory, and there is no room in the
    temporary folder."""
    marks: set[str] = set()
    real_root = os.path.realpath(root)

    def marking() -> Iterator[FolderEntry]:
        for entry in _scan(root / prefix, real_root, follow_links, listing):
            if entry.name in _MARKS and not entry.leads_out:
                marks.add(entry.name)
            yield entry

    entries = sorted_on_disk(marking(), entry_order)
    return SortedFolder(entries, frozenset(marks))


def _scan(folder: Path, real_root: str, follow_links: bool, listing: SourceListing) -> Iterator[FolderEntry]:
    inside, outside, not_read, nowhere = LINKS
    with os.scandir(folder) as scan:
        for entry in scan:
            is_folder, is_file = _look(entry)
            if entry.name.startswith("."):
                listing.count("hidden")
            elif is_folder and entry.is_symlink():
                listing.count("linked folder")
            elif is_folder:
                yield FolderEntry(entry.name, True, None)
            elif entry.is_symlink():  # one that leads nowhere is an input that cannot be read
                leads = inside if is_within(entry.path, real_root) else outside if follow_links else not_read
                yield FolderEntry(entry.name, False, _size(entry), leads if is_file else nowhere)
            elif is_file:
                yield FolderEntry(entry.name, False, _size(entry))
            else:
                listing.count("special file")


def remote_entries(root: str, prefix: str, listing: SourceListing) -> SortedFolder:
    """The entries of a remote folder; hidden names are counted and left out. Its client gives them as one list. Raises
    RemoteError: it cannot be listed. Raises ValueError: it does not answer now. A listing is taken once, so nothing of
    it is guessed."""
    fs, path = filesystem(root)
    folder = f"{path.rstrip('/')}/{prefix}".rstrip("/")
    entries = []
    index = "/" if root.startswith("http") else ""  # the address of an index page ends with a slash
    try:
        listed = patiently(lambda: fs.ls(folder + index, detail=True))
    except RemoteError as error:
        if prefix and may_pass(error):
            raise not_listed(f"{root}/{prefix}".rstrip("/"), error) from None
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
            entries.append(FolderEntry(inner, is_folder, None if is_folder else found.get("size")))
    return sorted_folder(sorted(entries, key=entry_order))


def sorted_folder(entries: list[FolderEntry]) -> SortedFolder:
    """Entries that are sorted already, as a folder."""
    return SortedFolder(entries, frozenset(entry.name for entry in entries if not entry.leads_out) & _MARKS)


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


def sorted_on_disk(
    entries: Iterable[Sortable], key: Callable[[Sortable], bytes], run_entries: int = RUN_ENTRIES
) -> Iterator[Sortable]:
    """The entries in the order of their keys; equal keys keep the order they came in. `entries` is read to its end
    before this returns, so that counts made while it is read are complete, and its errors are raised here. Up to
    `run_entries` are sorted in memory and touch no disk; more go through a file in the temporary folder (TMPDIR), which
    has no name and is gone with the iterator. Raises ValueError: the temporary folder cannot be written, or is full."""
    rest = iter(entries)
    run = sorted(islice(rest, run_entries), key=key)
    following = next(rest, None)
    if following is None:
        return iter(run)
    rest = chain([following], rest)
    with _naming_the_folder():
        file = tempfile.TemporaryFile()  # noqa: SIM115  it goes with the iterators that read it
    places = []
    while run:
        with _naming_the_folder():
            places.append(_write(file, run))
        run = sorted(islice(rest, run_entries), key=key)
    return heapq.merge(*(_read(file, chunks) for chunks in places), key=key)


@contextmanager
def _naming_the_folder() -> Iterator[None]:
    """Name the temporary folder in its errors, so that they are not taken for errors of the folder being listed."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{tempfile.gettempdir()}: the names of a large folder are sorted there ({error.strerror}); free some "
            "space, or set TMPDIR to a folder that has some"
        ) from None


def _write(file: IO[bytes], run: list[Sortable]) -> list[tuple[int, int]]:
    """Write a run; returns (begin, bytes) of each chunk."""
    chunks = []
    for begin in range(0, len(run), CHUNK_ENTRIES):
        data = pickle.dumps(run[begin : begin + CHUNK_ENTRIES], pickle.HIGHEST_PROTOCOL)
        chunks.append((file.tell(), len(data)))
        file.write(data)
    file.flush()
    return chunks


def _read(file: IO[bytes], chunks: list[tuple[int, int]]) -> Iterator[Sortable]:
    for begin, size in chunks:
        with _naming_the_folder():
            file.seek(begin)
            data = file.read(size)
        yield from pickle.loads(data)
