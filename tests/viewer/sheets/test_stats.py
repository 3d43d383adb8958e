from __future__ import annotations

import io

from rich.console import Console

from viewer.sheets.stats import format_mix, table_1_sheet


def test_the_mix_is_shown_with_the_tosses_of_the_coin() -> None:
    mix = {"synthetic": 6, "raw": 4, "coin_synthetic": 7, "synthetic_missing": 1, "synthetic_refused": 2}
    mix |= {"raw_missing": 0, "raw_refused": 2, "truncated": 3, "without_caption": 1, "tokenizer": "words"}
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(format_mix(mix, [{"caption_source": "raw", "reason": "file_name", "num": 2}]))
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "synthetic in the mix 6 60.0 %" in lines and "synthetic said the coin 7 70.0 %" in lines
    assert "raw said the coin 3 30.0 %" in lines and "raw the synthetic one was refused 2 20.0 %" in lines
    assert "both cut to 300 tokens (words) 3 30.0 %" in lines and "raw none: file name 2 20.0 %" in lines
    console.print(format_mix(dict.fromkeys(mix, 0) | {"tokenizer": None}, []))
    assert "not counted yet" in console.export_text()


def test_table_1_has_the_rows_of_the_paper_below_ours() -> None:
    row: dict[str, object] = {"caption_source": "raw", "num_images": 1200, "valid_nouns": 3, "distinct_nouns": 40}
    row |= {"total_nouns": 5000, "average_caption_words": 12.34, "average_nouns": None, "subset": None}
    row |= {"average_caption_tokens": 15.67, "tokenizer": "t5"}
    sheet = table_1_sheet([row, row | {"subset": "wide"}])
    assert sheet.rows[0] == ("this one", "raw", 1200, 3, 40, 5000, 12.34, 15.67, "t5", None)
    assert sheet.rows[1][0] == "subset wide" and sheet.num_quoted == 6
    assert all(str(quoted[0]).startswith("paper: ") for quoted in sheet.rows[2:])
    assert sheet.rows[6][:7] == ("paper: Internal-Σ", "Share-Captioner", "33M", "77K", "714K", "1804M", "180")
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(sheet.text())
    text = console.export_text()
    assert "1,200" in text and "12.3" in text and "paper: Internal-Σ" in text and "ACL tokens" in text
