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


def test_table_1_is_whole_in_80_columns_even_of_millions() -> None:
    columns = {"valid_nouns": 77_123, "distinct_nouns": 714_456, "total_nouns": 1_804_000_000, "tokenizer": "t5"}
    averages = {"average_caption_words": 180.25, "average_caption_tokens": 233.25, "average_nouns": 53.6}
    rows = [
        {"subset": subset, "caption_source": source, "num_images": 33_123_456} | columns | averages
        for subset in (None, "internal_sigma")
        for source in ("raw", "synthetic", "share_captioner")
    ]
    sheet = table_1_sheet(rows)
    shown = Console(file=io.StringIO(), width=80, color_system=None)
    shown.print(sheet.text())
    assert isinstance(shown.file, io.StringIO)
    text = shown.file.getvalue()
    assert "\u2026" not in text and max(map(len, text.splitlines())) <= 80
    lines = [line.split() for line in text.splitlines()]
    for source in ("share_captioner", "Share-Captioner", "LLaVA"):
        assert any(source in line for line in lines), source
    for number in ("33.1M", "77,123", "714,456", "1.8G", "180.2", "233.2", "53.6"):
        assert any(number in line for line in lines), number
    assert "the tokenizer (t5)" in " ".join(text.split())
    assert "1804000000" in sheet.write("csv") and "t5" in sheet.write("csv"), "other forms keep every digit"
