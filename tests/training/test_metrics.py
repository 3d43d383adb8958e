"""Metrics: lines that a resumed run will write again are cut off, and a torn last line is no error."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter

from training.metrics import METRICS_FILE, Metrics, read_metrics, smoothed_ends


def test_lines_after_the_resumed_step_are_cut(tmp_path):
    metrics = Metrics(tmp_path, 0)
    for step in (2, 4, 6):
        metrics.write(step, {"loss": 1 / step})
    metrics.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 8, "lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [2, 4, 6]
    again = Metrics(tmp_path, 4)
    again.write(6, {"loss": 0.5})
    again.sync()
    again.close()
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(2, 0.5), (4, 0.25), (6, 0.5)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_tensorboard_reads_every_line_at_once_and_a_full_disk_is_an_error_of_this_thread(tmp_path, monkeypatch):
    threads = threading.active_count()
    metrics = Metrics(tmp_path, 2)
    metrics.write(4, {"loss": 0.5, "mse": 0.25})
    assert threading.active_count() == threads
    events = list(EventFileLoader(str(next((tmp_path / "tensorboard").iterdir()))).Load())
    assert [event.step for event in events] == [0, 3, 4] and events[1].session_log.status == SessionLog.START
    assert {value.tag: value.tensor.float_val[0] for value in events[2].summary.value} == {"loss": 0.5, "mse": 0.25}
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        monkeypatch.setattr(metrics._board, "_records", RecordWriter(full))
        metrics.write(6, {"loss": 0.5})
    metrics.close()


def test_ends_are_means_of_a_tenth(tmp_path):
    lines = [{"step": i, "loss": float(i)} for i in range(20)]
    assert smoothed_ends(lines) == (0.5, 18.5)
    assert all(math.isnan(value) for value in smoothed_ends([]))
    assert read_metrics(tmp_path) == []
