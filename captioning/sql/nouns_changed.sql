-- Concepts gained and lost from one set of captions to another: every noun that only one of the two has.
--
-- Reads   uses_before (noun, num_uses, num_images), uses_after (the same)
SELECT
    if(uses_before.noun IS NULL, 'gained', 'lost') AS change,
    coalesce(uses_after.noun, uses_before.noun) AS noun,
    coalesce(uses_after.num_uses, uses_before.num_uses) AS num_uses,
    coalesce(uses_after.num_images, uses_before.num_images) AS num_images
FROM uses_before FULL JOIN uses_after USING (noun)
WHERE uses_before.noun IS NULL OR uses_after.noun IS NULL
