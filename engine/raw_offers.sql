-- The raw caption that each picture offers to the mix: its own, or the one that `select` let it take over from a
-- duplicate, with the image_id it came with. Where one was taken over there is no reason why its own is none.
CREATE OR REPLACE VIEW raw_offers AS
SELECT
    raw_captions.row_id,
    raw_captions.image_id,
    coalesce(inherited_caption, raw_captions.caption) AS caption,
    CASE WHEN inherited_caption IS NULL THEN raw_captions.reason END AS reason,
    inherited_from
FROM raw_captions
LEFT JOIN selection USING (row_id);
