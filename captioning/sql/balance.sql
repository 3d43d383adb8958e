-- A sampling weight per kept image from how common the nouns of its mixed caption are.
--
-- The idea is MetaCLIP's (Xu et al. 2023, "Demystifying CLIP Data", section 3.3): a concept that more than t images have
-- is drawn from each of them with probability t / its images, a rarer one always; an image is taken if any concept of
-- its caption is drawn. Here that probability is the weight: 1 - product over its nouns of (1 - t / num_images), and 1
-- as soon as one noun is not common. A caption without nouns has nothing to balance and weighs 1.
--
-- Reads   nouns      (row_id, image_id, caption_source, nouns)
--         mix        (row_id, caption_source)
--         common     (noun, log_missed: ln(1 - t / images that have it), in 2^-40; nouns of more than t images)
-- Knobs   $drop: true or false
WITH
mixed AS (
    SELECT row_id, nouns.image_id, list_distinct(nouns.nouns) AS nouns
    FROM nouns JOIN mix USING (row_id, caption_source)
    WHERE nouns.nouns IS NOT NULL
),
met AS (
    SELECT row_id, count(*) AS num_common, sum(log_missed) AS log_missed
    FROM (SELECT row_id, unnest(nouns) AS noun FROM mixed) JOIN common USING (noun)
    GROUP BY row_id
),
weighed AS (
    SELECT
        row_id,
        image_id,
        len(nouns) AS num_nouns,
        coalesce(num_common, 0) AS num_common,
        if(num_common = len(nouns), 1 - exp(log_missed / 1099511627776), 1) AS weight,
        -- schemas.ids.unit_interval(image_id, 'balance')
        (('0x' || left(sha256('balance' || chr(0) || image_id), 16))::UBIGINT >> 11) / 9007199254740992 AS coin
    FROM mixed LEFT JOIN met USING (row_id)
)
SELECT row_id, image_id, num_nouns, num_common, weight::FLOAT AS weight, coin, $drop AND coin >= weight AS dropped
FROM weighed
ORDER BY row_id
