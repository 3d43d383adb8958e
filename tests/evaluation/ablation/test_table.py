"""What a table says of made up figures."""

from __future__ import annotations

from typing import Any

from evaluation.ablation.cells import GRID, Block, Cell, Experiment
from evaluation.ablation.table import reached, sheets
from schemas.training import Stage

STAGE = Stage(name="any", resolution=64, steps=20)
NONE, DEEP = Cell("none"), Cell("deep-2x2-conv")
BLOCK = Block("layers", ("none", "deep"), (NONE, DEEP))


def rows(losses: dict[str, list[float]], step: int = 20, fid: float | None = 30.0) -> list[dict[str, Any]]:
    return [
        {
            "cell": cell, "seed": seed, "step": step, "val_loss": loss, "fid": fid and fid + seed, "clip_score": None,
            "num_pictures": fid and 24,
            "seconds_per_step": 0.5, "seconds_ratio": 1.25,
        }
        for cell, values in losses.items()
        for seed, loss in enumerate(values)
    ]  # fmt: skip


def test_a_table_says_where_no_difference_is_seen() -> None:
    experiment = Experiment(GRID, STAGE, (BLOCK,))
    [sheet] = sheets(experiment, rows({"none": [0.1, 0.2, 0.3], "deep-2x2-conv": [0.3, 0.1, 0.2]}))
    assert sheet.rows[1][:5] == ("deep", "0.2 ± 0.1", "no difference seen", "31 ± 1", "no difference seen")
    [sheet] = sheets(experiment, rows({"none": [0.1, 0.2, 0.3], "deep-2x2-conv": [0.201, 0.3, 0.399]}))
    assert sheet.rows[1][2] == "+0.1 (+0.0975 to +0.102)"


def test_a_measure_that_is_not_here_has_no_column_and_a_claim_no_published_one() -> None:
    found = rows({"none": [0.1, 0.2, 0.3], "deep-2x2-conv": [0.3, 0.1, 0.2]}, fid=None)
    [sheet] = sheets(Experiment("positions", STAGE, (BLOCK,)), found)
    assert sheet.columns == (
        "layers", "validation loss ± spread", "less that of none (95 %)", "s per step", "ratio",
    )  # fmt: skip


def test_a_claim_says_when_it_was_reached() -> None:
    early = rows({"none": [3.0] * 3, "deep-2x2-conv": [1.9] * 3}, step=10)
    late = rows({"none": [2.0] * 3, "deep-2x2-conv": [1.0] * 3})
    assert reached(early + late, BLOCK) == [
        "deep reaches the last validation loss of none (step 20) by step 10",
        "at 2 of 2 points its loss is lower: steps 10, 20",
    ]
    turned = Block("layers", ("deep", "none"), (DEEP, NONE))
    assert reached(early + late, turned) == [
        "none does not reach the last validation loss of deep (step 20)",
        "at 2 of 2 points its loss is higher: steps 10, 20",
    ]
    same = rows({"none": [1.0, 2.0, 3.0], "deep-2x2-conv": [1.1, 1.9, 2.9]})
    assert reached(same, BLOCK) == ["deep reaches the last validation loss of none (step 20) by step 20"]
