"""The GPU benchmark on a CPU with a toy model: every section measures, and failures are rows."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_every_section_measures(tmp_path):
    pytest.importorskip("came_pytorch", reason="make bench-peers")
    rows = gpu.run(gpu.tiny(CPU), tmp_path)
    assert not [row for row in rows if "failed" in row or "not_run" in row]
    assert {row["section"] for row in rows} == {"machine", *(section.__name__ for section in gpu.SECTIONS)}
    figures = {row["what"]: row for row in rows}
    assert figures["64 px, batch 3, against diffusers eager"]["ratio"] > 0
    assert figures["CAME against came-pytorch"]["drift_after_100"] < 1e-6
    assert figures["64 px, batch 3, compiled against eager"]["relative_difference"] < 1e-2
    assert figures["64 px, batch 3, compiled against eager"]["recompiled"] == 0
    saved = figures["KV compression, 64 px, 1 of 2 blocks"]
    assert 0 < saved["flops_saved"] < 0.5
    assert len([row for row in rows if row["section"] == "memory" and row["predicted_gib"] > 0]) == 3
    assert len((tmp_path / "table.md").read_text().splitlines()) == len(rows) + 2
    assert [json.loads(line) for line in (tmp_path / "results.jsonl").open()] == rows[1:]


def test_a_measurement_that_fails_is_a_row_and_the_others_go_on(tmp_path, monkeypatch):
    def section(_bench):
        def too_large() -> gpu.Row:
            raise torch.OutOfMemoryError("tried to allocate 90 GiB")

        def no_peer() -> gpu.Row:
            import a_peer_that_is_not_installed  # noqa: F401

            return {}

        yield from (too_large, no_peer, lambda: {"what": "fine"})

    monkeypatch.setattr(gpu, "SECTIONS", (section,))
    _, memory, peer, fine = gpu.run(gpu.tiny(CPU), tmp_path)
    assert memory["failed"] == "out of memory: tried to allocate 90 GiB"
    assert peer["not_run"] == "a_peer_that_is_not_installed is not installed"
    assert fine["what"] == "fine"


def test_torch_numpy_and_safetensors_are_enough():
    missing = "import sys; sys.modules |= dict.fromkeys(('pydantic', 'pyarrow', 'diffusers', 'PIL', 'yaml', 'ray'))"
    subprocess.run([sys.executable, "-c", f"{missing}; import benchmarks.gpu"], cwd=REPOSITORY, check=True)


def test_nothing_begins_after_the_deadline(tmp_path):
    late = replace(gpu.tiny(CPU), deadline=time.monotonic() - 1)
    rows = gpu.run(late, tmp_path)[1:]
    assert [row["not_run"] for row in rows] == ["out of time"] * len(gpu.SECTIONS)
