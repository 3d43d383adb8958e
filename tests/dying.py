"""Let a command die in this process, as kill -9 does: from one change of the disk on, it changes nothing any more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


class Died(BaseException):
    """The command is dead. No handler of errors catches it, and what cleans up afterwards changes nothing either."""


@contextmanager
def dying_at(change: int, only: str = "") -> Iterator[list[int]]:
    """Die when the n-th file is about to be renamed or deleted, which is how every command commits.

    Args:
        only: counts changes of files with this in their path.

    Yields:
        A list whose one number is how many changes are left.
    """
    left, rename, unlink = [change], os.rename, os.unlink

    def counted(do: Any) -> Any:
        def change(path: Any, *others: Any, **named: Any) -> Any:
            if only in os.fspath(path) or left[0] < 0:
                left[0] -= 1
            if left[0] < 0:
                raise Died
            return do(path, *others, **named)

        return change

    with patch("os.rename", counted(rename)), patch("os.unlink", counted(unlink)), patch("os.remove", counted(unlink)):
        yield left
