-- Type-token growth: how many distinct nouns there are in a share of the captions, over shares that double.
--
-- Each image has a place in [0, 1) by a hash of its row_id, so that every share is a fair sample and nothing is
-- sorted: a noun is in a share if the first place where it occurs is.
--
-- Reads   each_nouns (source, row_id, nouns)
-- Knobs   $source, $halvings: the smallest share is 0.5 to this power
WITH placed AS NOT MATERIALIZED (
    SELECT md5_number_lower(row_id::VARCHAR) / 18446744073709551616.0 AS place, nouns
    FROM each_nouns WHERE source = $source
),
shares AS (SELECT 0.5 ** unnest(range($halvings + 1)) AS share),
-- Counted by the number of halvings that a place allows, so that the join below is over a few rows.
images AS MATERIALIZED (
    SELECT least(floor(-log2(place)), $halvings) AS halvings, count(*) AS num FROM placed GROUP BY ALL
),
nouns_first AS MATERIALIZED (
    SELECT least(floor(-log2(place)), $halvings) AS halvings, count(*) AS num
    FROM (SELECT noun, min(place) AS place FROM (SELECT place, unnest(nouns) AS noun FROM placed) GROUP BY noun)
    GROUP BY ALL
)
SELECT
    share,
    coalesce((SELECT sum(num) FROM images WHERE halvings >= -log2(share) - 1e-9), 0)::BIGINT AS num_images,
    coalesce((SELECT sum(num) FROM nouns_first WHERE halvings >= -log2(share) - 1e-9), 0)::BIGINT AS distinct_nouns
FROM shares
ORDER BY share
