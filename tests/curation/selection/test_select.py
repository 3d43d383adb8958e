from __future__ import annotations

import itertools
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.selection import select
from curation.selection.select import RULES, choose, reduce_job, statement
from curation.selection.subsets import SUBSET_COLUMNS, check_subsets
from schemas.recipe import DataRecipe, Select
from schemas.scores import LATER, LIMITED, LIMITS
from schemas.tables import schema_of
from tests.building import connection_with, run_query, table_of

pytestmark = pytest.mark.slow


def image(row_id: int, width: int = 100, height: int = 100, **more: Any) -> dict[str, Any]:
    return {
        "row_id": row_id,
        "image_id": f"id{row_id}",
        "source": "/photos",
        "source_name": "photos",
        "member": f"{row_id}.jpg",
        "sha256": f"sha{row_id}",
        "format": "JPEG",
        "width": width,
        "height": height,
        "aesthetic": 5.0,
        "group_id": None,
        "distance": 0,
    } | more


def chosen(images: list[dict[str, Any]], max_distance: int | None = 3, **rules: Any) -> dict[int, dict[str, Any]]:
    """Row -> its row of `selection`; without rules of size or score unless they are given."""
    section = Select(**({"min_short_side_px": 1, "max_aspect": 1000} | rules))
    with chosen_from(images) as connection:
        rows = run_query(connection, choose(connection, section, max_distance))
    assert [row["row_id"] for row in rows] == sorted(each["row_id"] for each in images)
    return {row["row_id"]: row for row in rows}


def chosen_from(images: list[dict[str, Any]]) -> duckdb.DuckDBPyConnection:
    """The tables that `select` reads."""
    screened = [{k: v for k, v in each.items() if k in schema_of("screens").names} for each in images]
    scores = [{key: each[key] for key in ("row_id", "image_id", "aesthetic")} for each in images]
    doubles = [each for each in images if each["group_id"] is not None]
    keys = ("row_id", "image_id", "group_id", "distance")
    others = ("other_dataset", "other_image_id", "other_method", "other_distance")
    tables = {
        "images": table_of("images", ({k: v for k, v in each.items() if k in IMAGE_COLUMNS} for each in images)),
        "scores": table_of("scores", scores),
        "screens": table_of("screens", screened),
        "fingerprints": table_of(
            "fingerprints", ({k: each.get(k) for k in schema_of("fingerprints").names} for each in images)
        ),
        "raw_captions": table_of(
            "raw_captions",
            (
                {k: each[k] for k in ("row_id", "image_id")} | {"caption": each.get("caption"), "removed": []}
                for each in images
            ),
        ),
        "duplicates": table_of(
            "duplicates",
            ({k: each[k] for k in keys} | {"method": "phash"} | {k: each.get(k) for k in others} for each in doubles),
        ),
    }
    return connection_with(**tables)


IMAGE_COLUMNS = (
    *(
        "row_id",
        "image_id",
        "source",
        "source_name",
        "member",
        "sha256",
        "format",
        "width",
        "height",
        "alpha",
        "reason",
    ),
)


def verdict(row: dict[str, Any]) -> tuple[Any, Any, Any]:
    return row["rejected_by"], row["value"], row["threshold"]


KEPT = (None, None, None)


# ------------------------------------------------------------------------------------------------ the rules


def test_a_picture_that_passes_is_kept() -> None:
    assert chosen([image(0)])[0] == {
        "row_id": 0,
        "image_id": "id0",
        "rejected_by": None,
        "value": None,
        "threshold": None,
        "duplicate_of": None,
        "duplicate_of_row": None,
        "duplicate_method": None,
        "other_dataset": None,
        "kept": True,
        "subsets": [],
        "inherited_caption": None,
        "inherited_from": None,
        "inherited_from_row": None,
    }


def test_too_small() -> None:
    rows = chosen([image(0, 511, 2000), image(1, 2000, 511), image(2, 512, 512)], min_short_side_px=512)
    assert [verdict(row) for row in rows.values()] == [("too_small", 511, 512), ("too_small", 511, 512), KEPT]
    assert [row["kept"] for row in rows.values()] == [False, False, True]


