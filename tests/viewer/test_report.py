from __future__ import annotations

import html.parser
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioning.figures.statistics import noun_uses_sql
from engine.catalog import connect
from engine.dataset import Dataset, JobRecord
from schemas import tables
from schemas.reasons import PURGED
from tests.building import connection_with, put
from viewer import charts, costs, figures, grounding
from viewer.grounding import marked
from viewer.rendering import MOST_CHARACTERS, number, percent, shorten
from viewer.report import write_report
from viewer.sections import REPORT

pytestmark = pytest.mark.slow

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
NASTY = (
    "<script>alert('x')</script>",
    """" onload="alert(1)' <img src=x onerror=alert(2)> {{ 7 * 7 }} &amp;""",
    "\u202egnitirw\u202c \u05e9\u05dc\u05d5\u05dd \x00\x1b[31m",
    "x" * 100_000,
)


def photo(name: str, longest_px: int = 400) -> bytes:
    with (files("skimage") / "data" / name).open("rb") as file:
        image = Image.open(file).convert("RGB")
    image.thumbnail((longest_px, longest_px))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def write(dataset: Dataset, table: str, **columns: Sequence[object]) -> None:
    """Commit a whole table; row_id is 0, 1, 2, ... unless given, and what is not given is null."""
    num_rows = len(next(iter(columns.values())))
    columns.setdefault("row_id", range(num_rows))
    schema = tables.SCHEMAS[table]
    arrays = {field.name: pa.array(columns.get(field.name, [None] * num_rows), field.type) for field in schema}
    put(dataset, table, 0, pa.table(arrays, schema=schema))


def build(root: Path, members: Sequence[str], captions: Sequence[str]) -> Dataset:
    """A finished dataset of four photographs, one duplicate, one that is too small and one broken input."""
    dataset = Dataset(root)
    ids = ["a", "b", "c", "d", "a", "e", None]
    where: dict[str, Sequence[object]] = {
        "source": ["/photos"] * 7,
        "source_name": ["photos"] * 7,
        "member": [*members, "copy.png", "small.png", "broken.jpg"],
    }
    write(dataset, "listing", **where)
    write(
        dataset,
        "images",
        image_id=ids,
        width=[512, 451, 600, 640, 512, 90, None],
        height=[512, 300, 400, 427, 512, 70, None],
        raw_caption=[*captions, None, "tiny", None],
        reason=[None] * 6 + ["truncated"],
        detail=[None] * 6 + ["cut <b>short</b>"],
        **where,
    )
    write(dataset, "proxies", image_id=ids, jpeg=[*map(photo, PHOTOS), photo(PHOTOS[0]), photo(PHOTOS[1]), None])
    write(dataset, "scores", image_id=ids, aesthetic=[5.5, 6, 7, 8, 5, 2, None])
    write(
        dataset,
        "selection",
        image_id=ids,
        kept=[True] * 4 + [False] * 3,
        rejected_by=[None] * 4 + ["duplicate", "too_small", None],
        value=[None] * 4 + [0, 70, None],
        threshold=[None] * 4 + [3, 256, None],
        duplicate_of=[None] * 4 + ["a", None, None],
        duplicate_of_row=[None] * 4 + [0, None, None],
        subsets=[[]] * 7,
    )
    write(
        dataset,
        "duplicates",
        row_id=[0, 4],
        image_id=["a", "a"],
        group_id=[0, 0],
        method=["bytes"] * 2,
        distance=[0, 0],
    )
    write(
        dataset,
        "raw_captions",
        image_id=ids,
        caption=[captions[0], captions[1], None, captions[3], None, None, None],
        removed=[["html"], [], [], [], [], [], []],
        reason=[None, None, "file_name", None, "no_raw_caption", "too_short", "no_raw_caption"],
    )
    write(dataset, "captions", image_id=ids, captioner=["attributes"] * 7, caption=[*captions, None, None, None])
    sources = ["synthetic", "raw", "synthetic", "raw", None, None, None]
    coins = [0.1, 0.9, 0.2, 0.8, None, None, None]
    write(
        dataset,
        "mix",
        image_id=ids,
        coin=coins,
        caption_source=sources,
        caption=[*captions, None, None, None],
        fallback=[None, "synthetic_refused", "raw_refused", None, None, None, None],
        tokenizer=["words"] * 4 + [None] * 3,
        truncated=[True, False, False, False, None, None, None],
    )
    write(
        dataset,
        "nouns",
        row_id=[row for row in range(7) for _ in range(2)],
        caption_source=["raw", "synthetic"] * 7,
        nouns=[["cat"], ["sky", captions[0][:30]]] * 4 + [None] * 6,
        num_words=[3, 30] * 4 + [None] * 6,
    )
    with connect(dataset, threads=1) as connection:
        counted = connection.execute(noun_uses_sql()).fetchall()
    columns = dict(zip(tables.schema_of("noun_uses").names, zip(*counted, strict=True), strict=True))
    write(dataset, "noun_uses", row_id=range(len(counted)), **columns)
    write(
        dataset,
        "statistics",
        row_id=[0, 1],
        caption_source=["mix", "mix"],
        subset=[None, "wide"],
        num_images=[4, 1],
        valid_nouns=[1, 0],
        distinct_nouns=[3, 2],
        total_nouns=[6, 2],
        average_caption_words=[16.5, 9.0],
        average_caption_tokens=[20.5, 11.0],
        tokenizer=["t5", "t5"],
        average_nouns=[1.5, 2.0],
    )
    write(
        dataset, "samples", image_id=["a", "b", "c", "d"], key=list("abcd"), shard=["s.tar"] * 4, bucket=["512x512"] * 4
    )
    return dataset


