from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import spacy

from benchmarks import noun_speed
from captioning import nouns
from captioning.nouns import NounExtractor, NounWorker, load_extractor, map_job
from schemas import tables
from schemas.recipe import DataRecipe

Part = Callable[..., pa.Table]
Token = tuple[str, str, bool]


@pytest.fixture(scope="module")
def lexicon() -> NounExtractor:
    return load_extractor("lexicon")


@pytest.fixture(scope="module")
def treebank(fixtures: Path) -> list[list[Token]]:
    """The sentences of UD English EWT dev: (token, lemma, is it a noun)."""
    return noun_speed.treebank(fixtures / "nouns" / "en_ewt-ud-dev.conllu")


def test_nouns_of_web_text_are_found(lexicon: NounExtractor, treebank: list[list[Token]]) -> None:
    tagged = lexicon.tag([[word for word, _, _ in sentence] for sentence in treebank])
    pairs = [
        (noun, found_noun, lemma, found_lemma)
        for sentence, found in zip(treebank, tagged, strict=True)
        for (_, lemma, noun), (found_lemma, found_noun) in zip(sentence, found, strict=True)
    ]
    hits = sum(noun and found for noun, found, _, _ in pairs)
    f1 = 2 * hits / sum(noun + found for noun, found, _, _ in pairs)
    lemmas = [lemma == found for noun, _, lemma, found in pairs if noun]
    assert f1 >= 0.93
    assert sum(lemmas) / len(lemmas) >= 0.97


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Two brown cats are sleeping on red benches.", ["cat", "bench"]),
        ("A woman walks her dogs near the churches of Paris.", ["woman", "dog", "church", "paris"]),
        ("The leaves and knives of children, men and wolves", ["leaf", "knife", "child", "man", "wolf"]),
        ("People in jeans and sunglasses talk to the police", ["people", "jeans", "sunglasses", "police"]),
        ("She needs a drink; they drink to the talk of the town.", ["drink", "talk", "town"]),
        ("An astronaut's photos from the 1990s", ["astronaut", "photo", "1990s"]),
        ("Buses, boxes, waves, cities, toes, ties and heroes", ["bus", "box", "wave", "city", "toe", "tie", "hero"]),
        ("!!! ... <<>> $ 42", []),
        ("", []),
        ("The girl’s coat and James’s car; it’s a dog, they’re cats", ["girl", "coat", "james", "car", "dog", "cat"]),
        ("The manʼs hat, the boy´s bowl", ["man", "hat", "boy", "bowl"]),
        ("A T-shirt, an X‑ray, a V-neck sweater", ["t-shirt", "x-ray", "v-neck", "sweater"]),
        ("Two T-shirts and the T-shirt’s print", ["t-shirt", "t-shirt", "print"]),
        ("A close-up of an e-mail; close-ups, e-mails", ["close-up", "e-mail", "close-up", "e-mail"]),
        ("Merry-go-rounds, passers-by and mothers-in-law", ["merry-go-round", "passer-by", "mother-in-law"]),
        ("A self-portrait, ping-pong and a yo-yo", ["self-portrait", "ping-pong", "yo-yo"]),
        ("A black-and-white photo of a dark-haired girl", ["photo", "girl"]),
        ("A U-shaped table with built-in lamps", ["table", "lamp"]),
        ("Two moustaches, toothaches, hoodies and bonuses", ["moustache", "toothache", "hoodie", "bonus"]),
        ("Horseshoes, quiches, beanies, walruses", ["horseshoe", "quiche", "beanie", "walrus"]),
        ("Smoothies, berries, movies, cities, ponies", ["smoothie", "berry", "movie", "city", "pony"]),
        ("Some niches, caches, benches, sandwiches", ["niche", "cache", "bench", "sandwich"]),
        ("Some axes, foxes, lenses, vases, quizzes", ["axe", "fox", "lens", "vase", "quiz"]),
        ("Bookshelves, snowmen, menus, taxis, cacti", ["bookshelf", "snowman", "menu", "taxi", "cactus"]),
        ("Heroes, canoes, kangaroos, gloves, olives", ["hero", "canoe", "kangaroo", "glove", "olive"]),
        ("T-shirt/jeans, “close-up” (x-ray)", ["t-shirt", "jeans", "close-up", "x-ray"]),
        ("A T–shirt, two T‑shirts, a woman ’s hat", ["t-shirt", "t-shirt", "woman", "hat"]),
        ("A red-brick house of his mother-in-law", ["brick", "house", "mother-in-law"]),
        ("A 15-year-old boy and a coffee-table book", ["year", "boy", "coffee", "table", "book"]),
        ("A non-stick pan in mid-air, an anti-war poster", ["pan", "mid-air", "poster"]),
        ("A Rolls-Royce and a can of Coca-Cola", ["rolls-royce", "can", "coca-cola"]),
        ("Jack-o’-lanterns, zig-zags and jack-in-the-boxes", ["jack-o'-lantern", "zig-zag", "jack-in-the-box"]),
        ("A nurse hugs the child; a boy smiles at his dog", ["nurse", "child", "boy", "dog"]),
        ("The boy smiles at the street lights", ["boy", "street", "light"]),
        ("Two glasses of beer, wine glasses; a man in glasses", ["glass", "beer", "wine", "glass", "man", "glasses"]),
        ("Tourists watch cooks who repair a street light", ["tourist", "cook", "street", "light"]),
        ("Three dogs rest in the shade, waves crash on rocks", ["dog", "shade", "wave", "rock"]),
        ("Sports cars race along; a dozen eggs lie on trays", ["sport", "car", "dozen", "egg", "tray"]),
        ("A photo in black and white, a cat in black and white stripes", ["photo", "black", "white", "cat", "stripe"]),
        ("A girl in pink with a light green hat, a gold watch", ["girl", "pink", "hat", "gold", "watch"]),
        ("A set of plates, a can of soup and a white rose in a vase", ["set", "plate", "can", "soup", "rose", "vase"]),
        ("A bird on top of a pole, a sign on the left", ["bird", "top", "pole", "sign", "left"]),
        ("A man painting a fence near a painting of a fence", ["man", "fence", "painting", "fence"]),
        ("A washing machine and a living room", ["washing", "machine", "living", "room"]),
        ("Vintage Blue Ceramic Vase with Gold Lids", ["vase", "gold", "lid"]),
        ("BIG SALE: SUMMER DRESSES AND SHOES IN PARIS", ["sale", "summer", "dress", "shoe", "paris"]),
        ("Tourists near the Eiffel Tower in Paris", ["tourist", "eiffel", "tower", "paris"]),
    ],
)
def test_nouns_of_captions(lexicon: NounExtractor, caption: str, expected: list[str]) -> None:
    assert lexicon.nouns([caption]) == [expected]


