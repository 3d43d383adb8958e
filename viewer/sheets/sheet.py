"""Figures as a table that can be read in a terminal or written as JSON, CSV, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

Value = str | int | float | None

FORMATS = ("text", "json", "csv", "markdown", "latex")

_LATEX = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "Σ": r"$\Sigma$",
    "α": r"$\alpha$",
}


@dataclass(frozen=True)
class Sheet:
    """A titled table; a column whose values are all numbers or missing is set to the right."""

    title: str
    headers: tuple[str, ...]
    rows: Sequence[tuple[Value, ...]]
    notes: tuple[str, ...] = ()
    """Sentences under the table: the meaning of its columns, and the source of its rows."""
    num_quoted: int = 0
    """The number of last rows that quote somebody else; a terminal shows them dim."""
    narrow: frozenset[str] | None = None
    """Of a sheet that must fit 80 columns: what a terminal leaves out because a note says it; millions are rounded."""

    def text(self) -> Table:
        """For a terminal; texts of the data are shown as they are, never as markup."""
        from rich.table import Table
        from rich.text import Text

        caption = Text("\n".join(self.notes)) if self.notes else None
        table = Table(title=self.title, title_justify="left", box=None, padding=(0, 1, 0, 0), caption=caption,
                      caption_justify="left")  # fmt: skip
        places = [place for place, header in enumerate(self.headers) if header not in (self.narrow or ())]
        for place in places:
            justify: Literal["left", "right"] = "right" if self._is_number(place) else "left"
            keep = self.narrow is not None and place == 1
            table.add_column(self.headers[place], justify=justify, overflow="fold", no_wrap=keep)
        for number, row in enumerate(self.rows):
            quoted = number >= len(self.rows) - self.num_quoted
            cells = (shown(row[place]) if self.narrow is None else rounded(row[place]) for place in places)
            table.add_row(*map(Text, cells), style="dim" if quoted else "")
        return table

    def write(self, form: str) -> str:
        """The sheet in one of `FORMATS` other than text, ending in a line break; JSON and CSV keep every digit."""
        return {"json": self._json, "csv": self._csv, "markdown": self._markdown, "latex": self._latex}[form]()

    def _json(self) -> str:
        rows = [dict(zip(self.headers, row, strict=True)) for row in self.rows]
        whole = {"title": self.title, "rows": rows, "notes": self.notes}
        return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"

    def _csv(self) -> str:
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([self.headers, *self.rows])
        return file.getvalue()

    def _markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |\n"

        rule = "|" + "|".join("---:" if self._is_number(place) else "---" for place in range(len(self.headers))) + "|\n"
        body = "".join(line([shown(value) for value in row]) for row in self.rows)
        return line(self.headers) + rule + body + "".join(f"\n{note}\n" for note in self.notes)

    def _latex(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return " & ".join("".join(_LATEX.get(letter, letter) for letter in cell) for cell in cells) + r" \\" + "\n"

        columns = "".join("r" if self._is_number(place) else "l" for place in range(len(self.headers)))
        begin_quoted = len(self.rows) - self.num_quoted
        body = "".join(
            (r"\hline" + "\n" if self.num_quoted and number == begin_quoted else "")
            + line([shown(value) for value in row])
            for number, row in enumerate(self.rows)
        )
        notes = "".join(f"% {note}\n" for note in self.notes)
        head = line(self.headers)
        return f"\\begin{{tabular}}{{{columns}}}\n\\hline\n{head}\\hline\n{body}\\hline\n\\end{{tabular}}\n{notes}"

    def _is_number(self, place: int) -> bool:
        ours = self.rows[: len(self.rows) - self.num_quoted]
        return bool(ours) and all(row[place] is None or isinstance(row[place], int | float) for row in ours)


def rounded(value: Value) -> str:
    """A value for a narrow table: as `shown`, but 1,234,567 is 1.23M."""
    if isinstance(value, int) and value >= 1_000_000:
        return f"{value / 1e9:.3g}G" if value >= 999_500_000 else f"{value / 1e6:.3g}M"
    return shown(value)


def shown(value: Value) -> str:
    """A value for a reader: 1,234; 12.3; 0.215; a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else value
