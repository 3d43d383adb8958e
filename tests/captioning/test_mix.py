from __future__ import annotations

import pickle
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.mix import Mixer, choose, stage
from schemas import tables
from schemas.ids import unit_interval
from schemas.recipe import DataRecipe, Mix
from schemas.tokens import MAX_TOKENS, count_tokens

Part = Callable[..., pa.Table]
captions = st.none() | st.text(min_size=1, max_size=5)
shares = st.floats(0, 1)


@pytest.mark.parametrize(
    ("raw", "synthetic", "coin", "expected"),
    [
        ("r", "s", 0.59, ("s", "synthetic", None)),
        ("r", "s", 0.6, ("r", "raw", None)),
        ("r", None, 0.1, ("r", "raw", "synthetic_missing")),
        (None, "s", 0.9, ("s", "synthetic", "raw_missing")),
        (None, None, 0.1, (None, None, None)),
        (None, None, 0.9, (None, None, None)),
    ],
)
def test_choose(raw: str | None, synthetic: str | None, coin: float, expected: tuple[object, ...]) -> None:
    assert choose(raw, synthetic, coin, 0.6) == expected


@given(captions, captions, st.floats(0, 1, exclude_max=True), shares, shares)
def test_raising_the_share_only_moves_images_to_synthetic(
    raw: str | None, synthetic: str | None, coin: float, one: float, other: float
) -> None:
    _, low, _ = choose(raw, synthetic, coin, min(one, other))
    _, high, _ = choose(raw, synthetic, coin, max(one, other))
    assert low == high or (low, high) == ("raw", "synthetic")


def run(inputs: dict[str, pa.Table], section: Mix | None = None) -> list[dict[str, object]]:
    output = Mixer(section or Mix())(inputs, lambda rows: None)["mix"]
    assert output.schema == tables.MIX
    rows: list[dict[str, object]] = output.to_pylist()
    return rows


def test_a_part(part: Part, image_ids: Callable[[int], list[str]]) -> None:
    ids: list[str | None] = [*image_ids(200), None]
    raw: list[str | None] = [f"  raw\u00a0{number} " for number in range(200)] + [None]
    synthetic: list[str | None] = [f"synthetic {number}" for number in range(200)] + [None]
    raw[:3], synthetic[:3] = [" \n", " ", None], ["only synthetic", None, None]
    kept = [True] * 199 + [False, False]
    rows = run(
        {
            "images": part("images", image_id=ids, raw_caption=raw),
            "captions": part("captions", image_id=ids, caption=synthetic),
            "selection": part("selection", image_id=ids, kept=kept),
        }
    )
    assert [row["row_id"] for row in rows] == list(range(201))
    for number, row in enumerate(rows[3:199], start=3):
        coin = unit_interval(ids[number] or "", "mix")
        source = "synthetic" if coin < 0.6 else "raw"
        assert (row["coin"], row["caption_source"], row["fallback"]) == (coin, source, None)
        assert row["caption"] == f"{source} {number}"
        assert row["num_tokens"] == count_tokens(str(row["caption"])) and row["truncated"] is False
    assert rows[0]["caption"] == "only synthetic"
    assert rows[0]["fallback"] == (None if unit_interval(ids[0] or "", "mix") < 0.6 else "raw_missing")
    for row in rows[1:3]:
        assert row["coin"] is not None
        assert [row[name] for name in ("caption", "caption_source", "num_tokens", "truncated")] == [None] * 4
    for row in rows[199:]:
        assert [row[name] for name in ("caption", "caption_source", "coin", "fallback")] == [None] * 4
    realised = sum(row["caption_source"] == "synthetic" for row in rows[3:199]) / 196
    assert realised == pytest.approx(0.6, abs=0.1)


def test_a_caption_longer_than_the_trainer_reads_is_flagged(part: Part) -> None:
    texts = ["word " * (MAX_TOKENS - 1), "word " * MAX_TOKENS]
    inputs = {
        "images": part("images", image_id=["a", "b"], raw_caption=texts),
        "captions": part("captions", image_id=["a", "b"], caption=[None, None]),
        "selection": part("selection", image_id=["a", "b"], kept=[True, True]),
    }
    assert [(row["num_tokens"], row["truncated"]) for row in run(inputs)] == [(300, False), (301, True)]


def test_another_salt_tosses_again_and_the_ends_of_the_share_hold(
    part: Part, image_ids: Callable[[int], list[str]]
) -> None:
    ids = image_ids(64)
    inputs = {
        "images": part("images", image_id=ids, raw_caption=["raw"] * 64),
        "captions": part("captions", image_id=ids, caption=["synthetic"] * 64),
        "selection": part("selection", image_id=ids, kept=[True] * 64),
    }

    def sources(section: Mix) -> list[object]:
        return [row["caption_source"] for row in run(inputs, section)]

    assert sources(Mix(salt="a")) == sources(Mix(salt="a")) != sources(Mix(salt="b"))
    assert set(sources(Mix(synthetic_share=0))) == {"raw"}
    assert set(sources(Mix(synthetic_share=1))) == {"synthetic"}


def test_the_stage_depends_on_its_section_only() -> None:
    job = stage(DataRecipe(images="photos", out="out"))
    assert (job.job, job.outputs, job.inputs) == ("mix", ("mix",), ("images", "captions", "selection"))
    assert job.knobs == {"mix.synthetic_share": 0.6, "mix.salt": "mix"}
    assert isinstance(pickle.loads(pickle.dumps(job)).build(), Mixer)
