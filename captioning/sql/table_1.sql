-- Table 1 of the paper: what the captions of a dataset hold, for each caption source and the mix, over the whole set
-- (subset is null) and over each of its subsets.
--
-- Reads   nouns        (row_id, caption_source, nouns, num_words; null nouns where there is no caption)
--         mix          (row_id, caption_source: the source that the sample carries; num_tokens, tokenizer)
--         selection    (row_id, kept, subsets)
--         raw_offers, captions: lengths in tokens; the macro num_tokens_of
-- Knobs   $valid_above: a distinct noun is valid when it occurs more often than this; the paper takes 10
--         $beside: SELECT statements that add the tokens of captions beside, each begun by UNION ALL, or nothing
WITH
-- Images in subsets, by which combination of them: a number, so that what follows groups by it and not by a list.
combinations AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY subsets) AS combination, subsets
    FROM (SELECT DISTINCT subsets FROM selection WHERE len(subsets) > 0)
),
members AS (SELECT row_id, combination FROM selection JOIN combinations USING (subsets)),
-- What counts into what: everything into the whole set, a combination into each of its subsets.
belongs (combination, subset) AS MATERIALIZED (
    SELECT 0, NULL::VARCHAR
    UNION ALL
    SELECT combination, NULL FROM combinations
    UNION ALL
    SELECT combination, unnest(subsets) FROM combinations
),
-- Every caption once, with a note whether the mix took it.
described AS NOT MATERIALIZED (
    SELECT
        nouns.caption_source,
        coalesce(mix.caption_source = nouns.caption_source, false) AS mixed,
        coalesce(combination, 0) AS combination,
        nouns.nouns,
        nouns.num_words
    FROM nouns
    LEFT JOIN mix USING (row_id)
    LEFT JOIN members USING (row_id)
    WHERE nouns.nouns IS NOT NULL
),
-- How often each noun occurs. The captions are unnested once; the mix and the subsets are added up from this.
uses AS MATERIALIZED (
    SELECT caption_source, mixed, combination, noun, count(*) AS num_uses
    FROM (SELECT caption_source, mixed, combination, unnest(nouns) AS noun FROM described)
    GROUP BY ALL
),
noun_uses AS (
    SELECT caption_source, subset, noun, sum(num_uses) AS num_uses FROM uses JOIN belongs USING (combination)
    GROUP BY ALL
    UNION ALL
    SELECT 'mix', subset, noun, sum(num_uses) FROM uses JOIN belongs USING (combination) WHERE mixed GROUP BY ALL
),
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
captions_counted AS MATERIALIZED (
    SELECT caption_source, mixed, combination, count(*) AS num_images, sum(num_words) AS num_words
    FROM described
    GROUP BY ALL
),
caption_figures AS (
    SELECT caption_source, subset, sum(num_images) AS num_images, sum(num_words) AS num_words
    FROM captions_counted JOIN belongs USING (combination)
    GROUP BY ALL
    UNION ALL
    SELECT 'mix', subset, sum(num_images), sum(num_words)
    FROM captions_counted JOIN belongs USING (combination)
    WHERE mixed
    GROUP BY ALL
),
-- Lengths in tokens of kept images' captions. Stored counts where there are any; raw captions are counted here.
tokens AS (
    SELECT 'raw' AS caption_source, row_id, num_tokens_of(caption) AS num_tokens, 'words' AS tokenizer
    FROM raw_offers WHERE caption IS NOT NULL
    UNION ALL
    SELECT 'synthetic', row_id, num_tokens_of(caption), 'words' FROM captions WHERE caption IS NOT NULL
    UNION ALL
    SELECT 'mix', row_id, num_tokens, tokenizer FROM mix WHERE caption IS NOT NULL
    $beside
),
tokens_counted AS (
    SELECT
        caption_source,
        coalesce(combination, 0) AS combination,
        sum(num_tokens) AS num_tokens,
        count(num_tokens) AS num_captions,
        min(tokenizer) AS tokenizer
    FROM tokens
    JOIN (SELECT row_id FROM selection WHERE kept) USING (row_id)
    LEFT JOIN members USING (row_id)
    GROUP BY ALL
),
token_figures AS (
    SELECT
        caption_source,
        subset,
        sum(num_tokens) / sum(num_captions) AS average_caption_tokens,
        min(tokenizer) AS tokenizer
    FROM tokens_counted JOIN belongs USING (combination)
    GROUP BY ALL
),
-- A row for each source and subset, also where nothing has a caption of it.
sources AS (
    FROM (VALUES ('raw'), ('synthetic'), ('mix')) AS stated (caption_source)
    UNION
    SELECT caption_source FROM captions_counted
),
sets AS (SELECT DISTINCT subset FROM belongs)
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
LEFT JOIN token_figures AS t
    ON t.caption_source = sources.caption_source AND t.subset IS NOT DISTINCT FROM sets.subset
ORDER BY
    sets.subset NULLS FIRST,
    coalesce(array_position(['raw', 'synthetic'], sources.caption_source), if(sources.caption_source = 'mix', 4, 3)),
    sources.caption_source
