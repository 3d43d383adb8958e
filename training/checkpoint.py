"""Checkpoints: a thread writes a copy of the state under another name and renames it, so every one on disk is whole."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import torch
from torch import Tensor

from schemas.commit import atomic_write
from schemas.files import TEMPORARY
from schemas.unread import is_unread
from training.checkpoint_files import checkpoints, whole
from training.model import LoadReport, PixArt
from training.model.convert import assign_weights, read_torch_file
from training.model.seal import SealedFile


class CheckpointWriter:
    """Writes checkpoints on a thread of its own while training continues. `send`: called on that thread once a
    checkpoint is on the disk. As a context manager it waits for the last write at the end; an error of that write is
    raised there, unless another one is already being raised."""

    def __init__(self, folder: Path, keep: int, send: Callable[[], None] = lambda: None) -> None:
        self._folder, self._keep, self.send = folder, keep, send
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._running: Future[None] | None = None

    def begin(self, step: int, content: dict[str, Any]) -> None:
        """Copy the content to the CPU and start to write it; waits only for a write that is still under way. Raises
        ValueError: the write before failed; see `write_checkpoint`."""
        self.wait()
        self._running = self._pool.submit(self._write, step, copied(content))

    def _write(self, step: int, content: dict[str, Any]) -> None:
        write_checkpoint(self._folder, step, content, self._keep)
        self.send()

    def check(self) -> None:
        """Raise the error of a write that has failed by now; never waits."""
        if self._running is not None and self._running.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk, and raise the error of its write."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.wait()


def copied(content: Any) -> Any:
    """Nested content with every tensor copied to the CPU, so that training may change the original."""
    if isinstance(content, Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        return {key: copied(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(copied(value) for value in content)
    return content


def write_checkpoint(folder: Path, step: int, content: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint and remove all but the newest `keep`. Raises ValueError: the disk is full or the folder cannot
    be written; older checkpoints are untouched."""
    path = folder / f"step-{step:08d}.pt"
    try:
        for left in folder.glob(f"{TEMPORARY}*"):  # by a run that was killed while it wrote
            left.unlink()
        with atomic_write(path) as file:
            sealed = SealedFile(file)
            torch.save(content, cast(IO[bytes], sealed))
            sealed.seal()
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        reason = str(cause).splitlines()[0]
        raise ValueError(f"{path}: the checkpoint cannot be written ({reason}); free space and run again") from error
    for _, old in checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU. Raises ValueError: it is cut short, damaged or no checkpoint of ours; the
    last one before it that is whole is named."""
    try:
        content = read_torch_file(path)
    except ValueError as error:
        if isinstance(error.__context__, OSError) and is_unread(error.__context__):
            raise
        before = next(
            (older for older in reversed(checkpoints(path.parent)) if older[1] < path and whole(older[1])), None
        )
        go_on = (
            f"continue from {before[1].name} (--from-last-good does both)"
            if before
            else "start the stage again, there is no older one"
        )
        raise ValueError(f"{error}; remove it to {go_on}") from None
    missing = [key for key in ("state_dict", "state_dict_ema", "optimizer", "step") if key not in content]
    if missing:
        raise ValueError(f"{path}: is no training checkpoint ({missing[0]} is missing); weights alone can be a parent")
    return content


def load_checkpoint(model: PixArt, path: Path, *, ema: bool = True) -> LoadReport:
    """Copy a checkpoint's averaged weights, or its last ones, into a model that may have new KV compression. Raises
    ValueError: as `read_checkpoint`, or the weights do not fit."""
    return assign_weights(model, read_checkpoint(path)["state_dict_ema" if ema else "state_dict"], origin=str(path))
