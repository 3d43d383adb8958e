"""The index of the shards: one row per sample, saying where each of its members lies inside its tar."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

INDEX_FILE = "index.parquet"
"""Name of the index inside a `shards/` folder."""

INDEX_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),  # the sample's key in the tar; equals image_id
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),  # path of the tar, relative to the shards/ folder
        pa.field("bucket", pa.string(), nullable=False),  # label of the aspect bucket, height / width: "0.25" to "4.0"
        pa.field("width", pa.int32(), nullable=False),  # px, upright
        pa.field("height", pa.int32(), nullable=False),  # px, upright
        pa.field("aesthetic", pa.float32()),
        pa.field("num_tokens", pa.int32()),  # of the mixed caption
        pa.field("caption_source", pa.string()),  # 'synthetic' or 'raw'
        pa.field("subsets", pa.list_(pa.string())),  # names from the recipe's select.subsets
        pa.field("weight", pa.float32()),  # sampling weight; 1.0 where concepts are not balanced
        pa.field("image_ext", pa.string(), nullable=False),  # jpg, png, webp, ...
        pa.field("image_offset", pa.int64(), nullable=False),  # byte of the tar at which the member's data begins
        pa.field("image_size", pa.int64(), nullable=False),
        pa.field("txt_offset", pa.int64(), nullable=False),
        pa.field("txt_size", pa.int64(), nullable=False),
        pa.field("json_offset", pa.int64(), nullable=False),
        pa.field("json_size", pa.int64(), nullable=False),
    ]
)


def read_index(shards: Path) -> pa.Table:
    """The index of a `shards/` folder, rows in tar order (shard, then offset).

    Raises:
        ValueError: there is no index, it is cut short, or it lacks a column of `INDEX_SCHEMA`.
    """
    path = shards / INDEX_FILE
    if not path.is_file():
        raise ValueError(
            f"{path}: no shard index here; build the dataset first (sigma build) or name its shards/ folder"
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{path}: the index cannot be read ({error}); rebuild it with sigma shard --redo shard"
        ) from None
    missing = [name for name in INDEX_SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(f"{path}: the index lacks {', '.join(missing)}; it was written by another version")
    return table.select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA)
