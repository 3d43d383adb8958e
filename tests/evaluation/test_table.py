"""Results as people read them: differences stand only between rows that compare."""

from __future__ import annotations

from typing import Any

from evaluation.table import blocks


def row(model: str, value: float | None, metric: str = "fid", **changes: Any) -> dict[str, Any]:
    return {
        "model": model, "step": None, "metric": metric, "category": None, "value": value, "low": None, "high": None,
        "network": "inception@12", "protocol": "clean", "reference": "photos", "reference_digest": "ab",
        "num_generated": 100, "num_reference": 200, "drawn": "{}", "quick": None, "flags": [], "reason": None,
        "change": None, "change_low": None, "change_high": None,
    } | changes  # fmt: skip


def lines(*rows: dict[str, Any]) -> list[tuple[str, ...]]:
    return [line for block in blocks(rows) if not block.title.startswith("published") for line in block.lines]


def test_a_difference_has_an_arrow_that_points_up_where_it_is_better() -> None:
    changed = {"change": -1.5, "change_low": -2.0, "change_high": -1.0}
    assert lines(row("a", 40.0), row("b", 38.5, **changed), row("c", 41.0, change=1.0)) == [
        ("a", "40.00", "100 against 200"),
        ("b", "38.50 ↑1.50 ±0.50", "100 against 200"),
        ("c", "41.00 ↓1.00", "100 against 200"),
    ]
    assert lines(row("b", 0.26, "clip_score", change=0.01))[0][1] == "0.2600 (26.00) ↑0.0100"


def test_a_change_that_may_be_chance_has_no_arrow_but_its_sign() -> None:
    may_be_chance = {"change": -1.5, "change_low": -4.0, "change_high": 1.0}
    assert lines(row("b", 38.5, **may_be_chance))[0][1] == "38.50 ≈-1.50 ±2.50"
    assert lines(row("b", 38.5, change=0.0, change_low=0.0, change_high=0.0))[0][1] == "38.50 =0.00 ±0.00"


def test_a_block_says_what_it_is_and_what_is_missing() -> None:
    measured = row("a", 40.0, low=39.0, high=41.0, flags=["rank_deficient"], quick=64)
    first, *_ = blocks([measured, row("a", None, "kid", reason="why", quick=64)])
    assert first.title == "QUICK, 64 prompts, protocol clean, inception@12, against photos@ab"
    assert first.lines == (("a", "40.00 ±1.00", "100 against 200"),)
    assert first.notes == ("a: KID: why", "a: rank_deficient")


def test_published_rows_stand_apart_with_why_they_do_or_do_not_compare() -> None:
    titles = {block.title: block.notes for block in blocks([row("a", 40.0, protocol="sana-1024")])}
    assert any("Sana's README, MJHQ-30K at 1024 px" in title for title in titles)
    assert not any("512 px" in title for title in titles)
    (note,) = titles["published, PixArt-Σ, Table 6"]
    assert note.startswith("not comparable")


def test_what_several_models_suffer_from_is_said_once() -> None:
    rows = [row(f"ours@{step}", 40.0, flags=["rank_deficient", *["missing"] * (step < 3)]) for step in (1, 2, 3)]
    assert blocks(rows)[0].notes == ("all models: rank_deficient", "ours@1, ours@2: missing")


def test_a_category_does_not_repeat_what_was_said_of_all_pictures() -> None:
    whole, part = (
        row("a", 1.0, flags=["rank_deficient"]),
        row("a", 2.0, category="x", flags=["rank_deficient", "missing"]),
    )
    assert [block.notes for block in blocks([part, whole])[:2]] == [("a: rank_deficient",), ("a: missing",)]


def test_what_others_have_published_stands_only_where_it_is_measured() -> None:
    assert len(blocks([row("a", 0.5, "geneval", protocol="geneval/published")])) == 1
