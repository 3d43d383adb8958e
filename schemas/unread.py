"""Tells the errors that say nothing of what a file holds: another try may succeed, and nothing is to be deleted."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a full disk."""
PASSING = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EMFILE, errno.ENFILE, errno.EAGAIN}
    | {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH}
)
"""Errors of a machine or of a network's disk that may be over soon."""


class StoreError(OSError):
    """A store does not answer, or refuses a request. Another try may succeed: it says nothing of a file."""


def is_unread(error: Exception) -> bool:
    """Whether an error says only that a file cannot be read now, and nothing of what it holds."""
    return isinstance(error, StoreError | PermissionError) or (
        isinstance(error, OSError) and error.errno in FULL | PASSING | {errno.ENOMEM, errno.EROFS}
    )


def why_damaged(error: Exception) -> str:
    """The text of an error of a damaged file. Raises that error: it says nothing of what the file holds."""
    if is_unread(error):
        raise error
    return str(error)


@contextmanager
def naming_the_disk(path: Path) -> Iterator[None]:
    """Name a file in the error that its disk is full, which does not say which disk."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            error.filename = str(path)
        raise
