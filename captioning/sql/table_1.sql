-- Table 1 of the paper: what the captions of a dataset hold, for each caption source and the mix, over the whole set
-- (subset is null) and over each of its subsets.
--
-- Reads   noun_uses    (caption_source, subset, noun, num_uses)
--         counted      (what caption_lengths.sql counts, added up or not)
-- Knob    $valid_above: a distinct noun is valid when it occurs more often than this; the paper takes 10
WITH
noun_figures AS (
    SELECT
        caption_source,
        subset,
        count(*) FILTER (num_uses > $valid_above) AS valid_nouns,
        count(*) AS distinct_nouns,
        sum(num_uses) AS total_nouns
    FROM noun_uses
    GROUP BY ALL
),
caption_figures AS (
    SELECT
        caption_source,
        subset,
        sum(num_images) AS num_images,
        sum(num_words) AS num_words,
        sum(num_tokens) / sum(num_with_tokens) AS average_caption_tokens,
        min(tokenizer) AS tokenizer
    FROM counted
    GROUP BY ALL
),
-- A row for each source and subset, also where nothing has a caption of it.
sources AS (
    FROM (VALUES ('raw'), ('synthetic'), ('mix')) AS stated (caption_source)
    UNION
    SELECT caption_source FROM counted WHERE caption_source IS NOT NULL
),
sets AS (SELECT DISTINCT subset FROM counted)
SELECT
    sources.caption_source,
    sets.subset,
    coalesce(num_images, 0) AS num_images,
    coalesce(valid_nouns, 0) AS valid_nouns,
    coalesce(distinct_nouns, 0) AS distinct_nouns,
    coalesce(total_nouns, 0) AS total_nouns,
    num_words / nullif(num_images, 0) AS average_caption_words,
    average_caption_tokens,
    tokenizer,
    coalesce(total_nouns, 0) / nullif(num_images, 0) AS average_nouns
FROM sources
CROSS JOIN sets
LEFT JOIN caption_figures AS c
    ON c.caption_source = sources.caption_source AND c.subset IS NOT DISTINCT FROM sets.subset
LEFT JOIN noun_figures AS n
    ON n.caption_source = sources.caption_source AND n.subset IS NOT DISTINCT FROM sets.subset
ORDER BY
    sets.subset NULLS FIRST,
    coalesce(array_position(['raw', 'synthetic'], sources.caption_source), if(sources.caption_source = 'mix', 4, 3)),
    sources.caption_source
