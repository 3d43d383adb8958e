"""Names the rows of a table by a digest."""

from __future__ import annotations

import hashlib

from schemas.late import late

with late(__name__):
    import pyarrow as pa


ROWS_PER_DIGEST = 1024
"""Rows that are copied at once to be digested: a part of proxies is large."""


class ContentDigest:
    """Digests the rows of a table that comes in pieces of any size."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = hashlib.sha256(str(schema.remove_metadata()).encode())
        self._rest = schema.remove_metadata().empty_table()

    def add(self, rows: pa.Table) -> None:
        rows = pa.concat_tables([self._rest, rows.replace_schema_metadata(None)])
        whole = rows.num_rows - rows.num_rows % ROWS_PER_DIGEST
        for begin in range(0, whole, ROWS_PER_DIGEST):
            self._update(rows.slice(begin, ROWS_PER_DIGEST))
        self._rest = rows.slice(whole)

    def hexdigest(self) -> str:
        """16 hex digits; after them, no rows are added."""
        if self._rest.num_rows:
            self._update(self._rest)
        return self._sink.hexdigest()[:16]

    def _update(self, piece: pa.Table) -> None:
        fresh = piece.take(pa.array(range(piece.num_rows), pa.int64()))  # a slice and its copy differ in buffers
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_stream(buffer, fresh.schema) as writer:
            writer.write_table(fresh.combine_chunks())
        self._sink.update(buffer.getvalue())


def content_digest(table: pa.Table) -> str:
    """16 hex digits that name the rows of a table, however it is chunked."""
    digest = ContentDigest(table.schema)
    digest.add(table)
    return digest.hexdigest()