def test_a_picture_that_is_nothing_but_transparency_is_refused() -> None:
    alphas = [1.0, 0.9995, 0.999, 0.5, None]
    pictures = [image(row_id, alpha=alpha) for row_id, alpha in enumerate(alphas)]
    refused = {row_id: verdict(row) for row_id, row in chosen(pictures).items() if not row["kept"]}
    assert refused == {0: ("transparent", 1.0, 0.999), 1: ("transparent", pytest.approx(0.9995), 0.999)}
    assert all(row["kept"] for row in chosen(pictures, max_transparency=None).values())
    assert sum(row["kept"] for row in chosen(pictures, max_transparency=0.2).values()) == 1


def test_extreme_aspect() -> None:
    rows = chosen([image(0, 401, 100), image(1, 100, 401), image(2, 400, 100), image(3, 100, 400)], max_aspect=4)
    assert [verdict(row) for row in rows.values()] == [
        ("extreme_aspect", 4.01, 4),
        ("extreme_aspect", 4.01, 4),
        KEPT,
        KEPT,
    ]


@pytest.mark.parametrize(("long", "short"), [(115, 100), (11, 10), (229, 100), (1024, 683), (16, 9)])
def test_an_aspect_on_the_limit_is_kept(long: int, short: int) -> None:
    """115 / 100 is 1.15, though 1.15 * 100 is a little less than 115."""
    assert verdict(chosen([image(0, long, short)], max_aspect=long / short)[0]) == KEPT


def test_low_aesthetic() -> None:
    rows = chosen([image(0, aesthetic=4.25), image(1, aesthetic=4.5), image(2, aesthetic=None)], min_aesthetic=4.5)
    assert [verdict(row) for row in rows.values()] == [("low_aesthetic", 4.25, 4.5), KEPT, KEPT]


@pytest.mark.parametrize("score", [5.1, 4.7, 6.3, 1.1, 9.9])
def test_a_score_on_the_limit_is_kept(score: float) -> None:
    """Scores are stored in 32 bits, where 5.1 is a little less than the 5.1 of a recipe."""
    below = float(np.nextafter(np.float32(score), np.float32(0)))
    rows = chosen([image(0, aesthetic=score), image(1, aesthetic=below)], min_aesthetic=score)
    assert verdict(rows[0]) == KEPT
    assert rows[1]["rejected_by"] == "low_aesthetic"


def test_without_a_threshold_no_score_is_too_low() -> None:
    assert verdict(chosen([image(0, aesthetic=-100.0)], min_aesthetic=None)[0]) == KEPT


@pytest.mark.parametrize(
    ("knob", "reason"),
    [
        ("min_sharpness", "blurred"),
        ("max_upscale", "upscaled"),
        ("max_border", "bordered"),
        ("max_nsfw", "nsfw"),
        ("max_watermark", "watermarked"),
        ("min_clip_similarity", "caption_off"),
        ("max_text_area", "text"),
        ("max_face_area", "large_face"),
    ],
)
def test_a_screen_refuses_beyond_its_limit_with_its_reason(knob: str, reason: str) -> None:
    column, lowest = LIMITS[knob].column, knob.startswith("min_")
    limit = 1.1 if knob == "max_upscale" else 0.1  # neither is a number of 32 bits
    beyond = float(np.nextafter(np.float32(limit), np.float32(0 if lowest else 9)))
    images = [image(n, **{column: value}) for n, value in enumerate((beyond, limit, None))]
    rows = chosen(images, **{knob: limit})
    assert verdict(rows[0]) == (reason, pytest.approx(beyond), limit)
    assert [verdict(rows[1]), verdict(rows[2])] == [KEPT, KEPT]
    assert [verdict(row) for row in chosen(images).values()] == [KEPT] * 3
    assert {rule.knob: rule.reason.value for rule in RULES}[knob] == reason


def test_more_faces_than_the_limit_are_refused() -> None:
    images = [image(n, faces=faces) for n, faces in enumerate((0, 1, 2, None))]
    assert [verdict(row) for row in chosen(images, max_faces=1).values()] == [KEPT, KEPT, ("faces", 2, 1), KEPT]
    assert [verdict(row) for row in chosen(images, max_faces=0).values()] == [
        KEPT, ("faces", 1, 0), ("faces", 2, 0), KEPT
    ]  # fmt: skip


