"""Results as people read them: blocks of rows that compare with one another, published ones in blocks of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.paper import PUBLISHED_SCORES

Row = Mapping[str, Any]
DIGITS = {"fid": 2, "precision": 3, "recall": 3, "clip_score": 4, "cmmd": 3, "cmmd unbiased": 3, "geneval": 3, "dpg": 2,
          "psnr": 1}  # fmt: skip
LOWER_IS_BETTER = ("fid", "kid", "cmmd")
SAME = ("network", "protocol", "reference", "reference_digest", "category", "quick")
"""Rows are in one block where these are equal."""


@dataclass(frozen=True)
class Block:
    """Some rows under one title; cells are text."""

    title: str
    names: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    category: str | None = None
    """Of the prompts; None for all of them."""
    is_published: bool = False
    """Whether others have measured it."""


def blocks(rows: Sequence[Row]) -> list[Block]:
    """The table of results as blocks: all pictures first, then categories, then what others have published."""
    keys = list(dict.fromkeys(tuple(row[name] for name in SAME) for row in rows))
    keys.sort(key=lambda key: (key[SAME.index("category")] is not None, key[SAME.index("category")] or ""))
    said, found = set[tuple[str, str, str]](), list[Block]()
    for key in keys:
        found.append(_block([row for row in rows if tuple(row[name] for name in SAME) == key], said))
    protocols = {row["protocol"] for row in rows}
    has_either = any(row["metric"] in ("fid", "clip_score") for row in rows)
    for table in PUBLISHED_SCORES if has_either else ():
        if table.protocol is None or table.protocol in protocols:
            lines = tuple((row.model, f"{row.fid:.2f}", f"{row.clip:g}") for row in table.rows)
            found.append(
                Block(
                    f"published, {table.title}", ("", "FID", "CLIP-Score"), lines, (table.compares,), is_published=True
                )
            )
    return found


def _block(rows: Sequence[Row], said: set[tuple[str, str, str]]) -> Block:
    """The block of some rows. `said`: what was noted before, by protocol, model and flag, and is not repeated."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows if row["reason"] is None))
    models = list(dict.fromkeys(row["model"] for row in rows))
    place = {(row["model"], row["metric"]): row for row in rows}
    lines, notes = list[tuple[str, ...]](), dict[str, list[str]]()
    for model in models:
        mine = [row for row in rows if row["model"] == model]
        reasons = dict.fromkeys(row["reason"] for row in mine if row["reason"] is not None)
        for why in reasons:
            lacking = ", ".join(metric_name(row["metric"]) for row in mine if row["reason"] == why)
            notes.setdefault(f"{lacking}: {why}", []).append(model)
        for flag in dict.fromkeys(flag for row in mine for flag in row["flags"]):
            if (noted := (rows[0]["protocol"], model, flag)) not in said:
                said.add(noted)
                notes.setdefault(flag, []).append(model)
        measured = [row for row in mine if row["reason"] is None]
        if measured:
            cells = [_cell(place.get((model, metric))) for metric in metrics]
            lines.append((model, *cells, _size(measured[0])))
    together = [
        f"{'all models' if 1 < len(who) == len(models) else ', '.join(who)}: {what}" for what, who in notes.items()
    ]
    names = ("", *map(metric_name, metrics), "pictures")
    return Block(title_of(rows[0]), names, tuple(lines), tuple(together), rows[0]["category"])


def metric_name(metric: str) -> str:
    """A metric as people read it."""
    kind, _, rest = metric.partition(" ")
    shown = {"fid": "FID", "kid": "KID", "cmmd": "CMMD", "clip_score": "CLIP-Score (x100)", "geneval": "GenEval",
             "dpg": "DPG-Bench", "psnr": "PSNR (dB)"}.get(kind, kind)  # fmt: skip
    return f"{shown} {rest}".strip()


def _size(row: Row) -> str:
    reference = "" if row["num_reference"] is None else f" against {row['num_reference']:,}"
    return f"{row['num_generated']:,}{reference}"


def title_of(row: Row) -> str:
    """What a row shares with all others of its block."""
    parts = [f"protocol {row['protocol']}", row["network"]]
    if row["reference"] is not None:
        parts.append(f"against {row['reference']}" + (f"@{row['reference_digest']}" if row["reference_digest"] else ""))
    if row["category"] is not None:
        parts.insert(0, row["category"])
    if row["quick"] is not None:
        parts.insert(0, f"QUICK, {row['quick']} prompts")
    return ", ".join(parts)


def _cell(row: Row | None) -> str:
    """A value with half of its interval, and the change from the first model's with half of its own."""
    if row is None or row["reason"] is not None or row["value"] is None:
        return ""
    digits = DIGITS.get(row["metric"], 4)
    text = f"{row['value']:.{digits}f}"
    if row["metric"] == "clip_score":
        text += f" ({100 * row['value']:.2f})"
    if row["low"] is not None:
        text += f" ±{(row['high'] - row['low']) / 2:.{digits}f}"
    if (change := row.get("change")) is not None:  # an older table has no such column
        low, high = (row[name] if row[name] is not None else change for name in ("change_low", "change_high"))
        is_lower_better = row["metric"].partition(" ")[0] in LOWER_IS_BETTER
        is_seen = low > 0 or high < 0
        arrow = "=" if not change else "≈" if not is_seen else "↑" if (change > 0) != is_lower_better else "↓"
        text += f" {arrow}{abs(change) if is_seen else change:.{digits}f}"
        text += f" ±{(high - low) / 2:.{digits}f}" if row["change_low"] is not None else ""
    return text
