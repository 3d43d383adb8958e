"""Names the rows of a table by a digest."""

from __future__ import annotations

import hashlib

from schemas.late import late

with late(__name__):
    import pyarrow as pa


ROWS_PER_DIGEST = 1024
"""Rows that are copied at once to be digested: a part of proxies is large."""


def content_digest(table: pa.Table) -> str:
    """16 hex digits that name the rows of a table, however it is chunked."""
    sink = hashlib.sha256(str(table.schema.remove_metadata()).encode())
    for begin in range(0, table.num_rows, ROWS_PER_DIGEST):
        piece = table.slice(begin, ROWS_PER_DIGEST).replace_schema_metadata(None)
        fresh = piece.take(pa.array(range(piece.num_rows), pa.int64()))  # a slice and its copy differ in their buffers
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_stream(buffer, fresh.schema) as writer:
            writer.write_table(fresh.combine_chunks())
        sink.update(buffer.getvalue())
    return sink.hexdigest()[:16]