def test_a_limit_that_came_later_and_is_null_is_not_on_record() -> None:
    section = {"images": "a", "out": "b", "screen": {"faces": True}}
    without = reduce_job(DataRecipe.from_mapping(section)).knobs
    assert not {f"select.{knob}" for knob in LATER} & without.keys() and "select.max_border" in without
    limited = reduce_job(DataRecipe.from_mapping(section | {"select": {"max_faces": 0}})).knobs
    assert limited == without | {"select.max_faces": 0}


def test_every_rule_of_the_recipe_applies() -> None:
    assert {rule.knob for rule in RULES} == {name for name in Select.model_fields if name.startswith(("min_", "max_"))}
    assert {rule.knob for rule in RULES} > LIMITS.keys()


def test_the_first_rule_that_fails_is_named() -> None:
    limits = {"min_short_side_px": 50, "max_aspect": 4, "min_aesthetic": 5}
    rows = chosen([image(0, 10, 100, aesthetic=1.0), image(1, 60, 600, aesthetic=1.0)], **limits)
    assert [row["rejected_by"] for row in rows.values()] == ["too_small", "extreme_aspect"]


def test_an_input_that_ingest_refused_is_neither_kept_nor_rejected() -> None:
    rows = chosen([image(0, 10, 10, reason="truncated"), image(1, None, None, reason="empty")], min_short_side_px=50)
    assert [(verdict(row), row["kept"], row["subsets"]) for row in rows.values()] == [(KEPT, False, [])] * 2


# ------------------------------------------------------------------------------------------------ who survives


def doubles(*images: dict[str, Any], **rules: Any) -> dict[int, dict[str, Any]]:
    group = min(each["row_id"] for each in images)
    return chosen([each | {"group_id": group} for each in images], **rules)


def survivors(rows: dict[int, dict[str, Any]]) -> list[int]:
    return [row_id for row_id, row in rows.items() if row["kept"]]


def test_a_double_names_its_survivor_and_the_distance() -> None:
    rows = doubles(image(0, 50, 50, distance=2), image(1), max_distance=3)
    assert verdict(rows[0]) == ("duplicate", 2, 3)
    assert (rows[0]["duplicate_of"], rows[0]["duplicate_of_row"]) == ("id1", 1)
    assert (rows[0]["duplicate_method"], rows[0]["other_dataset"]) == ("phash", None)
    assert (rows[1]["kept"], rows[1]["duplicate_of"], rows[1]["duplicate_of_row"]) == (True, None, None)


def test_of_doubles_the_largest_is_kept_then_the_best_then_the_first() -> None:
    assert survivors(doubles(image(0, 100, 100), image(1, 100, 101), image(2, 90, 110))) == [1]
    assert survivors(doubles(image(0, aesthetic=4.0), image(1, aesthetic=6.0), image(2, aesthetic=None))) == [1]
    assert survivors(doubles(image(0, aesthetic=None), image(1, aesthetic=None), image(2, aesthetic=None))) == [0]
    assert survivors(doubles(image(0, 10, 10, aesthetic=9.0), image(1, 20, 20, aesthetic=1.0))) == [1]


def test_captions_do_not_decide_which_double_is_kept() -> None:
    assert survivors(doubles(image(0), image(1, caption="A red house."), image(2))) == [0]


def test_an_area_over_32_bits_is_still_the_largest() -> None:
    assert survivors(doubles(image(0, 70_000, 70_000), image(1, 100, 100))) == [0]


def test_of_equals_the_lowest_id_is_kept_in_any_order_of_listing() -> None:
    assert survivors(doubles(image(0, image_id="c"), image(1, image_id="a"), image(2, image_id="b"))) == [1]
    assert survivors(doubles(image(4, image_id="a"), image(2, image_id="a"), image(3, image_id="b"))) == [2]


def test_the_threshold_of_a_semantic_double_is_a_distance_of_cosines() -> None:
    alike = [{"row_id": row, "image_id": f"id{row}", "group_id": 0, "method": "semantic", "distance": 0.125}
             for row in (0, 1)]  # fmt: skip
    images = [{key: value for key, value in image(row).items() if key in IMAGE_COLUMNS} for row in (0, 1)]
    with connection_with(images=table_of("images", images), duplicates=table_of("duplicates", alike)) as connection:
        sql = choose(connection, Select(min_short_side_px=1), max_distance=3, semantic_threshold=0.75)
        rows = run_query(connection, sql)
    assert verdict(rows[1]) == ("duplicate", 0.125, 0.25)
    assert (rows[0]["kept"], rows[1]["duplicate_method"]) == (True, "semantic")


