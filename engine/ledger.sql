-- Every input is one row, always: kept, rejected (rule, value, threshold), error (where, what), purged (taken
-- out, why), or pending while a build is unfinished. Conservation: count(*) = the number of inputs in the listing.
CREATE OR REPLACE VIEW ledger AS
SELECT
    listing.row_id,
    listing.source,
    listing.member,
    images.image_id,
    CASE
        WHEN images.row_id IS NULL THEN 'pending'
        WHEN images.reason = 'purged' THEN 'purged' -- taken out; detail says why, purged.jsonl when
        WHEN images.reason IS NOT NULL THEN 'error'
        WHEN selection.row_id IS NULL THEN 'pending'
        WHEN selection.rejected_by IS NOT NULL THEN 'rejected'
        WHEN mix.coin IS NOT NULL AND mix.caption_source IS NULL THEN 'rejected'
        WHEN mix.coin IS NULL THEN 'pending' -- no coin was tossed: mix has not run since this image was kept
        WHEN samples.reason IS NOT NULL THEN 'error'
        WHEN samples.row_id IS NOT NULL THEN 'kept'
        WHEN balance.dropped THEN 'rejected'
        ELSE 'pending'
    END AS outcome,
    CASE
        WHEN images.reason = 'purged' THEN 'purge'
        WHEN images.row_id IS NULL OR images.reason IS NOT NULL THEN 'ingest'
        WHEN selection.row_id IS NULL OR selection.rejected_by IS NOT NULL THEN 'select'
        WHEN mix.coin IS NULL OR mix.caption_source IS NULL THEN 'mix'
        WHEN samples.row_id IS NULL AND balance.dropped THEN 'balance'
        WHEN samples.row_id IS NULL OR samples.reason IS NOT NULL THEN 'shard'
    END AS stage,
    CASE
        WHEN images.reason IS NOT NULL THEN images.reason
        WHEN selection.rejected_by IS NOT NULL THEN selection.rejected_by
        WHEN mix.coin IS NOT NULL AND mix.caption_source IS NULL AND selection.kept THEN 'no_caption'
        WHEN samples.row_id IS NULL AND balance.dropped THEN 'too_common'
        ELSE samples.reason
    END AS reason,
    coalesce(images.detail, samples.detail) AS detail,
    coalesce(selection.value, CASE WHEN samples.row_id IS NULL AND balance.dropped THEN balance.weight END) AS value,
    coalesce(selection.threshold, CASE WHEN samples.row_id IS NULL AND balance.dropped THEN balance.coin END) AS threshold,
    selection.duplicate_of,
    selection.inherited_from,
    samples.shard,
    samples.key
FROM listing
LEFT JOIN images USING (row_id)
LEFT JOIN selection USING (row_id)
LEFT JOIN mix USING (row_id)
LEFT JOIN balance USING (row_id)
LEFT JOIN samples USING (row_id)
ORDER BY listing.row_id;
