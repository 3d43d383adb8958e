"""The Arrow schema of every table of a dataset, and what its file is called; columns are told in `schemas.meanings`.

Every row of every table carries `row_id`: the ordinal of the input in the listing, fixed when the listing is
taken. It orders rows, joins tables and never repeats, where `image_id` names content: two files with the same
bytes are two rows with one image_id, and a file that cannot be read is a row with none.
"""

from __future__ import annotations

import pyarrow as pa

_ROW = pa.field("row_id", pa.int64(), nullable=False)
_IMAGE = pa.field("image_id", pa.string())

LISTING = pa.schema(
    [
        _ROW,
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_name", pa.string(), nullable=False),
        pa.field("member", pa.string(), nullable=False),
        pa.field("byte_offset", pa.int64()),
        pa.field("num_bytes", pa.int64()),
        pa.field("sidecar", pa.string()),
        pa.field("raw_caption", pa.string()),
        pa.field("url", pa.string()),
        pa.field("license", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)

IMAGES = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_name", pa.string(), nullable=False),
        pa.field("member", pa.string(), nullable=False),
        pa.field("byte_offset", pa.int64()),
        pa.field("num_bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("format", pa.string()),
        pa.field("mode", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("exif_orientation", pa.int8()),
        pa.field("frames", pa.int32()),
        pa.field("icc", pa.bool_()),
        pa.field("alpha", pa.float32()),
        pa.field("raw_caption", pa.string()),
        pa.field("url", pa.string()),
        pa.field("license", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)

HEADERS = pa.schema(
    [
        _ROW,
        pa.field("num_bytes", pa.int64()),
        pa.field("format", pa.string()),
        pa.field("mode", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("exif_orientation", pa.int8()),
        pa.field("frames", pa.int32()),
        pa.field("icc", pa.bool_()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
"""What `sigma ingest --probe-only` read of each input. No other table depends on it; the paths are in `listing`."""

PROXIES = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("jpeg", pa.binary()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
    ]
)

FINGERPRINTS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("phash", pa.uint64()),
        pa.field("pixel_sha256", pa.string()),
    ]
)

SCORES = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("aesthetic", pa.float32()),
        pa.field("aesthetic_scorer", pa.string()),
    ]
)

EMBEDDINGS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("model", pa.string()),
        pa.field("embedding", pa.list_(pa.float16())),
    ]
)
"""Only where `aesthetic.store_embeddings` asks for it."""

SCREENS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("sharpness", pa.float32()),
        pa.field("upscale", pa.float32()),
        pa.field("border", pa.float32()),
        pa.field("border_box", pa.list_(pa.int32())),
        pa.field("nsfw", pa.float32()),
        pa.field("watermark", pa.float32()),
        pa.field("classes", pa.map_(pa.string(), pa.float32())),
        pa.field("clip_similarity", pa.float32()),
        pa.field("models", pa.map_(pa.string(), pa.string())),
    ]
)
"""A column is null where its screen is off, or cannot say anything of the picture."""

DUPLICATES = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("group_id", pa.int64(), nullable=False),
        pa.field("method", pa.string()),
        pa.field("distance", pa.float32()),
        pa.field("other_dataset", pa.string()),
        pa.field("other_image_id", pa.string()),
        pa.field("other_method", pa.string()),
        pa.field("other_distance", pa.float32()),
    ]
)

RAW_CAPTIONS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("caption", pa.string()),
        pa.field("language", pa.string()),
        pa.field("removed", pa.list_(pa.string()), nullable=False),
        pa.field("reason", pa.string()),
    ]
)

SELECTION = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("rejected_by", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("duplicate_of", pa.string()),
        pa.field("duplicate_of_row", pa.int64()),
        pa.field("duplicate_method", pa.string()),
        pa.field("other_dataset", pa.string()),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("subsets", pa.list_(pa.string()), nullable=False),
        pa.field("inherited_caption", pa.string()),
        pa.field("inherited_from", pa.string()),
        pa.field("inherited_from_row", pa.int64()),
    ]
)

CAPTIONS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("captioner", pa.string(), nullable=False),
        pa.field("revision", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("parameters", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("num_tokens", pa.int32()),
        pa.field("reason", pa.string()),
    ]
)

MIX = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("caption", pa.string()),
        pa.field("caption_source", pa.string()),
        pa.field("coin", pa.float64()),
        pa.field("fallback", pa.string()),
        pa.field("num_tokens", pa.int32()),
        pa.field("tokenizer", pa.string()),
        pa.field("truncated", pa.bool_()),
    ]
)

NOUNS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("caption_source", pa.string(), nullable=False),
        pa.field("nouns", pa.list_(pa.string())),
        pa.field("num_words", pa.int32()),
        pa.field("num_tokens", pa.int32()),
        pa.field("tokenizer", pa.string()),
    ]
)

NOUN_SOURCES = ("raw", "synthetic")
"""The rows that `nouns` holds per image, in this order; one for each captioner beside the primary one follows."""

GROUNDING = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("caption_source", pa.string(), nullable=False),
        pa.field("scorer", pa.string()),
        pa.field("sentences", pa.list_(pa.string())),
        pa.field("sentence_scores", pa.list_(pa.float32())),
        pa.field("lowest_sentence", pa.string()),
        pa.field("lowest_score", pa.float32()),
        pa.field("mean_score", pa.float32()),
        pa.field("num_cut", pa.int32()),
        pa.field("detector", pa.string()),
        pa.field("nouns", pa.list_(pa.string())),
        pa.field("noun_scores", pa.list_(pa.float32())),
        pa.field("ungrounded", pa.list_(pa.string())),
        pa.field("ungrounded_share", pa.float32()),
    ]
)

