"""An evaluation from end to end: it draws, measures and counts, goes on after a kill, and refuses what is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from commands.front_door import app
from commands.looking import write_report_page
from curation.build import Observer
from engine.dataset import Dataset
from engine.place import lease
from evaluation.features import Network
from evaluation.folder import Evaluated, evaluate
from evaluation.measuring import measured
from evaluation.picture_files import read_picture
from evaluation.progress import progress_of
from evaluation.prompt_table import update_prompts
from schemas.evaluation import EvaluationRecipe
from schemas.ids import counter
from schemas.training import TrainingRecipe
from tests.building import build, recipe
from tests.dying import Died, dying_at
from tests.memory_store import URL, Memory
from tests.training.conftest import photo
from tests.training.runtimes.conftest import converted_once as converted_once
from training import sample

ROOT = Path(__file__).resolve().parents[2]


def run(values: dict[str, Any], *redo: str, **knobs: Any) -> Evaluated:
    return evaluate(EvaluationRecipe.from_mapping(values), Observer(), frozenset(redo), **knobs)


def content(folder: Path) -> dict[str, str]:
    """The tables and samples of an evaluation by their digests."""
    files = [*(folder / "tables").rglob("*.parquet"), *(folder / "samples").rglob("*")]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()
    }


def rows_of(done: Evaluated, table: str) -> list[dict[str, Any]]:
    return done.dataset.read_table(table).to_pylist()


@pytest.mark.slow
def test_a_recipe_gives_pictures_features_and_results(evaluation: dict[str, Any]) -> None:
    done = run(evaluation)
    pictures = rows_of(done, "pictures/ours")
    assert [row["prompt_id"] for row in pictures] == ["p0", "p1", "p2", "p3", "p4"]
    for row in pictures:
        data = read_picture(done.dataset.root, row)
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size, row["format"]) == ("PNG", (32, 32), "PNG")
        assert row["seed"] == counter(row["prompt_id"], "evaluate/0/0")
    values = {(row["metric"], row["category"]): row for row in done.results}
    assert {("cmmd", None), ("cmmd unbiased", None), ("clip_score", None), ("clip_score", "a")} <= values.keys()
    assert values["cmmd", None]["num_generated"] == 5 and values["cmmd", None]["num_reference"] == 6
    cosines = [row["cosine"] for row in rows_of(done, "agreement/ours/clip-clip")]
    assert values["clip_score", None]["value"] == pytest.approx(np.mean(cosines))
    assert "encodings" not in str(values["cmmd", None]["flags"])
    assert values["cmmd", None]["reference_digest"] and values["cmmd", None]["network"].startswith("clip@")


@pytest.mark.slow
def test_the_tars_are_samples_that_any_reader_knows(evaluation: dict[str, Any]) -> None:
    done = run(evaluation)
    tar = min((done.dataset.root / "samples" / "ours").iterdir())
    with tarfile.open(tar) as opened:
        assert [member.name for member in opened] == [f"p{i}_0.{end}" for i in (0, 1) for end in ("png", "txt", "json")]
        text, told = opened.extractfile("p0_0.txt"), opened.extractfile("p0_0.json")
        assert text is not None and text.read() == b"a red boat"
        assert told is not None and json.load(told)["prompt_id"] == "p0"


@pytest.mark.slow
def test_a_finished_evaluation_has_nothing_to_do(evaluation: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run(evaluation)
    monkeypatch.setattr(sample, "draw", None)
    again = run(evaluation)
    assert not again.has_run and again.results


@pytest.mark.slow
def test_a_finished_evaluation_imports_neither_torch_nor_transformers(
    evaluation: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    dataset = {"pictures": str(trained / "dataset"), "features": str(tmp_path / "features")}
    evaluation |= {"prompts": {"source": str(trained / "dataset")}, "reference": dataset}
    evaluation["metrics"]["allow_contaminated"] = True
    run(evaluation)
    (tmp_path / "recipe.yaml").write_text(json.dumps(evaluation))
    program = (  # a fresh interpreter: one that is forked has imported everything
        "import sys, sigma\n"
        "from pathlib import Path\n"
        "from commands.evaluating import evaluate\n"
        f"evaluate(Path({str(tmp_path / 'recipe.yaml')!r}))\n"
        "print([name for name in ('torch', 'transformers', 'diffusers', 'ray') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert "finished already" in done.stdout and done.stdout.endswith("\n[]\n"), done.stdout[-300:] + done.stderr


@pytest.mark.slow
def test_wherever_it_is_killed_it_gives_the_same_bytes_and_draws_nothing_twice(
    evaluation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[int]()
    real = sample.draw

    def counting(model: Any, recipe: Any, stage: Any, captions: Any, shapes: Any, seeds: Any) -> Any:
        found = real(model, recipe, stage, captions, shapes, seeds)
        drawn.extend(seeds)
        return found

    monkeypatch.setattr(sample, "draw", counting)
    run(evaluation)
    whole = content(tmp_path / "out")
    assert len(drawn) == len(set(drawn)) == 5
    changes, is_through = 0, False
    while not is_through:
        drawn.clear()
        out = tmp_path / f"killed-{changes}"
        with dying_at(changes) as left, contextlib.suppress(Died):
            run(evaluation | {"out": str(out)})
        is_through = left[0] >= 0
        run(evaluation | {"out": str(out)})
        assert content(out) == whole
        assert len(drawn) <= 5 + 2, "the batch that was being drawn is lost, and nothing else"
        changes += 5
    assert changes > 20


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", [11, 24])
def test_in_a_store_it_gives_the_bytes_of_a_folder_wherever_it_is_killed(
    evaluation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    monkeypatch.setattr(lease, "STILL_S", 0.4)
    run(evaluation)
    store = Memory()
    with store.used(tmp_path / "one", dies_at), pytest.raises(Died):
        run(evaluation | {"out": URL})
    with store.used(tmp_path / "another"):
        run(evaluation | {"out": URL})
        here = {key: of for key, of in store.content(("tables", "samples")).items() if ".records" not in key}
        assert "s3://bucket/ds" in CliRunner().invoke(app, ["report", URL]).output
    assert here == content(tmp_path / "out")


@pytest.mark.slow
def test_a_picture_is_a_function_of_its_prompt_seed_and_number(evaluation: dict[str, Any], tmp_path: Path) -> None:
    one = {row["prompt_id"]: row for row in rows_of(run(evaluation), "pictures/ours")}
    lines = (tmp_path / "prompts.jsonl").read_text().splitlines()
    (tmp_path / "prompts.jsonl").write_text("\n".join(reversed(lines)))
    other = run(
        evaluation
        | {"out": str(tmp_path / "other"), "draw": {"batch": 1}, "prompts": evaluation["prompts"] | {"per_part": 5}}
    )
    for row in rows_of(other, "pictures/ours"):
        first = one[row["prompt_id"]]
        assert row["seed"] == first["seed"]
        pixels = [
            np.asarray(Image.open(io.BytesIO(read_picture(root, each)))).astype(int)
            for root, each in ((tmp_path / "out", first), (tmp_path / "other", row))
        ]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1


@pytest.mark.slow
def test_checkpoints_of_a_series_are_rows_of_their_own(evaluation: dict[str, Any]) -> None:
    evaluation["models"]["ours"]["checkpoints"] = "all"
    done = run(evaluation)
    assert {(row["model"], row["step"]) for row in done.results} == {("ours@2", 2), ("ours@4", 4)}
    report = write_report_page(done.dataset.root).read_text()
    assert (
        report.count('aria-label="CLIP-Score over steps of ours"') == 1 and report.count("Best fit to the prompt") == 2
    )
    assert report.count("data:image/jpeg") == 5 + 2 * 5  # of the last checkpoint, and of both side by side
    evaluation["models"]["ours"]["checkpoints"] = [3]
    with pytest.raises(ValueError, match="small has no checkpoint of step 3; it has 2, 4"):
        run(evaluation)


@pytest.mark.slow
def test_a_model_that_draws_what_the_first_one_draws_has_no_change(evaluation: dict[str, Any]) -> None:
    ours = evaluation["models"]["ours"]
    evaluation["models"] |= {"again": ours, "other": ours | {"steps": 5}}
    done = run(evaluation)
    changes = {
        (row["model"], row["metric"]): (row["change"], row["change_low"], row["change_high"])
        for row in done.results
        if row["category"] is None
    }
    assert {changes["ours", metric] for metric in ("clip_score", "cmmd")} == {(None, None, None)}
    assert changes["again", "clip_score"] == (0, 0, 0) and changes["again", "cmmd"] == (0, None, None)
    change, low, high = changes["other", "clip_score"]
    assert low < high and low <= change <= high
    assert "=0.0000 ±0.0000" in write_report_page(done.dataset.root).read_text()


@pytest.mark.slow
def test_an_export_is_as_near_to_the_first_model_as_its_recipe_rounds(
    evaluation: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    from training.runtimes.export import export_model
    from training.stored_run import trained_checkpoints

    ours = evaluation["models"].pop("ours")
    _, kept = trained_checkpoints(TrainingRecipe.load(ours["recipe"]), None)
    for name in ("bf16", "fp32", "int4-g128"):
        export_model(kept[max(kept)], tmp_path / name, "openvino", name)  # type: ignore[arg-type]
        evaluation["models"][name] = ours | {"runtime": str(tmp_path / name), "resolution": 64}
    done = run(evaluation)
    found = {row["model"]: row for row in done.results if row["metric"] == "psnr" and row["category"] is None}
    assert found.keys() == {"fp32", "int4-g128"} and {row["reference"] for row in found.values()} == {"bf16"}
    assert found["int4-g128"]["value"] < found["fp32"]["value"] <= 58.93
    assert all(row["low"] <= row["value"] <= row["high"] for row in found.values())
    assert len(rows_of(done, "nearness/fp32/bf16")) == 5
    assert ">PSNR (dB)<" in write_report_page(done.dataset.root).read_text()


@pytest.mark.slow
def test_prompts_may_be_added_behind_and_other_ones_need_a_word(
    evaluation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rows_of(run(evaluation), "pictures/ours")
    file = tmp_path / "prompts.jsonl"
    file.write_text(file.read_text() + '{"id": "p5", "prompt": "a dog"}\n')
    second = rows_of(run(evaluation), "pictures/ours")
    assert second[:5] == first and second[5]["prompt_id"] == "p5"
    file.write_text(file.read_text().replace("two cats", "three cats"))
    with pytest.raises(
        ValueError, match=r"prompt 3 has another prompt: it was 'two cats' and is 'three cats'; add --redo prompts"
    ):
        run(evaluation)
    assert len(rows_of(run(evaluation, "prompts"), "pictures/ours")) == 6


@pytest.mark.slow
def test_another_way_of_drawing_is_refused_with_what_to_type(evaluation: dict[str, Any]) -> None:
    run(evaluation)
    evaluation["models"]["ours"]["guidance"] = 3.0
    with pytest.raises(ValueError, match=r"models.guidance was 1.5 and is now 3.0; add --redo draw-ours"):
        run(evaluation)
    before = Dataset(Path(evaluation["out"])).held().holding("pictures/ours")
    assert run(evaluation, "draw-ours").dataset.held().holding("pictures/ours") != before
    with pytest.raises(ValueError, match="--redo drew: no such job; there are prompts, draw-ours, features-ours"):
        run(evaluation, "drew")


@pytest.mark.slow
def test_a_quick_evaluation_takes_prompts_by_their_ids_and_says_so(evaluation: dict[str, Any], tmp_path: Path) -> None:
    done = run(evaluation, quick=4)
    assert done.dataset.root == tmp_path / "out" / "quick-4"
    assert {row["quick"] for row in done.results} == {4}
    assert len(rows_of(done, "prompts")) == 4
    assert {row["quick"] for row in run(evaluation).results} == {None}


@pytest.mark.slow
def test_pictures_of_others_are_taken_by_the_ids_of_prompts_and_missing_ones_are_named(
    evaluation: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for number in range(5):
        Image.new("RGB", (20, 20), (10 * number, 50, 90)).save(folder / f"p{number}.jpg")
    evaluation["models"] = {"theirs": {"pictures": str(folder)}}
    done = run(evaluation)
    assert {row["format"] for row in rows_of(done, "pictures/theirs")} == {"JPEG"}
    assert [row["reason"] for row in rows_of(done, "pictures/theirs")] == ["constant"] * 5
    flags = next(row["flags"] for row in done.results if row["metric"] == "cmmd")
    assert flags and flags[0].startswith("encodings: JPEG ") and flags[0].endswith(" against PNG")
    (folder / "p1.jpg").unlink()
    (folder / "p3.jpg").write_bytes((folder / "p2.jpg").read_bytes()[:200])
    refused = run(evaluation)
    reason = next(row["reason"] for row in refused.results if row["metric"] == "cmmd")
    assert reason.startswith("2 of 5 pictures are missing: p1 (not_generated), p3 (truncated)")
    measured = run(evaluation | {"metrics": evaluation["metrics"] | {"allow_missing": True}})
    row = next(row for row in measured.results if row["metric"] == "cmmd" and row["category"] is None)
    assert (row["num_generated"], "missing" in row["flags"]) == (3, True) or row["reason"].endswith("there are 3")


def test_a_reference_that_was_trained_on_is_refused_and_counted(evaluation: dict[str, Any], trained: Path) -> None:
    evaluation["reference"] = {"pictures": str(trained / "dataset"), "features": evaluation["out"] + "-reference"}
    with pytest.raises(ValueError, match=r"contaminated: 7 of its pictures are in .*, which ours was trained on"):
        run(evaluation)
    evaluation["metrics"]["allow_contaminated"] = True
    flags = next(row["flags"] for row in run(evaluation).results if row["metric"] == "cmmd")
    assert "contaminated: 7 pictures of the reference were trained on" in flags


def test_a_reference_that_a_dataset_in_a_store_holds_is_refused_too(
    evaluation: dict[str, Any], trained: Path, tmp_path: Path
) -> None:
    evaluation["reference"] = {"pictures": str(trained / "dataset"), "features": evaluation["out"] + "-reference"}
    evaluation["models"]["ours"]["overrides"] = [f"dataset={URL}"]
    shards = trained / "dataset" / "shards"
    files = {f"ds/shards/{path.relative_to(shards)}": path.read_bytes() for path in shards.rglob("*") if path.is_file()}
    why = rf"contaminated: 7 of its pictures are in {URL}, which ours was trained on"
    with Memory(files).used(tmp_path / "scratch"), pytest.raises(ValueError, match=why):
        run(evaluation)


def test_weights_that_are_missing_are_rows_that_say_how_to_get_them(
    evaluation: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    evaluation["metrics"] = {"protocols": ["clean"], "cmmd": False, "clip_score": False}
    rows = run(evaluation).results
    assert [row["metric"] for row in rows] == ["fid", "kid", "precision", "recall"]
    assert all(row["value"] is None and "sigma weights get fid-inception" in row["reason"] for row in rows)


def test_a_prompt_that_cannot_be_drawn_is_a_row_with_its_reason(evaluation: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        file.read_text() + json.dumps({"id": "long", "prompt": "word " * 301}) + '\n{"id": "x", "prompt": " "}\n'
    )
    done = run(evaluation)
    assert [row["reason"] for row in rows_of(done, "pictures/ours")[5:]] == ["too_long", "blank"]
    reason = next(row["reason"] for row in done.results if row["metric"] == "clip_score")
    assert "long (too_long), x (blank)" in reason


def test_a_folder_of_other_things_is_left_alone(evaluation: dict[str, Any], tmp_path: Path, trained: Path) -> None:
    begun = recipe(tmp_path / "photos", tmp_path / "begun")
    build(begun, upto="ingest")
    (tmp_path / "run" / "01-small").mkdir(parents=True)
    (tmp_path / "run" / ".lock").touch()
    for out in (tmp_path / "photos", trained / "dataset", tmp_path / "begun", tmp_path / "run"):
        with pytest.raises(ValueError, match="holds other files and no evaluation"):
            run(evaluation | {"out": str(out)})


@pytest.mark.parametrize(
    "command",
    ["sql OUT --tables", "stats OUT", "doctor OUT", "purge OUT --why x --url u", "cuts OUT select.min_aesthetic=5",
     "work OUT caption --share 0/1", "evaluate-set OUT --out SET"],
)  # fmt: skip
def test_commands_over_datasets_refuse_an_evaluation_and_name_those_that_show_it(command: str, tmp_path: Path) -> None:
    update_prompts(Dataset(tmp_path / "out"), [{"row_id": 0, "prompt_id": "p"}], 1)
    words = command.replace("OUT", str(tmp_path / "out")).replace("SET", str(tmp_path / "set")).split()
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        f"error: {tmp_path}/out: is an evaluation and no dataset; sigma report and sigma browse show it, sigma status "
        "says how far it is"
    ]


def test_a_folder_that_holds_a_quick_evaluation_alone_names_it(tmp_path: Path) -> None:
    update_prompts(Dataset(tmp_path / "out" / "quick-4"), [{"row_id": 0, "prompt_id": "p"}], 1)
    done = CliRunner().invoke(app, ["report", str(tmp_path / "out")])
    assert done.output == f"error: {tmp_path}/out: no dataset here; name the evaluation {tmp_path}/out/quick-4\n"
    assert CliRunner().invoke(app, ["report", str(tmp_path / "out" / "quick-4")]).exit_code == 0


def test_a_build_leaves_an_evaluation_alone(evaluation: dict[str, Any], tmp_path: Path) -> None:
    update_prompts(Dataset(tmp_path / "out"), [{"row_id": 0, "prompt_id": "p"}], 1)
    with pytest.raises(ValueError, match=r"out: is an evaluation; name another folder for the dataset"):
        build(recipe(tmp_path / "photos", tmp_path / "out"))
    assert not (tmp_path / "out" / "recipe.yaml").exists()


@pytest.mark.slow
def test_ray_writes_what_one_process_writes(evaluation: dict[str, Any], tmp_path: Path, on_ray: None) -> None:
    import ray

    from engine.ray_cluster import connect

    evaluation["draw"]["pictures_per_prompt"] = 2
    run(evaluation)
    connect()
    try:
        run(evaluation | {"out": str(tmp_path / "ray"), "run": {"runner": "ray", "workers": 1}})
    finally:
        ray.shutdown()
    assert content(tmp_path / "ray") == content(tmp_path / "out")


@pytest.mark.slow
def test_moments_give_fid_alone(evaluation: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    evaluation["reference"] = {"moments": str(tmp_path / "m.npz"), "moments_protocol": "pytorch"}
    rows = {row["metric"]: row for row in run(evaluation).results if row["category"] is None}
    assert rows["cmmd"]["reason"] == "the reference is moments of the protocol pytorch"
    assert rows["clip_score"]["value"] is not None


def test_the_folder_of_a_judge_is_left_alone(evaluation: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out" / "tables").mkdir(parents=True)
    (tmp_path / "out" / "recipe.yaml").write_text("aspects: []")
    with pytest.raises(ValueError, match="holds other files and no evaluation"):
        run(evaluation)


def test_how_far_an_evaluation_is_can_be_seen_from_its_folder(evaluation: dict[str, Any]) -> None:
    held = run(evaluation).dataset.held()
    assert [row[1:] for row in progress_of(held)] == [
        ("prompts", 2, 2),
        ("pictures/ours", 2, 2),
        ("features/ours/clip-cmmd", 2, 2),
        ("agreement/ours/clip-clip", 2, 2),
        ("results", 1, 1),
    ]


def test_under_sanas_protocols_drawn_pictures_pass_through_a_jpeg(tmp_path: Path) -> None:
    png = photo(3, 40, 40)
    (tmp_path / "a.png").write_bytes(png)
    row = {"file": "a.png", "offset": None, "size": None, "width": 40, "prompt_id": "a"}

    def flat(some: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([each.ravel() for each in some]).astype(np.float32)

    def shown(protocol: str, drawn: str | None) -> np.ndarray:
        network = Network("n", protocol, np.asarray, flat)
        ((_, features),) = measured(tmp_path, [row | {"drawn": drawn}], network, 1)
        assert isinstance(features, np.ndarray)
        return features

    as_it_is = np.asarray(Image.open(io.BytesIO(png))).ravel()
    assert (shown("clean", "x") == as_it_is).all() and (shown("sana-512", None) == as_it_is).all()
    assert 0 < np.abs(shown("sana-512", "x") - as_it_is).mean() < 8


def test_status_blames_no_recipe_while_nothing_is_measured_yet(tmp_path: Path) -> None:
    update_prompts(Dataset(tmp_path / "out"), [{"row_id": 0, "prompt_id": "p"}], 1)
    done = CliRunner().invoke(app, ["status", str(tmp_path / "out")])
    assert done.exit_code == 0 and "parts done" in done.output and "nothing is measured" not in done.output
