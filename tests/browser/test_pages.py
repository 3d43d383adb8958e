from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.dataset import Dataset
from tests.browse_server import served
from tests.building import build, recipe, write_pictures
from tests.evaluation.judge.setting import evaluation, run
from tests.evaluation.judge.setting import recipe as judge_recipe
from tests.evaluation.judge.setting import rows as judged
from tests.viewer.test_evaluation_pages import make as make_evaluation

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (apt install chromium)"),
    pytest.mark.slow,
]

CHARTS = {
    "in words": "path.line",
    "in tokens": "path.line",
    "Height over width": ".mark",
    "aesthetic scores": "rect.column",
}
"""The label of every chart, and what its data is drawn with."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Nine pictures through every job; one is too small, one is a copy. SIGMA_SHOTS_OF names another to look at."""
    if "SIGMA_SHOTS_OF" in os.environ:
        return Dataset(Path(os.environ["SIGMA_SHOTS_OF"]))
    folder = tmp_path_factory.mktemp("browser")
    write_pictures(folder / "photos", [(96, 64)] * 5 + [(64, 96)] * 2 + [(30, 20)])
    shutil.copy(folder / "photos" / "000.jpg", folder / "photos" / "copy.jpg")
    made = recipe(folder / "photos", folder / "photographs", select={"min_short_side_px": 40, "min_aesthetic": 1.5})
    return build(made, without=())[0]


@pytest.fixture(scope="module")
def site(dataset: Dataset) -> Iterator[str]:
    with served(dataset) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        few = ["--renderer-process-limit=1", "--disable-site-isolation-trials"]  # processes: each page would have one
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *few])
        yield started
        started.close()


@pytest.fixture(scope="module", params=["desk", "phone"])
def look(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def window(browser: Any, look: str) -> Iterator[Any]:
    """A page for all tests of a look: each new one would be a process of the browser's."""
    size = {"width": 380, "height": 800} if look == "phone" else {"width": 1200, "height": 900}
    context = browser.new_context(viewport=size)
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    yield opened
    context.close()


@pytest.fixture
def page(window: Any) -> Iterator[Any]:
    """A page that fails its test on any error in the console, and on any request that leaves loopback."""
    errors: list[str] = []
    watchers = {
        "console": lambda message: errors.append(message.text) if message.type == "error" else None,
        "pageerror": lambda error: errors.append(str(error)),
        "request": lambda request: None if request.url.startswith(("http://127.0.0.1:", "file://", "data:")) else
        errors.append(f"asks for {request.url}"),
    }  # fmt: skip
    for event, watcher in watchers.items():
        window.on(event, watcher)
    yield window
    window.goto("about:blank")
    for event, watcher in watchers.items():
        window.remove_listener(event, watcher)
    assert not errors


COLOURS = ("dark", "light")
"""The style sheet alone knows of them: a page that is loaded has either, and is not loaded anew."""


def shoot(page: Any, name: str, whole: bool = False) -> None:
    if folder := os.environ.get("SIGMA_SHOTS"):
        for colours in COLOURS:
            page.emulate_media(color_scheme=colours)
            page.screenshot(path=str(Path(folder) / f"{name}-{colours}.png"), full_page=whole)


def fits(page: Any) -> bool:
    """Nothing makes the page wider than the screen."""
    wide: bool = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    return wide


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = {};
  const painted = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
  };
  const rgba = (colour) => known[colour] ??= painted(colour);
  const over = (top, alpha, below) => below.map((value, place) => top[place] * alpha + value * (1 - alpha));
  const behind = (element) => {
    if (element === null) return [1, 1, 1];
    const [red, green, blue, alpha] = rgba(getComputedStyle(element).backgroundColor);
    return over([red, green, blue], alpha, behind(element.parentElement));
  };
  const luminance = (colour) => colour
    .map((share) => share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4)
    .reduce((sum, share, place) => sum + share * [0.2126, 0.7152, 0.0722][place], 0);
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
    if (!text || element.closest("title, script, style, option, datalist") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), back = behind(element);
    const [red, green, blue, alpha] = rgba(element.closest("svg") ? style.fill : style.color);
    let opacity = alpha;
    for (let at = element; at; at = at.parentElement) opacity *= Number(getComputedStyle(at).opacity);
    const [low, high] = [luminance(over([red, green, blue], opacity, back)), luminance(back)].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), element.className.baseVal ?? element.className, text.slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""
"""Contrast of every text of a page with what lies behind it, the lowest first: (ratio, class, text)."""