def test_nouns_of_300_sentences_are_those_of_a_hand(lexicon: NounExtractor) -> None:
    odd, even = noun_speed.halves()
    assert len(odd) == len(even) == 150
    assert noun_speed.agreement(lexicon, odd) >= 0.98
    assert noun_speed.agreement(lexicon, even) >= 0.955


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A cup on a coffee table.", ["cup", "coffee table"]),
        ("Two sports cars near wooden coffee tables", ["sports car", "coffee table"]),
        ("Tourists near the Eiffel Tower in Paris", ["tourist", "eiffel tower", "paris"]),
        ("The street lamp, garden gate and fence", ["street lamp", "garden gate", "fence"]),
        ("The woman's hat", ["woman", "hat"]),
        ("a door\n\nwindow", ["door", "window"]),
        ("cat dog bird fish horse", ["cat", "dog", "bird", "fish", "horse"]),
        ("cat", ["cat"]),
        ("!!!", []),
    ],
)
def test_adjacent_nouns_are_one_concept_with_compounds(caption: str, expected: list[str]) -> None:
    assert load_extractor("lexicon", compounds=True).nouns([caption]) == [expected]


def test_a_common_noun_after_a_name_is_its_own_concept() -> None:
    assert load_extractor("lexicon", compounds=True).nouns(["A Zürich street at night"]) == [
        ["zürich", "street", "night"]
    ]
    assert load_extractor("lexicon").nouns(["A coffee table"]) == [["coffee", "table"]]


