from __future__ import annotations

import pickle
import time
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning import clean
from captioning.clean import Cleaner, cleaned_text, map_job
from captioning.texts.text import clean as normalised
from schemas import tables
from schemas.reasons import RawCaptionReason
from schemas.recipe import Clean, DataRecipe
from schemas.texts import LONGEST_CAPTION

pytestmark = pytest.mark.slow

Part = Callable[..., pa.Table]


@pytest.fixture(scope="module")
def cleaner() -> Cleaner:
    return Cleaner(Clean())


KEPT = (
    "A small red house behind two trees.",
    "Two cats sleeping",
    "a cat",
    "I <3 my cats, and x < y > z",
    "A Canon camera on a wooden table",
    "Boeing 747-8 at Zurich airport",
    "House 5",
    "Route 66",
    "Apollo 11",
    "Hubble deep field",
    "New York, New York",
    "Black-and-white",
    "Photo of a dog",
    "Screenshot of a web page",
    "Picture number 000.",
    "We are #winning today",
    "AT&T building, 1984",
    "A shop whose sign reads www.joes-pizza.com",
    'A van with "https://example.org" on its side',
    "Ingredients on a table: flour, eggs, butter, sugar, salt, milk, vanilla, honey and chocolate",
    "In the square, near the church, behind the trees, a man, his dog, a child, a bicycle, a bench, all in the sun",
    "Portrait of Jos\u00e9 Mu\u00f1oz in Krak\u00f3w",
    "Temple in \u4eac\u90fd (Kyoto) at night",
)


@pytest.mark.parametrize("raw", KEPT)
def test_a_caption_is_left_alone(cleaner: Cleaner, raw: str) -> None:
    found = cleaner.clean(raw)
    assert (found.caption, found.reason, found.removed) == (raw, None, ())


@pytest.mark.parametrize(
    ("raw", "expected", "removed"),
    [
        ("  a\u00a0cat\n on a\tmat ", "a cat on a mat", ()),
        ("caf\u0065\u0301 in\u200b the\ufeff rain", "caf\u00e9 in the rain", ()),
        ("a cat\x00\x07 on\u202e a mat", "a cat on a mat", ()),
        ("<p>A cat &amp; a dog<br/>on a <b>mat</b></p>", "A cat & a dog on a mat", ("html",)),
        ("A cat<!-- x --> on a mat<script>alert('a < b')</script>", "A cat on a mat", ("html",)),
        ("&lt;b&gt;A cat&lt;/b&gt; &copy; 2010", "A cat \u00a9 2010", ("html",)),
        ("A cat on a mat https://example.org/cat.jpg?a=1&copy=2", "A cat on a mat", ("urls",)),
        ("Sunset over the bay #sunset #beach #2024nofilter", "Sunset over the bay", ("hashtags",)),
        ("a red fox in snow.jpg", "a red fox in snow", ("extension",)),
        (
            '<a href="http://example.org">A red fox in snow</a> http://example.org #fox #snow',
            "A red fox in snow",
            ("html", "urls", "hashtags"),
        ),
    ],
)
def test_markup_and_addresses_are_taken_out_of_a_caption(
    cleaner: Cleaner, raw: str, expected: str, removed: tuple[str, ...]
) -> None:
    found = cleaner.clean(raw)
    assert (found.caption, found.reason, found.removed) == (expected, None, removed)


