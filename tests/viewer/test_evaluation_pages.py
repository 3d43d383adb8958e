"""The pages of an evaluation, live and as a report: what each section says, and what no page gives away."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from starlette.testclient import TestClient

from commands.looking import write_report_page
from engine.dataset import Dataset
from engine.one_state import Replaced
from schemas.files import place_of
from schemas.ids import unit_interval
from schemas.tables import schema_of
from tests.building import put
from tests.memory_store import URL, Memory
from tests.viewer.test_report import NASTY, Page
from viewer import evaluated, evaluation_pages
from viewer.curves import curve_charts
from viewer.evaluated import Evaluation
from viewer.server import make_app

PROMPTS = [*NASTY, *(f"a plain prompt, number {number}" for number in range(4, 12)), None]
"""The last one is refused."""
CATEGORIES = ["animals", "</h3><b>land"]


def write(dataset: Dataset, table: str, rows: Sequence[dict[str, Any]], per_part: int = 5) -> None:
    """Commit a table by hand, cut as the prompts are; what is not given is null."""
    schema = schema_of(table)
    for number, start in enumerate(range(0, len(PROMPTS), per_part)):
        part = [row for row in rows if start <= row.get("row_id", 0) < start + per_part]
        full = [{name: row.get(name) for name in schema.names} for row in part]
        put(dataset, table, number, pa.Table.from_pylist(full, schema=schema))
        if "row_id" not in schema.names:
            return


def result(model: str, metric: str, value: float | None, step: int | None = None, **other: Any) -> dict[str, Any]:
    drawn = json.dumps({"resolution": 512, "steps": 20, "text": {"channels": 8}})
    row: dict[str, Any] = {"model": model, "step": step, "metric": metric, "value": value, "drawn": drawn, "flags": []}
    row |= {"network": "net@12", "protocol": "clean", "reference": "photos", "reference_digest": "abc"}
    row |= {"num_generated": 12, "num_reference": 12}
    return dict.fromkeys(schema_of("results").names) | row | other


RESULTS = [
    *(result(f"ours@{step}", "fid", 40 - step, step, low=39 - step, high=41 - step) for step in (2, 4, 10)),
    result("theirs", "fid", 31.0),
    result("far<b>", "fid", 9000.0),
    result("ours@10", "kid of 12", None, 10, reason="a reason <i>why</i>"),
    result("ours@2", "recall", 0.5, 2),
    result("ours@4", "recall", 0.6, 4, num_generated=11),
    result("ours@10", "fid", 33.0, 10, category=CATEGORIES[1]),
]


def make(root: Path, with_clip: bool = True) -> Dataset:
    """Thirteen prompts in three parts; three checkpoints of `ours`, `theirs` and `far` with two pictures a prompt, of
    which some are missing. The cosine of a picture is its row_id / 100, and 0.005 more for the second one."""
    dataset = Dataset(root)
    prompts = [
        {"row_id": n, "prompt_id": f"p{n}", "prompt": text, "category": CATEGORIES[n % 2]}
        | ({"reason": "too_long"} if text is None else {})
        for n, text in enumerate(PROMPTS)
    ]
    write(dataset, "prompts", prompts)
    (root / "samples").mkdir(exist_ok=True)
    for place, model in enumerate(("ours@2", "ours@4", "ours@10", "theirs", "far<b>")):
        pictures, fits = [], []
        for prompt in prompts:
            for number in (0, 1):
                known = {name: prompt[name] for name in ("row_id", "prompt_id", "category")} | {"number": number}
                lost = "too_long" if prompt["prompt"] is None else "truncated" if prompt["row_id"] == 7 else None
                if lost:
                    pictures.append(known | {"reason": lost, "detail": "<u>cut</u>"})
                    fits.append(known | {"reason": lost})
                    continue
                file = io.BytesIO()
                Image.new("RGB", (12, 8), (20 * prompt["row_id"], 50 * place, 90 * number)).save(file, "PNG")
                path = root / "samples" / f"{place}-{prompt['row_id']}-{number}.png"
                path.write_bytes(file.getvalue())
                shown = {"file": f"samples/{path.name}", "width": 12, "height": 8, "format": "PNG"}
                pictures.append(known | shown | {"image_id": path.name})
                fits.append(known | {"cosine": prompt["row_id"] / 100 + number / 200})
        write(dataset, f"pictures/{model}", pictures)
        if with_clip and model != "theirs":
            write(dataset, f"agreement/{model}/clip-clip", fits)
    write(dataset, "answers/theirs/geneval-swin", [{"row_id": 4, "prompt_id": "p4", "number": 1, "share": 0.0,
                                                    "missing": "expected <i>cat</i>>=2, found 0"}])  # fmt: skip
    write(dataset, "results", RESULTS)
    return dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make(tmp_path_factory.mktemp("evaluations") / "<b>out")


@pytest.fixture(scope="module")
def client(dataset: Dataset) -> Iterator[TestClient]:
    with TestClient(make_app(dataset), base_url="http://localhost") as found:
        yield found


def text(page: str) -> str:
    return " ".join(Page(page).text.split())


def test_results_stand_in_blocks_and_published_ones_are_marked(client: TestClient) -> None:
    page = client.get("/")
    said = text(page.text)
    assert "prompts 13 models 5 categories 2 prompts refused 1" in said
    assert "model FID recall pictures" in said and "ours@4 36.00 ±1.00" in said
    assert "ours@10: kid of 12: a reason <i>why</i>" in said.replace("KID", "kid")
    assert "By category (1 table)" in said
    assert "PixArt-Σ published 8.23 0.2797" in said and "never published" in said
    assert "ours@10 : resolution 512, steps 20" in said


def test_checkpoints_that_compare_are_one_curve_and_others_are_named(client: TestClient) -> None:
    [chart], apart = curve_charts(RESULTS)
    assert (chart.metric, chart.is_lower_better, [curve.name for curve in chart.curves]) == ("FID", True, ["ours"])
    points = chart.curves[0].points
    assert points[0].label == "ours@2: 38 (37 to 39)"
    assert points[0].x < points[1].x < points[2].x and points[0].y < points[1].y < points[2].y
    assert all(point.high < point.y < point.low for point in points)
    assert [name for name, _ in chart.levels] == ["theirs"] and chart.beyond == ["far<b> 9000"]
    assert [what.partition(" (")[0] for what in apart] == [
        "ours@2, recall of 12 pictures", "ours@4, recall of 11 pictures",
    ]  # fmt: skip
    page = client.get("/").text
    assert page.count('<path class="line c0" d="M') == 2 and page.count('class="whisker"') == 3  # and the legend's
    assert "Beyond the chart: far<b> 9000" in text(page)


@pytest.mark.parametrize("values", [[1.0, 1.0], [0.0, 0.0], [-0.3, -0.34], [1e-9, 3e6], [float("nan"), 1.0]])
def test_a_curve_of_any_values_has_an_axis(values: list[float]) -> None:
    charts, _ = curve_charts([result(f"m@{step}", "fid", value, step) for step, value in enumerate(values)])
    for chart in charts:
        assert all(0 <= point.y <= 300 for curve in chart.curves for point in curve.points)
        assert len(chart.y_ticks) <= 8


def shown(page: str) -> list[tuple[str, int, int]]:
    """The pictures of a page in order."""
    found = re.findall(r'src="/(?:thumb|picture)/([^/"]+)/(\d+)/(\d+)"', page)
    return [(model, int(row_id), int(number)) for model, row_id, number in found]


def test_samples_are_the_best_and_the_worst_of_each_category(client: TestClient) -> None:
    page = client.get("/samples")
    assert re.search(r"<option selected>ours@10</option>", page.text)  # of a series the last checkpoint
    found = shown(page.text)
    land = [(11, 1), (9, 1), (5, 1), (3, 1), (1, 0)]  # one picture of each prompt; of the last four one is left
    assert found[:5] == [("ours%4010", row, number) for row, number in land]
    assert found[5:7] == [("ours%4010", 10, 1), ("ours%4010", 8, 1)]
    said = text(page.text)
    assert "CLIP 0.115 · 12 × 8 · number 1" in said
    assert "2 pictures missing · all of them no picture: truncated ( <u>cut</u> )" in said
    assert "no picture: too long ( <u>cut</u> ) · p12" in said


def test_without_clip_samples_are_a_draw_by_the_ids_alone(client: TestClient, dataset: Dataset) -> None:
    found = shown(client.get("/samples?model=theirs").text)
    drawn = sorted(range(13), key=lambda row: unit_interval(f"p{row}", "shown"))
    odd = [("theirs", row, 0) for row in drawn if row % 2 and row != 7]
    assert found[: len(odd)] == odd
    assert "Best" not in text(client.get("/samples?model=theirs").text).replace("Best and worst", "")


def test_all_pictures_of_a_category_are_shown_page_by_page(client: TestClient, monkeypatch: Any) -> None:
    monkeypatch.setattr(evaluation_pages, "PAGE", 4)
    address, found = "/samples?model=ours%4010&category=animals&order=worst", list[tuple[str, int, int]]()
    while address:
        page = client.get(address).text
        assert "12 pictures, " in text(page)
        found += shown(page)
        links = re.findall(r'rel="next" href="([^"]+)"', page)
        address = links[0].replace("&amp;", "&") if links else ""
    assert found == [("ours%4010", row, number) for row in range(0, 12, 2) for number in (0, 1)]
    said = text(client.get("/samples?model=theirs&category=animals&order=missing").text)
    assert "2 pictures, 1 to 2." in said and said.count("no picture: too long") == 2


def test_two_models_stand_side_by_side_on_the_same_prompt(client: TestClient) -> None:
    page = client.get("/side?row=4")
    assert shown(page.text) == [("ours%4010", 4, 0), ("theirs", 4, 0), ("ours%4010", 4, 1), ("theirs", 4, 1)]
    said = text(page.text)
    assert "5 of 13" in said and "a plain prompt, number 4" in said and "CLIP 0.040" in said
    assert said.count("geneval") == 1 and "geneval 0 %, not shown: expected <i>cat</i>>=2, found 0" in said
    before, after = re.findall(r'rel="(?:prev|next)" href="([^"]+)"', page.text)
    assert "row=3" in before and "row=5" in after
    assert shown(client.get(after.replace("&amp;", "&")).text)[0] == ("ours%4010", 5, 0)
    lost = client.get("/side?row=7")
    assert shown(lost.text) == [] and text(lost.text).count("no picture: truncated") == 4


def test_prompts_are_searched_and_ordered_by_which_model_fits_better(client: TestClient) -> None:
    assert "1 of 2" in text(client.get("/side?q=NUMBER 1").text)  # 10 and 11
    assert "No prompt fits." in text(client.get("/side?q=nowhere").text)
    assert "1 of 11" in text(client.get("/side?left=ours@2&right=ours@4&order=left").text)
    assert "were not both measured" in text(client.get("/side?left=ours@2&right=theirs&order=right").text)


@pytest.mark.parametrize(
    "address", ["/", "/samples", "/samples?model=theirs&category=animals&order=draw", "/side", "/side?row=1",
                "/side?row=2", "/side?row=3", "/side?row=4", "/side?q=%22%3E%3Cscript%3E", "/side?left=%3Cscript%3E"],
)  # fmt: skip
def test_prompts_names_and_details_are_text_never_markup(client: TestClient, address: str) -> None:
    answer = client.get(address)
    page = Page(answer.text)
    assert page.tags.count("script") == 1  # ours
    assert not {"b", "u", "i"} & {*page.tags}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    sources = [value or "" for name, value in page.attributes if name == "src"]
    assert all(re.fullmatch(r"/browse\.js|/(thumb|picture)/[\w%@-]+/\d+/\d+", source) for source in sources)
    assert "<b>out" in page.text and "\x1b" not in answer.text and "\x00" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    if "row=2" in address:
        assert re.search(r'dir="auto">\u202egnitirw', answer.text)


def test_a_picture_is_given_by_its_row_and_no_path_opens_a_file(client: TestClient, dataset: Dataset) -> None:
    whole = client.get("/picture/ours%4010/4/1")
    assert whole.headers["content-type"] == "image/png"
    assert whole.content == (dataset.root / "samples" / "2-4-1.png").read_bytes()
    assert client.get("/thumb/theirs/4/0").headers["content-type"] == "image/jpeg"
    (dataset.root / "tables" / "pictures" / "stray").mkdir(exist_ok=True)
    for address in ("/picture/ours%4010/7/0", "/picture/nobody/4/0", "/picture/ours%4010/99/0", "/thumb/theirs/4/2",
                    f"/picture/theirs/{10**30}/0", "/picture/..%2Fprompts/0/0", "/picture/stray/0/0",
                    "/picture/theirs/../../../etc/passwd", "/thumb/theirs/4/samples"):  # fmt: skip
        assert client.get(address).status_code == 404, address
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    for address in ("/samples?model=../x", "/side?row=-1", f"/side?row={10**20}", "/samples?category=x&order=best",
                    "/side?order=up"):  # fmt: skip
        assert client.get(address).status_code == 400, address


def test_what_is_no_picture_any_more_is_not_given_away(tmp_path: Path) -> None:
    dataset = make(tmp_path / "out")
    with TestClient(make_app(dataset), base_url="http://localhost") as client:
        (tmp_path / "out" / "samples" / "3-4-0.png").write_text("root:x:0:0")
        (tmp_path / "out" / "samples" / "3-5-0.png").unlink()
        Image.new("RGB", (5, 5)).save(tmp_path / "out" / "samples" / "3-6-0.png", "TIFF")
        assert [client.get(f"/picture/theirs/{row}/0").status_code for row in (4, 5, 6)] == [404, 404, 200]
        assert client.get("/picture/theirs/6/0").headers["content-type"] == "image/png"
        assert client.get("/thumb/theirs/4/0").status_code == 404


def test_only_the_parts_of_a_page_are_read(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation, read = Evaluation(dataset), list[str]()
    assert len(evaluation.prompts) == 13
    real = evaluated.rows_at

    def counting(held: Any, table: str, row_ids: Any) -> Any:
        read.append(table)
        return real(held, table, row_ids)

    monkeypatch.setattr(evaluated, "rows_at", counting)
    monkeypatch.setattr(evaluated, "read_parquet", None)  # which reads whole parts
    [card] = evaluation.cards("ours@10", [evaluated.Key(6)])
    assert (card["cosine"], card["prompt"], card["width"]) == (pytest.approx(0.06), "a plain prompt, number 6", 12)
    assert read == ["pictures/ours@10", "agreement/ours@10/clip-clip"]


def test_the_live_pages_follow_an_evaluation_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_pages, "LOOK_EVERY_S", -1)
    dataset = Dataset(tmp_path / "out")
    write(dataset, "prompts", [{"row_id": n, "prompt_id": f"p{n}", "prompt": "x"} for n in range(13)])
    with TestClient(make_app(dataset), base_url="http://localhost") as client:
        assert "Nothing has been measured yet." in text(client.get("/").text)
        assert client.get("/samples").status_code == client.get("/side").status_code == 200
        make(tmp_path / "out")
        assert "ours@4" in text(client.get("/").text)
        assert "theirs" in text(client.get("/side").text)


def test_pages_over_tables_that_are_replaced_show_the_new_ones(tmp_path: Path) -> None:
    dataset = make(tmp_path / "out")
    with TestClient(make_app(dataset), base_url="http://localhost") as client:
        assert shown(client.get("/side?left=ours@2&row=4").text)[0] == ("ours%402", 4, 0)
        write(dataset, "pictures/ours@2", [{"row_id": 4, "prompt_id": "p4", "number": 0, "reason": "truncated"}])
        page = client.get("/side?left=ours@2&row=4")  # the file of the part that the pages know is gone
        assert page.status_code == 200 and "no picture: truncated" in text(page.text)
    evaluation = Evaluation(dataset)
    write(dataset, "pictures/theirs", [])
    with pytest.raises(Replaced, match="the evaluation is being written anew"), evaluated.unchanged(evaluation):
        raise ValueError("a part is gone")
    with pytest.raises(ValueError, match="damaged"), evaluated.unchanged(Evaluation(dataset)):
        raise ValueError("damaged")


def test_an_evaluation_in_a_store_is_shown_as_one_on_a_disk(
    client: TestClient, dataset: Dataset, tmp_path: Path
) -> None:
    files = [path for path in dataset.root.rglob("*") if path.is_file()]
    objects = {f"ds/{path.relative_to(dataset.root).as_posix()}": path.read_bytes() for path in files}
    with Memory(objects).used(tmp_path), TestClient(make_app(Dataset(place_of(URL)))) as other:
        for address in ("/samples", "/side?row=4", "/samples?model=theirs&category=animals&order=missing"):
            one, two = (each.get(address, headers={"host": "localhost"}).text for each in (client, other))
            assert one.replace(html.escape(dataset.root.name), "ds") == two
        assert other.get("/picture/theirs/4/0", headers={"host": "localhost"}).content.startswith(b"\x89PNG")


def test_the_report_holds_every_section_and_its_pictures_in_one_file(dataset: Dataset, tmp_path: Path) -> None:
    report = write_report_page(dataset.root, tmp_path / "report.html").read_text(encoding="utf-8")
    page, said = Page(report), text(report)
    assert not {"script", "b", "u", "i"} & {*page.tags}
    sources = [value or "" for name, value in page.attributes if name == "src"]
    assert len(sources) == 55 and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search(r"https?://", report)
    assert [value for name, value in page.attributes if name == "href"] == [
        "#results", "#curves", "#samples", "#side",
    ]  # fmt: skip
    assert "ours@4 36.00 ±1.00" in said and "</h3><b>land ours@10 Best fit to the prompt" in said
    assert "2 more models or checkpoints are not shown here" in said
    assert "with the first picture of ours@10 and of theirs" in said and said.count("no picture: truncated") >= 4


def test_a_report_of_an_evaluation_that_has_only_begun_says_so(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "out")
    write(dataset, "prompts", [{"row_id": n, "prompt_id": f"p{n}", "prompt": "x"} for n in range(13)])
    said = text(write_report_page(dataset.root).read_text(encoding="utf-8"))
    assert "Nothing has been measured yet." in said and "There are no two models to compare." in said
