-- The lengths of the captions of a dataset, added up for each caption source and the mix, over the whole set (subset is
-- null) and over each of its subsets. Counted over some pictures after others they are what table_1.sql reads.
--
-- Reads   nouns        (row_id, caption_source, num_words, num_tokens, tokenizer; null where there is no caption)
--         mix          (row_id, caption_source: the source that the sample carries; num_tokens, tokenizer)
--         selection    (row_id, subsets)
-- Knobs   subsets: the text of subsets.sql, which gives members (row_id, combination) and belongs (combination, subset)
WITH
$subsets,
-- Lengths of every caption. A mixed one has the words of the caption that it is, and the tokens that were left of it.
lengths AS (
    SELECT row_id, caption_source, num_words, num_tokens, tokenizer FROM nouns WHERE num_words IS NOT NULL
    UNION ALL
    SELECT row_id, 'mix', nouns.num_words, mix.num_tokens, mix.tokenizer
    FROM nouns JOIN mix USING (row_id, caption_source)
    WHERE nouns.num_words IS NOT NULL
),
captions_counted AS MATERIALIZED (
    SELECT
        caption_source,
        coalesce(combination, 0) AS combination,
        count(*) AS num_images,
        sum(num_words) AS num_words,
        sum(num_tokens) AS num_tokens,
        count(num_tokens) AS num_with_tokens,
        min(tokenizer) AS tokenizer
    FROM lengths
    LEFT JOIN members USING (row_id)
    GROUP BY ALL
)
-- A subset without a caption has a row without a source.
SELECT
    caption_source,
    subset,
    coalesce(sum(num_images), 0)::BIGINT AS num_images,
    sum(num_words)::BIGINT AS num_words,
    sum(num_tokens)::BIGINT AS num_tokens,
    coalesce(sum(num_with_tokens), 0)::BIGINT AS num_with_tokens,
    min(tokenizer) AS tokenizer
FROM belongs LEFT JOIN captions_counted USING (combination)
GROUP BY ALL
