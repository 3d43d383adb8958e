"""The offline tokenizer: what a token is, and ids that stay."""

from __future__ import annotations

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from captioning.texts.text import clean
from schemas.tokens import MAX_TOKENS, VOCABULARY, count_tokens, num_tokens_sql, token_ids, tokenize


def test_words_and_marks() -> None:
    assert tokenize("A cat's red bowl, half-full.") == ["a", "cat's", "red", "bowl", ",", "half", "-", "full", "."]
    assert tokenize("Übergröße 2×3 日本") == ["übergröße", "2", "×", "3", "日本"]
    assert tokenize("") == []


def test_token_ids_are_fixed_and_end_with_1() -> None:
    assert token_ids("red cat")[-1] == 1
    assert token_ids("Red CAT") == token_ids("red cat")
    assert all(2 <= token < VOCABULARY for token in token_ids("a long caption about things")[:-1])
    assert token_ids("cat") == [2531, 1]


def test_cut_keeps_the_end_and_the_count_does_not_cut() -> None:
    long = "word " * 500
    assert len(token_ids(long)) == MAX_TOKENS
    assert token_ids(long)[-1] == 1
    assert count_tokens(long) == 501
    assert count_tokens("") == 1


KNOWN = st.characters(exclude_categories=("Cs", "Cn"))
"""Characters that this Python's Unicode table knows; DuckDB's is newer, and may call others letters."""


@given(st.text(alphabet=KNOWN, max_size=60) | st.text(alphabet="aé9_'’.,! —\u4e00\u0301\u00b2", max_size=40))
def test_sql_counts_the_tokens_that_the_tokenizer_makes(text: str) -> None:
    caption = clean(text)
    if caption is None or "\x1c" in caption:
        return
    sql = f"SELECT {num_tokens_sql('$caption')}"
    assert duckdb.execute(sql, {"caption": caption}).fetchone() == (count_tokens(caption),)
