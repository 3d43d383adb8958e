"""Files in a store by their paths here: a file that is named by its content is copied to this machine once, all others
are read from the store each time."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from engine.place import lease
from engine.place.store import Store
from schemas.files import KEEPERS, address_of

MOST_KEPT = 64 << 20
"""A larger file is not copied to this machine unless it must be on its disk: of parts of proxies only rows are read."""

_NAMED_BY_CONTENT = re.compile(r"\.[0-9a-f]{12}\.parquet$")


class Mirror:
    """The `schemas.files.Kept` of all stores."""

    def __init__(self) -> None:
        self._sizes: dict[Path, dict[str, int]] = {}
        """Folder -> the sizes of its files, as they were listed; of those that are named by their content they hold."""

    def open(self, path: Path, whole: bool = False) -> IO[bytes]:
        store, key = _object(path)
        if not _NAMED_BY_CONTENT.search(path.name):
            return io.BytesIO(store.get(key)) if whole else store.open(key)
        if not path.is_file():
            size = self._sizes.get(path.parent, {}).get(path.name) or self.size(path) or 0
            if size > MOST_KEPT:
                return io.BytesIO(store.get(key)) if whole else store.open(key, size)
            store.fetch(key, path)
        return path.open("rb")

    def read(self, path: Path) -> bytes:
        store, key = _object(path)
        return store.get(key)

    def at_hand(self, path: Path) -> Path:
        if not (_NAMED_BY_CONTENT.search(path.name) and path.is_file()):
            store, key = _object(path)
            store.fetch(key, path)
        return path

    def refresh(self, path: Path) -> bool:
        if not path.is_file():
            return False
        before, (store, key) = path.read_bytes(), _object(path)
        store.fetch(key, path)
        return path.read_bytes() != before

    def size(self, path: Path) -> int | None:
        store, key = _object(path)
        found = store.find(key)
        return None if found is None else found.size

    def names(self, folder: Path) -> tuple[list[str], list[str]]:
        """Copies of what is no more go with it; those that came since it was listed stay."""
        store, key = _object(folder)
        copies = [path.name for path in folder.glob("[!.]*.parquet")]
        folders, files = store.names(key)
        self._noted(folder, copies, files)
        return folders, list(files)

    def tree(self, folder: Path) -> dict[str, dict[str, str | None]]:
        store, key = _object(folder)
        copies = {below[len(str(folder)) :].lstrip("/"): names for below, _, names in os.walk(folder)}
        etags, sizes = dict[str, dict[str, str | None]](), dict[str, dict[str, int]]()
        for found in store.below(key):
            below, _, name = found.key[len(key) :].lstrip("/").rpartition("/")
            etags.setdefault(below, {})[name] = found.etag
            sizes.setdefault(below, {})[name] = found.size
        for below in {*sizes, *copies}:
            self._noted(folder / below, copies.get(below, ()), sizes.get(below, {}))
        return etags

    def _noted(self, folder: Path, copies: Iterable[str], sizes: dict[str, int]) -> None:
        """Remember what is in a folder, and delete copies of what is not."""
        self._sizes[folder] = sizes
        for name in copies:
            if name not in sizes and name.endswith(".parquet") and name[0] != ".":
                (folder / name).unlink(missing_ok=True)

    def is_folder(self, path: Path) -> bool:
        store, key = _object(path)
        return next(store.below(key), None) is not None

    def below(self, folder: Path) -> dict[Path, int]:
        store, key = _object(folder)
        return {folder / found.key[len(key) :].lstrip("/"): found.size for found in store.below(key)}

    def times(self, folder: Path) -> dict[str, float]:
        store, key = _object(folder)
        return {found.key.rpartition("/")[2]: found.written for found in store.below(key) if found.written is not None}

    def publish(self, aside: Path, path: Path) -> None:
        """One request, or one upload in pieces that shows when it is whole."""
        store, key = _object(path)
        lease.assure()
        size = store.put(key, aside).size
        if size <= MOST_KEPT and _NAMED_BY_CONTENT.search(path.name):
            aside.rename(path)
        else:
            aside.unlink()

    def delete(self, paths: Iterable[Path]) -> None:
        paths = list(paths)
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            lease.assure()
            store, _ = _object(paths[0])
            store.delete(_object(path)[1] for path in paths)

    def copy(self, path: Path, target: Path) -> None:
        store, key = _object(path)
        lease.assure()
        store.copy(key, _object(target)[1])


def _object(path: Path) -> tuple[Store, str]:
    """The bucket of a path, and the key of the object that it means."""
    address = address_of(path)
    assert address is not None, "only paths of stores come here"
    store = Store.at(address)
    return Store(store.bucket), store.prefix


KEEPERS[:] = [Mirror()]
