"""The build in Python makes a whole dataset, and accounts for every input."""

from __future__ import annotations

from pathlib import Path

from examples.build_in_python import build_dataset, outcomes
from tests.building import write_pictures


def test_every_input_is_kept_or_has_a_reason(tmp_path: Path):
    write_pictures(tmp_path / "photos", [(640, 512), (512, 640), (96, 64)])
    (tmp_path / "photos" / "notes.jpg").write_text("no picture")
    dataset = build_dataset(tmp_path / "photos", tmp_path / "dataset")
    assert outcomes(dataset) == [("error", "not_an_image", 1), ("kept", None, 2), ("rejected", "too_small", 1)]
    assert [tar.parent.name for tar in sorted((dataset.root / "shards").glob("*/*.tar"))] == ["0.82", "1.21"]