class Page(html.parser.HTMLParser):
    """What a browser would see: tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def report(dataset: Dataset, tmp_path: Path) -> tuple[str, Page]:
    out = tmp_path / "report.html"
    write_report(connect(dataset, threads=1), dataset.root, out)
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    page.text = " ".join(page.text.split())
    return text, page


def test_the_page_shows_every_input_and_every_reason(tmp_path: Path) -> None:
    text, page = report(build(tmp_path / "my-dataset", PHOTOS, ["one", "two", "three", "four"]), tmp_path)
    assert "my-dataset" in page.text
    assert "all inputs 7 = 7 listed: nothing is lost" in page.text
    assert "kept 4 57.1 %" in page.text
    for reason in ("rejected select too small 1", "rejected select duplicate 1", "error ingest truncated 1"):
        assert reason in page.text
    assert "small.png rejected too small 70 256" in page.text
    assert "broken.jpg error truncated cut <b>short</b>" in page.text
    assert "Internal-\u03a3 in the paper Share-Captioner 33M 77K 714K 1804M 180 \u2013 53.6" in page.text
    assert "this dataset mixed 4 1 3 6 16.5 20.5 t5 1.5" in page.text
    assert "this dataset raw not counted yet" in page.text
    assert "subset wide mixed 1 0 2 2 9.0 11.0 t5 2.0" in page.text
    assert "words per caption" in page.text and "16.5 in the mix" in page.text  # the whole set's, not a subset's
    assert "same bytes" in page.text
    assert page.tags.count("img") == 4 + 4 + 2  # at random, by the worst score, and a pair of duplicates
    assert text.count("chip in-mix") == 4 + 4
    assert "in the mix: raw refused" in page.text and "in the mix: synthetic refused" in page.text


def test_the_page_counts_the_mix_and_the_refused_captions_of_kept_images(tmp_path: Path) -> None:
    _, page = report(build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"]), tmp_path)
    assert "The coin said synthetic for 50 %; the mix holds 50 % synthetic and 50 % raw captions." in page.text
    assert "1 took the synthetic one for want of a raw one (0 missing, 1 refused)" in page.text
    assert "1 the raw one for want of a synthetic one (0 missing, 1 refused)" in page.text
    assert "1 had more tokens than the trainer reads and were cut (counted by words)" in page.text
    assert "raw file name 1 raw html taken out 1" in page.text
    assert "too short" not in page.text  # of an image that was not kept


def test_purged_inputs_have_a_number_of_their_own(tmp_path: Path) -> None:
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    assert '<div class="purged">' not in report(dataset, tmp_path)[0]
    names: dict[str, Sequence[object]] = {name: ["x"] * 7 for name in ("source", "source_name", "member")}
    write(dataset, "images", reason=[None] * 5 + [PURGED] * 2, **names)
    text, _ = report(dataset, tmp_path)
    assert '<div class="purged"><dt>purged</dt><dd>2</dd><dd class="note">28.6 %</dd></div>' in text


def test_the_page_needs_no_network_and_no_script(tmp_path: Path) -> None:
    text, page = report(build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"]), tmp_path)
    assert "script" not in page.tags and "link" not in page.tags
    assert all((value or "").startswith("data:image/jpeg;base64,") for name, value in page.attributes if name == "src")
    assert all((value or "").startswith("#") for name, value in page.attributes if name == "href")
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "http://" not in text and "https://" not in text
    assert "default-src 'none'" in text


def test_captions_and_names_are_text_never_markup(tmp_path: Path) -> None:
    text, page = report(build(tmp_path / "<i>set</i>", NASTY, NASTY), tmp_path)
    assert "script" not in page.tags and "i" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "<script>alert('x')</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text and " 49 " not in page.text
    assert "<i>set</i>" in page.text
    assert "\x00" not in text and "\x1b" not in text
    assert "(100,000 characters)" in page.text
    assert len(text) < 1_000_000
    assert "x" * (MOST_CHARACTERS + 1) not in text


@pytest.mark.parametrize("done", [0, 1, 2, 3, 4, 6, 8])
def test_a_half_built_dataset_has_a_page_too(tmp_path: Path, done: int) -> None:
    whole = build(tmp_path / "whole", PHOTOS, ["one", "two", "three", "four"])
    order = ("listing", "images", "proxies", "scores", "selection", "captions", "mix", "nouns")
    half = Dataset(tmp_path / "half")
    for table in order[:done]:
        put(half, table, 0, whole.read_part(table, 0))
    if done:
        connection = connect(half, threads=1)
    else:
        connection = connection_with()
        ledger = (files("engine") / "ledger.sql").read_text(encoding="utf-8")
        connection.execute(ledger.replace("CREATE OR REPLACE VIEW", "CREATE OR REPLACE TEMPORARY VIEW"))
    out = tmp_path / "half.html"
    write_report(connection, half.root, out)
    page = Page(out.read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    assert ("Nothing has been listed yet." in text) == (done == 0)
    assert ("all inputs 7 = 7 listed: nothing is lost" in text) == (done > 0)
    assert ("the build is unfinished" in text) == (done > 0)


def test_the_page_warns_of_counts_that_do_not_add_up(tmp_path: Path) -> None:
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    connection = connect(dataset, threads=1)
    connection.execute("CREATE TEMP TABLE short AS SELECT * FROM ledger LIMIT 6")
    connection.execute("CREATE OR REPLACE TEMP VIEW ledger AS SELECT * FROM short")
    write_report(connection, dataset.root, tmp_path / "report.html")
    assert "but 7 were listed: the counts do not add up" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_list_of_refused_inputs_is_capped_and_names_the_total(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "data")
    names: dict[str, Sequence[object]] = {name: ["x"] * 1234 for name in ("source", "source_name", "member")}
    write(dataset, "listing", **names)
    write(dataset, "images", reason=["empty"] * 1234, **names)
    text, page = report(dataset, tmp_path)
    assert f"The first {REPORT.refused} of 1,234." in page.text
    assert text.count('<td class="file">') == REPORT.refused


def test_the_worst_grounded_captions_are_shown_with_their_pictures(tmp_path: Path) -> None:
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    assert "Worst grounded" not in report(dataset, tmp_path)[1].text  # nothing was scored
    sentences = [["A man in a suit.", "Two <b>herons</b> stand by."], ["A cat."], None, ["A rocket."], None, None, None]
    scores = [[0.3, 0.05], [0.2], None, [0.1], None, None, None]
    write(
        dataset,
        "grounding",
        image_id=[*"abcdae", None],
        caption_source=["synthetic"] * 7,
        scorer=["clip" if found else None for found in scores],
        detector=["owl" if found else None for found in scores],
        sentences=sentences,
        sentence_scores=scores,
        lowest_sentence=[texts[-1] if texts else None for texts in sentences],
        lowest_score=[found[-1] if found else None for found in scores],
        ungrounded=[["heron"], [], None, [], None, None, None],
    )
    text, page = report(dataset, tmp_path)
    section = text[text.index('id="grounding"') : text.index('id="duplicates"')]
    assert section.count("data:image/jpeg") == 3 and "b" not in page.tags[page.tags.index("u") - 1 :][:3]
    places = [section.index(f"lowest sentence {score}") for score in ("0.050", "0.100", "0.200")]
    assert places == sorted(places)
    assert 'lowest" title="score 0.050">Two &lt;b&gt;<u>herons</u>&lt;/b&gt; stand by.</span>' in section
    assert 'sentence" title="score 0.300">A man in a suit.</span>' in section
    assert "not found: <bdi>heron</bdi>" in section and section.count("<u>") == 1
    assert 'href="#grounding"' in text
    for name in ("pictures", "worst"):  # the same marks where the pictures stand with both captions
        section = text[text.index(f'<section id="{name}">') :].split("</section>")[0]
        assert section.count('sentence lowest"') == 3 and section.count("<u>herons</u>") == 1
        assert section.index("two") < section.index('title="score 0.200"')  # the raw caption, which has no scores


def test_an_ungrounded_noun_is_marked_as_a_whole_word() -> None:
    (sentence,) = marked(["Dogs and a hotdog by boxes, a DOG."], [0.1], ["dog", "box"]).sentences
    assert [piece.text for piece in sentence.pieces if piece.ungrounded] == ["Dogs", "boxes", "DOG"]
    assert "".join(piece.text for piece in sentence.pieces) == "Dogs and a hotdog by boxes, a DOG."
    found = marked(["a", "b", "c"], [0.2, 0.1, 0.1], [])
    assert [sentence.lowest for sentence in found.sentences] == [False, True, False]


def test_a_marked_caption_is_cut_but_keeps_its_lowest_sentence() -> None:
    found = marked(["a" * 700, "b" * 700, "c" * 5000, "d"], [0.3, 0.2, 0.1, 0.4], [])
    assert [sentence.pieces[0].text[0] for sentence in found.sentences] == ["c"]
    assert len(found.sentences[0].pieces[0].text) == grounding.MOST_CHARACTERS + 1 and found.num_left_out == 3
    found = marked([*"a" * 100, "z"], [0.3] * 100 + [0.1], [])
    assert len(found.sentences) == grounding.MOST_SENTENCES + 1 and found.sentences[-1].lowest


def test_the_same_dataset_gives_the_same_page(tmp_path: Path) -> None:
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    assert report(dataset, tmp_path)[0] == report(dataset, tmp_path)[0]


def test_a_damaged_proxy_leaves_an_empty_frame(tmp_path: Path) -> None:
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    write(
        dataset,
        "proxies",
        image_id=[*"abcdae", None],
        jpeg=[b"no jpeg", *map(photo, PHOTOS[1:])] + [None] * 3,
    )
    _, page = report(dataset, tmp_path)
    assert page.text.count("no picture") >= 2


def test_caption_lengths_share_one_axis() -> None:
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE nouns AS SELECT i AS row_id, 'raw' AS caption_source, i % 50 AS num_words FROM range(1000) r(i)"
    )
    connection.execute("INSERT INTO nouns SELECT i, 'synthetic', 180 FROM range(10) r(i)")
    connection.execute("CREATE TABLE mix AS SELECT i AS row_id, 'raw' AS caption_source FROM range(5) r(i)")
    histogram = figures.caption_words(connection)
    assert {source: sum(bins) for source, bins in histogram.counts.items()} == {"raw": 1000, "synthetic": 10, "mix": 5}
    assert histogram.means == {"raw": 24.5, "synthetic": 180.0, "mix": 2.0}
    assert histogram.num_bins <= figures.NUM_BINS
    assert histogram.counts["synthetic"][-1] == 10
    chart = charts.length_chart(histogram)
    assert chart is not None and [series.name for series in chart.series] == ["raw", "synthetic", "mix"]
    assert all(charts.LEFT <= tick.at <= charts.WIDTH - charts.RIGHT for tick in chart.x_ticks)


@given(st.lists(st.tuples(st.integers(1, 100_000), st.integers(1, 100_000)), min_size=1, max_size=20))
def test_points_are_inside_the_plot(sides: list[tuple[int, int]]) -> None:
    chart = charts.size_chart([{"width": width, "height": height, "outcome": "kept"} for width, height in sides])
    assert chart is not None
    for point in chart.points:
        assert charts.LEFT <= point.x <= charts.WIDTH - charts.RIGHT
        assert charts.TOP <= point.y <= charts.HEIGHT - charts.BOTTOM


@given(st.floats(1e-6, 1e9), st.integers(1, 12))
def test_a_nice_step_reaches_the_top_in_time(highest: float, num_steps: int) -> None:
    step = charts.nice_step(highest, num_steps)
    assert highest <= step * num_steps * (1 + 1e-6)
    assert step <= highest / num_steps * 2.5 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (1, 4, "25 %"),
        (0, 4, "0 %"),
        (1, 100_000, "< 0.1 %"),
        (99_999, 100_000, "> 99.9 %"),
        (4, 4, "100 %"),
        (0, 0, "\u2013"),
    ],
)
def test_percent_never_rounds_something_to_nothing(part: int, whole: int, expected: str) -> None:
    assert percent(part, whole) == expected


def test_numbers_and_texts_are_shortened_for_readers() -> None:
    assert [number(value) for value in (None, 1234567, 12.3456, 123456.7)] == [
        "\u2013",
        "1,234,567",
        "12.35",
        "123,457",
    ]
    assert shorten("a\x07b") == "a\ufffdb"
    assert shorten(None) == ""
    assert shorten("abcdef", 3) == "abc\u2026 (6 characters)"


# ------------------------------------------------------------------------------------------------ charts


def test_the_page_draws_tokens_scores_bucket_lines_and_changed_nouns(tmp_path: Path) -> None:
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    selection = dataset.read_part("selection", 0)
    (dataset.folder("selection")).rename(tmp_path / "before")
    dataset.write_record("selection", JobRecord("select", {"select.min_aesthetic": 4.5}, []))
    put(dataset, "selection", 0, selection)
    dataset.runs.mkdir()
    for run, seconds in enumerate((4.0, 2.0)):
        entry = {"job": "ingest", "tables": ["images"], "seconds": seconds, "rows": 8, "parts": 1, "parts_computed": 1}
        (dataset.runs / f"{run}.json").write_text(json.dumps(entry | {"finished": "2026-01-01"}), encoding="utf-8")
    (dataset.runs / "broken.json").write_text("{", encoding="utf-8")
    text, page = report(dataset, tmp_path)
    assert text.count('class="bucket-line"') > 20
    assert "threshold 4.5" in page.text
    assert "Gained: only in synthetic captions one 4 sky 4" in page.text
    assert "Lost: only in raw captions cat 4" in page.text
    assert "ingest \u2192 images 2 2 8 6 4 69.44" in page.text  # 8 rows in the last 2 s: 69 h for a million


def test_gpu_hours_and_cost_are_summed_over_the_runs_that_know_them(tmp_path: Path) -> None:
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    dataset.runs.mkdir()
    runs = [("ingest", {}), ("recaption", {"gpu_hours": 1.5, "cost": 3.0}), ("recaption", {"gpu_hours": 0.25})]
    for run, (job, more) in enumerate(runs):
        entry = {"job": job, "tables": ["captions"], "seconds": 2.0, "rows": 8, "parts": 1, "parts_computed": 1}
        text = json.dumps(entry | more | {"finished": "2026-01-01"})
        (dataset.runs / f"{run}.json").write_text(text, encoding="utf-8")
    found = {cost.job.split()[0]: (cost.gpu_hours, cost.cost) for cost in costs.job_costs(dataset)}
    assert found == {"ingest": (None, None), "recaption": (1.75, 3.0)}
    said = report(dataset, tmp_path)[1].text
    assert "hours per million GPU hours cost" in said and "all 6 1.75 3 Wall clock" in said
    assert "Cost is these at the recipe's price" in said
    for run in (1, 2):
        (dataset.runs / f"{run}.json").unlink()
    said = report(dataset, tmp_path)[1].text
    assert "GPU hours" not in said and "hours per million ingest" in said


def test_the_token_chart_reaches_its_limit() -> None:
    def tokens(table: str, **counts: Sequence[int]) -> pa.Table:
        rows = [(source, num) for source, nums in counts.items() for num in nums]
        values = [
            {"row_id": row, "caption_source": source, "num_tokens": num} for row, (source, num) in enumerate(rows)
        ]
        return pa.Table.from_pylist(values, schema=tables.SCHEMAS[table])

    given = {
        "nouns": tokens("nouns", raw=[10, 20], synthetic=[30, 400]),
        "mix": tokens("mix", raw=[10], synthetic=[300]),
    }
    histogram = figures.caption_tokens(connection_with(**given), 300)
    assert histogram.num_bins * histogram.bin_width > 300
    assert {source: sum(bins) for source, bins in histogram.counts.items()} == {"raw": 2, "synthetic": 2, "mix": 2}
    assert histogram.means == {"raw": 15, "synthetic": 215, "mix": 155}
    chart = charts.length_chart(histogram, 300)
    assert chart is not None
    share = (chart.limit_at - charts.LEFT) / (charts.WIDTH - charts.LEFT - charts.RIGHT)
    assert share == pytest.approx(300 / (histogram.num_bins * histogram.bin_width))
    assert charts.length_chart(figures.caption_tokens(connection_with(), 300), 300) is None


def test_bars_of_the_scores_are_stacked_inside_the_plot() -> None:
    bins = [{"bin": 0, "kept": 0, "others": 3}, {"bin": 35, "kept": 5, "others": 2}]
    chart = charts.score_chart(bins, 0.25, 5.5)
    assert chart is not None
    assert [bar.kind for bar in chart.bars] == ["rejected", "kept", "rejected"]
    assert chart.bars[2].y + chart.bars[2].height == pytest.approx(chart.bars[1].y)
    assert all(bar.y >= charts.TOP - 1e-6 and bar.x + bar.width <= charts.WIDTH - charts.RIGHT for bar in chart.bars)
    assert chart.bars[0].label == "1 to 1.25: 3 not kept"
    assert chart.threshold_at == pytest.approx(charts.LEFT + (charts.WIDTH - charts.LEFT - charts.RIGHT) / 2)
    assert charts.score_chart([], 0.25, None) is None


@pytest.mark.parametrize(
    ("method", "distance", "said"),
    [
        ("bytes", 0, "same bytes"),
        ("pixels", 0, "same pixels"),
        ("phash", 2, "pHash differs in 2 of 64 bits"),
        ("semantic", 0.03, "alike: cosine 0.970"),
    ],
)
def test_a_duplicate_is_labelled_by_its_evidence(tmp_path: Path, method: str, distance: float, said: str) -> None:
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    found: dict[str, Sequence[object]] = {
        "image_id": ["a", "a"],
        "group_id": [0, 0],
        "method": [method] * 2,
        "distance": [distance] * 2,
    }
    write(dataset, "duplicates", row_id=[0, 4], **found)
    assert said in report(dataset, tmp_path)[1].text


def test_a_picture_of_another_dataset_names_it_and_the_evidence(tmp_path: Path) -> None:
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    write(
        dataset,
        "selection",
        kept=[True] * 4 + [False] * 3,
        rejected_by=[None] * 4 + ["in_other_dataset"] * 2 + [None],
        value=[None] * 4 + [2, 0, None],
        threshold=[None] * 4 + [3, 3, None],
        duplicate_method=[None] * 4 + ["phash", "pixels", None],
        other_dataset=[None] * 4 + ["/eval"] * 2 + [None],
        subsets=[[]] * 7,
    )
    said = report(dataset, tmp_path)[1].text
    assert "in other dataset 2 3 pHash differs in 2 of 64 bits, also in /eval" in said
    assert "same pixels, also in /eval" in said


def test_a_section_for_which_the_memory_does_not_suffice_says_so_and_leaves_the_others(tmp_path: Path) -> None:
    dataset = build(tmp_path / "data", PHOTOS, ["one", "two", "three", "four"])
    with connect(dataset, "1MB", threads=1) as connection:
        write_report(connection, dataset.root, tmp_path / "report.html", "1MB")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Every input, accounted for: run.duckdb_memory=1MB does not suffice" in page.text
    assert f"sigma build {dataset.recipe} run.duckdb_memory=8GB" in page.text
    assert "No job has left a record." in page.text
