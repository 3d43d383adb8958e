"""The Arrow schema of every table of a dataset, and what a table's file is called.

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
        pa.field("source", pa.string(), nullable=False),  # a folder's absolute path or URL, never with credentials
        pa.field("source_name", pa.string(), nullable=False),  # its short name, which shards carry
        pa.field("member", pa.string(), nullable=False),  # below it: a file, tar#member or table.parquet#row/column
        pa.field("byte_offset", pa.int64()),  # inside a tar, or the row in a table; null for a file
        pa.field("num_bytes", pa.int64()),  # as listed; null where the file cannot be looked at
        pa.field("sidecar", pa.string()),  # relative path of a caption file beside the image
        pa.field("raw_caption", pa.string()),  # from a captions table beside the images
        pa.field("url", pa.string()),
        pa.field("license", pa.string()),
        pa.field("reason", pa.string()),  # where listing found that there is no picture: ImageError or FetchError
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
        pa.field("sha256", pa.string()),  # of the original bytes
        pa.field("format", pa.string()),  # Pillow's name: JPEG, PNG, WEBP, ...
        pa.field("mode", pa.string()),  # Pillow's mode of the original
        pa.field("width", pa.int32()),  # px, upright
        pa.field("height", pa.int32()),  # px, upright
        pa.field("exif_orientation", pa.int8()),  # 1 to 8; 1 where there is no tag
        pa.field("frames", pa.int32()),
        pa.field("icc", pa.bool_()),  # the original embeds a colour profile (the proxy is converted to sRGB)
        pa.field("alpha", pa.float32()),  # share of the picture that is see-through, 0 to 1; null where opaque
        pa.field("raw_caption", pa.string()),
        pa.field("url", pa.string()),
        pa.field("license", pa.string()),
        pa.field("reason", pa.string()),  # ImageError or FetchError of schemas.reasons; null where there is a picture
        pa.field("detail", pa.string()),
    ]
)

HEADERS = pa.schema(
    [
        _ROW,
        pa.field("num_bytes", pa.int64()),  # as found, or as listed where it could not be read
        pa.field("format", pa.string()),  # these seven as in `images`
        pa.field("mode", pa.string()),
        pa.field("width", pa.int32()),  # px, upright
        pa.field("height", pa.int32()),  # px, upright
        pa.field("exif_orientation", pa.int8()),
        pa.field("frames", pa.int32()),
        pa.field("icc", pa.bool_()),
        pa.field("reason", pa.string()),  # as in `images`, where the header alone tells it
        pa.field("detail", pa.string()),
    ]
)
"""What `sigma ingest --probe-only` read of each input. No other table depends on it; the paths are in `listing`."""

PROXIES = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("jpeg", pa.binary()),  # upright sRGB, longest side at most ingest.proxy_px
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
    ]
)

FINGERPRINTS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("phash", pa.uint64()),  # 64-bit DCT hash of the proxy
        pa.field("pixel_sha256", pa.string()),  # of the original's size and the proxy, which is its pixels
    ]
)

SCORES = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("aesthetic", pa.float32()),  # 1 to 10
        pa.field("aesthetic_scorer", pa.string()),  # who gave it
    ]
)

EMBEDDINGS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("model", pa.string()),  # the CLIP that gave it; null where there is no picture
        pa.field("embedding", pa.list_(pa.float16())),  # of the picture, as projected: not normalised
    ]
)
"""Only where `aesthetic.store_embeddings` asks for it."""

SCREENS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("sharpness", pa.float32()),  # grey levels, of the sharpest tenth
        pa.field("upscale", pa.float32()),  # looks enlarged by this factor; 1 is native
        pa.field("border", pa.float32()),  # share of the area that is frame or bars, 0 to 1
        pa.field("border_box", pa.list_(pa.int32())),  # left, top, right, bottom of the picture inside, upright px
        pa.field("nsfw", pa.float32()),  # 0 to 1
        pa.field("watermark", pa.float32()),  # 0 to 1
        pa.field("classes", pa.map_(pa.string(), pa.float32())),  # of the recipe's other classifiers, by their names
        pa.field("clip_similarity", pa.float32()),  # cosine of the picture and its raw caption
        pa.field("models", pa.map_(pa.string(), pa.string())),  # column or class -> the model that gave it
    ]
)
"""A column is null where its screen is off, or cannot say anything of the picture."""

DUPLICATES = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("group_id", pa.int64(), nullable=False),  # lowest row_id of the group
        pa.field("method", pa.string()),  # 'bytes', 'pixels', 'phash' or 'semantic', the strongest; null if alone
        pa.field("distance", pa.float32()),  # to its nearest by that method: bits between pHashes, or 1 - cosine
        # a picture of a dataset that `dedup.against` names; null where there is none:
        pa.field("other_dataset", pa.string()),  # its folder
        pa.field("other_image_id", pa.string()),
        pa.field("other_method", pa.string()),
        pa.field("other_distance", pa.float32()),
    ]
)

RAW_CAPTIONS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("caption", pa.string()),  # the raw caption, cleaned; null where there is a reason
        pa.field("language", pa.string()),  # ISO 639 code; null where it is not sure
        pa.field("removed", pa.list_(pa.string()), nullable=False),  # taken out: html, urls, hashtags, extension
        pa.field("reason", pa.string()),  # schemas.reasons.RawCaptionReason
    ]
)

SELECTION = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("rejected_by", pa.string()),  # schemas.reasons.Rejection; null where kept or where ingest failed
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("duplicate_of", pa.string()),  # image_id of the survivor, or of the picture in the other dataset
        pa.field("duplicate_of_row", pa.int64()),  # row_id of the survivor (an exact copy shares its image_id)
        pa.field("duplicate_method", pa.string()),  # of `duplicates`; its distance is the value
        pa.field("other_dataset", pa.string()),  # folder of the dataset of `dedup.against` that holds the picture
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("subsets", pa.list_(pa.string()), nullable=False),
        # a raw caption taken over from a duplicate; null where the picture has its own, or none:
        pa.field("inherited_caption", pa.string()),  # cleaned
        pa.field("inherited_from", pa.string()),  # image_id of the duplicate that it came with
        pa.field("inherited_from_row", pa.int64()),
    ]
)

CAPTIONS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("captioner", pa.string(), nullable=False),  # the model, with the start of its revision
        pa.field("revision", pa.string()),  # the model's commit, or the digest of its folder; null where it has none
        pa.field("prompt", pa.string()),  # null where the captioner takes none
        pa.field("parameters", pa.string()),  # JSON: decoding, limits, precision
        pa.field("caption", pa.string()),
        pa.field("num_tokens", pa.int32()),  # as the captioner counted what it wrote; null where it does not tell
        pa.field("reason", pa.string()),  # schemas.reasons.CaptionReason; null where there is a caption
    ]
)

MIX = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("caption", pa.string()),
        pa.field("caption_source", pa.string()),  # 'synthetic' or 'raw'; null where there is no caption
        pa.field("coin", pa.float64()),  # unit_interval(image_id, salt)
        pa.field("fallback", pa.string()),  # schemas.reasons.Fallback; null where the coin was followed
        pa.field("num_tokens", pa.int32()),  # of the caption as it is here, the end of the text included
        pa.field("tokenizer", pa.string()),  # who counted
        pa.field("truncated", pa.bool_()),  # was longer than the trainer reads, and is cut
    ]
)

NOUNS = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("caption_source", pa.string(), nullable=False),  # 'raw', 'synthetic', or a captioner beside
        pa.field("nouns", pa.list_(pa.string())),  # lemmas in reading order; null where there is no caption
        pa.field("num_words", pa.int32()),
        pa.field("num_tokens", pa.int32()),  # of the caption before any cut, the end of the text included
        pa.field("tokenizer", pa.string()),  # who counted: that of the mix
    ]
)

NOUN_SOURCES = ("raw", "synthetic")
"""The rows that `nouns` holds per image, in this order; one for each captioner beside the primary one follows."""

GROUNDING = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("caption_source", pa.string(), nullable=False),  # one row per image and entry of `ground.sources`
        pa.field("scorer", pa.string()),  # the CLIP model; null where there is no caption or no picture
        pa.field("sentences", pa.list_(pa.string())),  # of the caption, in order
        pa.field("sentence_scores", pa.list_(pa.float32())),  # cosine of each with the picture
        pa.field("lowest_sentence", pa.string()),
        pa.field("lowest_score", pa.float32()),
        pa.field("mean_score", pa.float32()),
        pa.field("num_cut", pa.int32()),  # sentences that are longer than the scorer reads
        pa.field("detector", pa.string()),  # the open-vocabulary detector; null where it was not asked
        pa.field("nouns", pa.list_(pa.string())),  # distinct, in reading order
        pa.field("noun_scores", pa.list_(pa.float32())),  # of the best box, 0 to 1
        pa.field("ungrounded", pa.list_(pa.string())),  # nouns under `ground.min_noun_score`
        pa.field("ungrounded_share", pa.float32()),
    ]
)

NOUN_USES = pa.schema(
    [
        pa.field("caption_source", pa.string(), nullable=False),  # raw, synthetic, mix, or a captioner's name
        pa.field("subset", pa.string()),  # of `select.subsets`; null for the whole set
        pa.field("noun", pa.string(), nullable=False),
        pa.field("num_uses", pa.int64(), nullable=False),  # occurrences
        pa.field("num_images", pa.int64(), nullable=False),  # images whose caption has it
    ]
)
"""The whole set first, then its subsets; of each source the most used noun first."""

BALANCE = pa.schema(
    [
        _ROW,
        _IMAGE,
        pa.field("num_nouns", pa.int32(), nullable=False),  # distinct nouns of the mixed caption
        pa.field("num_common", pa.int32(), nullable=False),  # of them, those in more images than `balance.most_images`
        pa.field("weight", pa.float32(), nullable=False),  # how much the image should count, over 0 to 1
        pa.field("coin", pa.float64(), nullable=False),  # unit_interval(image_id, 'balance')
        pa.field("dropped", pa.bool_(), nullable=False),  # left out of the shards, where `balance.drop` asks for it
    ]
)
"""Only where `balance.most_images` is set; a row per kept image that has a caption."""

STATISTICS = pa.schema(
    [
        pa.field("caption_source", pa.string(), nullable=False),  # raw, synthetic, mix, or a captioner's name
        pa.field("subset", pa.string()),  # of `select.subsets`; null for the whole set
        pa.field("num_images", pa.int64(), nullable=False),
        pa.field("valid_nouns", pa.int64(), nullable=False),  # VN: distinct nouns with more than `valid_above` uses
        pa.field("distinct_nouns", pa.int64(), nullable=False),  # DN
        pa.field("total_nouns", pa.int64(), nullable=False),
        pa.field("average_caption_words", pa.float64()),  # ACL in words
        pa.field("average_caption_tokens", pa.float64()),  # ACL in tokens
        pa.field("tokenizer", pa.string()),  # who counted them; null without captions
        pa.field("average_nouns", pa.float64()),  # nouns per image
    ]
)

SHARD_PLAN = pa.schema(
    [
        pa.field("shard_id", pa.int32(), nullable=False),  # ordinal over all shards: the part of `samples`
        pa.field("position", pa.int32(), nullable=False),  # of the sample inside its shard
        pa.field("shard", pa.string(), nullable=False),  # path under shards/
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
        pa.field("original_caption", pa.string()),  # as it came with the image
        pa.field("raw_caption", pa.string()),  # cleaned: its own, or a duplicate's
        pa.field("raw_reason", pa.string()),  # schemas.reasons.RawCaptionReason; null where one was taken over
        pa.field("captioner", pa.string()),
        pa.field("synthetic_caption", pa.string()),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("caption_source", pa.string(), nullable=False),
        pa.field("coin", pa.float64(), nullable=False),
        pa.field("fallback", pa.string()),
        pa.field("num_tokens", pa.int32(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),  # of `balance`; 1 where concepts are not balanced
        pa.field("recipe", pa.string(), nullable=False),  # fingerprint of the knobs that shaped the sample
        pa.field("raw_caption_from", pa.string()),  # image_id of the duplicate whose raw caption it carries
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
        pa.field("width", pa.int32()),  # px, of the stored image, upright
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
        pa.field("reason", pa.string()),  # schemas.reasons.ShardError; null where the sample lies in the shard
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
