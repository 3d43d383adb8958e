"""Commit a file: written under another name, made durable, renamed. A file under its own name is whole. Also the lock
that keeps a second process away from a folder of such files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from schemas.files import aside_of, kept, make_folder, refuse_special
from schemas.unread import naming_the_disk

SYNCED_BYTES = 1 << 26
"""After so many bytes of a file that is digested it is seen to that they are on the disk."""


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that gets its name only once it is whole and on the disk; on an error nothing is left. What was
    written can be read back from it. In a store it is one object, which is there whole once it was sent."""
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    keeper = kept(path)
    make_folder(path.parent)
    aside = aside_of(path)
    try:
        with naming_the_disk(path), aside.open("w+b") as file:
            yield file
            file.flush()
            if keeper is None:
                os.fsync(file.fileno())
        if keeper is not None:
            keeper.publish(aside, path)
            return
        aside.rename(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_write(path) as file:
        file.write(data)


class Digested:
    """A new file that is only written to, from its beginning, and its sha256. What was written goes to the disk
    meanwhile: at its end nobody waits until a GB was read again and is there."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        """Take a file that gets its name, `path`, from `atomic_write`."""
        self._file, self._unsynced, self._is_on_disk = file, 0, kept(path) is None
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self._unsynced += len(data)
        if self._unsynced >= SYNCED_BYTES and self._is_on_disk:
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._unsynced = 0

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def file_lock(path: Path, refusal: Callable[[str], str] | None, shared: bool = False) -> Iterator[None]:
    """Hold a lock file, and write into it who does; the kernel frees it when the process ends, however it ends. A lock
    in whose folder nothing has come meanwhile is removed, with the folders that were made for it: a command that was
    refused leaves nothing.

    Args:
        refusal: makes the error's text from the name of the process that holds the lock; None waits for it.
        shared: with others that hold it so.

    Raises:
        ValueError: another process holds it, or the file system has no locks.
        OSError: the file cannot be written.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    before = {*os.listdir(path.parent)}  # noqa: PTH208 - Path.iterdir makes an object of each
    with _locked(path, refusal, shared) as file:
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
        finally:
            with suppress(OSError):  # others hold it as well, or have written something
                if {*os.listdir(path.parent)} - before == {path.name}:  # noqa: PTH208
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    for folder in made:
                        folder.rmdir()


def _locked(path: Path, refusal: Callable[[str], str] | None, shared: bool) -> IO[str]:
    """The lock file, which this process holds."""
    with suppress(FileNotFoundError):
        refuse_special(path)
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if refusal else 0))
        is_removed = os.fstat(file.fileno()).st_nlink == 0
    except BlockingIOError:
        assert refusal is not None, "a lock that is waited for is no error"
        file.seek(0)
        raise ValueError(refusal(file.read().strip() or "another process")) from None
    except OSError as error:
        raise ValueError(
            f"{path.parent}: its file system has no locks ({error.strerror}), so two commands could write there at "
            "once; mount it with locks (NFS: without nolock; Lustre: -o flock), or name a folder on another disk"
        ) from None
    if not is_removed:
        return file
    file.close()  # its holder has removed it meanwhile
    path.parent.mkdir(parents=True, exist_ok=True)
    return _locked(path, refusal, shared)
