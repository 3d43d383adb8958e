-- Table 1 of the paper: what the captions of a dataset hold, for the raw captions, the synthetic ones and the mix.
--
-- Reads   nouns (row_id, caption_source, nouns, num_words; two rows per image, null nouns where there is no caption)
--         mix   (row_id, caption_source: which of the two captions the sample of that image carries)
-- Knob    $valid_above: a distinct noun is valid when it occurs more often than this; the paper takes 10
WITH
-- Every caption once, with a note whether the mix took it.
described AS (
    SELECT
        nouns.caption_source,
        nouns.nouns,
        nouns.num_words,
        coalesce(mix.caption_source = nouns.caption_source, false) AS mixed
    FROM nouns
    LEFT JOIN mix USING (row_id)
    WHERE nouns.nouns IS NOT NULL
),
-- How often each noun occurs. The captions are unnested once; the mix is added up from its two halves.
uses AS (
    SELECT caption_source, mixed, noun, count(*) AS num_uses
    FROM (SELECT caption_source, mixed, unnest(nouns) AS noun FROM described)
    GROUP BY ALL
),
noun_uses AS (
    SELECT caption_source, noun, sum(num_uses) AS num_uses FROM uses GROUP BY ALL
    UNION ALL
    SELECT 'mix', noun, sum(num_uses) FROM uses WHERE mixed GROUP BY ALL
),
noun_figures AS (
    SELECT
        caption_source,
        count(*) FILTER (num_uses > $valid_above) AS valid_nouns,
        count(*) AS distinct_nouns,
        sum(num_uses) AS total_nouns
    FROM noun_uses
    GROUP BY caption_source
),
caption_figures AS (
    SELECT caption_source, count(*) AS num_images, sum(num_words) AS num_words FROM described GROUP BY caption_source
    UNION ALL
    SELECT 'mix', count(*), sum(num_words) FROM described WHERE mixed
),
-- A row for each source, also where nothing has a caption of it.
sources (position, caption_source) AS (VALUES (1, 'raw'), (2, 'synthetic'), (3, 'mix'))
SELECT
    caption_source,
    coalesce(num_images, 0) AS num_images,
    coalesce(valid_nouns, 0) AS valid_nouns,
    coalesce(distinct_nouns, 0) AS distinct_nouns,
    coalesce(total_nouns, 0) AS total_nouns,
    num_words / nullif(num_images, 0) AS average_caption_words,
    coalesce(total_nouns, 0) / nullif(num_images, 0) AS average_nouns
FROM sources
LEFT JOIN caption_figures USING (caption_source)
LEFT JOIN noun_figures USING (caption_source)
ORDER BY position