def assert_readable(page: Any, texts: int = 20) -> None:
    """Every text has a contrast of 4.5:1, as it is drawn (WCAG 2.2, 1.4.3), and there are more than `texts`."""
    for colours in COLOURS:
        page.emulate_media(color_scheme=colours)
        found = page.evaluate(CONTRASTS)
        assert len(found) > texts and found[0][0] >= 4.5, (colours, found[:3])


def assert_charts(page: Any) -> None:
    for label, data in CHARTS.items():
        chart = page.locator(f'svg[role=img][aria-label*="{label}"]')
        chart.first.wait_for(state="visible")
        assert chart.locator(data).count() > 0, label
    assert page.locator(".limit").count() >= 2  # the line of 300 tokens, and the threshold
    assert page.locator(".bucket-line").count() == 40
    assert page.locator(".buckets li").count() >= 1
    assert page.locator("#jobs tbody tr").count() >= 10


def test_the_report_from_disk(page: Any, look: str, dataset: Dataset, tmp_path: Path) -> None:
    from commands import looking

    page.goto(looking.write_report_page(dataset.root, tmp_path / "report.html").as_uri())
    assert_charts(page)
    assert fits(page)
    assert_readable(page)
    shoot(page, f"report-{look}", whole=True)


@pytest.mark.quick
def test_the_overview_draws_every_chart(page: Any, look: str, site: str) -> None:
    page.goto(site)
    sync_api.expect(page.locator("[data-part]")).to_have_count(0)
    assert_charts(page)
    assert "nothing is lost" in page.inner_text("#inputs")
    assert fits(page)
    assert_readable(page)
    shoot(page, f"overview-{look}", whole=True)
    shoot(page, f"overview-top-{look}")


def test_search_finds_and_a_click_shows_the_whole_row(page: Any, look: str, site: str) -> None:
    page.goto(site)
    page.keyboard.press("/")
    word = "number 003" if "SIGMA_SHOTS_OF" not in os.environ else "sky"
    page.keyboard.type(word)
    page.keyboard.press("Enter")
    page.wait_for_url("**/images?q=*")
    assert page.locator("article").count() >= 1
    assert word in page.locator("article").first.inner_text().lower()
    assert fits(page)
    assert_readable(page)
    shoot(page, f"images-{look}")
    page.locator("article a.frame").first.click()
    page.wait_for_url("**/images/*")
    assert page.locator("#captions").count() == 1
    assert page.locator(".frame.large img").evaluate("image => image.naturalWidth") > 0
    assert fits(page)
    assert_readable(page)
    shoot(page, f"image-{look}", whole=True)


def test_a_noun_leads_to_its_images(page: Any, look: str, site: str) -> None:
    page.goto(f"{site}/")
    sync_api.expect(page.locator("[data-part]")).to_have_count(0)
    page.goto(f"{site}/nouns")
    shoot(page, f"nouns-{look}")
    page.locator(".noun-table a").first.click()
    page.wait_for_url("**/nouns/*")
    assert page.locator("article").count() >= 1
    assert fits(page)
    assert_readable(page)


def test_a_threshold_moves_the_counts(page: Any, look: str, site: str) -> None:
    page.goto(f"{site}/thresholds")
    kept = page.locator('tr[data-outcome="kept"] .num')
    before = int(kept.inner_text().replace(",", ""))
    assert before > 0
    slider = page.locator("#min_aesthetic")
    slider.focus()
    page.keyboard.press("End")  # as a keyboard moves it: nothing scores 10
    sync_api.expect(kept).to_have_text("0")
    assert f"{before} would fall" in page.inner_text("#outcome")
    page.keyboard.press("Home")
    sync_api.expect(page.locator("output[for=min_aesthetic]")).to_have_text("none")
    sync_api.expect(kept).not_to_have_text("0")
    for _ in range(70):
        page.keyboard.press("ArrowRight")
    sync_api.expect(page.locator("output[for=min_aesthetic]")).to_have_text("4.5")
    page.wait_for_url("**min_aesthetic=4.5")
    sync_api.expect(page.locator("#outcome.busy")).to_have_count(0)
    assert fits(page)
    assert_readable(page)
    shoot(page, f"thresholds-{look}")


