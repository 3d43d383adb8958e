from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning.mix import CandidateCaption, Mixer, choose, map_job
from captioning.texts.gate import GATE
from captioning.texts.text import sentence_ends
from schemas import tables
from schemas.ids import unit_interval
from schemas.reasons import CaptionReason, RawCaptionReason
from schemas.recipe import DataRecipe, Mix
from schemas.tokens import MAX_TOKENS, count_tokens

Part = Callable[..., pa.Table]
offers = st.builds(CandidateCaption, st.none() | st.text(min_size=1, max_size=5))
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
def test_the_coin_decides_and_a_missing_caption_falls_back(
    raw: str | None, synthetic: str | None, coin: float, expected: tuple[object, ...]
) -> None:
    assert choose(CandidateCaption(raw), CandidateCaption(synthetic), coin, 0.6) == expected


def test_a_fallback_says_whether_the_other_caption_was_missing_or_refused() -> None:
    raw, synthetic = CandidateCaption("r"), CandidateCaption("s")
    for reason in CaptionReason:
        found = choose(raw, CandidateCaption(None, reason.value), 0.1, 0.6)
        assert found == ("r", "raw", "synthetic_refused" if reason in GATE else "synthetic_missing")
    for refused in RawCaptionReason:
        missing = refused is RawCaptionReason.NO_RAW_CAPTION
        found = choose(CandidateCaption(None, refused.value), synthetic, 0.9, 0.6)
        assert found == ("s", "synthetic", "raw_missing" if missing else "raw_refused")


@given(offers, offers, st.floats(0, 1, exclude_max=True), shares, shares)
def test_raising_the_share_only_moves_images_to_synthetic(
    raw: CandidateCaption, synthetic: CandidateCaption, coin: float, one: float, other: float
) -> None:
    _, low, _ = choose(raw, synthetic, coin, min(one, other))
    _, high, _ = choose(raw, synthetic, coin, max(one, other))
    assert low == high or (low, high) == ("raw", "synthetic")


def run(inputs: dict[str, pa.Table], section: Mix | None = None) -> list[dict[str, object]]:
    output = Mixer(section or Mix())(inputs, lambda rows: None)["mix"]
    assert output.schema == tables.schema_of("mix")
    rows: list[dict[str, object]] = output.to_pylist()
    return rows


def test_a_part_of_mix_has_a_row_per_input(part: Part, image_ids: Callable[[int], list[str]]) -> None:
    ids: list[str | None] = [*image_ids(200), None]
    raw: list[str | None] = [f"raw {number}" for number in range(200)] + [None]
    synthetic: list[str | None] = [f"synthetic {number}" for number in range(200)] + [None]
    raw[:3], synthetic[:3] = [None] * 3, ["only synthetic", None, None]
    reasons = ["file_name", "no_raw_caption", "no_raw_caption"] + [None] * 198
    kept = [True] * 199 + [False, False]
    rows = run(
        {
            "raw_captions": part("raw_captions", image_id=ids, caption=raw, reason=reasons),
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
        assert (row["num_tokens"], row["tokenizer"]) == (count_tokens(str(row["caption"])), "words")
        assert row["truncated"] is False
    assert rows[0]["caption"] == "only synthetic"
    assert rows[0]["fallback"] == (None if unit_interval(ids[0] or "", "mix") < 0.6 else "raw_refused")
    for row in rows[1:3]:
        assert row["coin"] is not None
        assert [row[name] for name in ("caption", "caption_source", "num_tokens", "tokenizer", "truncated")] == [
            None
        ] * 5
    for row in rows[199:]:
        assert [row[name] for name in ("caption", "caption_source", "coin", "fallback")] == [None] * 4


def test_the_coin_falls_as_often_as_the_paper_says(part: Part, image_ids: Callable[[int], list[str]]) -> None:
    num = 20_000
    ids = image_ids(num)
    rows = run(
        {
            "raw_captions": part("raw_captions", image_id=ids, caption=["raw"] * num),
            "captions": part("captions", image_id=ids, caption=["synthetic"] * num),
            "selection": part("selection", image_id=ids, kept=[True] * num),
        }
    )
    synthetic = sum(row["caption_source"] == "synthetic" for row in rows)
    assert abs(synthetic - 0.6 * num) < 4 * (num * 0.6 * 0.4) ** 0.5  # four standard deviations of a binomial


def test_a_caption_longer_than_the_trainer_reads_is_cut_at_a_sentence_end(part: Part) -> None:
    sentence = "A dog sees Dr. Who near St. Paul. "
    texts = ["word " * (MAX_TOKENS - 1), "word " * MAX_TOKENS, sentence * 80, "word " * 400 + ". End."]
    texts = [text.strip() for text in texts]
    ids = list("abcd")
    inputs = {
        "raw_captions": part("raw_captions", image_id=ids, caption=texts),
        "captions": part("captions", image_id=ids, caption=[None] * 4),
        "selection": part("selection", image_id=ids, kept=[True] * 4),
    }
    rows = run(inputs)
    assert [row["truncated"] for row in rows] == [False, True, True, True]
    captions = [str(row["caption"]) for row in rows]
    assert captions[0] == texts[0]
    assert captions[1] == texts[0]  # no sentence ends, so it is cut behind a word
    assert captions[2] == (sentence * (299 // (count_tokens(sentence) - 1))).strip()
    assert captions[3] == texts[0]
    for text, caption, row in zip(texts, captions, rows, strict=True):
        assert text.startswith(caption)
        assert row["num_tokens"] == count_tokens(caption) <= MAX_TOKENS
    assert len(captions[2]) in sentence_ends(texts[2])


def test_another_salt_tosses_again_and_the_ends_of_the_share_hold(
    part: Part, image_ids: Callable[[int], list[str]]
) -> None:
    ids = image_ids(64)
    inputs = {
        "raw_captions": part("raw_captions", image_id=ids, caption=["raw"] * 64),
        "captions": part("captions", image_id=ids, caption=["synthetic"] * 64),
        "selection": part("selection", image_id=ids, kept=[True] * 64),
    }

    def sources(section: Mix) -> list[object]:
        return [row["caption_source"] for row in run(inputs, section)]

    assert sources(Mix(salt="a")) == sources(Mix(salt="a")) != sources(Mix(salt="b"))
    assert set(sources(Mix(synthetic_share=0))) == {"raw"}
    assert set(sources(Mix(synthetic_share=1))) == {"synthetic"}


def test_the_job_depends_on_its_section_only() -> None:
    job = map_job(DataRecipe(images="photos", out="out"))
    assert (job.job, job.outputs, job.inputs) == ("mix", ("mix",), ("raw_captions", "captions", "selection"))
    assert job.knobs == {"mix.synthetic_share": 0.6, "mix.salt": "mix", "mix.tokenizer": "words"}
    assert isinstance(pickle.loads(pickle.dumps(job)).build(), Mixer)


def test_a_tokenizer_that_is_missing_is_an_error_before_the_first_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weights missing: .*then set mix\.tokenizer="):
        Mixer(Mix(tokenizer=str(tmp_path / "nowhere")))
