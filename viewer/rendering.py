"""The templates, and how values are written in them."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

import jinja2

from viewer import charts

TEMPLATES = resources.files("viewer").joinpath("templates")

MOST_CHARACTERS = 700
"""A longer caption is cut on the page, which says how long it is."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@cache
def environment(live: bool) -> jinja2.Environment:
    """The templates, with every value escaped; to compile them takes longer than to fill them in. `live`: whether the
    pages are served, and so can link to each other; the report is one file."""
    sources = {file.name: file.read_text(encoding="utf-8") for file in TEMPLATES.iterdir() if file.is_file()}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.globals["live"] = live
    environment.globals["chart"] = {
        "width": charts.WIDTH, "height": charts.HEIGHT, "left": charts.LEFT, "right": charts.RIGHT,
        "top": charts.TOP, "bottom": charts.BOTTOM,
    }  # fmt: skip
    environment.filters |= {
        "shorten": shorten,
        "number": number,
        "percent": percent,
        "decimal": decimal,
        "words": words,
    }
    return environment


def shorten(text: str | None, most: int = MOST_CHARACTERS) -> str:
    """A text of at most `most` characters, without control characters; a cut says how long the text is."""
    shown = _CONTROL.sub("\ufffd", text or "")
    return shown if len(shown) <= most else f"{shown[:most]}\u2026 ({len(shown):,} characters)"


def number(value: float | None) -> str:
    """1234567 as 1,234,567; 12.345 as 12.35; None as a dash."""
    if value is None:
        return "\u2013"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def decimal(value: float | None) -> str:
    """1234.56 as 1,234.6; None as a dash."""
    return "\u2013" if value is None else f"{value:,.1f}"


def percent(part: float, whole: float) -> str:
    """A share as a percentage, never rounded to 0 or 100 when it is neither."""
    if not whole:
        return "\u2013"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "< 0.1 %"
    return "> 99.9 %" if 99.9 < share < 100 else f"{share:.3g} %"


def words(name: str | None) -> str:
    """too_small as "too small"."""
    return (name or "").replace("_", " ")
