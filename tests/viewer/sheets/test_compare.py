from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from schemas.tokens import count_tokens
from tests.building import connection_with, count_nouns
from viewer.sheets.compare import compare

Part = Callable[..., pa.Table]
RAW = ["a cat", None, "two dogs", None, "not kept"]
SYNTHETIC = ["A cat on a mat.", "The sky.", None, None, None]
VLM = ["A cat. A hat.", "A blue sky.", "Two dogs run!", None, None]


@pytest.fixture
def dataset(part: Part) -> duckdb.DuckDBPyConnection:
    """Five images, the last not kept; two captioners, `vlm` beside; the coin took synthetic, synthetic, raw."""
    nouns = {
        "raw": [["cat"], None, ["dog"], None, None],
        "synthetic": [["cat", "mat", "cat"], ["sky"], None, None, None],
        "vlm": [["cat", "hat"], ["sky"], ["dog"], None, None],
    }
    words = {"raw": [2, None, 2, None, None], "synthetic": [5, 2, None, None, None], "vlm": [4, 3, 3, None, None]}
    lowest: dict[str, Sequence[float | None]] = {
        "synthetic": [0.1, 0.3, None, None, None],
        "vlm": [0.2, 0.1, 0.25, None, None],
    }

    def stacked(values: dict[str, Any]) -> list[Any]:
        return [value for rows in values.values() for value in rows]

    scored = stacked(lowest)
    connection = connection_with(
        selection=part("selection", kept=[True] * 4 + [False]),
        raw_captions=part("raw_captions", caption=RAW, reason=[None, "file_name", None, "no_raw_caption", None]),
        captions=part("captions", caption=SYNTHETIC, reason=[None, None, "cut", "captioner_failed", "not_selected"]),
        mix=part(
            "mix",
            caption=[*SYNTHETIC[:2], RAW[2], None, None],
            caption_source=["synthetic", "synthetic", "raw", None, None],
        ),
        nouns=part(
            "nouns",
            row_id=[*range(5)] * 3,
            caption_source=[source for source in nouns for _ in range(5)],
            nouns=stacked(nouns),
            num_words=stacked(words),
            num_tokens=[count_tokens(text) if text else None for text in (*RAW[:3], None, None, *SYNTHETIC, *VLM)],
            tokenizer=["words"] * 15,
        ),
        grounding=part(
            "grounding",
            row_id=[*range(5)] * 2,
            caption_source=[source for source in lowest for _ in range(5)],
            scorer=[None if score is None else "clip" for score in scored],
            lowest_score=scored,
            mean_score=[None if score is None else score + 0.1 for score in scored],
            ungrounded_share=[0.5, None, *[None] * 8],
        ),
    )
    beside = part("captions", caption=VLM, reason=[None] * 3 + ["refusal", "not_selected"])
    connection.register("vlm_captions", beside)
    connection.execute("CREATE TEMP VIEW captions_beside AS SELECT *, 'vlm' AS source FROM vlm_captions")
    return count_nouns(connection)


def figures(connection: duckdb.DuckDBPyConnection, a: str, b: str, **knobs: int) -> dict[Any, tuple[Any, Any]]:
    return {row[0]: (row[1], row[2]) for row in compare(connection, a, b, **knobs).rows}


def test_two_captioners_counted_by_hand(dataset: duckdb.DuckDBPyConnection) -> None:
    found = figures(dataset, "synthetic", "vlm", valid_above=1)
    expected = {
        "kept images": (4, 4),
        "captions": (2, 3),
        "refused, share": (1 / 4, 1 / 4),
        "without: cut": (1, 0),
        "without: refusal": (0, 1),
        "without: captioner failed": (1, 0),
        "words, mean": (3.5, 10 / 3),
        "words, median": (3.5, 3),
        "words, 95 % have at most": (2 + 0.95 * 3, 3.9),
        "tokens, mean": ((7 + 4) / 2, (7 + 5 + 5) / 3),
        "tokens, median": (5.5, 5),
        "nouns per caption": (2, 4 / 3),
        "distinct nouns": (3, 4),
        "valid nouns, used more than 1 times": (1, 0),
        "nouns that the other lacks": (1, 2),
        "captions scored": (2, 3),
        "sentence score, mean": (0.3, 0.55 / 3 + 0.1),
        "lowest sentence's score, mean": (0.2, 0.55 / 3),
        "ungrounded nouns, share": (0.5, None),
        "images where its lowest sentence fits better": (1, 1),
    }
    for what, values in expected.items():
        assert found[what] == pytest.approx(values, abs=1e-6), what
    assert set(found) == {*expected, "tokens, 95 % have at most"}
    notes = " ".join(compare(dataset, "synthetic", "vlm").notes)
    assert "synthetic alone: mat." in notes and "vlm alone: dog, hat." in notes and "on 2 images" in notes


def test_the_mix_has_the_captions_that_the_coin_took(dataset: duckdb.DuckDBPyConnection) -> None:
    found = figures(dataset, "mix", "raw")
    assert found["captions"] == (3, 2) and found["without: no caption"] == (1, 0)
    assert found["without: file name"] == (0, 1) and found["refused, share"] == (0, 0.25)
    assert found["words, mean"] == ((5 + 2 + 2) / 3, 2) and found["distinct nouns"] == (4, 2)
    assert "sentence score, mean" not in found  # of raw captions there are no scores
    assert compare(dataset, "mix", "raw").notes[-1].startswith("Not scored: raw;")


def test_swapping_the_two_swaps_the_columns(dataset: duckdb.DuckDBPyConnection) -> None:
    there, back = figures(dataset, "synthetic", "vlm"), figures(dataset, "vlm", "synthetic")
    assert {what: (b, a) for what, (a, b) in back.items()} == there


def test_a_source_without_captions_is_refused_and_the_others_are_named(
    dataset: duckdb.DuckDBPyConnection, part: Part
) -> None:
    with pytest.raises(ValueError, match="no captions of 'llava' in this dataset; there are raw, synthetic, mix, vlm"):
        compare(dataset, "raw", "llava")
    with pytest.raises(ValueError, match="two different"):
        compare(dataset, "raw", "raw")
    alone = connection_with(
        selection=part("selection", kept=[True]), raw_captions=part("raw_captions", caption=["a cat"])
    )  # without the view of captions beside
    with pytest.raises(ValueError, match=r"no captions of 'vlm' in this dataset; there are raw$"):
        compare(alone, "raw", "vlm")
    with pytest.raises(ValueError, match="no captions of 'raw' in this dataset; there are none at all yet"):
        compare(connection_with(), "raw", "synthetic")