# ------------------------------------------------------------------------------------------------ inherited captions


HASH = 0b1011 << 40


def inherited(rows: dict[int, dict[str, Any]]) -> tuple[Any, Any, Any]:
    """What the one picture that stays took over, and from which image and row."""
    (row,) = (row for row in rows.values() if row["kept"])
    assert all(row["inherited_caption"] is row["inherited_from"] is None for row in rows.values() if not row["kept"])
    return row["inherited_caption"], row["inherited_from"], row["inherited_from_row"]


NOTHING = (None, None, None)


def test_the_survivor_inherits_the_longest_caption_of_its_duplicates() -> None:
    images = [
        image(0, 200, 200, phash=HASH),
        image(1, caption="A red house.", phash=HASH),
        image(2, caption="A red house by the sea.", phash=HASH ^ 0b111),
        image(3, phash=HASH),
    ]
    assert inherited(doubles(*images)) == ("A red house by the sea.", "id2", 2)
    assert inherited(doubles(*images, inherit_captions=False)) == NOTHING


def test_of_captions_of_equal_length_the_lowest_id_gives_its_own() -> None:
    images = [image(0, 200, 200, phash=HASH)]
    images += [image(n, image_id=name, caption=f"House {name}.", phash=HASH) for n, name in ((1, "c"), (2, "a"))]
    assert inherited(doubles(*images)) == ("House a.", "a", 2)


def test_a_caption_of_its_own_is_never_replaced() -> None:
    long = "A red house by the sea, at dusk."
    assert (
        inherited(doubles(image(0, 200, 200, caption="A house.", phash=1), image(1, caption=long, phash=1))) == NOTHING
    )


@pytest.mark.parametrize(
    ("theirs", "max_distance", "taken"),
    [
        ({"phash": HASH ^ 0b111}, 3, True),
        ({"phash": HASH ^ 0b1111}, 3, False),  # one group by a chain alone
        ({"phash": HASH}, None, False),
        ({"phash": HASH ^ 0xFFFF, "pixel_sha256": "same"}, None, True),
        ({"phash": None}, 3, False),  # by embeddings, say
    ],
)
def test_no_caption_travels_through_a_chain_or_for_a_likeness(
    theirs: dict[str, Any], max_distance: int | None, taken: bool
) -> None:
    images = (image(0, 200, 200, phash=HASH, pixel_sha256="same"), image(1, caption="A house.", **theirs))
    assert (inherited(doubles(*images, max_distance=max_distance)) != NOTHING) == taken


def test_flat_pictures_share_no_caption_for_their_hash() -> None:
    assert inherited(doubles(image(0, 200, 200, phash=0), image(1, caption="A wall.", phash=0))) == NOTHING


def test_a_picture_that_another_rule_refused_gives_no_caption() -> None:
    images = (image(0, 200, 200, phash=HASH), image(1, 20, 20, caption="A house.", phash=HASH))
    assert inherited(doubles(*images, min_short_side_px=50)) == NOTHING


def test_of_copies_the_file_with_the_best_caption_is_kept_in_any_order_of_listing() -> None:
    """They share their id, so the rule says nothing about them; URL and licence lie beside the caption."""
    captions = ["A house.", "A red house.", None, "A pink house."]
    for order in itertools.permutations(captions):
        rows = doubles(*(image(n, image_id="a", sha256="s", caption=text) for n, text in enumerate(order)))
        assert survivors(rows) == [order.index("A pink house.")]
        assert inherited(rows) == NOTHING


def test_doubles_that_are_kept_give_their_caption_to_nobody() -> None:
    rows = doubles(image(0, phash=HASH), image(1, caption="A house.", phash=HASH), drop_duplicates=False)
    assert [row["inherited_caption"] for row in rows.values()] == [None, None]


