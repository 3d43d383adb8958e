"""Patterns match what a shell matches, and a folder that cannot be looked into is not passed over."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from curation.sources import list_source
from curation.sources.patterns import find_files, match_all
from schemas.reasons import FetchError
from schemas.sources import FolderSource
from tests.building import build, recipe, rows, write_pictures
from tests.photos import write_files

FILES = dict.fromkeys(("a.jpg", "x/b.jpg", "x/y/c.jpg", "x/y/d.png", "x1/y/e.jpg", "[z]/f.jpg", ".h/i.jpg"), b"x")


class OneClosed(LocalFileSystem):  # type: ignore[misc]
    """The local disk, as an account sees it that may not look into `closed`; root may look into everything."""

    cachable = False

    def ls(self, path: str, detail: bool = False, **kwargs: object) -> list[object]:
        if path.endswith("/closed"):
            raise PermissionError(13, "Permission denied", path)
        found: list[object] = super().ls(path, detail, **kwargs)
        return found


@pytest.mark.parametrize(
    "pattern", ["*.jpg", "x*/*.jpg", "*/y/*", "**/*.jpg", "x/**", "**/y/**/*.jpg", "[x]/?.jpg", "x?/**/*.jpg", "**/y"]
)
def test_patterns_match_as_fsspec_has_it(pattern: str, tmp_path: Path) -> None:
    fs = fsspec.filesystem("file")
    root = write_files(tmp_path / "root", FILES)
    found, failed = match_all(fs, f"{root}/{pattern}")
    assert sorted(found) == sorted(set(fs.glob(f"{root}/{pattern}")) - {f"{root}/x" if pattern == "x/**" else ""})
    assert found and not failed


def test_two_stars_are_allowed_only_between_slashes() -> None:
    with pytest.raises(ValueError, match=r"\*\* must be alone between two slashes; write \*.jpg"):
        match_all(fsspec.filesystem("file"), "/tmp/**.jpg")


def test_two_stars_go_round_no_loop(tmp_path: Path) -> None:
    root = write_files(tmp_path / "root", {"x/a.jpg": b"x"})
    (root / "x" / "again").symlink_to(root, target_is_directory=True)
    assert list(match_all(fsspec.filesystem("file"), f"{root}/**/*.jpg")[0]) == [f"{root}/x/a.jpg"]


@pytest.mark.parametrize(
    ("pattern", "is_lost"), [("**/*.jpg", True), ("*/*.jpg", True), ("x/*.jpg", False), ("x*/**/*.jpg", False)]
)
def test_a_folder_that_may_hold_matches_but_cannot_be_listed_is_reported(
    pattern: str, is_lost: bool, tmp_path: Path
) -> None:
    root = write_files(tmp_path / "root", {"x/a.jpg": b"x", "closed/b.jpg": b"x"})
    found, failed = match_all(OneClosed(), f"{root}/{pattern}")
    assert list(found) == [f"{root}/x/a.jpg"]
    assert {folder: error.reason for folder, error in failed.items()} == (
        {f"{root}/closed": FetchError.FORBIDDEN} if is_lost else {}
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_closed_folder_is_a_row_and_stops_a_list_of_tars(tmp_path: Path) -> None:
    root = write_files(tmp_path / "root", {"x/a.jpg": b"x", "x/a.tar": b"", "closed/b.jpg": b"x"})
    (root / "closed").chmod(0)
    try:
        items = list(list_source(FolderSource(path=f"{root}/**/*.jpg")).items)
        with pytest.raises(ValueError, match=r"cannot be listed \(permission denied\); check the spelling and the"):
            find_files(f"{root}/*/*.tar", (".tar",), "tar")
    finally:
        (root / "closed").chmod(0o700)
    assert [(item.member, item.reason) for item in items] == [("closed", None), ("x/a.jpg", None)]


@pytest.mark.parametrize("pattern", ["", "/**/*.jpg"])
def test_a_folder_too_deep_to_be_opened_is_a_row(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses it even to root; what lies beside it is not lost."""
    monkeypatch.setattr("curation.sources.storage.FIRST_PAUSE_S", 0.01)
    write_pictures(tmp_path / "root", ((96, 64),) * 2, captions=False)
    folder = os.open(tmp_path / "root", os.O_RDONLY)
    for _ in range(20):  # 20 times 251 bytes are more than the 4096 that a path may have
        os.mkdir("d" * 250, dir_fd=folder)
        folder, above = os.open("d" * 250, os.O_RDONLY, dir_fd=folder), folder
        os.close(above)
    os.close(folder)
    dataset, told = build(recipe(None, tmp_path / "ds", sources=[{"path": f"{tmp_path / 'root'}{pattern}"}]), "ingest")
    found = [(row["member"].count("/"), row["reason"]) for row in rows(dataset, "images")]
    assert sorted(found[:2]) == [(0, None), (0, None)]
    assert [(depth > 10, reason) for depth, reason in found[2:]] == [(True, "unreadable")]
    assert told.inputs is not None and told.inputs.num_inputs == 3
    shutil.rmtree(tmp_path / "root")
