"""Training reads the caption that the mix chose and cut; a toss cuts the other one in the same way."""

from __future__ import annotations

import pytest
import torch

from schemas.shard_index import ShardIndex
from schemas.tokens import MAX_TOKENS, count_tokens
from schemas.training import Data, TrainingRecipe
from tests.training.encoding import encode
from training.data.captions import Captions, by_words, cut_captions, cut_of
from training.data.chance import Chance
from training.data.loader import Loader
from training.data.order import BatchOrder
from training.data.reader import ShardReader
from training.data.selection import Selection
from training.data.source import Source
from training.data.stored import StoredArrays

SENTENCE = "A small boat drifts past the long grey wall of the harbour. "
LONG = (SENTENCE * 40).strip()
CUT = by_words(LONG)


def test_a_long_caption_ends_with_a_sentence_that_fits():
    assert count_tokens(LONG) > MAX_TOKENS >= count_tokens(CUT) and LONG.startswith(CUT) and CUT.endswith("harbour.")
    assert by_words(" short ") == "short"


@pytest.mark.parametrize(
    ("toss", "expected"),
    [(None, ("chosen", False, True)), (True, ("a synthetic one", True, False)), (False, ("chosen", False, True))],
)
def test_what_is_read_says_where_it_is_from_and_whether_it_was_cut(toss, expected):
    captions = cut_captions("chosen", "chosen and more", "a synthetic one", "raw", by_words)
    assert captions.read(toss) == expected


def test_a_toss_reads_the_mixs_own_cut_of_the_caption_that_the_mix_chose():
    mixed = SENTENCE.strip()  # cut by another tokenizer than words
    captions = cut_captions(mixed, LONG, LONG + " More.", "raw", by_words)
    assert captions.read(False).caption == mixed
    assert captions.read(True) == (CUT, True, True)


@pytest.mark.parametrize("captions", [Captions("", None, "s"), Captions("s", None, None, source="synthetic")])
def test_a_caption_that_is_missing_is_replaced_by_one_that_is_there(captions):
    assert [captions.read(toss) for toss in (None, True, False)] == [("s", True, False)] * 3


@pytest.fixture
def long_dataset(make_dataset, tmp_path):
    """Pictures whose raw captions are all too long, half of them with a synthetic caption that the mix chose."""
    from tests.training.conftest import photo

    pictures = [(photo(i, 40, 40), LONG, f"a synthetic sentence {i}" if i % 2 else None) for i in range(6)]
    return make_dataset(tmp_path / "long", pictures, [(40, 40)] * 6)


def batches(dataset, text=None, **knobs):
    index = Selection(ShardIndex(dataset / "shards"))
    data = Data(batch=6, threads=1, **knobs)
    order = BatchOrder(index.codes("shard"), [(32, 32)] * index.num_rows, data.batch, 0, 100)
    source = Source(ShardReader(dataset / "shards", index), text=text)
    loader = Loader(source, order, Chance(0, "stage"), data)
    return [loader.prepare(step) for step in range(40)]


def test_the_shares_of_a_batch_are_those_of_the_captions_that_were_read(long_dataset):
    for batch in batches(long_dataset):
        assert batch.shares.tolist() == [0.5, 0.0], "what make_dataset calls the mix is not cut"
    tossed = batches(long_dataset, captions="toss", synthetic_share=0.0)
    assert torch.stack([batch.shares for batch in tossed]).mean(dim=0).tolist() == [0.0, 0.5]
    assert {text for batch in tossed for text in batch.captions} == {LONG, CUT}


@pytest.mark.parametrize("captions", ["mix", "toss"])
def test_encoded_captions_have_the_same_shares(long_dataset, recipe_values, captions):
    values = {"dataset": str(long_dataset), "data": {"batch": 6, "captions": captions}}
    text = encode(TrainingRecipe.from_mapping(recipe_values | values), kind="text")[0]
    written, encoded = (
        batches(long_dataset, arrays, captions=captions) for arrays in (None, StoredArrays(text.folder))
    )
    assert all(torch.equal(one.shares, other.shares) for one, other in zip(written, encoded, strict=True))
    assert {int(number) for batch in encoded for number in batch.captions.lengths} <= set(range(1, 21))


def test_a_toss_cuts_with_the_tokenizer_of_the_datasets_mix(long_dataset, real_components, recipe_values):
    from models.tokenizers import load_tokenizer

    recipe = TrainingRecipe.from_mapping(recipe_values | {"dataset": str(long_dataset), "data": {"captions": "toss"}})
    assert cut_of(recipe) is by_words
    (long_dataset / "recipe.yaml").write_text(f"mix: {{tokenizer: {real_components}}}")
    kept = cut_of(recipe)(LONG)
    assert CUT.startswith(kept) and kept != CUT, "the tiny vocabulary makes more pieces than words"
    assert load_tokenizer(str(real_components)).count([kept])[0] <= MAX_TOKENS
    (long_dataset / "recipe.yaml").write_text("mix: {tokenizer: /gone}")
    with pytest.raises(
        ValueError, match=r"data\.captions: toss cuts captions with the tokenizer of the dataset's mix;"
    ):
        cut_of(recipe)
    chosen = recipe.model_copy(update={"data": Data()})
    assert cut_of(chosen) is by_words, "what the mix has cut needs no tokenizer"
