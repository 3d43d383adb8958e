"""Write the report: gather the figures, shrink the pictures, fill the template, publish one file."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from captioning.figures import queries
from engine.catalog import Connection, Row, ledger_counts
from engine.dataset import Dataset
from schemas.commit import write_bytes
from schemas.paper import TABLE_1
from schemas.pixels import PixelError, open_rgb
from schemas.reasons import OUTCOMES
from schemas.tokens import MAX_TOKENS
from viewer import charts, costs, figures, samples
from viewer.grounding import marks, worst_grounded
from viewer.rendering import environment

MOST_PICTURES = 60
MOST_PAIRS = 24
MOST_WORST = 8
"""Pictures per measure."""
MOST_GROUNDED = 24
MOST_REFUSED = 200
MOST_NOUNS = 20
MOST_BUCKETS = 20
THUMBNAIL_PX = 240
THUMBNAIL_BYTES = 18_000
"""Of one picture; a larger one is compressed harder. With the numbers above it keeps the page under 10 MB."""


def write_report(connection: Connection, dataset_root: Path, out: Path) -> None:
    """Write one self-contained HTML page about a dataset, finished or half built.

    Args:
        connection: DuckDB with a view per table of `schemas.tables.SCHEMAS` and the view `ledger`; tables whose job
            has not run are empty.
        dataset_root: the dataset folder; it names the page.
        out: the file to write. It is replaced whole or not at all.
    """
    page = environment().get_template("report.html.jinja").render(**_content(connection, dataset_root))
    write_bytes(out, page.encode("utf-8", errors="replace"))


def _content(connection: Connection, dataset_root: Path) -> dict[str, Any]:
    """Everything the template shows, by the names it uses."""
    dataset = Dataset(dataset_root)
    funnel = ledger_counts(connection)
    by_outcome = {outcome: sum(row.num for row in funnel if row.outcome == outcome) for outcome in OUTCOMES}
    pictures = samples.pictures(connection, samples.random(connection, MOST_PICTURES))
    worst = _worst(connection)
    pairs = samples.duplicates(connection, MOST_PAIRS)
    statistics = queries.table_1(connection)
    grounded = worst_grounded(connection, MOST_GROUNDED)
    buckets = figures.buckets(connection)
    with_captions = [row["row_id"] for row in pictures + [row for grid in worst for row in grid["pictures"]]]
    wanted = with_captions + [row["row_id"] for row in pairs + grounded] + [row["survivor_row"] for row in pairs]
    return {
        "name": dataset_root.absolute().name or str(dataset_root),
        "root": str(dataset_root.absolute()),
        "num_inputs": figures.num_inputs(connection),
        "by_outcome": by_outcome,
        "num_in_ledger": sum(by_outcome.values()),
        "funnel": funnel,
        "table_1": statistics,
        "statistics": {row["caption_source"]: row for row in statistics if row["subset"] is None},
        "paper": TABLE_1,
        "mix": queries.realised_mix(connection),
        "refused_captions": queries.refused_captions(connection),
        "cleaned_captions": figures.cleaned_captions(connection),
        "lengths": charts.length_chart(figures.caption_lengths(connection)),
        "tokens": charts.token_chart(figures.caption_tokens(connection, MAX_TOKENS), MAX_TOKENS),
        "nouns": _top_nouns(connection),
        "changed": figures.changed_nouns(connection, MOST_NOUNS),
        "sizes": charts.size_chart(figures.sizes(connection)),
        "buckets": buckets[:MOST_BUCKETS],
        "num_buckets": len(buckets),
        "num_shards": sum(row["num_shards"] for row in buckets),
        "num_samples": sum(row["num"] for row in buckets),
        "pictures": pictures,
        "worst": worst,
        "grounded": grounded,
        "marks": marks(connection, with_captions),
        "pairs": pairs,
        "num_duplicates": sum(row.num for row in funnel if row.reason == "duplicate"),
        "refused": figures.refused(connection, MOST_REFUSED),
        "scores": score_chart(connection, dataset),
        "jobs": costs.job_costs(dataset),
        "thumbnails": _thumbnails(samples.proxies(connection, wanted)),
    }


def _worst(connection: Connection) -> list[Row]:
    """Per measure its worst pictures: those that no measure before it shows, and the others as (row, value)."""
    found = samples.worst(connection, MOST_WORST)
    by_id = {
        row["row_id"]: row for row in samples.pictures(connection, [row_id for by in found for row_id, _ in by.found])
    }
    grids, shown = [], set[int]()
    for by in found:
        new = [by_id[row_id] | {"worst_value": value} for row_id, value in by.found if row_id not in shown]
        again = [by_id[row_id] | {"worst_value": value} for row_id, value in by.found if row_id in shown]
        shown |= {row["row_id"] for row in new}
        grids.append({"measure": by.measure, "pictures": new, "again": again})
    return grids


def score_chart(connection: Connection, dataset: Dataset) -> charts.ScoreChart | None:
    """The histogram of scores with the threshold that `select` applied."""
    return charts.score_chart(figures.scores(connection), figures.SCORE_BIN, costs.rules(dataset).min_aesthetic)


def _top_nouns(connection: Connection) -> dict[str, list[Row]]:
    """Per caption source its most frequent nouns, each with its size relative to the first."""
    found: dict[str, list[Row]] = {}
    for source, noun, num_uses, num_images in queries.noun_counts(connection, MOST_NOUNS):
        top = found.setdefault(source, [])
        highest = top[0]["num_uses"] if top else num_uses
        top.append({"noun": noun, "num_uses": num_uses, "num_images": num_images, "share": num_uses / highest})
    return found


def _thumbnails(jpegs: dict[int, bytes]) -> dict[int, str]:
    """row_id -> data URI; a proxy that cannot be decoded has none, and the page shows an empty frame."""
    found = {}
    for row_id, jpeg in jpegs.items():
        try:
            image = open_rgb(jpeg, longest_px=THUMBNAIL_PX)
        except PixelError:
            continue
        found[row_id] = f"data:image/jpeg;base64,{base64.b64encode(_encoded(image)).decode('ascii')}"
    return found


def _encoded(image: Image.Image) -> bytes:
    """A JPEG of at most `THUMBNAIL_BYTES`, but for noise that no quality makes so small, which is halved in size."""
    for quality in (72, 50, 30):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= THUMBNAIL_BYTES:
            return file.getvalue()
    return _encoded(image.reduce(2))
