"""A digest names the content of a model's files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from models.digest import BLOCK_BYTES, NUM_BLOCKS, weights_digest
from models.weights import read_json


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(range(256)) * (8 << 12))  # 8 MiB
    return path


def changed(path: Path, first: int, last: int) -> str:
    """The digest after some bytes were replaced."""
    content = bytearray(path.read_bytes())
    content[first:last] = bytes(last - first)
    path.write_bytes(content)
    return weights_digest([path])


def test_files_that_differ_only_in_the_middle_have_two_digests(weights: Path) -> None:
    before = weights_digest([weights])
    assert changed(weights, 3 << 20, 5 << 20) != before


@pytest.mark.parametrize("megabytes", range(8))
def test_a_change_of_a_megabyte_is_seen_wherever_it_is(weights: Path, megabytes: int) -> None:
    before = weights_digest([weights])
    assert changed(weights, megabytes << 20, (megabytes + 1) << 20) != before


def test_the_digest_names_content_and_not_the_folder(weights: Path, tmp_path: Path) -> None:
    before = weights_digest([weights])
    (tmp_path / "moved").mkdir()
    moved = weights.rename(tmp_path / "moved" / weights.name)
    assert weights_digest([moved]) == before
    assert weights_digest([moved.rename(moved.with_name("other.safetensors"))]) != before


def test_the_digest_equals_the_one_that_sets_of_features_recorded(tmp_path: Path) -> None:
    """Features carry the digest of the encoders that made them: another digest of the same weights refuses them."""
    small, large = tmp_path / "config.json", tmp_path / "model.safetensors"
    small.write_bytes(b"{}")
    content = bytes(range(251)) * 40_000
    large.write_bytes(content)
    last = len(content) - BLOCK_BYTES
    starts = sorted({last * number // (NUM_BLOCKS - 1) for number in range(NUM_BLOCKS)})
    read = b"config.json 2\n{}" + b"model.safetensors 10040000\n"
    read += b"".join(content[start : start + BLOCK_BYTES] for start in starts)
    assert weights_digest([small, large]) == hashlib.sha256(read).hexdigest()[:16] == "37ee58de6f674878"


@pytest.mark.parametrize("use", [lambda path: weights_digest([path]), read_json])
def test_a_pipe_in_the_place_of_a_models_file_is_not_waited_for(tmp_path: Path, use: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises((OSError, ValueError), match="a pipe, a socket or a device, not a file"):
        use(tmp_path / "model.safetensors")
