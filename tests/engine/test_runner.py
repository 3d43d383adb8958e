"""Errors of the disk are one line that says what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.runner import describe
from schemas.commit import write_bytes
from schemas.files import mount_point
from schemas.unread import naming_the_disk

FULL_DISK = "no space left on the disk of /d; free some and run the same command again, finished parts stay"


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENOSPC, FULL_DISK),
        (errno.EDQUOT, FULL_DISK),
        (
            errno.EROFS,
            "/d: is on a disk that can only be read; write elsewhere (out=FOLDER, or --out FILE for a page)",
        ),
    ],
)
def test_a_disk_that_takes_no_more_is_one_line(number: int, line: str) -> None:
    assert describe(OSError(number, os.strerror(number), "/d/.tmp-1-report.html")) == line


def test_the_disk_for_copies_of_a_store_is_named(tmp_path: Path) -> None:
    copy = mount_point("s3://bucket/dataset", tmp_path) / "tables" / "part-00000.parquet"
    with pytest.raises(OSError) as refused, naming_the_disk(copy):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert describe(refused.value) == (
        f"no space left in {tmp_path} for copies of what a store holds; name another folder with SIGMA_SCRATCH or "
        "run.scratch, and run the same command again, finished parts stay"
    )


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file/inner", tmp_path / "file"):
        with pytest.raises(OSError) as error:
            path.mkdir()
        assert describe(error.value).startswith(f"{path}: a file is in the place of a folder")


def test_what_a_user_may_not_do_says_what_to_do(tmp_path: Path) -> None:
    told = describe(PermissionError(errno.EACCES, "Permission denied", str(tmp_path)))
    assert told.startswith(f"{tmp_path}: permission denied; let this user read and write there")


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    for write in (write_bytes, Path.write_bytes):
        with pytest.raises(IsADirectoryError) as raised:
            write(tmp_path / "page.html", b"x")
        assert describe(raised.value) == f"{tmp_path / 'page.html'}: is a folder; name a file"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
