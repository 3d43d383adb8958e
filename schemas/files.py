"""The files of a dataset by their paths, in a folder of this machine or in an object store. A dataset in a store has a
folder on this machine too, `mount_point`, in which nothing has to be: a path below it means the object in the store. So
whoever computes with paths need not know where a dataset is kept; `engine.place` reads and writes the objects."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

from schemas.locations import in_home, is_remote, on_disk

TEMPORARY = ".tmp-"
"""Prefix of a file that is being written; it is renamed when whole, and swept when a job starts."""

FULL_BYTES = 1 << 20
"""A disk with less free space is full."""

_MOUNTS = "sigma-stores"
_MOUNTED = re.compile(rf"^(.*/{_MOUNTS}-[^/]+)/([a-zA-Z][a-zA-Z0-9+.-]*):/(.+)$")


_NO_FILE = "a pipe, a socket or a device, not a file"


class NoFile(OSError):
    """A path leads to a pipe, a socket or a device: to read it might block, or have no end, and to write a file in its
    place takes it away from everybody."""


def aside_of(path: Path) -> Path:
    """A name for a file or folder while it is written or deleted, given by no other process or machine. Raises NoFile:
    the place is taken by a pipe, a socket or a device."""
    with suppress(FileNotFoundError, IsADirectoryError):
        refuse_special(path)
        if path.parent == Path("/dev") and path.is_symlink():  # /dev/stdout, which may lead to a file
            raise NoFile(errno.EINVAL, _NO_FILE, str(path))
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}-{path.name}")


class Kept(Protocol):
    """What keeps the files below a mount point: each method takes paths below it."""

    def open(self, path: Path, whole: bool = False) -> IO[bytes]:
        """See `open_file`; all of it is read in one request where that is wanted."""

    def read(self, path: Path) -> bytes:
        """See `read_file`."""

    def at_hand(self, path: Path) -> Path:
        """See `at_hand`."""

    def refresh(self, path: Path) -> bool:
        """See `refresh_copy`."""

    def size(self, path: Path) -> int | None:
        """The size of a file in bytes; None where there is none."""

    def names(self, folder: Path) -> tuple[list[str], Iterable[str]]:
        """The names of the folders and of the files directly in a folder."""

    def tree(self, folder: Path) -> dict[str, dict[str, str | None]]:
        """The names of all files below a folder and their etags, by the paths of the folders that they are in."""

    def is_folder(self, path: Path) -> bool:
        """See `is_folder`."""

    def below(self, folder: Path) -> dict[Path, int]:
        """All files below a folder in the order of their paths, with their sizes in bytes."""

    def times(self, folder: Path) -> dict[str, float]:
        """See `times_in`."""

    def publish(self, aside: Path, path: Path) -> None:
        """Give a file that was written aside its name."""

    def delete(self, paths: Iterable[Path]) -> None:
        """See `delete_files`."""

    def copy(self, path: Path, target: Path) -> None:
        """See `copy_file`."""


KEEPERS: list[Kept] = []
"""What keeps the files of stores; `engine.place` puts itself here."""


def scratch_folder() -> Path:
    """The folder for copies of what is read from stores, unless a recipe names one: of SIGMA_SCRATCH, or the
    system's. Raises ValueError: SIGMA_SCRATCH is an address in a store."""
    return on_disk(Path(os.environ.get("SIGMA_SCRATCH") or tempfile.gettempdir())).absolute()


def mount_point(url: str, scratch: Path | None = None) -> Path:
    """The folder that means an address in a store, such as s3://bucket/folder. `scratch`: the folder for copies of what
    is read; None takes `scratch_folder`."""
    scheme, _, rest = url.partition("://")
    base = scratch_folder() if scratch is None else scratch.absolute()
    return base / f"{_MOUNTS}-{os.getuid()}" / f"{scheme}:" / rest.strip("/")


def place_of(location: str, scratch: Path | None = None) -> Path:
    """The folder that a path or an address in a store means."""
    return mount_point(location, scratch) if is_remote(location) else Path(in_home(location)).absolute()


