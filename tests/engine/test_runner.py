"""Errors of the disk are one line that says what to do."""

from __future__ import annotations

import errno
import os

import pytest

from engine.runner import describe


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENOSPC, "no space left on the disk; free some and run the same command again, finished parts stay"),
        (errno.EDQUOT, "no space left on the disk; free some and run the same command again, finished parts stay"),
        (
            errno.EROFS,
            "/d: is on a disk that can only be read; write elsewhere (out=FOLDER, or --out FILE for a page)",
        ),
    ],
)
def test_a_disk_that_takes_no_more_is_one_line(number: int, line: str) -> None:
    assert describe(OSError(number, os.strerror(number), "/d/.tmp-1-report.html")) == line