NOUN_USES = pa.schema(
    [
        pa.field("caption_source", pa.string(), nullable=False),
        pa.field("subset", pa.string()),
        pa.field("noun", pa.string(), nullable=False),
        pa.field("num_uses", pa.int64(), nullable=False),
        pa.field("num_images", pa.int64(), nullable=False),
    ]
)
"""The whole set first, then its subsets; of each source the most used noun first."""

BALANCE = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("num_nouns", pa.int32(), nullable=False),
        pa.field("num_common", pa.int32(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("coin", pa.float64(), nullable=False),
        pa.field("dropped", pa.bool_(), nullable=False),
    ]
)
"""Only where `balance.most_images` is set; a row per kept image that has a caption."""

STATISTICS = pa.schema(
    [
        pa.field("caption_source", pa.string(), nullable=False),
        pa.field("subset", pa.string()),
        pa.field("num_images", pa.int64(), nullable=False),
        pa.field("valid_nouns", pa.int64(), nullable=False),
        pa.field("distinct_nouns", pa.int64(), nullable=False),
        pa.field("total_nouns", pa.int64(), nullable=False),
        pa.field("average_caption_words", pa.float64()),
        pa.field("average_caption_tokens", pa.float64()),
        pa.field("tokenizer", pa.string()),
        pa.field("average_nouns", pa.float64()),
    ]
)

SHARD_PLAN = pa.schema(
    [
        pa.field("shard_id", pa.int32(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("bucket", pa.string(), nullable=False),
        _ROW,
        pa.field("image_id", pa.string(), nullable=False),
        # what the shard's writer needs to know, so that it reads nothing but this and the original:
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_name", pa.string(), nullable=False),
        pa.field("member", pa.string(), nullable=False),
        pa.field("byte_offset", pa.int64()),
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("license", pa.string()),
        pa.field("phash", pa.uint64()),
        pa.field("aesthetic", pa.float32()),
        pa.field("aesthetic_scorer", pa.string()),
        pa.field("subsets", pa.list_(pa.string()), nullable=False),
        pa.field("original_caption", pa.string()),
        pa.field("raw_caption", pa.string()),
        pa.field("raw_reason", pa.string()),
        pa.field("captioner", pa.string()),
        pa.field("synthetic_caption", pa.string()),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("caption_source", pa.string(), nullable=False),
        pa.field("coin", pa.float64(), nullable=False),
        pa.field("fallback", pa.string()),
        pa.field("num_tokens", pa.int32(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),
        pa.field("raw_caption_from", pa.string()),
    ]
)
"""Sorted by shard_id and position, so that a shard's rows are read without the rest."""

SAMPLES = pa.schema(
    [
        _ROW,
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("bucket", pa.string(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("aesthetic", pa.float32()),
        pa.field("num_tokens", pa.int32()),
        pa.field("caption_source", pa.string()),
        pa.field("subsets", pa.list_(pa.string())),
        pa.field("weight", pa.float32()),
        pa.field("image_ext", pa.string()),
        pa.field("image_offset", pa.int64()),
        pa.field("image_size", pa.int64()),
        pa.field("txt_offset", pa.int64()),
        pa.field("txt_size", pa.int64()),
        pa.field("json_offset", pa.int64()),
        pa.field("json_size", pa.int64()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)

MAP_TABLES: dict[str, pa.Schema] = {
    "listing": LISTING,
    "headers": HEADERS,
    "images": IMAGES,
    "proxies": PROXIES,
    "fingerprints": FINGERPRINTS,
    "scores": SCORES,
    "embeddings": EMBEDDINGS,
    "raw_captions": RAW_CAPTIONS,
    "screens": SCREENS,
    "captions": CAPTIONS,
    "mix": MIX,
    "nouns": NOUNS,
    "grounding": GROUNDING,
    "samples": SAMPLES,
}
"""Tables in parts: `tables/<name>/part-00000.parquet`, part n of each holding the same inputs in the same order.

Three differ: `nouns` holds a row per input and caption source, `grounding` one per source that the recipe names, and
the parts of `samples` are shards.
"""

REDUCE_TABLES: dict[str, pa.Schema] = {
    "duplicates": DUPLICATES,
    "selection": SELECTION,
    "noun_uses": NOUN_USES,
    "statistics": STATISTICS,
    "balance": BALANCE,
    "shard_plan": SHARD_PLAN,
}
"""Tables in one file, `tables/<name>.parquet`, computed over all parts and sorted by row_id where they have one."""

SCHEMAS: dict[str, pa.Schema] = MAP_TABLES | REDUCE_TABLES

ADDED = {
    "listing": ("reason", "detail"),
    "selection": ("inherited_caption", "inherited_from", "inherited_from_row"),
    "shard_plan": ("raw_caption_from",),
}
"""Last columns that a table has gained: a file that was written before is as good, and reads as null there."""

BESIDE = "captions/"
"""Prefix of the captions that another captioner of the recipe wrote beside the primary one: `captions/<captioner>`, a
map table of the same contract in a folder of its own."""


def is_map_table(table: str) -> bool:
    """Whether a table is in parts."""
    return table in MAP_TABLES or table.startswith(BESIDE)


def schema_of(table: str) -> pa.Schema:
    """The contract of a table, one of a captioner beside included."""
    return CAPTIONS if table.startswith(BESIDE) else SCHEMAS[table]
