from __future__ import annotations

import csv
import io
import json

from viewer.sheets.sheet import Sheet, shown

SHEET = Sheet(
    "Figures",
    ("set", "images", "share"),
    [("50 % of_Σ|x", 1234567, 0.25), ("none", 0, None), ("paper: α", "14M", "25")],
    ("What it means.",),
    num_quoted=1,
)


def test_json_and_csv_keep_every_digit() -> None:
    found = json.loads(SHEET.write("json"))
    assert found["rows"][0] == {"set": "50 % of_Σ|x", "images": 1234567, "share": 0.25}
    assert found["rows"][1]["share"] is None and found["notes"] == ["What it means."]
    rows = list(csv.reader(io.StringIO(SHEET.write("csv"))))
    assert rows == [["set", "images", "share"], ["50 % of_Σ|x", "1234567", "0.25"], ["none", "0", ""],
                    ["paper: α", "14M", "25"]]  # fmt: skip


def test_markdown_and_latex_escape_their_special_characters() -> None:
    assert SHEET.write("markdown").splitlines() == [
        "| set | images | share |",
        "|---|---:|---:|",
        r"| 50 % of_Σ\|x | 1,234,567 | 0.250 |",
        "| none | 0 | - |",
        "| paper: α | 14M | 25 |",
        "",
        "What it means.",
    ]
    assert SHEET.write("latex").splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\hline",
        r"set & images & share \\",
        r"\hline",
        r"50 \% of\_$\Sigma$|x & 1,234,567 & 0.250 \\",
        r"none & 0 & - \\",
        r"\hline",
        r"paper: $\alpha$ & 14M & 25 \\",
        r"\hline",
        r"\end{tabular}",
        "% What it means.",
    ]


def test_values_for_readers() -> None:
    assert [shown(value) for value in (None, 1234, 12.345, 0.2149, "x")] == ["-", "1,234", "12.3", "0.215", "x"]
