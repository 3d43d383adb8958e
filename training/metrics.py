"""Metrics of a stage: one JSON line per log step, and the same in TensorBoard and, where wanted, Weights & Biases."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from schemas.commit import write_bytes
from schemas.seal import BrokenSeal, from_json, to_json

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"


class Metrics:
    """Appends to a stage's `metrics.jsonl`; lines after the step that training resumes from are removed first. `run`:
    of Weights & Biases; it keeps a step that it has had, and a resumed stage repeats it to the bit."""

    def __init__(self, folder: Path, resume_step: int, run: Run | None = None) -> None:
        self._path = folder / METRICS_FILE
        kept = [line for line in read_metrics(folder) if line["step"] <= resume_step]
        write_bytes(self._path, "".join(to_json(line) + "\n" for line in kept).encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._board = Board(folder / "tensorboard", purge_step=resume_step + 1)
        self._run = run

    def write(self, step: int, values: dict[str, float]) -> None:
        self._file.write(to_json({"step": step} | values) + "\n")
        self._file.flush()
        self._board.write(step, values)
        if self._run is not None:
            self._run.log(values, step=step)

    def sync(self) -> None:
        """Make all lines so far survive a power cut; called before the checkpoint that follows them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
        self._board.close()
        self._file.close()


class Board:
    """A file of TensorBoard. Each line is written at once: TensorBoard's own writer has a thread, which shows a full
    disk as a traceback. `purge_step`: TensorBoard forgets what earlier files of the folder hold from this step on."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("wb", buffering=0)
        self._records = RecordWriter(self._file)
        self._add(Event(file_version="brain.Event:2"))
        self._add(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: dict[str, float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(Event(step=step, summary=Summary(value=scalars)))

    def close(self) -> None:
        self._file.close()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a stage's metrics, in order. An incomplete last line, left by a killed run, is skipped, and so is a
    damaged one, which a warning names."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return []
    lines = []
    *texts, _ = path.read_bytes().split(b"\n")
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(from_json(text.decode()))
        except (ValueError, BrokenSeal) as error:
            log.warning("%s: line %d is damaged (%s); passed over", path, number, error)
    return lines


def smoothed_ends(lines: list[dict[str, Any]]) -> tuple[float, float]:
    """Mean loss over the first and over the last tenth of the lines; nan where there are none."""
    losses = [line["loss"] for line in lines]
    count = max(1, round(len(losses) / 10))
    if not losses:
        return float("nan"), float("nan")
    return sum(losses[:count]) / len(losses[:count]), sum(losses[-count:]) / len(losses[-count:])
