"""What a part has paid for so far: rows that are on the disk batch by batch, before the part itself is committed."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from engine.dataset import Dataset, commit_table, content_digest, read_parquet, schema_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Journal:
    """Rows of one part of a table. A batch is a file of its own, there whole or not at all, named by its content.

    So a killed worker loses the batch it was at, a full disk loses no earlier one, and two workers that hold the same
    part for a moment (one was thought lost) never write into each other's file.
    """

    folder: Path
    schema: pa.Schema

    @classmethod
    def of(cls, dataset: Dataset, table: str, number: int) -> Journal:
        """The journal of a part; nothing is made on the disk."""
        return cls(dataset.paid(table, number).with_suffix(".batches"), schema_of(table))

    def append(self, rows: pa.Table) -> None:
        """Make some rows durable.

        Raises:
            OSError: the disk is full or fails.
        """
        rows = rows.select(self.schema.names).cast(self.schema)
        commit_table(self.folder / f"{content_digest(rows)}.parquet", rows, self.schema, {})

    def rows(self) -> pa.Table:
        """All rows, batches in the order of their names. A batch that is damaged counts as not written."""
        found = [self.schema.empty_table()]
        for path in sorted(self.folder.glob("[!.]*.parquet")):
            try:
                found.append(read_parquet(path).replace_schema_metadata(None))
            except ValueError as error:
                log.warning("%s: its rows are computed again", error)
        # of a batch that was written before a column was added, that column is null
        return pa.concat_tables(found, promote_options="default")

    def delete(self) -> None:
        """Delete it, once its part is committed or to be computed anew."""
        shutil.rmtree(self.folder, ignore_errors=True)


def delete_journals(dataset: Dataset, table: str) -> None:
    """Delete the journals of all parts of a table."""
    for folder in dataset.paid(table, 0).parent.glob("part-*.batches"):
        shutil.rmtree(folder, ignore_errors=True)
