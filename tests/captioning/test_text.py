from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.text import clean, kept_mask


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        (None, None),
        ("", None),
        (" \n\t\u00a0", None),
        ("  a  cat\n on a\tmat ", "a cat on a mat"),
        ("cafe\u0301", "caf\u00e9"),
        ("<b>bold</b>", "<b>bold</b>"),
    ],
)
def test_clean(given_text: str | None, expected: str | None) -> None:
    assert clean(given_text) == expected


@given(st.text())
def test_clean_twice_is_clean_once(text: str) -> None:
    once = clean(text)
    assert clean(once) == once


def test_a_row_that_selection_does_not_know_was_not_kept(part: Callable[..., pa.Table]) -> None:
    rows = part("images", image_id=["a", "b", "c"])
    selection = part("selection", image_id=["a", "b"], kept=[False, True])
    assert kept_mask(rows, selection) == [False, True, False]
    assert kept_mask(rows, selection.slice(0, 0)) == [False, False, False]
