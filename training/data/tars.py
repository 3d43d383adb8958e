"""Tars that are read by offset: files of this machine, or objects of a store of which some have copies here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from schemas.commit import file_lock
from schemas.files import open_descriptor
from schemas.seal import read_json, write_json

if TYPE_CHECKING:
    from engine.place.store import Store


OBJECTS_FILE = ".objects.json"
"""What is known of the objects that have a copy, in the folder of the copies."""


class Tar(Protocol):
    """A tar that is open. It is closed when the last thread that reads from it lets go of it."""

    def read(self, begin: int, end: int) -> memoryview:
        """Bytes begin..end - 1, fewer at the tar's end; threads may read at once."""


@dataclass(frozen=True)
class Copies:
    """A folder of this machine with copies of some objects of a store, each under its key."""

    folder: Path
    store: Store

    @classmethod
    def of(cls, address: str, folder: Path) -> Copies:
        """Of a dataset or a run in a store; nothing is sent."""
        from engine.place.store import Store  # imported here: most datasets are folders

        return cls(folder, Store.at(address))

    def key(self, path: Path) -> str:
        """The key of the object that a path in the folder stands for."""
        return "/".join(path.relative_to(self.folder).parts)

    def shown(self, path: Path) -> str:
        """The address of that object."""
        return self.store.url(self.key(path))

    @contextmanager
    def versions(self) -> Iterator[dict[str, Any]]:
        """What is known of the objects that have a copy, by their keys, to be changed. Other processes of this machine
        wait, for a lock of the kernel, which goes with its process."""
        with file_lock(self.folder / ".copies", None):
            try:
                known = read_json(self.folder / OBJECTS_FILE)
            except (OSError, ValueError):
                known = {}
            try:
                yield known
            finally:
                self.remember(known)

    def remember(self, known: dict[str, Any]) -> None:
        write_json(self.folder / OBJECTS_FILE, known)


def open_tar(path: Path, copies: Copies | None) -> Tar:
    """A tar, or the object in its place. Raises OSError: there is no such file; a missing object shows when it is
    read."""
    if copies is None or not path.is_relative_to(copies.folder):
        return TarFile(path)
    return TarObject(path, copies)


class TarFile:
    def __init__(self, path: Path) -> None:
        self._descriptor, self._size = open_descriptor(str(path))

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, begin: int, end: int) -> memoryview:
        """See `Tar`; moves no file position that threads would share."""
        end = min(end, self._size)  # an index may say anything
        data = memoryview(bytearray(end - begin if 0 <= begin < end else 0))  # of which tensors are made, that write
        return data[: os.preadv(self._descriptor, [data], begin)] if data else data


class TarObject:
    """A tar in a store. It is read from its copy while there is one, else by range. A copy that goes is cut to nothing,
    so that its space is free whoever has it open: a read that gives less than it should is done again by range."""

    def __init__(self, path: Path, copies: Copies) -> None:
        self._path, self._copies = path, copies
        self._copy: TarFile | None = None

    def read(self, begin: int, end: int) -> memoryview:
        """See `Tar`. Raises ValueError: the store has no such object, or does not answer."""
        copy = self._copy or self._opened()
        if copy is not None:
            data = copy.read(begin, end)
            if len(data) == end - begin:
                return data
            self._copy = None
        if not 0 <= begin < end:
            return memoryview(b"")
        try:
            return memoryview(bytearray(self._copies.store.piece(self._copies.key(self._path), begin, end)))
        except FileNotFoundError:
            raise ValueError(f"{self._copies.shown(self._path)}: the index names this shard, but it is gone") from None
        except OSError as error:
            raise ValueError(f"{error}; run the same command to go on") from None

    def _opened(self) -> TarFile | None:
        try:
            self._copy = TarFile(self._path)
        except FileNotFoundError:
            return None
        return self._copy
