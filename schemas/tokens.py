"""The offline tokenizer: words and punctuation marks, hashed into a fixed vocabulary. No file to download."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

MAX_TOKENS = 300
"""Longest caption the model reads, in tokens; PixArt-Σ's `model_max_length`."""

VOCABULARY = 8192
"""Size of the hashed vocabulary; id 0 is padding and id 1 the end of the text."""

_WORD = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]")


def tokenize(text: str) -> list[str]:
    """Lower-cased words and single punctuation marks, in order."""
    return _WORD.findall(text.lower())


def token_ids(text: str) -> list[int]:
    """One id per token in [2, `VOCABULARY`), then 1 for the end of the text; cut to `MAX_TOKENS` with the end kept. Ids
    come from a hash, so two words may share one; with 8192 ids that is rare enough for captions of a demo."""
    ids = [_word_id(token) for token in tokenize(text)[: MAX_TOKENS - 1]]
    return [*ids, 1]


def count_tokens(text: str) -> int:
    """Tokens of a caption, the end of the text included, before any cut."""
    return len(tokenize(text)) + 1


def num_tokens_sql(caption: str) -> str:
    """`count_tokens` as DuckDB's SQL over a column; a test compares the two. They may differ by letters that are newer
    than Python's Unicode table."""
    word = r"[\p{L}\p{N}_]+(?:[''’][\p{L}\p{N}_]+)?|[^\p{L}\p{N}_\s]"
    return f"len(regexp_extract_all({caption}, '{word}')) + 1"


@lru_cache(maxsize=65536)
def _word_id(word: str) -> int:
    digest = hashlib.sha256(word.encode()).digest()
    return 2 + int.from_bytes(digest[:8], "big") % (VOCABULARY - 2)
