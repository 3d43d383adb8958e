"""The arithmetic of docs/scale.md, and the made dataset over which the driver's loops are measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import at_scale, billion


def test_the_page_shows_the_table_of_the_script() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    assert billion.table() in page


@pytest.mark.slow
def test_the_made_dataset_is_one_that_is_done(tmp_path: Path) -> None:
    (line,) = at_scale.measure(tmp_path, 3 * at_scale.PART_ROWS, 0, ["nothing to do"])
    assert "| 12,288 inputs |" in line
