"""The report: the sections of the live pages rendered once, into one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.dataset import Dataset
from engine.duck import Connection
from engine.one_state import one_state
from engine.reduce_job import TooLittleMemory, explaining_memory
from schemas.commit import write_bytes
from schemas.files import shown_place
from schemas.strict import DUCKDB_MEMORY
from viewer.cards import data_uris
from viewer.rendering import environment
from viewer.sections import REPORT, SECTIONS, Content, Section, Source


def write_report(connection: Connection, dataset_root: Path, out: Path, memory: str = DUCKDB_MEMORY) -> None:
    """Write one self-contained HTML page about a dataset, finished or half built. A section for which the memory does
    not suffice says so.

    Args:
        connection: DuckDB with a view per table of `schemas.tables.SCHEMAS` and the view `ledger`; tables whose job
            has not run are empty.
        dataset_root: the dataset folder; it names the page.
        out: the file to write. It is replaced whole or not at all.
        memory: the limit of the connection, for what such a section says.
    """
    with one_state(Dataset(dataset_root)):
        source = Source(connection, Dataset(dataset_root).held(), REPORT)
        sections = {name: _content(section, source, memory) for name, section in SECTIONS.items()}
        page = environment(live=False).get_template("report.html.jinja").render(
            name=dataset_root.absolute().name or str(dataset_root),
            root=shown_place(dataset_root.absolute()),
            sections={name: content for name, content in sections.items() if content},
            titles={name: section.title for name, section in SECTIONS.items()},
            thumbnails=data_uris(source.held, list(_row_ids(sections.values()))),
        )  # fmt: skip
    write_bytes(out, page.encode("utf-8", errors="replace"))


def _content(section: Section, source: Source, memory: str) -> Content | str:
    """A section, or why the memory does not suffice for it."""
    try:
        with explaining_memory(section.title, memory, source.held.dataset):
            return section.content(source)
    except TooLittleMemory as error:
        return str(error)


def _row_ids(sections: Iterable[Content | str]) -> Iterable[int]:
    """The inputs whose pictures the sections show."""
    for content in sections:
        shown = {} if isinstance(content, str) else content
        for grid in (shown, *shown.get("grids", ())):
            yield from (card["row_id"] for card in grid.get("cards", ()))
        for pair in shown.get("pairs", ()):
            yield from (pair["row_id"], pair["survivor_row"])
