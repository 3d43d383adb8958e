-- Two caption sources side by side, one row each; over the views of each_caption.sql.
--
-- Reads   each_caption, each_nouns, each_grounding, noun_uses
-- Knobs   $source_a, $source_b, $valid_above
WITH
caption_figures AS (
    SELECT
        source,
        count(*) AS num_images,
        count(caption) AS num_captions,
        -- what was written, or came with the image, and was not taken; a missing one is not refused
        count(*) FILTER (reason NOT IN ('no_raw_caption', 'captioner_failed', 'no_caption')) AS num_refused
    FROM each_caption WHERE source IN ($source_a, $source_b)
    GROUP BY source
),
noun_figures AS (
    SELECT
        source,
        avg(num_words) AS mean_words,
        quantile_cont(num_words, 0.5) AS median_words,
        quantile_cont(num_words, 0.95) AS p95_words,
        avg(num_tokens) AS mean_tokens,
        quantile_cont(num_tokens, 0.5) AS median_tokens,
        quantile_cont(num_tokens, 0.95) AS p95_tokens,
        min(tokenizer) AS tokenizer,
        avg(len(nouns)) AS mean_nouns
    FROM each_nouns WHERE source IN ($source_a, $source_b)
    GROUP BY source
),
distinct_nouns AS (
    SELECT
        caption_source AS source,
        count(*) AS distinct_nouns,
        count(*) FILTER (num_uses > $valid_above) AS valid_nouns
    FROM noun_uses WHERE subset IS NULL AND caption_source IN ($source_a, $source_b)
    GROUP BY caption_source
),
grounding_figures AS (
    SELECT
        source,
        count(*) AS num_scored,
        avg(mean_score) AS mean_score,
        avg(lowest_score) AS mean_lowest_score,
        avg(ungrounded_share) AS ungrounded_share
    FROM each_grounding WHERE source IN ($source_a, $source_b)
    GROUP BY source
),
-- Images of which both captions are scored, and whose lowest sentence fits better there; by the same scorer only.
duels AS (
    SELECT
        count(*) AS num_both,
        count(*) FILTER (a.lowest_score > b.lowest_score) AS a_higher,
        count(*) FILTER (b.lowest_score > a.lowest_score) AS b_higher
    FROM (FROM each_grounding WHERE source = $source_a) AS a
    JOIN (FROM each_grounding WHERE source = $source_b) AS b USING (row_id, scorer)
)
SELECT
    caption_figures.*,
    noun_figures.* EXCLUDE (source),
    coalesce(distinct_nouns, 0) AS distinct_nouns,
    coalesce(valid_nouns, 0) AS valid_nouns,
    grounding_figures.* EXCLUDE (source),
    num_both AS num_scored_both,
    if(source = $source_a, a_higher, b_higher) AS num_lowest_higher
FROM caption_figures
LEFT JOIN noun_figures USING (source)
LEFT JOIN distinct_nouns USING (source)
LEFT JOIN grounding_figures USING (source)
CROSS JOIN duels
ORDER BY source = $source_b