def test_people_judge_by_keys_and_download_their_answers(page: Any, look: str, tmp_path: Path) -> None:
    words = judge_recipe(tmp_path, dict.fromkeys("ab", evaluation(tmp_path / "e", {"a": [90, 200], "b": [10, 60]})))
    run([*words, "--page", str(tmp_path / "page.html")])
    page.goto(f"file://{tmp_path}/page.html")
    page.fill("#person", "Ann B.")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#place")).to_have_text("1 of 4")
    assert page.locator("#first").evaluate("image => image.naturalWidth") == 24
    assert "a field" in page.inner_text("#prompt")
    assert fits(page)
    assert_readable(page, texts=0)
    shoot(page, f"judge-{look}")
    for key in ("2", "Backspace", "1", "0"):
        page.keyboard.press(key)
    assert page.locator("#prompt").is_visible()
    page.click("[data-verdict=second]")
    page.reload()  # what was answered is still there
    page.fill("#person", "Ann B.")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#place")).to_have_text("4 of 4")
    page.keyboard.press("1")
    sync_api.expect(page.locator("#end")).to_be_visible()
    with page.expect_download() as waited:
        page.click("#download")
    waited.value.save_as(tmp_path / "answers.jsonl")
    shown = run([*words, "--answers", str(tmp_path / "answers.jsonl")])
    assert "4 answers, 0 known before, 0 refused" in shown
    found = judged(tmp_path, "verdicts")
    assert sorted(row["verdict"] for row in found) == ["first", "first", "second", "tie"]
    assert {row["judge"] for row in found} == {"Ann B."} and all(row["seconds"] >= 0 for row in found)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """An evaluation by hand, of a series and two other models; one of them without CLIP."""
    return make_evaluation(tmp_path_factory.mktemp("browser") / "evaluated")


@pytest.fixture(scope="module")
def evaluated_site(evaluated: Dataset) -> Iterator[str]:
    with served(evaluated) as address:
        yield address


def test_the_report_of_an_evaluation_from_disk(page: Any, look: str, evaluated: Dataset, tmp_path: Path) -> None:
    from commands import looking

    page.goto(looking.write_report_page(evaluated.root, tmp_path / "report.html").as_uri())
    assert page.locator('svg[role=img][aria-label="FID over steps of ours"] .point').count() == 3
    last = page.locator("#side img").last
    last.scroll_into_view_if_needed()
    assert last.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert fits(page)
    assert_readable(page)
    shoot(page, f"evaluation-report-{look}", whole=True)


@pytest.mark.quick
def test_two_models_are_compared_by_arrows_search_and_choice(page: Any, look: str, evaluated_site: str) -> None:
    page.goto(evaluated_site)
    assert page.locator(".results tbody tr").count() >= 3
    assert fits(page)
    assert_readable(page)
    shoot(page, f"evaluation-{look}", whole=True)
    page.goto(f"{evaluated_site}/side")
    sync_api.expect(page.locator(".found")).to_have_text("1 of 13")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**row=1")
    sync_api.expect(page.locator(".found")).to_have_text("2 of 13")
    page.select_option("#right", "far<b>")
    page.wait_for_url("**right=far*")
    sync_api.expect(page.locator(".found")).to_have_text("2 of 13")
    pictures = page.locator(".side img")
    assert pictures.count() == 4
    assert pictures.first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 12
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**row=0")
    sync_api.expect(page.locator(".found")).to_have_text("1 of 13")
    page.fill("#q", "number 1")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=number*")
    sync_api.expect(page.locator(".found")).to_have_text("1 of 2")
    assert "a plain prompt, number 10" in page.inner_text(".asked")
    assert fits(page)
    assert_readable(page)
    shoot(page, f"evaluation-side-{look}")


def test_samples_lead_to_the_same_prompt_side_by_side(page: Any, look: str, evaluated_site: str) -> None:
    page.goto(f"{evaluated_site}/samples")
    assert page.locator("article img").first.evaluate("image => image.decode().then(() => image.width)") > 0
    assert fits(page)
    assert_readable(page)
    shoot(page, f"evaluation-samples-{look}", whole=True)
    page.select_option("#model", "theirs")
    page.wait_for_url("**model=theirs*")
    page.locator("text=all of them").first.click()
    page.wait_for_url("**order=draw*")
    page.select_option("#order", "missing")
    page.wait_for_url("**order=missing*")
    sync_api.expect(page.locator(".found")).to_contain_text("2 pictures")
    page.locator("a:has-text('All categories')").click()
    page.wait_for_url("**/samples?model=theirs")
    page.locator("article a.frame").first.click()
    page.wait_for_url("**/side?left=theirs*")
    assert page.locator(".side img").count() == 4


def test_everything_works_without_a_script(browser: Any, site: str, evaluated_site: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/images")
    page.fill("#q", "picture" if "SIGMA_SHOTS_OF" not in os.environ else "sky")
    with page.expect_navigation():
        page.click("form.filter button")
    assert page.locator("article").count() >= 1
    page.goto(f"{site}/overview/captions")
    assert page.locator("svg[role=img]").count() == 2
    page.goto(f"{evaluated_site}/side")
    page.select_option("#left", "ours@2")
    page.click("form.choose button")
    assert page.inner_text(".who >> nth=0") == "ours@2"
    page.click("a[rel=next]")
    assert page.inner_text(".found") == "2 of 13"
    context.close()
