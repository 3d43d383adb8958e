from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captioning.captioners.base import Answer, CaptionerUnusable, CaptionFailure, Generated, InBatches, seed_of
from captioning.recaption import Recaptioner, map_jobs
from captioning.watch import FAILURES_IN_A_ROW, WINDOW
from engine.dataset import Dataset
from engine.job import State
from engine.paid import Paid
from schemas import tables
from schemas.recipe import DataRecipe
from tests.bombs import HOSTILE
from tests.building import put, table_of

Part = Callable[..., pa.Table]


class Counting(InBatches):
    """A captioner that tells a picture by its size, counts what it was asked, and fails on some widths."""

    revision: str | None = "r1"
    prompt: str | None = "Describe."
    retries_help = False
    batch_size = 3

    def __init__(self, name: str = "counting", fails: type[Exception] = RuntimeError, empty_width: int = -1) -> None:
        self.name = name
        self.fails = fails
        self.empty_width = empty_width
        self.fail_width = -1
        self.parameters: dict[str, str | int | float | bool | None] = {"max_new_tokens": 9, "decoding": "greedy"}
        self.refuses_width = -1
        self.calls: list[int] = []
        self.seeds: list[int] = []
        self.seen: list[int] = []

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Answer]:
        self.calls.append(len(images))
        self.seeds += seeds
        if any(image.width == self.fail_width for image in images):
            raise self.fails("no memory left")
        self.seen += [image.width for image in images]
        return [
            CaptionFailure("not this one")
            if image.width == self.refuses_width
            else Generated("" if image.width == self.empty_width else f" a picture  {image.width} wide ", num_tokens=4)
            for image in images
        ]


@pytest.fixture
def paid(tmp_path: Path) -> Paid:
    """What was paid for in one part: nothing yet."""
    return Paid.of(Dataset(tmp_path), "captions", 0)


def settled(paid: Paid, captioner: Counting, inputs: dict[str, pa.Table]) -> pa.Table:
    """The captions of a part that was whole once, paid for and settled."""
    table = Recaptioner(lambda: captioner, 1)(inputs, lambda *_: None, paid)["captions"]
    paid.settle()
    return table


@pytest.fixture(scope="module")
def proxies(part: Part, jpeg: Callable[[Image.Image], bytes], image_ids: Callable[[int], list[str]]) -> pa.Table:
    """Eight proxies, 10 to 17 px wide; the last two rows are inputs that gave no picture."""
    jpegs = [jpeg(Image.new("RGB", (10 + number, 8), (40 * number % 255, 90, 30))) for number in range(8)]
    return part("proxies", image_id=[*image_ids(8), None, None], jpeg=[*jpegs, None, None])


@pytest.fixture(scope="module")
def selection(part: Part, proxies: pa.Table) -> pa.Table:
    """Rows 0 to 6 are kept."""
    return part("selection", image_id=proxies["image_id"].to_pylist(), kept=[True] * 7 + [False] * 3)


def run(
    captioner: Counting, inputs: dict[str, pa.Table], threads: int = 2, paid: Paid | None = None
) -> tuple[list[dict[str, object]], list[int]]:
    progress: list[int] = []
    recaption = Recaptioner(lambda: captioner, threads)
    output = recaption(inputs, lambda rows, counts={}: progress.append(rows), paid)["captions"]
    assert output.schema == tables.schema_of("captions")
    return output.to_pylist(), progress


def test_kept_rows_are_captioned_in_batches_and_others_say_why_not(proxies: pa.Table, selection: pa.Table) -> None:
    captioner = Counting()
    rows, progress = run(captioner, {"proxies": proxies, "selection": selection})
    assert [row["row_id"] for row in rows] == list(range(10))
    assert [row["caption"] for row in rows] == [f"a picture {10 + number} wide" for number in range(7)] + [None] * 3
    assert [row["reason"] for row in rows] == [None] * 7 + ["not_selected"] * 3
    assert {row["captioner"] for row in rows} == {"counting"}
    assert {row["prompt"] for row in rows} == {"Describe."}
    assert {row["revision"] for row in rows} == {"r1"}
    assert {row["parameters"] for row in rows} == {'{"decoding": "greedy", "max_new_tokens": 9}'}
    assert [row["num_tokens"] for row in rows] == [4] * 7 + [None] * 3
    assert captioner.calls == [3, 3, 1]
    assert captioner.seeds == [seed_of(f"{number:032x}") for number in range(7)]
    assert sum(progress) == 10


@pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError])
def test_a_picture_that_fails_gets_a_reason_and_spoils_no_other(
    proxies: pa.Table, selection: pa.Table, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    captioner = Counting(fails=error)
    captioner.fail_width = 11
    rows, _ = run(captioner, {"proxies": proxies, "selection": selection})
    assert [row["reason"] for row in rows[:4]] == [None, "captioner_failed", None, None]
    assert rows[1]["caption"] is None and rows[1]["num_tokens"] is None
    assert captioner.calls == [3, 1, 1, 1, 3, 1]
    assert f"image {1:032x}: captioner counting failed: no memory left" in caplog.text


def test_a_picture_that_is_refused_costs_its_batch_mates_nothing(
    proxies: pa.Table, selection: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    captioner = Counting()
    captioner.refuses_width = 11
    rows, _ = run(captioner, {"proxies": proxies, "selection": selection})
    assert [row["reason"] for row in rows[:4]] == [None, "captioner_failed", None, None]
    assert captioner.calls == [3, 3, 1], "nobody is asked twice"
    assert f"image {1:032x}: captioner counting failed: not this one" in caplog.text


def test_a_captioner_that_cannot_work_at_all_stops_the_job(proxies: pa.Table, selection: pa.Table) -> None:
    captioner = Counting(fails=CaptionerUnusable)
    captioner.fail_width = 11
    with pytest.raises(CaptionerUnusable, match="no memory left") as stopped:
        run(captioner, {"proxies": proxies, "selection": selection})
    assert not stopped.value.__notes__, "no picture is to blame"
    assert captioner.calls == [3]


def test_a_captioner_that_fails_on_everything_stops_the_job(
    part: Part, jpeg: Callable[[Image.Image], bytes], image_ids: Callable[[int], list[str]]
) -> None:
    many = FAILURES_IN_A_ROW + 5
    ids = image_ids(many)
    inputs = {
        "proxies": part("proxies", image_id=ids, jpeg=[jpeg(Image.new("RGB", (11, 8)))] * many),
        "selection": part("selection", image_id=ids, kept=[True] * many),
    }
    captioner = Counting()
    captioner.fail_width = 11
    with pytest.raises(CaptionerUnusable, match=r"failed on 64 pictures one after the other, .* no memory left"):
        run(captioner, inputs)


def test_a_defect_of_the_captioner_is_not_taken_for_a_bad_picture(proxies: pa.Table, selection: pa.Table) -> None:
    captioner = Counting(fails=TypeError)
    captioner.fail_width = 11
    with pytest.raises(TypeError, match="no memory left") as raised:
        run(captioner, {"proxies": proxies, "selection": selection})
    assert any(f"{1:032x}" in note for note in raised.value.__notes__)


def test_a_captioner_that_loses_a_caption_stops_the_job(proxies: pa.Table, selection: pa.Table) -> None:
    captioner = Counting()
    captioner.caption = lambda images, seeds: [Generated("one")]  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="1 for 3 pictures"):
        run(captioner, {"proxies": proxies, "selection": selection})


def test_an_empty_caption_is_a_reason(proxies: pa.Table, selection: pa.Table) -> None:
    rows, _ = run(Counting(empty_width=12), {"proxies": proxies, "selection": selection})
    assert [row["reason"] for row in rows[:4]] == [None, None, "empty_caption", None]


def test_a_damaged_proxy_is_a_reason(
    part: Part, proxies: pa.Table, selection: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    jpegs = proxies["jpeg"].to_pylist()
    jpegs[2] = jpegs[2][:60]
    damaged = part("proxies", image_id=proxies["image_id"].to_pylist(), jpeg=jpegs)
    rows, _ = run(Counting(), {"proxies": damaged, "selection": selection})
    assert [row["reason"] for row in rows[:4]] == [None, None, "captioner_failed", None]
    assert f"image {2:032x}: its proxy cannot be decoded" in caplog.text


def test_no_hostile_proxy_reaches_a_captioner(
    part: Part, proxies: pa.Table, selection: pa.Table, ghostscript_log: Path
) -> None:
    """A dataset of somebody else may hold any bytes where proxies should be."""
    for name in HOSTILE.keys() - {"endless.png"}:
        jpegs = [HOSTILE[name], *proxies["jpeg"].to_pylist()[1:]]
        damaged = part("proxies", image_id=proxies["image_id"].to_pylist(), jpeg=jpegs)
        rows, _ = run(Counting(), {"proxies": damaged, "selection": selection})
        assert [row["reason"] for row in rows[:3]] == ["captioner_failed", None, None], name
    assert not ghostscript_log.exists()


def test_captions_of_an_earlier_run_are_taken_over(
    part: Part, proxies: pa.Table, selection: pa.Table, paid: Paid
) -> None:
    first = Counting()
    few = part("selection", image_id=proxies["image_id"].to_pylist(), kept=[True, True, True] + [False] * 7)
    settled(paid, first, {"proxies": proxies, "selection": few})
    second = Counting()
    rows, progress = run(second, {"proxies": proxies, "selection": selection}, paid=paid)
    assert second.seen == [13, 14, 15, 16]
    assert [row["caption"] for row in rows[:7]] == [f"a picture {10 + number} wide" for number in range(7)]
    assert sum(progress) == 10


def test_a_failure_of_an_earlier_run_is_tried_again(proxies: pa.Table, selection: pa.Table, paid: Paid) -> None:
    first = Counting()
    first.fail_width = 11
    inputs = {"proxies": proxies, "selection": selection}
    settled(paid, first, inputs)
    second = Counting()
    rows, _ = run(second, inputs, paid=paid)
    assert second.seen == [11]
    assert rows[1]["caption"] == "a picture 11 wide"


@pytest.mark.parametrize(
    "differs",
    [{"name": "another"}, {"prompt": "Name it."}, {"prompt": None}, {"revision": "r2"}, {"parameters": {}}],
    ids=str,
)
def test_another_captioner_prompt_or_parameter_starts_afresh(
    proxies: pa.Table, selection: pa.Table, paid: Paid, differs: dict[str, object]
) -> None:
    inputs = {"proxies": proxies, "selection": selection}
    settled(paid, Counting(), inputs)
    second = Counting()
    for name, value in differs.items():
        setattr(second, name, value)
    run(second, inputs, paid=paid)
    assert len(second.seen) == 7


def test_rows_that_share_a_picture_share_its_caption(part: Part, proxies: pa.Table) -> None:
    first, second = proxies["jpeg"].to_pylist()[:2]
    twice = part("proxies", image_id=["a", "b", "a"], jpeg=[first, second, first])
    captioner = Counting()
    rows, progress = run(
        captioner, {"proxies": twice, "selection": part("selection", image_id=["a", "b", "a"], kept=[True] * 3)}
    )
    assert captioner.seen == [10, 11]
    assert rows[0]["caption"] == rows[2]["caption"] == "a picture 10 wide"
    assert sum(progress) == 3


def test_the_number_of_threads_changes_nothing(proxies: pa.Table, selection: pa.Table) -> None:
    inputs = {"proxies": proxies, "selection": selection}
    assert run(Counting(), inputs, threads=1)[0] == run(Counting(), inputs, threads=5)[0]


def test_the_stage_runs_on_real_photos_through_a_committed_part(
    part: Part,
    photos: dict[str, Image.Image],
    jpeg: Callable[[Image.Image], bytes],
    tmp_path: object,
) -> None:
    dataset = Dataset(tmp_path)  # type: ignore[arg-type]
    ids = [f"{number:032x}" for number in range(len(photos))]
    inputs = {
        "proxies": part("proxies", image_id=ids, jpeg=[jpeg(photo) for photo in photos.values()]),
        "selection": part("selection", image_id=ids, kept=[True] * len(ids)),
    }
    for table, rows in inputs.items():
        put(dataset, table, 0, rows)
    put(dataset, "listing", 0, table_of("listing", [{"row_id": 0, "source": "s", "source_name": "s", "member": "m"}]))
    (job,) = map_jobs(DataRecipe(images="photos", out="out"))
    assert (job.job, job.outputs, job.inputs, job.pays) == ("caption", ("captions",), ("proxies", "selection"), True)
    worker = pickle.loads(pickle.dumps(job)).build()
    job.prepare(dataset, State.NEW, redo=False)
    (task,) = job.tasks(dataset.held(), [0])
    assert job.run_part(dataset, lambda: worker, task, lambda *_: None)
    captions = pq.read_table(dataset.part("captions", 0)).to_pylist()
    assert [row["captioner"] for row in captions] == ["attributes"] * len(ids)
    assert all("photograph" in row["caption"] for row in captions)


class Sworn(Counting):
    """Refuses to describe some widths at the first asking, and some at every asking."""

    retries_help = True

    def __init__(self, once: set[int], always: set[int], retries_help: bool = True) -> None:
        super().__init__()
        self.once, self.always, self.retries_help = once, always, retries_help
        self.asked: list[tuple[int, ...]] = []

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Answer]:
        first = {seed_of(f"{number:032x}") for number in range(10)}
        self.asked.append(tuple(image.width for image in images))
        self.seeds += seeds
        return [
            Generated("I'm sorry, but I cannot see the image.")
            if image.width in self.always or (image.width in self.once and seed in first)
            else Generated(f"A picture {image.width} wide.")
            for image, seed in zip(images, seeds, strict=True)
        ]


def test_refused_captions_of_a_batch_are_written_once_more_together(proxies: pa.Table, selection: pa.Table) -> None:
    captioner = Sworn(once={10, 12}, always={11, 16})
    rows, progress = run(captioner, {"proxies": proxies, "selection": selection})
    assert captioner.asked == [(10, 11, 12), (10, 11, 12), (13, 14, 15), (16,), (16,)]
    assert captioner.seeds[3:6] == [seed_of(f"{number:032x}", attempt=1) for number in range(3)]
    assert [row["reason"] for row in rows[:7]] == [None, "refusal", None, None, None, None, "refusal"]
    assert [row["caption"] for row in rows[:3]] == ["A picture 10 wide.", None, "A picture 12 wide."]
    assert sum(progress) == 10


def test_a_captioner_without_seeds_writes_no_caption_twice(proxies: pa.Table, selection: pa.Table) -> None:
    captioner = Sworn(once={10}, always=set(), retries_help=False)
    rows, _ = run(captioner, {"proxies": proxies, "selection": selection})
    assert captioner.asked == [(10, 11, 12), (13, 14, 15), (16,)]
    assert rows[0]["reason"] == "refusal"


@pytest.mark.parametrize(
    ("text", "ended", "reason"),
    [
        ("# A dog\n\n* brown\n* small", True, "markup"),
        ("A dog on a lawn, and", False, "cut"),
        ("A dog on a lawn.", False, None),
        ("Describe.", True, "prompt_echo"),
    ],
)
def test_the_gate_judges_the_text_as_it_was_written(
    proxies: pa.Table, selection: pa.Table, text: str, ended: bool, reason: str | None
) -> None:
    captioner = Counting()
    captioner.caption = lambda images, seeds: [Generated(text, ended) for _ in images]  # type: ignore[method-assign]
    rows, _ = run(captioner, {"proxies": proxies, "selection": selection})
    assert {row["reason"] for row in rows[:7]} == {reason}


class StopsAt(Counting):
    """Dies at its n-th batch."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Answer]:
        if len(self.calls) == self.batch:
            raise KeyboardInterrupt
        return super().caption(images, seeds)


def test_an_interrupted_part_goes_on_behind_its_last_batch(proxies: pa.Table, selection: pa.Table, paid: Paid) -> None:
    inputs = {"proxies": proxies, "selection": selection}
    first = StopsAt(batch=2)
    first.refuses_width, first.empty_width = 11, 12
    with pytest.raises(KeyboardInterrupt):
        Recaptioner(lambda: first, 1)(inputs, lambda *_: None, paid)
    second = Counting(empty_width=12)
    table = Recaptioner(lambda: second, 1)(inputs, lambda *_: None, paid)["captions"]
    assert second.seen == [11, 16], "what failed, and what was not come to; an empty answer is an answer"
    assert table.equals(Recaptioner(lambda: Counting(empty_width=12), 1)(inputs, lambda *_: None)["captions"])


def test_what_was_noted_of_another_prompt_is_no_help(proxies: pa.Table, selection: pa.Table, paid: Paid) -> None:
    inputs = {"proxies": proxies, "selection": selection}
    Recaptioner(Counting, 1)(inputs, lambda *_: None, paid)
    other = Counting()
    other.prompt = "Name it."
    table = Recaptioner(lambda: other, 1)(inputs, lambda *_: None, paid)["captions"]
    assert len(other.seen) == 7
    assert set(table["prompt"].to_pylist()) == {"Name it."}


def test_a_worker_counts_its_captions_and_its_seconds(proxies: pa.Table, selection: pa.Table) -> None:
    counts: Counter[str] = Counter()
    Recaptioner(Counting, 1, gpus=2, price_per_gpu_hour=3600)(
        {"proxies": proxies, "selection": selection}, lambda rows, more={}: counts.update(more)
    )
    assert (counts["images"], counts["tokens"]) == (7, 28)
    assert 0 < counts["model_s"] + counts["waiting_s"] < counts["worker_s"]
    assert counts["gpu_s"] == pytest.approx(2 * counts["worker_s"]) == pytest.approx(counts["cost"])


def many_pictures(
    part: Part, jpeg: Callable[[Image.Image], bytes], image_ids: Callable[[int], list[str]], many: int
) -> dict[str, pa.Table]:
    ids = image_ids(many)
    return {
        "proxies": part("proxies", image_id=ids, jpeg=[jpeg(Image.new("RGB", (11, 8)))] * many),
        "selection": part("selection", image_id=ids, kept=[True] * many),
    }


class Thinking(Counting):
    """Reaches its limit of tokens while it thinks, before it has described anything."""

    batch_size = 16

    def caption(self, images: Sequence[Image.Image], seeds: Sequence[int]) -> list[Answer]:
        self.seen += [image.width for image in images]
        return [Generated(f"<think>It is {image.width} wide. A dog.", num_tokens=4) for image in images]


def test_a_captioner_whose_every_answer_is_refused_stops_and_is_not_asked_again(
    part: Part, jpeg: Callable[[Image.Image], bytes], image_ids: Callable[[int], list[str]], paid: Paid
) -> None:
    inputs = many_pictures(part, jpeg, image_ids, 200)
    first, second = Thinking(), Thinking()
    with pytest.raises(
        CaptionerUnusable, match=r"64 of its last 64 pictures \(64 markup\).*<think>It is 11 wide"
    ) as stopped:
        Recaptioner(lambda: first, 1)(inputs, lambda *_: None, paid)
    assert len(first.seen) == WINDOW and "extra_body" in str(stopped.value)
    kept = paid.noted().to_pylist()
    assert {row["refused_caption"] for row in kept} == {"<think>It is 11 wide. A dog."}
    with pytest.raises(CaptionerUnusable, match="64 of its last 64"):
        Recaptioner(lambda: second, 1)(inputs, lambda *_: None, paid)
    assert not second.seen
    table = Recaptioner(lambda: second, 1, max_failed_share=1)(inputs, lambda *_: None, paid)["captions"]
    assert len(second.seen) == 200 - WINDOW
    assert set(table["reason"].to_pylist()) == {"markup"}


def test_a_captioner_that_thinks_before_each_caption_stops_before_much_is_paid_for_it(
    part: Part, jpeg: Callable[[Image.Image], bytes], image_ids: Callable[[int], list[str]], paid: Paid
) -> None:
    inputs = many_pictures(part, jpeg, image_ids, 100)
    captioner = Counting()
    captioner.caption = lambda images, seeds: [  # type: ignore[method-assign]
        Generated("<think>It is grey.</think> A grey square.") for _ in images
    ]
    with pytest.raises(CaptionerUnusable, match=r"64 pictures \(64 thinking\).*<think>It is grey.*extra_body"):
        Recaptioner(lambda: captioner, 1)(inputs, lambda *_: None, paid)
    table = Recaptioner(lambda: captioner, 1, max_failed_share=0.9)(inputs, lambda *_: None, paid)["captions"]
    assert set(table["caption"].to_pylist()) == {"A grey square."}


def test_answers_that_were_refused_are_judged_by_the_rules_of_today(
    part: Part, proxies: pa.Table, selection: pa.Table, paid: Paid
) -> None:
    """Nobody is asked, where asking again would bring the same answer."""
    inputs = {"proxies": proxies, "selection": selection}
    first = Counting()
    first.caption = lambda images, seeds: [  # type: ignore[method-assign]
        Generated("Ein brauner Hund läuft am Strand entlang.", num_tokens=9) for _ in images
    ]
    before = settled(paid, first, inputs)
    assert set(before["reason"].to_pylist()) == {"other_language", "not_selected"}
    second = Counting()
    after = Recaptioner(lambda: second, 1, languages=None)(inputs, lambda *_: None, paid)
    assert not second.seen
    rows = after["captions"].to_pylist()[:7]
    assert {(row["caption"], row["num_tokens"], row["refused_caption"]) for row in rows} == {
        ("Ein brauner Hund läuft am Strand entlang.", 9, None)
    }


def test_a_row_keeps_what_was_cut_off_around_its_caption(proxies: pa.Table, selection: pa.Table, paid: Paid) -> None:
    captioner = Counting()
    captioner.caption = lambda images, seeds: [  # type: ignore[method-assign]
        Generated("Sure! A dog lies on a lawn.\n\nLet me know if you want more.") for _ in images
    ]
    inputs = {"proxies": proxies, "selection": selection}
    before = settled(paid, captioner, inputs)
    row = before.to_pylist()[0]
    assert (row["caption"], row["cut"]) == ("A dog lies on a lawn.", ["Sure!", "Let me know if you want more."])
    again = Recaptioner(Counting, 1)(inputs, lambda *_: None, paid)["captions"]
    assert again.equals(before)
