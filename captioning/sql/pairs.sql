-- Which of the commonest nouns stand together in one caption, and how much more often than by chance.
--
-- Reads   each_nouns (source, row_id, nouns)
-- Knobs   $source, $vocabulary: how many of the commonest nouns; $most_images: a fair sample of so many, because pairs
--         grow with the square of a caption's nouns
WITH sampled AS MATERIALIZED (
    SELECT row_id FROM each_nouns WHERE source = $source
    ORDER BY md5_number_lower(row_id::VARCHAR), row_id
    LIMIT $most_images
),
sample AS MATERIALIZED (
    SELECT row_id, list_distinct(nouns) AS nouns
    FROM each_nouns SEMI JOIN sampled USING (row_id)
    WHERE source = $source
),
common AS MATERIALIZED (
    SELECT row_number() OVER (ORDER BY count(*) DESC, noun) AS rank, noun, count(*) AS num_images
    FROM (SELECT unnest(nouns) AS noun FROM sample)
    GROUP BY noun
    QUALIFY rank <= $vocabulary
),
found AS MATERIALIZED (
    SELECT row_id, rank FROM (SELECT row_id, unnest(nouns) AS noun FROM sample) JOIN common USING (noun)
),
pairs AS (
    SELECT a.rank AS rank_a, b.rank AS rank_b, count(*) AS num_images
    FROM found AS a JOIN found AS b ON a.row_id = b.row_id AND a.rank < b.rank
    GROUP BY ALL
)
SELECT
    a.noun AS noun_a,
    b.noun AS noun_b,
    pairs.num_images,
    -- images with both, over those expected if the two were independent
    pairs.num_images * (SELECT count(*) FROM sample) / (a.num_images * b.num_images) AS lift
FROM pairs
JOIN common AS a ON a.rank = rank_a
JOIN common AS b ON b.rank = rank_b
ORDER BY pairs.num_images DESC, noun_a, noun_b
LIMIT $top
