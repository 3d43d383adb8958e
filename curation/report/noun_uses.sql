-- How often each noun occurs in the captions of each source and of the mix, and in how many images.
--
-- Reads   nouns (row_id, caption_source, nouns), mix (row_id, caption_source)
--
-- A caption is counted into a histogram before it is unnested, so that an image is one row per noun and needs no
-- count of distinct row_ids; the mix is added up from the captions that it took.
WITH described AS NOT MATERIALIZED (
    SELECT
        nouns.caption_source,
        coalesce(mix.caption_source = nouns.caption_source, false) AS mixed,
        unnest(map_entries(list_histogram(nouns.nouns))) AS entry
    FROM nouns
    LEFT JOIN mix USING (row_id)
    WHERE nouns.nouns IS NOT NULL
),
uses AS MATERIALIZED (
    SELECT caption_source, mixed, entry.key AS noun, sum(entry.value)::BIGINT AS num_uses, count(*) AS num_images
    FROM described
    GROUP BY ALL
)
SELECT caption_source, noun, sum(num_uses)::BIGINT AS num_uses, sum(num_images)::BIGINT AS num_images
FROM uses GROUP BY ALL
UNION ALL
SELECT 'mix', noun, sum(num_uses)::BIGINT, sum(num_images)::BIGINT FROM uses WHERE mixed GROUP BY ALL