JUNK = (
    (RawCaptionReason.NO_RAW_CAPTION, None),
    (RawCaptionReason.NOTHING_LEFT, "", " \n", "\u200b\ufeff", "<img src='cat.jpg'>", "<br><br/>", "&nbsp;"),
    (
        RawCaptionReason.FILE_NAME,
        "IMG_1234.JPG",
        "IMG_1234",
        "DSC00012",
        "_DSC0001.NEF",
        "P1010001.JPG",
        "photo (3).png",
        "20200103_123456",
        "PXL_20210101_123456789.MP.jpg",
        "IMG-20200101-WA0001",
        "Screenshot 2021-03-04 at 10.11.12",
        "WhatsApp Image 2020-01-02 at 10.11.12.jpeg",
        "red_fox_01",
        "red-fox-in-snow.jpg",
        "C:\\Users\\me\\My Pictures\\fox.jpg",
        "/home/me/photos/fox in snow.png",
        "wp-content/uploads/2020/fox-1024x768",
        '"IMG_1234.JPG"',
        "12345 67890",
    ),
    (
        RawCaptionReason.CAMERA_NAME,
        "Canon EOS 5D Mark II",
        "NIKON D850",
        "OLYMPUS DIGITAL CAMERA",
        "SONY DSC",
        "Apple iPhone 12 Pro Max",
        "Canon PowerShot SX50 HS with 24mm f/2.8",
    ),
    (RawCaptionReason.PLACEHOLDER, "untitled", "Image", "No description available.", "N/A", "null", "alt text"),
    (RawCaptionReason.ONLY_URL, "https://example.org/cat.jpg", "www.example.org", "[http://example.org/a_b-c]"),
    (
        RawCaptionReason.KEYWORDS,
        "cat, dog, animal, pet, cute, fluffy, home, kitten, paw",
        "wedding | bride | white dress | flowers | love | church | couple | kiss",
        "#sunset #beach #travel",
        "Bali #sunset #beach #travel #sea",
    ),
    (
        RawCaptionReason.GIBBERISH,
        "$19.99 - 50 %",
        "!!! ??? a",
        "F-16",
        "\ufffd\ufffd\ufffd\ufffd cat on mat",
        "buy cheap shoes " * 8,
    ),
    (RawCaptionReason.TOO_SHORT, "cat", "Paris.", "\u732b"),
    (
        RawCaptionReason.OTHER_LANGUAGE,
        "Une femme avec un chapeau rouge",
        "Ein kleines rotes Haus hinter zwei B\u00e4umen",
        "\u043a\u043e\u0448\u043a\u0430 \u043b\u0435\u0436\u0438\u0442 \u043d\u0430 \u0441\u0442\u043e\u043b\u0435",
        "\u4e00\u53ea\u732b\u5728\u684c\u5b50\u4e0a",
    ),
)


@pytest.mark.parametrize(("reason", "raw"), [(reason, raw) for reason, *raws in JUNK for raw in raws])
def test_junk_is_refused_with_its_reason(cleaner: Cleaner, reason: RawCaptionReason, raw: str | None) -> None:
    found = cleaner.clean(raw)
    assert (found.caption, found.reason) == (None, reason)


def test_every_reason_is_tested() -> None:
    assert {reason for reason, *_ in JUNK} == set(RawCaptionReason)


def test_the_language_is_recorded_where_it_is_sure() -> None:
    cleaner = Cleaner(Clean(languages=None))
    found = {raw: cleaner.clean(raw) for raw in (KEPT[0], "a cat", "Une femme avec un chapeau rouge")}
    assert [row.language for row in found.values()] == ["en", None, "fr"]
    assert [row.reason for row in found.values()] == [None] * 3
    assert Cleaner(Clean(languages=("fr",))).clean("A small red house behind two trees.").language == "en"
    both = Cleaner(Clean(languages=("fr", "en")))
    assert both.clean("Une femme avec un chapeau rouge").reason is None
    assert both.clean("Ein kleines rotes Haus hinter zwei B\u00e4umen").reason is RawCaptionReason.OTHER_LANGUAGE


def test_an_unknown_language_or_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clean\.languages: 'xx' is no language the model knows; choose from .*en"):
        Cleaner(Clean(languages=("xx",)))
    with pytest.raises(ValueError, match="name at least one language, or null"):
        Clean(languages=())


def test_a_caption_under_the_fewest_words_is_refused() -> None:
    assert Cleaner(Clean(min_words=1)).clean("Sunset").caption == "Sunset"
    assert Cleaner(Clean(min_words=4)).clean("a red fox").reason is RawCaptionReason.TOO_SHORT


@given(st.text())
def test_a_cleaned_caption_is_normalised(raw: str) -> None:
    caption, _ = cleaned_text(raw)
    assert caption == normalised(caption)


