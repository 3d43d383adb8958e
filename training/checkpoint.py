"""Checkpoints: written aside, synced and renamed, so that the newest one on disk is always whole."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch

from training.model.convert import read_torch_file

CHECKPOINT_NAME = re.compile(r"step-(\d{8})\.pt")


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a stage folder as (step, path), oldest first."""
    if not folder.is_dir():
        return []
    found = ((CHECKPOINT_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def latest_checkpoint(folder: Path) -> tuple[int, Path] | None:
    return next(iter(reversed(checkpoints(folder))), None)


def write_checkpoint(folder: Path, step: int, content: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint and remove all but the newest `keep`.

    Raises:
        ValueError: the disk is full or the folder cannot be written; older checkpoints are untouched.
    """
    path = checkpoint_path(folder, step)
    aside = path.with_suffix(".partial")
    try:
        with aside.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        aside.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: the checkpoint cannot be written ({reason}); free space and run again") from error
    for _, old in checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU.

    Raises:
        ValueError: it is cut short or is no checkpoint of ours.
    """
    try:
        content = read_torch_file(path)
    except ValueError as error:
        raise ValueError(f"{error}; remove it to go on from the one before") from None
    missing = [key for key in ("state_dict", "state_dict_ema", "optimizer", "step") if key not in content]
    if missing:
        raise ValueError(f"{path}: is no training checkpoint ({missing[0]} is missing); weights alone can be a parent")
    return content


def sync_folder(folder: Path) -> None:
    """Make renames within a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
