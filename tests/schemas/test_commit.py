"""A file is there whole, or not at all."""

from __future__ import annotations

import pytest

from schemas.commit import published


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file"
    with published(path) as file:
        file.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content" and list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="in the middle"), published(path) as file:
        file.write(b"new")
        raise RuntimeError("in the middle")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
