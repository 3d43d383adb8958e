from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.sources.entries import CHUNK_ENTRIES, sorted_on_disk


def _key(entry: tuple[str, int]) -> bytes:
    return entry[0].encode()


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250, 2000])
def test_the_order_is_that_of_sorted_however_many_runs_there_are(count: int) -> None:
    chance = random.Random(count)
    entries = [(f"{chance.randrange(500):03d}", number) for number in range(count)]  # equal keys keep their order
    assert list(sorted_on_disk(iter(entries), _key, run_entries=100)) == sorted(entries, key=_key)


def test_a_run_of_several_chunks_is_read_whole() -> None:
    entries = [(f"{number:06d}", number) for number in range(4 * CHUNK_ENTRIES + 7)]
    assert list(sorted_on_disk(reversed(entries), _key, run_entries=3 * CHUNK_ENTRIES)) == entries


def test_errors_of_the_entries_are_raised_at_once_and_as_they_are() -> None:
    def failing() -> Iterator[tuple[str, int]]:
        yield from ((f"{number}", number) for number in range(5))
        raise PermissionError(13, "Permission denied")

    with pytest.raises(PermissionError):
        sorted_on_disk(failing(), _key, run_entries=2)


def test_a_temporary_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    entries = [(f"{number}", number) for number in range(5)]
    assert list(sorted_on_disk(entries, _key, run_entries=5)) == entries  # what fits needs no disk
    with pytest.raises(ValueError, match=r"/gone: the names of a large folder are sorted there .*TMPDIR"):
        sorted_on_disk(entries, _key, run_entries=4)