@settings(deadline=None, max_examples=5)
@given(st.randoms(use_true_random=False), st.lists(st.sampled_from([None, "A.", "A b.", "B c.", "D."]), min_size=2))
def test_the_order_of_the_inputs_changes_no_caption(chance: Any, captions: list[str | None]) -> None:
    images = [image(0, image_id=f"id{n:03}", caption=text, phash=HASH) for n, text in enumerate(captions)]
    found = set()
    for _ in range(2):
        given_ = [each | {"row_id": row_id, "group_id": 0} for row_id, each in enumerate(images)]
        rows = chosen(given_)
        (kept,) = (row for row in rows.values() if row["kept"])
        found.add((kept["image_id"], kept["inherited_caption"], kept["inherited_from"]))
        chance.shuffle(images)
    assert len(found) == 1


def test_the_single_statement_gives_the_rows_of_the_job() -> None:
    images = [image(n, 90 + n % 3, 100, phash=HASH ^ n, group_id=n // 4 * 4, caption="x y" if n % 2 else None)
              for n in range(12)]  # fmt: skip
    rules = Select(min_short_side_px=91, subsets={"wide": "aspect < 1.1"})
    expected = chosen(images, **rules.model_dump())
    with chosen_from(images) as connection:
        assert run_query(connection, statement(rules, 3, select.PICTURES, "raw_captions")) == list(expected.values())


OTHER = {"other_dataset": "/eval", "other_image_id": "theirs", "other_method": "phash", "other_distance": 2}


def test_a_picture_of_another_dataset_is_refused_and_names_it() -> None:
    rows = doubles(image(0, 200, 200, **OTHER), image(1))
    assert verdict(rows[0]) == ("in_other_dataset", 2, 3)
    assert (rows[0]["duplicate_of"], rows[0]["duplicate_of_row"]) == ("theirs", None)
    assert (rows[0]["duplicate_method"], rows[0]["other_dataset"]) == ("phash", "/eval")
    assert rows[1]["kept"]  # a double of what falls does not fall with it
    assert rows[1]["other_dataset"] is None


def test_only_pictures_that_pass_compete() -> None:
    """The largest of the group fails a rule: the next one stays, instead of none."""
    rows = doubles(image(0, 4000, 400, aesthetic=9.0), image(1, 200, 200), image(2, 100, 100), max_aspect=4)
    assert [row["rejected_by"] for row in rows.values()] == ["extreme_aspect", None, "duplicate"]
    assert rows[2]["duplicate_of_row"] == 1
    assert rows[0]["duplicate_of"] is None


def test_a_group_of_which_none_passes_keeps_none() -> None:
    rows = doubles(image(0, 10, 10), image(1, 20, 20), min_short_side_px=50)
    assert [row["rejected_by"] for row in rows.values()] == ["too_small", "too_small"]


def test_doubles_can_be_kept_but_byte_copies_fall() -> None:
    """Two files of the same bytes have one key: both cannot lie in the shards."""
    rows = doubles(image(0), image(1, sha256="same"), image(2, sha256="same"), drop_duplicates=False)
    assert survivors(rows) == [0, 1]
    assert verdict(rows[2]) == ("duplicate", 0, 3)
    assert rows[2]["duplicate_of_row"] == 1


def test_without_a_distance_the_threshold_of_an_exact_copy_is_0() -> None:
    assert verdict(doubles(image(0), image(1), max_distance=None)[1]) == ("duplicate", 0, 0)


# ------------------------------------------------------------------------------------------------ subsets


def test_a_picture_can_be_in_several_subsets() -> None:
    rows = chosen(
        [image(0, 200, 100), image(1, 100, 200, aesthetic=8.0), image(2, 300, 300, format="PNG"), image(3, 5, 5)],
        min_short_side_px=50,
        subsets={
            "wide": "aspect < 1",
            "good-ones": "aesthetic >= 8 OR format = 'PNG'",
            "png": "format = 'PNG' AND megapixels = 0.09 AND short_side = long_side AND source_name LIKE '%oto%'",
            "texts": "format <> 'random() now()'",
            "braces": "format <> '{oops}' AND 'it''s' <> format",
        },
    )
    assert [row["subsets"] for row in rows.values()] == [
        ["braces", "texts", "wide"],
        ["braces", "good-ones", "texts"],
        ["braces", "good-ones", "png", "texts"],
        [],
    ]


def test_a_subset_can_name_every_column_of_the_contract() -> None:
    subsets = {name: f"{name} IS NOT NULL" for name in SUBSET_COLUMNS}
    columns = dict.fromkeys(LIMITED, 1) | {"classes": [("cartoon", 0.75)]}
    assert chosen([image(0, **columns)], subsets=subsets)[0]["subsets"] == sorted(SUBSET_COLUMNS)


def test_the_paper_s_sets_and_a_classifier_of_one_s_own() -> None:
    rows = chosen(
        [
            image(0, 3840, 2160, aesthetic=5.5),
            image(1, 3840, 2160, aesthetic=5.25),
            image(2, 1024, 1024, classes=[("cartoon", 0.75)]),
            image(3, 512, 1024, nsfw=0.5, classes=[("cartoon", 0.25)]),
        ],
        subsets={
            "internal_sigma": "short_side >= 1024",
            "4k": "width * height >= 3840 * 2160 and aesthetic >= 5.5",
            "drawn": "classes['cartoon'] > 0.5",
            "safe": "coalesce(nsfw, 0) < 0.5",
        },
    )
    assert [row["subsets"] for row in rows.values()] == [
        ["4k", "internal_sigma", "safe"],
        ["internal_sigma", "safe"],
        ["drawn", "internal_sigma", "safe"],
        [],
    ]


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("widht > 5", 'is no condition (Binder Error: Referenced column "widht"'),
        ("widht > 5", "; did you mean width? columns: "),
        ("width", "is no condition: it gives INTEGER, not yes or no"),
        ("format", "is no condition: it gives VARCHAR, not yes or no"),
        ("NULL", "is no condition: it gives "),
        ("raw_caption LIKE '%cat%'", 'Referenced column "raw_caption"'),
        ("width > 5; DROP TABLE pictures", "is no condition (Parser Error"),
        ("1) THEN 1 END; DROP TABLE pictures; SELECT CASE WHEN (1", "select.subsets.mine"),
        ("DROP TABLE pictures", "is no condition (Parser Error"),
        ("", "a condition is missing"),
        (" ", "a condition is missing"),
        ("random() < 0.5", "random depends on more than the picture"),
        ("uuid()::VARCHAR < 'a'", "uuid depends on more than the picture"),
        ("now() > '2030-01-01'", "now depends on more than the picture"),
        ("width >", "is no condition (Parser Error"),
        ("true) --", "is more than a condition"),
        ("count(*) > 1", "is no condition (Binder Error: WHERE clause cannot contain aggregates"),
        ("row_number() OVER () = 1", "WHERE clause cannot contain window functions"),
        ("exists (SELECT * FROM read_text('/etc/passwd'))", "is no condition: it holds a query of its own"),
        ("width IN (SELECT row_id FROM images)", "is no condition: it holds a query of its own"),
        ("current_timestamp > '2030-01-01'", "current_timestamp"),
        ("localtimestamp IS NOT NULL", "localtimestamp"),
        ("current_time < '12:00'", "current_time"),
        ("true TABLESAMPLE 10%", "is no condition (Parser Error"),
        ("true USING SAMPLE 10%", "is more than a condition"),
        ("true GROUP BY width", "is more than a condition"),
        ("random() < 0.5 OR format = $$'$$", "random depends on more than the picture"),
        ("format = e'\\'' OR random() < 0.5", "random depends on more than the picture"),
        ("EXISTS (FROM query('SELECT 1'))", "it holds a query of its own"),
        ("(WITH RECURSIVE a AS (SELECT 1 UNION ALL FROM a) SELECT count(*) FROM a) > 1", "it holds a query of its own"),
        ("len(list_filter([width], lambda x: x > 1)) > 0", "list_filter is no function that a condition can call"),
        ("md5(format) < 'a'", "md5 is no function that a condition can call"),
        ("rowid > 5", "rowid"),
        ("width = $1", "is no condition"),
        ("width #> 5", "is no condition"),
        ("format = current_setting('memory_limit')", "current_setting depends on more than the picture"),
        ("shout(format)", "is no condition (Catalog Error"),
    ],
)
def test_an_impossible_condition_is_refused_by_name(condition: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_subsets(Select(subsets={"mine": condition}))
    message = str(refused.value)
    assert message.startswith("select.subsets.mine: ")
    assert why in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "condition",
    [
        "width BETWEEN 5 AND 10 AND NOT format IN ('jpeg', 'png')",
        "CASE WHEN aspect > 1 THEN true ELSE megapixels::INTEGER % 2 = 0 END",
        "Format ILIKE '%J%' AND pictures.width IS NOT DISTINCT FROM 7",
        "width + height - 5 > -3 AND least(width, height) // 2 >= 100 AND round(aspect, 1) <> 1.5 OR aesthetic IS NULL",
        "starts_with(lower(source_name), 'a') AND regexp_matches(source_name, '^[a-z(]+$')",
        "list_contains(map_keys(classes), 'cartoon') AND classes['cartoon'] > 0.5",
        "source_name = ') OR random() -- select'",
    ],
)
def test_an_expression_over_the_columns_is_accepted(condition: str) -> None:
    assert check_subsets(Select(subsets={"mine": condition})) == {"mine": condition}


