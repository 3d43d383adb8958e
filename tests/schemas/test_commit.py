"""A file is there whole, or not at all."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schemas.commit import atomic_write, file_lock, write_bytes


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file"
    with atomic_write(path) as file:
        file.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content" and list(path.parent.iterdir()) == [path]


def test_an_error_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="in the middle"), atomic_write(path) as file:
        file.write(b"new")
        raise RuntimeError("in the middle")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_lock_is_held_by_one_which_is_named_to_the_other(tmp_path):
    path = tmp_path / "new" / ".lock"
    with (
        file_lock(path, str),
        pytest.raises(ValueError, match=rf"^busy: process {os.getpid()} on "),
        file_lock(path, lambda holder: f"busy: {holder}"),
    ):
        pytest.fail("two hold it")
    with file_lock(path, str):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_with_what_to_do(tmp_path, monkeypatch, number):
    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        pytest.raises(ValueError, match=rf"{tmp_path}: its file system has no locks .*nolock"),
        file_lock(tmp_path / "l", str),
    ):
        pass


def test_a_lock_without_a_refusal_is_waited_for(tmp_path):
    path, held = tmp_path / ".lock", []

    def second() -> None:
        with file_lock(path, None):
            held.append("second")

    with ThreadPoolExecutor(1) as pool:
        with file_lock(path, None):
            waiting = pool.submit(second)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.05)
            held.append("first")
        waiting.result(timeout=5)
    assert held == ["first", "second"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_under_which_nothing_was_written_goes_and_so_do_the_folders_that_it_made(tmp_path, shared):
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "new" / "deep", tmp_path / "mine"):
        with pytest.raises(ValueError, match="refused"), file_lock(folder / ".lock", str, shared):
            raise ValueError("refused")
    assert [*tmp_path.rglob("*")] == [tmp_path / "mine"]


def test_a_lock_stays_with_what_was_written_under_it_and_where_it_was_before(tmp_path):
    with file_lock(tmp_path / ".lock", str):
        (tmp_path / "part").touch()
    with file_lock(tmp_path / ".lock", str):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "part"}


def test_a_lock_that_others_share_stays_until_the_last_leaves(tmp_path):
    path = tmp_path / "new" / ".lock"
    with file_lock(path, str, shared=True):
        with file_lock(path, str, shared=True):
            pass
        assert path.exists()
    assert not path.parent.exists()


def test_who_waits_for_a_lock_that_was_removed_holds_the_one_that_is_there(tmp_path):
    path, held = tmp_path / "new" / ".lock", []

    def second() -> None:
        with file_lock(path, None):
            held.append(path.exists())

    with ThreadPoolExecutor(1) as pool:
        with file_lock(path, None):
            waiting = pool.submit(second)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.05)
        waiting.result(timeout=5)
    assert held == [True]


@pytest.mark.parametrize("path", [Path(), Path("/")])
def test_a_path_without_a_name_is_a_folder(path: Path) -> None:
    with pytest.raises(IsADirectoryError) as error:
        write_bytes(path, b"")
    assert error.value.filename == str(path)
