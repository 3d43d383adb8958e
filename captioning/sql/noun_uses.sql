-- How often each noun occurs and in how many images, for each caption source and the mix, over the whole set (subset is
-- null) and over each of its subsets. Counted over some pictures after others and added up it is the table `noun_uses`,
-- of which every other question about nouns is asked.
--
-- Reads   nouns      (row_id, caption_source, nouns; null nouns where there is no caption)
--         mix        (row_id, caption_source: the source that the sample carries)
--         selection  (row_id, subsets)
-- Knobs   subsets: the text of subsets.sql, which gives members (row_id, combination) and belongs (combination, subset)
WITH
$subsets,
-- Each caption becomes a row per noun before anything is joined or grouped: an image then needs no count of distinct
-- row_ids. The captions are gone through once; the mix and the subsets are added up from what comes of it.
uses AS MATERIALIZED (
    SELECT caption_source, mixed, combination, entry.key AS noun, sum(entry.value) AS num_uses, count(*) AS num_images
    FROM (
        SELECT
            nouns.caption_source,
            coalesce(mix.caption_source = nouns.caption_source, false) AS mixed,
            coalesce(combination, 0) AS combination,
            unnest(map_entries(list_histogram(nouns.nouns))) AS entry
        FROM nouns
        LEFT JOIN mix USING (row_id)
        LEFT JOIN members USING (row_id)
        WHERE nouns.nouns IS NOT NULL
    )
    GROUP BY ALL
)
SELECT caption_source, subset, noun, sum(num_uses)::BIGINT AS num_uses, sum(num_images)::BIGINT AS num_images
FROM (
    SELECT caption_source, combination, noun, num_uses, num_images FROM uses
    UNION ALL
    SELECT 'mix', combination, noun, num_uses, num_images FROM uses WHERE mixed
)
JOIN belongs USING (combination)
GROUP BY ALL
