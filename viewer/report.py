"""The report: the sections of the live pages rendered once, into one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.dataset import Dataset
from engine.duck import Connection
from engine.one_state import one_state
from schemas.commit import write_bytes
from schemas.files import shown_place
from viewer.cards import data_uris
from viewer.figures import COUNTED
from viewer.rendering import environment
from viewer.sections import REPORT, SECTIONS, Content, Source


def write_report(connection: Connection, dataset_root: Path, out: Path) -> None:
    """Write one self-contained HTML page about a dataset, finished or half built.

    Args:
        connection: DuckDB with a view per table of `schemas.tables.SCHEMAS` and the view `ledger`; tables whose job
            has not run are empty.
        dataset_root: the dataset folder; it names the page.
        out: the file to write. It is replaced whole or not at all.
    """
    with one_state(Dataset(dataset_root)):
        for table, sql in COUNTED.items():
            connection.execute(f"CREATE OR REPLACE TEMPORARY TABLE {table} AS {sql}")
        source = Source(connection, Dataset(dataset_root), REPORT)
        sections = {name: section.content(source) for name, section in SECTIONS.items()}
        page = environment(live=False).get_template("report.html.jinja").render(
            name=dataset_root.absolute().name or str(dataset_root),
            root=shown_place(dataset_root.absolute()),
            sections={name: content for name, content in sections.items() if content},
            titles={name: section.title for name, section in SECTIONS.items()},
            thumbnails=data_uris(source.dataset.held(), list(_row_ids(sections))),
        )  # fmt: skip
    write_bytes(out, page.encode("utf-8", errors="replace"))


def _row_ids(sections: Mapping[str, Content]) -> Iterable[int]:
    """The inputs whose pictures the sections show."""
    grids = [sections["pictures"], sections["grounding"], *sections["worst"].get("grids", ())]
    for grid in grids:
        yield from (card["row_id"] for card in grid.get("cards", ()))
    for pair in sections["duplicates"]["pairs"]:
        yield from (pair["row_id"], pair["survivor_row"])
