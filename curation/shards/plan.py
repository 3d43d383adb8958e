"""Plan the shards from metadata alone: the place of every sample, before a byte is copied."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from engine.duck import literal
from engine.names import Held
from engine.reduce_job import Connection, ReduceJob
from schemas.columns import BESIDE
from schemas.late import late
from schemas.recipe import DataRecipe, Shard

with late(__name__):
    from schemas import buckets

_DEALT = """
CREATE TEMP TABLE dealt AS
SELECT row_id, ('0x' || images.image_id)::UHUGEINT AS id, images.num_bytes, $weight::FLOAT AS weight,
       ($bucket)::ENUM ($labels) AS bucket, ('0x' || md5($seed || ':' || images.image_id))::UHUGEINT AS shuffle
FROM selection
JOIN images USING (row_id)
JOIN mix USING (row_id)
$balance
WHERE selection.kept AND mix.caption_source IS NOT NULL
"""
"""Narrow columns: at 33 million rows these tables are written to the disk and read again."""

_COUNTED = """
CREATE TEMP TABLE counted AS
WITH sliced AS (SELECT *, (shuffle >> 120)::UTINYINT AS slice FROM dealt),
slices AS (
    SELECT bucket, slice, coalesce(sum(num) OVER earlier, 0) AS num_before,
           coalesce(sum(bytes) OVER earlier, 0) AS bytes_before
    FROM (SELECT bucket, slice, count(*) AS num, sum(num_bytes) AS bytes FROM sliced GROUP BY bucket, slice)
    WINDOW earlier AS (PARTITION BY bucket ORDER BY slice ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
ordered AS (
    SELECT row_id, id, weight, bucket, slice, row_number() OVER shuffled - 1 AS num,
           coalesce(sum(num_bytes) OVER (shuffled ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes
    FROM sliced
    WINDOW shuffled AS (PARTITION BY bucket, slice ORDER BY shuffle, row_id)
)
SELECT row_id, id, weight, bucket,
       ((bytes_before + bytes) // $bytes)::INTEGER AS by_bytes, ((num_before + num) // $samples)::INTEGER AS by_samples
FROM ordered JOIN slices USING (bucket, slice)
"""
"""A shard ends where the bytes or the samples before a row pass a multiple of their limit. DuckDB holds a window's
partition in memory, so a bucket is cut into slices of the shuffled order, and the sums before a slice are added."""

_NUMBERED = """
CREATE TEMP TABLE numbered AS
SELECT *, bucket::VARCHAR AS label,
       (row_number() OVER (ORDER BY label::DOUBLE, by_bytes, by_samples) - 1)::INTEGER AS shard_id,
       row_number() OVER (PARTITION BY bucket ORDER BY by_bytes, by_samples) - 1 AS number
FROM (SELECT DISTINCT bucket, by_bytes, by_samples FROM counted)
"""

_PLACES = """
CREATE TEMP TABLE placed AS
SELECT row_id, shard_id, (row_number() OVER (PARTITION BY shard_id ORDER BY id) - 1)::INTEGER AS position, weight
FROM counted JOIN numbered USING (bucket, by_bytes, by_samples)
ORDER BY row_id
"""
"""The place of each sample, from a few narrow columns, in the order in which `_PLAN` reads them: wide rows go through
no window."""

_PLAN = """
CREATE OR REPLACE TEMP TABLE places AS FROM placed SEMI JOIN images USING (row_id);
SELECT shard_id, position, printf('%s/%s-%06d.tar', label, label, number) AS shard, label AS bucket, row_id,
       images.image_id, images.source, images.source_name, images.member, images.byte_offset,
       images.num_bytes, images.sha256, images.format, images.width, images.height, images.url, images.license,
       fingerprints.phash, scores.aesthetic, scores.aesthetic_scorer, selection.subsets,
       images.raw_caption AS original_caption, raw_offers.caption AS raw_caption,
       raw_offers.reason AS raw_reason, raw_offers.inherited_from AS raw_caption_from,
       captions.captioner, captions.caption AS synthetic_caption,
       mix.caption, mix.caption_source, mix.coin, mix.fallback, mix.num_tokens, weight, $recipe AS recipe,
       $captioners AS further_captioners, $captions AS further_captions, images.other_captions
FROM places
JOIN numbered USING (shard_id)
JOIN selection USING (row_id)
JOIN images USING (row_id)
LEFT JOIN fingerprints USING (row_id)
LEFT JOIN scores USING (row_id)
LEFT JOIN raw_offers USING (row_id)
LEFT JOIN captions USING (row_id)
LEFT JOIN mix USING (row_id)
$further
"""
"""The places of some parts become a table, since DuckDB chooses how to join by the rows that a table has. Each table
has the row of a place. LEFT keeps DuckDB from building its tables of hashes of the wide side."""

_FURTHER = """LEFT JOIN (
    SELECT row_id, captioner AS captioner_{number}, caption AS caption_{number}
    FROM captions_beside WHERE source = {name}
) USING (row_id)
"""
"""The captions of one further captioner."""

_BALANCE = "ANTI JOIN (FROM balance WHERE dropped) AS dropped USING (row_id) LEFT JOIN balance USING (row_id)"


def reduce_job(recipe: DataRecipe) -> ReduceJob:
    """The planning half of the shard job."""
    further = [f"{BESIDE}{name}" for name in recipe.caption.beside]
    return ReduceJob(
        job="shard",
        outputs=("shard_plan",),
        inputs=(
            *("images", "fingerprints", "scores", "selection", "raw_captions", "captions", "mix"),
            *(("balance",) if recipe.balance.most_images else ()),
            *further,
        ),
        query=partial(
            plan,
            limits=recipe.shard,
            seed=recipe.seed,
            shaped_by=recipe.sample_fingerprint(),
            balanced=recipe.balance.most_images is not None,
            beside=tuple(recipe.caption.beside),
        ),
        knobs={
            "seed": recipe.seed,
            "shard.megabytes": recipe.shard.megabytes,
            "shard.max_samples": recipe.shard.max_samples,
        },
        after=refuse_empty,
        by_parts=True,
        sorted_by=("shard_id", "position"),
    )


class NothingLeft(ValueError):
    """No image passes every rule; the tables that say why are whole."""


def refuse_empty(held: Held) -> None:
    """Stop a build that has nothing to pack.

    Raises:
        NothingLeft: the plan has no sample.
    """
    if not held.shards:
        root = held.dataset.root
        raise NothingLeft(
            f"{root}: no image is left to pack; sigma status {root} shows which rule took them, "
            "then loosen it in the recipe's select section and add --redo select"
        )


def plan(
    connection: Connection, limits: Shard, seed: int, shaped_by: str, balanced: bool = False, beside: Sequence[str] = ()
) -> str:
    """The SELECT of the plan, in no order, behind a table that it reads. Within a bucket a hash of the seed and the id
    deals samples to shards; in a shard they are sorted by id, itself a hash: the plan depends on neither the order of
    the input nor the workers.

    Args:
        balanced: take the weights of `balance`, and leave out what it dropped.
        beside: names in the recipe of the further captioners, whose captions a sample carries too.
    """
    connection.execute("SET preserve_insertion_order = false")  # the outcome is sorted; in between it costs memory
    connection.execute(
        _DEALT.replace("$weight", "coalesce(balance.weight, 1)" if balanced else "1")
        .replace("$balance", _BALANCE if balanced else "")
        .replace("$bucket", buckets.nearest_sql("height::DOUBLE / width"))
        .replace("$labels", ", ".join(map(literal, buckets.LABELS)))
        .replace("$seed", f"'{int(seed)}'")
    )
    num_bytes = max(1, int(limits.megabytes * 1_000_000))
    connection.execute(_COUNTED.replace("$bytes", str(num_bytes)).replace("$samples", str(limits.max_samples)))
    connection.execute("DROP TABLE dealt")
    connection.execute(_NUMBERED)
    connection.execute(_PLACES)
    connection.execute("DROP TABLE counted")
    further = "".join(_FURTHER.format(number=number, name=literal(name)) for number, name in enumerate(beside))
    query = _PLAN.replace("$further", further).replace("$recipe", literal(shaped_by))
    for column in ("captioner", "caption"):
        columns = ", ".join(f"{column}_{number}" for number in range(len(beside)))
        query = query.replace(f"${column}s", f"[{columns}]" if beside else "NULL::VARCHAR[]")
    return query