def shown_place(text: str | Path) -> str:
    """A text in which every path below a mount point is the address that it means."""
    return re.sub(rf"(?<![^\s'\"(=])[^\s'\"(=]*/{_MOUNTS}-[^/\s]+/([a-zA-Z][a-zA-Z0-9+.-]*):/", r"\1://", str(text))


def address_of(path: Path) -> str | None:
    """The address of an object that a path means; None for a file of this machine."""
    found = _MOUNTED.match(str(path)) if _MOUNTS in str(path) else None
    return None if found is None else f"{found[2]}://{found[3]}"


def kept(path: Path) -> Kept | None:
    """What keeps a path in a store; None for a file of this machine."""
    return KEEPERS[0] if _MOUNTS in str(path) and _MOUNTED.match(str(path)) else None


def copies_of(path: str | Path) -> str | None:
    """The folder in which the copies of what stores hold are, for a path of one; None for a file of this machine."""
    base, is_copy, _ = str(path).partition(f"/{_MOUNTS}-")
    return base if is_copy else None


def make_folder(folder: Path) -> None:
    """Make a folder, here or of the copies of a store. Raises ValueError: copies cannot be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_refused = "" if os.access(folder, os.W_OK) else "Permission denied"
    except OSError as error:
        is_refused = error.strerror or "it fails"
        if kept(folder / TEMPORARY) is None:
            raise
    if is_refused and kept(folder / TEMPORARY) is not None:
        raise ValueError(
            f"{copies_of(folder)}: copies of what a store holds cannot be written there ({is_refused}); name another "
            "folder with SIGMA_SCRATCH or run.scratch"
        )


def is_full(folder: Path, error: Exception) -> bool:
    """Whether a write into a folder has failed since its disk is full. What libraries write in C++ says anything."""
    return "No space left" in str(error) or ((disk := shutil.disk_usage(folder)).total > 0 and disk.free < FULL_BYTES)


def open_file(path: Path) -> IO[bytes]:
    """A file to read; of an object in a store only the bytes that are read are sent. Raises OSError: as
    `open_descriptor`, but a pipe that a shell gives by `<(...)` is read."""
    keeper = kept(path)
    if keeper is not None:
        return keeper.open(path)
    is_given = str(path).startswith("/dev/") and path.is_fifo()
    return open(path, "rb", opener=None if is_given else lambda name, _: open_descriptor(name)[0])


def open_descriptor(path: str) -> tuple[int, int]:
    """The descriptor of a file of this machine and its size; nothing is waited for. Raises OSError: it cannot be
    opened, or as of `refuse_special`."""
    refuse_special(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return descriptor, refuse_special(descriptor)
    except OSError:
        os.close(descriptor)
        raise


def refuse_special(path: str | Path | int) -> int:
    """The size of what must be a file. Raises NoFile, IsADirectoryError, FileNotFoundError: it is none."""
    found = os.stat(path)  # noqa: PTH116  making a Path takes as long as the call
    if stat.S_ISREG(found.st_mode):
        return found.st_size
    name = None if isinstance(path, int) else str(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    raise NoFile(errno.EINVAL, _NO_FILE, name)


@contextmanager
def parquet_source(path: Path, whole: bool = False) -> Iterator[Path | IO[bytes]]:
    """What pyarrow reads a file from: its path where it is on this machine. `whole`: all of it will be read."""
    keeper = kept(path)
    if keeper is None:
        yield at_hand(path)
        return
    with keeper.open(path, whole) as file:
        name = getattr(file, "name", None)
        yield Path(name) if isinstance(name, str) else file


def read_file(path: Path) -> bytes:
    keeper = kept(path)
    if keeper is not None:
        return keeper.read(path)
    with open_file(path) as file:
        return file.read()


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    file: Any
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def at_hand(path: Path) -> Path:
    """A file, on the disk of this machine: an object is copied there first, where that was not done before. Raises
    OSError: there is none, or it is no file."""
    keeper = kept(path)
    if keeper is not None:
        return keeper.at_hand(path)
    refuse_special(path)
    return path


def refresh_copy(path: Path) -> bool:
    """Copy an object to this machine anew where it was copied before; whether the copy had other bytes."""
    keeper = kept(path)
    return keeper is not None and keeper.refresh(path)


def is_file(path: Path) -> bool:
    keeper = kept(path)
    return path.is_file() if keeper is None else keeper.size(path) is not None


def size_of(path: Path) -> int:
    """The size of a file in bytes. Raises FileNotFoundError: there is none."""
    keeper = kept(path)
    size = path.stat().st_size if keeper is None else keeper.size(path)
    if size is None:
        raise FileNotFoundError(2, os.strerror(2), str(path))
    return size


def sizes_of(folder: Path, names: Iterable[str]) -> dict[str, int]:
    """The sizes in bytes of the files below a folder that have one of these paths and are there."""
    keeper = kept(folder)
    if keeper is None:
        return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}
    below = keeper.below(folder)
    return {name: below[folder / name] for name in names if folder / name in below}


def times_in(folder: Path) -> dict[str, float]:
    """When each of the files in a folder of files was written, in seconds."""
    keeper = kept(folder)
    if keeper is not None:
        return keeper.times(folder)
    found = {}
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):  # it was deleted meanwhile
            found[path.name] = path.stat().st_mtime
    return found


def is_folder(path: Path) -> bool:
    """Whether there is a folder, which in a store is one that holds something."""
    keeper = kept(path)
    return path.is_dir() if keeper is None else keeper.is_folder(path)


def entries_in(folder: Path) -> list[str]:
    """The names of the files and folders directly in a folder; none where there is no folder."""
    keeper = kept(folder)
    if keeper is not None:
        folders, files = keeper.names(folder)
        return sorted([*folders, *files])
    try:
        return os.listdir(folder)  # noqa: PTH208 - Path.iterdir makes an object of each
    except FileNotFoundError:
        return []


def find_files(folder: Path, pattern: str = "**/*") -> list[Path]:
    """The files below a folder whose paths match a pattern, in order."""
    keeper = kept(folder)
    if keeper is None:
        return sorted(path for path in folder.glob(pattern) if path.is_file())
    matches = _matching(pattern)
    found = list(keeper.below(folder)) if "/" in pattern else [folder / name for name in keeper.names(folder)[1]]
    return [path for path in found if matches(path.relative_to(folder).as_posix())]


def _matching(pattern: str) -> Callable[[str], object]:
    """Compare a relative path with a pattern of `**/`, `*`, `?` and `[...]`."""
    written = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", pattern)
    groups = (f"[^{part[2:]}" if part.startswith("[!") else part for part in parts)
    return re.compile(
        "".join(written.get(part, part if part.startswith("[") else re.escape(part)) for part in groups)
    ).fullmatch


def delete_files(*paths: Path) -> None:
    """Delete files of one dataset; those that are not there are no error. In a store some are deleted by a request."""
    keeper = kept(paths[0]) if paths else None
    if keeper is not None:
        keeper.delete(paths)
        return
    for path in paths:
        path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder. On a disk all of it loses its name at once; `sweep_folder` deletes what a kill leaves of it."""
    keeper = kept(folder)
    if keeper is not None:
        keeper.delete(keeper.below(folder))
    elif folder.is_dir():
        shutil.rmtree(folder.rename(aside_of(folder)), ignore_errors=True)


def copy_file(path: Path, target: Path) -> None:
    """Give a file a second name in the same dataset; where a disk has no such names, that of a copy."""
    keeper = kept(path)
    if keeper is not None:
        keeper.copy(path, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(path)
    except OSError:
        aside = aside_of(target)
        shutil.copyfile(path, aside)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.rename(target)


def sweep_folder(folder: Path) -> None:
    """Delete what killed runs left half written or half deleted below a folder; in a store nothing ever is."""
    for path in list(folder.rglob(f"{TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
