-- The first part of a WITH: which caption counts into which subset. Reads selection (row_id, subsets).
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
)
