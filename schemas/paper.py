"""Figures that the PixArt-Σ paper (arXiv 2403.04692v2) prints, shown next to ours and marked as the paper's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table1Row:
    """One row of Table 1, as printed there."""

    dataset: str
    volume: str
    caption: str
    valid_nouns: str
    """VN: distinct nouns that appear more than 10 times."""
    distinct_nouns: str
    total_nouns: str
    average_caption_words: str
    """ACL, in words."""
    average_nouns: str
    """Nouns per image."""


TABLE_1 = (
    Table1Row("Internal-α", "14M", "raw", "187K", "931K", "175M", "25", "11.7"),
    Table1Row("Internal-α", "14M", "LLaVA", "28K", "215K", "536M", "98", "29.3"),
    Table1Row("Internal-α", "14M", "Share-Captioner", "51K", "420K", "815M", "184", "54.4"),
    Table1Row("Internal-Σ", "33M", "raw", "294K", "1512K", "485M", "35", "14.4"),
    Table1Row("Internal-Σ", "33M", "Share-Captioner", "77K", "714K", "1804M", "180", "53.6"),
    Table1Row("4K-Σ", "2.3M", "Share-Captioner", "24K", "96K", "115M", "163", "49.5"),
)
"""Table 1. The LLaVA row does not add up: 536M / 29.3 is 18.3M images, not 14M."""