@settings(deadline=None)
@given(raw=st.text(alphabet="aB1_-.<>&;#/ '\"(){}\u00e9\u200d", max_size=300))
def test_any_text_is_cleaned_quickly(cleaner: Cleaner, raw: str) -> None:
    start = time.perf_counter()
    found = cleaner.clean(raw)
    assert (found.caption is None) == (found.reason is not None)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "unit", ["word ", "a.jpg", "1", "1 ", "#a ", "#a", "&lt;", "a,", "\u00e9\u200d", "<a ", "_", ". "]
)
@pytest.mark.parametrize("size", [299, 100_000])
def test_no_length_takes_quadratic_time(cleaner: Cleaner, unit: str, size: int) -> None:
    start = time.perf_counter()
    for end in ("", "!", "\u00df\u00df "):
        cleaner.clean(unit * (size // len(unit)) + end)
    assert time.perf_counter() - start < 3


def test_a_part_of_clean_has_a_row_per_input(part: Part, cleaner: Cleaner) -> None:
    raw = ["two <b>cats</b>", None, "IMG_1.jpg"]
    images = part("images", image_id=["a", None, "c"], raw_caption=raw, reason=[None, "empty", None])
    progress: list[int] = []
    output = cleaner({"images": images}, progress.append)["raw_captions"]
    assert output.schema == tables.schema_of("raw_captions")
    assert sum(progress) == 3
    assert output.to_pylist() == [
        {"row_id": 0, "image_id": "a", "caption": "two cats", "language": None, "removed": ["html"], "reason": None},
        {"row_id": 1, "image_id": None, "caption": None, "language": None, "removed": [], "reason": "no_raw_caption"},
        {"row_id": 2, "image_id": "c", "caption": None, "language": None, "removed": [], "reason": "file_name"},
    ]


def test_the_stage_depends_on_its_section_and_on_no_threshold() -> None:
    job = map_job(DataRecipe(images="photos", out="out"))
    assert (job.job, job.outputs, job.inputs) == ("clean", ("raw_captions",), ("images",))
    assert job.knobs == {"clean.languages": ["en"], "clean.min_words": 2}
    assert isinstance(pickle.loads(pickle.dumps(job)).build(), Cleaner)


FOX = "A red fox walks through deep snow at the edge of a forest. "


@pytest.mark.parametrize(
    ("tail", "removed"),
    [
        ("The snow is deep. " * 60_000, ["end"]),
        ("x" * 1_000_000, ["end"]),
        ("<script>" + "x = 1; " * 100_000 + "</script>", ["end"]),
        ("<!-- " + "a comment " * 100_000 + "-->", ["end"]),
        ('<img class="' + "wide " * 100_000 + '">', ["end"]),
        ("<i>snow</i> " * 100_000, ["html", "end"]),
        ("#snow " * 100_000, ["hashtags", "end"]),
    ],
    ids=lambda value: value[:8] if isinstance(value, str) else "",
)
def test_of_a_very_long_caption_the_beginning_is_read_and_the_row_says_so(
    part: Part, tail: str, removed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    junk_reason = clean.junk_reason

    def spy(raw: str, caption: str | None, min_words: int) -> RawCaptionReason | None:
        read.extend((len(raw), len(caption or "")))
        return junk_reason(raw, caption, min_words)

    monkeypatch.setattr(clean, "junk_reason", spy)
    images = part("images", raw_caption=[FOX + tail])
    (row,) = Cleaner(Clean())({"images": images}, lambda *_: None)["raw_captions"].to_pylist()
    assert row["removed"] == removed
    assert row["reason"] is not None or row["caption"].startswith(FOX.strip())
    assert row["caption"] is None or (len(row["caption"]) <= LONGEST_CAPTION and "<" not in row["caption"])
    assert max(read) <= LONGEST_CAPTION


def test_what_the_end_of_a_very_long_caption_leaves_open_is_no_part_of_its_beginning(cleaner: Cleaner) -> None:
    for hidden in (
        "<script>x = 1;" + " " * 9000 + "</script>",
        "<!-- a" + " b" * 9000 + "-->",
        "<img alt='" + "a " * 9000,
    ):
        assert cleaner.clean(FOX + hidden).caption == FOX.strip()


def test_the_longest_caption_that_is_read_whole_is_not_cut(cleaner: Cleaner) -> None:
    for num in (LONGEST_CAPTION, LONGEST_CAPTION + 1):
        rows = cleaner.clean("Snow " * 2 + "<br>" * ((num - 10) // 4) + "x" * ((num - 10) % 4))
        assert ("end" in rows.removed) == (num > LONGEST_CAPTION)