def test_compounds_change_neither_tags_nor_words(lexicon: NounExtractor) -> None:
    joined, sentence = load_extractor("lexicon", compounds=True), ["a", "coffee", "table"]
    assert joined.tag([sentence]) == lexicon.tag([sentence])
    ((nouns_joined, num_words),) = joined.count(["a coffee table"])
    assert (nouns_joined, num_words) == (["coffee table"], lexicon.count(["a coffee table"])[0][1])


def test_words_are_tokens_without_punctuation_and_space(lexicon: NounExtractor) -> None:
    assert [words for _, words in lexicon.count(["A cat, a dog!", "  It isn't\n a cat. ", "...", ""])] == [4, 5, 0, 0]


def test_a_caption_of_100_kb_and_markup_are_only_text(lexicon: NounExtractor) -> None:
    (many, num_words), (markup, _) = lexicon.count(["cat " * 25_000, "<script>alert('cat')</script>"])
    assert (many, num_words) == (["cat"] * 25_000, 25_000)
    assert all(isinstance(noun, str) for noun in markup)


def test_tokens_come_back_one_to_one(lexicon: NounExtractor) -> None:
    sentences = [["The", "T-shirts", "'s", " ", "color"], [], ["Hello", "world"]]
    assert [len(tagged) for tagged in lexicon.tag(sentences)] == [5, 0, 2]
    assert lexicon.tag([["cats", "and", "T-shirts"]]) == [[("cat", True), ("and", False), ("t-shirt", True)]]


@pytest.mark.parametrize("mark", "'’‘ʼʹ´`′＇")
def test_what_an_apostrophe_cuts_off_is_no_noun(lexicon: NounExtractor, mark: str) -> None:
    sentences = [["woman", f"{mark}s", "hat"], ["do", f"n{mark}t"], ["they", f"{mark}re"], ["dogs", mark, "bowl"]]
    tagged = lexicon.tag([*sentences, [f"don{mark}t"]])
    assert [[lemma for lemma, noun in sentence if noun] for sentence in tagged] == [
        ["woman", "hat"], [], [], ["dog", "bowl"], []
    ]  # fmt: skip
    text = f"the dogs{mark} bowls, a cat {mark}s toy, it{mark}s rock {mark}n{mark} roll, they don{mark}t"
    assert lexicon.nouns([text]) == [["dog", "bowl", "cat", "toy", "rock", "roll"]]


@pytest.mark.slow
def test_the_extractor_keeps_a_bounded_number_of_strings_and_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"a cat{number} beside a dog" for number in range(300)]
    expected = [([f"cat{number}", "dog"], 5) for number in range(300)]
    extractor = load_extractor("lexicon")
    assert extractor.count(texts[:100]) == expected[:100]
    monkeypatch.setattr(nouns, "KEPT_STRINGS", 100)
    forgetful = load_extractor("lexicon")
    known = []
    for first in range(0, 300, 100):
        assert forgetful.count(texts[first : first + 100]) == expected[first : first + 100]
        known.append(len(forgetful._nlp.vocab.strings))
    assert known[0] == known[1] == known[2], "strings of the second and third hundred were kept"
    assert forgetful.count(texts) == extractor.count(texts) == expected


def test_the_extractor_is_quick(lexicon: NounExtractor) -> None:
    text = "A wide photograph of two brown cats sleeping on red benches near the old churches in Paris. " * 4
    texts = [text] * 250
    lexicon.count(texts[:10])
    start = time.process_time()
    num_words = sum(words for _, words in lexicon.count(texts))
    assert num_words / (time.process_time() - start) > 20_000  # 100,000 and more on an idle core


def test_a_model_that_is_missing_is_an_error_with_the_command() -> None:
    with pytest.raises(ValueError, match=r"'en_core_web_zz' is not installed.*python -m spacy download en_core_web_zz"):
        load_extractor("en_core_web_zz")


def test_a_model_without_tagger_is_refused(tmp_path: Path) -> None:
    blank = spacy.blank("en")
    blank.add_pipe("sentencizer")
    blank.to_disk(tmp_path / "blank")
    with pytest.raises(ValueError, match=r"has no tagger \(only sentencizer\)"):
        load_extractor(str(tmp_path / "blank"))