def test_a_refusal_names_the_possible_columns() -> None:
    with pytest.raises(ValueError, match="columns: width, height, short_side, long_side, megapixels, aspect"):
        check_subsets(Select(subsets={"x": "nothing"}))


@pytest.mark.parametrize("name", ["", "a b", "a'b", "--", "a;b", "a.b"])
def test_a_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(ValueError, match="a name is letters, digits, - and _"):
        check_subsets(Select(subsets={name: "true"}))


# ------------------------------------------------------------------------------------------------ properties

PICTURES = st.lists(
    st.fixed_dictionaries(
        {
            "width": st.integers(20, 60),
            "height": st.integers(20, 60),
            "aesthetic": st.none() | st.floats(1, 10, width=32),
            "reason": st.sampled_from([None, None, None, "truncated"]),
            "group_id": st.integers(0, 2) | st.none(),
            "copy": st.integers(0, 5),
        }
    ),
    min_size=8,  # some of them copies that pass the rules
    max_size=25,
)


@settings(deadline=None, max_examples=30)
@given(
    pictures=PICTURES,
    min_short_side_px=st.integers(1, 30),
    max_aspect=st.floats(1.5, 5),
    min_aesthetic=st.none() | st.floats(1, 10),
    drop_duplicates=st.booleans(),
)
def test_every_row_is_kept_rejected_or_refused_by_ingest(pictures: list[dict[str, Any]], **rules: Any) -> None:
    images = []
    for row_id, values in enumerate(pictures):
        group = values["group_id"]
        copy = values.pop("copy")
        sha256 = f"group{group}copy{copy}" if group is not None else f"sha{row_id}"
        images.append(image(row_id, **(values | {"sha256": sha256})))
    rows = chosen(images, **rules)
    for each in images:
        row = rows[each["row_id"]]
        outcomes = [row["kept"], row["rejected_by"] is not None, each.get("reason") is not None]
        assert sum(outcomes) == 1
        assert (row["value"] is None) == (row["rejected_by"] is None) == (row["threshold"] is None)
        if row["rejected_by"] == "duplicate":
            survivor = rows[row["duplicate_of_row"]]
            assert survivor["kept"]
            assert survivor["image_id"] == row["duplicate_of"]
    kept = [each for each in images if rows[each["row_id"]]["kept"]]
    assert len({each["sha256"] for each in kept}) == len(kept)
    if rules["drop_duplicates"]:
        grouped = [each["group_id"] for each in kept if each["group_id"] is not None]
        assert len(set(grouped)) == len(grouped)


def test_the_job_depends_on_its_section_and_nothing_else() -> None:
    made = DataRecipe.from_mapping({"images": "a", "out": "b", "select": {"subsets": {"wide": "aspect < 1"}}})
    assert set(reduce_job(made).knobs) == {f"select.{name}" for name in Select.model_fields if name not in LATER}
    assert reduce_job(made).knobs["select.subsets"] == {"wide": "aspect < 1"}


def test_screens_are_read_where_they_are_computed() -> None:
    bare = {"images": "a", "out": "b"}
    assert "screens" not in reduce_job(DataRecipe.from_mapping(bare)).inputs
    assert "screens" in reduce_job(DataRecipe.from_mapping(bare | {"screen": {"border": True}})).inputs
