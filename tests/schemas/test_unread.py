"""Where a machine has no file descriptor left, nothing is called damaged, and nothing deleted."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from engine.dataset import Dataset, read_parquet
from engine.part_check import problem_of
from evaluation.ablation.run import _kept
from schemas.features import RECORD_FILE, read_record
from schemas.seal import write_json
from schemas.shard_index import ShardIndex
from training.checkpoint import write_checkpoint
from training.checkpoint_files import whole


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Whatever opens a file here is refused by the kernel."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def checkpoint(folder: Path) -> Path:
    keys = ("state_dict", "state_dict_ema", "optimizer")
    return write_checkpoint(folder, 5, {key: {"a": torch.zeros(3)} for key in keys} | {"step": 5}, keep=1)


def record(folder: Path) -> Path:
    write_json(folder / RECORD_FILE, {"values": {}})
    return folder / RECORD_FILE


@pytest.mark.parametrize(
    "read",
    [
        lambda folder, small: read_parquet(small.parts("images")[0]),
        lambda folder, small: problem_of(small.parts("images")[0], "images"),
        lambda folder, small: ShardIndex(small.shards),
        lambda folder, small: whole(folder / "step-00000005.pt"),
        lambda folder, small: read_record(folder),
        lambda folder, small: _kept(folder / RECORD_FILE, "anybody"),
    ],
    ids=["table", "doctor", "index", "checkpoint", "record", "ablation"],
)
def test_it_is_an_error_of_the_machine(read: Callable[[Path, Dataset], object], tmp_path: Path, small: Dataset) -> None:
    checkpoint(tmp_path)
    record(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(OSError) as refused, no_descriptor_left():
        read(tmp_path, small)
    assert refused.value.errno == errno.EMFILE
    assert sorted(path.name for path in tmp_path.iterdir()) == before