@pytest.mark.slow
def test_any_spacy_model_with_a_tagger_is_taken(tmp_path: Path) -> None:
    model = spacy.blank("en")
    model.add_pipe("tagger").add_label("NN")  # type: ignore[attr-defined]
    ruler = model.add_pipe("attribute_ruler")
    model.initialize()
    ruler.add([[{"IS_ALPHA": True}]], {"POS": "NOUN", "LEMMA": "Thing"})  # type: ignore[attr-defined]
    model.to_disk(tmp_path / "model")
    assert load_extractor(str(tmp_path / "model")).nouns(["cats sleep"]) == [["thing", "thing"]]


@pytest.mark.slow
def test_a_models_hyphens_and_plurals_are_those_of_the_lexicon(tmp_path: Path) -> None:
    model = spacy.blank("en")
    model.add_pipe("tagger").add_label("NN")  # type: ignore[attr-defined]
    ruler = model.add_pipe("attribute_ruler")
    model.initialize()
    ruler.add([[{"IS_PUNCT": False}]], {"POS": "NOUN", "TAG": "NNS", "LEMMA": "vas"})  # type: ignore[attr-defined]
    model.to_disk(tmp_path / "model")
    assert load_extractor(str(tmp_path / "model")).nouns(["vases, T–shirts"]) == [["vase", "t-shirt"]]


def test_a_part_has_two_rows_per_input_and_null_where_nothing_is_to_count(part: Part) -> None:
    ids = ["a", "b", "c", None]
    inputs = {
        "raw_captions": part("raw_captions", image_id=ids, caption=["two cats", None, "a dog", None]),
        "captions": part("captions", image_id=ids, caption=["a picture of cats", "a sky", None, None]),
        "selection": part("selection", image_id=ids, kept=[True, True, False, False]),
    }
    progress: list[int] = []
    output = NounWorker("lexicon")(inputs, progress.append)["nouns"]
    assert output.schema == tables.schema_of("nouns")
    assert output["row_id"].to_pylist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert output["caption_source"].to_pylist() == ["raw", "synthetic"] * 4
    assert output["nouns"].to_pylist() == [["cat"], ["picture", "cat"], None, ["sky"], None, None, None, None]
    assert output["num_words"].to_pylist() == [2, 4, None, 2, None, None, None, None]
    assert output["num_tokens"].to_pylist() == [3, 5, None, 3, None, None, None, None]  # and the end of the text
    assert output["tokenizer"].to_pylist() == ["words", "words", None, "words", None, None, None, None]
    assert sum(progress) == 4


def test_the_job_writes_two_rows_per_input_and_can_be_sent_to_workers() -> None:
    job = map_job(DataRecipe(images="photos", out="out"))
    assert (job.job, job.outputs, job.inputs) == ("nouns", ("nouns",), ("raw_captions", "captions", "selection"))
    assert job.rows_per_input == 2
    knobs = {"nouns.extractor": "lexicon", "nouns.compounds": False, "mix.tokenizer": "words"}
    assert job.knobs == {**knobs, "nouns.rules": nouns.RULES}
    assert isinstance(pickle.loads(pickle.dumps(job)).build(), NounWorker)


def test_compounds_are_a_knob_of_the_job() -> None:
    job = map_job(DataRecipe.from_mapping({"images": "photos", "out": "out", "nouns": {"compounds": True}}))
    knobs = {"nouns.extractor": "lexicon", "nouns.compounds": True, "mix.tokenizer": "words"}
    assert job.knobs == {**knobs, "nouns.rules": nouns.RULES}
    worker = job.build()
    assert isinstance(worker, NounWorker)
    assert worker._extractor.nouns(["a coffee table"]) == [["coffee table"]]


def test_the_tokenizer_reads_no_long_run_of_signs(lexicon: NounExtractor, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = "A fox in the snow (of Lapland): https://example.org/a/b?c=" + "d" * 60
    assert lexicon._parted(plain) == plain
    for run in ("[({<" * 1000, "US$C$\u00a3" * 800, "'s" * 2000, "x" * 4000):
        assert max(map(len, lexicon._parted(f"A fox {run}").split())) <= 150
    signs = ["A fox in the snow " + "[({<" * 40]
    parted = lexicon.count(signs)
    monkeypatch.setattr(NounExtractor, "_parted", lambda self, text: text)
    assert parted == lexicon.count(signs)
