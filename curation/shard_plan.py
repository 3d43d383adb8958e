"""Plan the shards from metadata alone: which sample lies where, before a byte is copied."""

from __future__ import annotations

from functools import partial

from curation.catalog import literal
from curation.reduce import Connection, Reduce
from schemas import buckets
from schemas.recipe import DataRecipe, Shard

_PLACES = """
CREATE TEMP TABLE places AS
WITH kept AS (  -- the label nearest to height / width on a linear scale, the lower one of two equally near
    SELECT row_id, images.image_id, images.num_bytes, $weight AS weight,
           list_min(list_transform($labels, lambda each: {
               'distance': abs(each.ratio - height::DOUBLE / width), 'ratio': each.ratio, 'label': each.label
           })).label AS bucket
    FROM selection
    JOIN images USING (row_id)
    JOIN mix USING (row_id)
    $balance
    WHERE selection.kept AND mix.caption IS NOT NULL
),
ordered AS (
    SELECT *,
           row_number() OVER shuffled - 1 AS rank,
           coalesce(sum(num_bytes) OVER (shuffled ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before
    FROM kept
    WINDOW shuffled AS (PARTITION BY bucket ORDER BY md5($seed || ':' || image_id), row_id)
),
numbered AS (  -- a shard ends where the bytes or the samples before a row pass a multiple of their limit
    SELECT *, dense_rank() OVER (PARTITION BY bucket ORDER BY bytes_before // $bytes, rank // $samples) - 1 AS number
    FROM ordered
)
SELECT row_id, dense_rank() OVER (ORDER BY bucket::DOUBLE, number) - 1 AS shard_id,
       row_number() OVER (PARTITION BY bucket, number ORDER BY image_id) - 1 AS position,
       printf('%s/%s-%06d.tar', bucket, bucket, number) AS shard, bucket, weight
FROM numbered
"""
"""Where each sample lies, from a few narrow columns: wide rows go through no window."""

_PLAN = """
SELECT shard_id, position, shard, bucket, row_id,
       images.image_id, images.source, images.source_name, images.member, images.byte_offset,
       images.num_bytes, images.sha256, images.format, images.width, images.height, images.url, images.license,
       fingerprints.phash, scores.aesthetic, scores.aesthetic_scorer, selection.subsets,
       images.raw_caption AS original_caption, raw_offers.caption AS raw_caption,
       raw_offers.reason AS raw_reason, raw_offers.inherited_from AS raw_caption_from,
       captions.captioner, captions.caption AS synthetic_caption,
       mix.caption, mix.caption_source, mix.coin, mix.fallback, mix.num_tokens, weight, $recipe AS recipe
FROM places
JOIN selection USING (row_id)
JOIN images USING (row_id)
JOIN fingerprints USING (row_id)
JOIN scores USING (row_id)
JOIN raw_offers USING (row_id)
JOIN captions USING (row_id)
JOIN mix USING (row_id)
ORDER BY shard_id, position
"""

_BALANCE = "ANTI JOIN (FROM balance WHERE dropped) AS dropped USING (row_id) LEFT JOIN balance USING (row_id)"


def reduce(recipe: DataRecipe) -> Reduce:
    """The planning half of the shard job."""
    return Reduce(
        job="shard",
        output="shard_plan",
        inputs=(
            *("images", "fingerprints", "scores", "selection", "raw_captions", "captions", "mix"),
            *(("balance",) if recipe.balance.most_images else ()),
        ),
        query=partial(
            plan,
            limits=recipe.shard,
            seed=recipe.seed,
            shaped_by=recipe.sample_fingerprint(),
            balanced=recipe.balance.most_images is not None,
        ),
        knobs={
            "seed": recipe.seed,
            "shard.megabytes": recipe.shard.megabytes,
            "shard.max_samples": recipe.shard.max_samples,
        },
    )


def plan(connection: Connection, limits: Shard, seed: int, shaped_by: str, balanced: bool = False) -> str:
    """The SELECT of the plan. Within a bucket samples are dealt to shards by a hash of the seed and their id, and lie
    in a shard by their id, itself a hash: the plan depends on neither the order of the input nor the workers.

    Args:
        balanced: take the weights of `balance`, and leave out what it dropped.
    """
    connection.execute("SET preserve_insertion_order = false")  # the outcome is sorted; in between it costs memory
    labels = ", ".join(f"{{'label': {literal(label)}, 'ratio': {label}::DOUBLE}}" for label in buckets.LABELS)
    connection.execute(
        _PLACES.replace("$weight", "coalesce(balance.weight, 1)" if balanced else "1")
        .replace("$balance", _BALANCE if balanced else "")
        .replace("$labels", f"[{labels}]")
        .replace("$seed", f"'{int(seed)}'")
        .replace("$bytes", str(max(1, int(limits.megabytes * 1_000_000))))
        .replace("$samples", str(limits.max_samples))
    )
    return _PLAN.replace("$recipe", literal(shaped_by))
