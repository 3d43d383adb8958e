"""The command as its user meets it: what it prints, what it exits with, and how it refuses."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from curation.sources.demo_photos import write_demo_photos
from tests.processes import ROOT, Python, run_python
from tests.trees import content, sigma, sigma_here

pytestmark = pytest.mark.slow

RECIPE = ROOT / "recipes" / "demo.yaml"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_demo_photos(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "dataset"
    done = build(photos, out)
    assert done.returncode == 0, done.stderr
    return out


def build(photos: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return sigma(*build_it(photos, out, *more))


def build_it(photos: Path, out: Path, *more: str) -> list[str | Path]:
    return ["build", RECIPE, f"images={photos}", f"out={out}", "run.runner=local", *more]


def refused(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    """One line on stderr that says these things, no traceback, exit status not 0."""
    assert done.returncode == 1, done.stdout
    said = " ".join(done.stderr.split())
    assert said.startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr
    for text in texts:
        assert text in said, said


@pytest.mark.quick
def test_the_ledger_adds_up_to_the_files_given(photos: Path, dataset: Path) -> None:
    given = sum(1 for path in photos.rglob("*") if path.suffix in {".png", ".jpg", ".gif", ".jpeg", ".webp"})
    with duckdb.connect(str(dataset / "catalog.duckdb"), read_only=True) as connection:
        rows = connection.execute("select outcome, reason, count(*) from ledger group by all").fetchall()
    assert sum(count for *_, count in rows) == given
    reasons = {reason for _, reason, _ in rows}
    assert reasons >= {None, "duplicate", "too_small", "empty", "not_an_image", "truncated"}
    printed = sigma("sql", dataset, "select outcome, reason, count(*) as n from ledger group by all")
    assert printed.returncode == 0
    assert "not_an_image" in printed.stdout


def test_both_duplicates_fall_and_name_their_survivor(dataset: Path) -> None:
    with duckdb.connect(str(dataset / "catalog.duckdb"), read_only=True) as connection:
        rows = connection.execute(
            "select method, selection.duplicate_of = kept.image_id, kept.outcome from selection "
            "join duplicates using (row_id) join ledger as kept on kept.row_id = duplicate_of_row "
            "where rejected_by = 'duplicate' order by method"
        ).fetchall()
    assert rows == [("bytes", True, "kept"), ("phash", True, "kept")]


def test_a_finished_dataset_is_left_alone_and_starts_no_worker(photos: Path, dataset: Path) -> None:
    """The Ray runner with an address where nobody answers: a run that needed a worker would fail."""
    before, runs = content(dataset), sorted((dataset / "runs").iterdir())
    nobody = {"RAY_ADDRESS": "127.0.0.1:1"}
    again = sigma("build", RECIPE, f"images={photos}", f"out={dataset}", env=nobody)
    assert again.returncode == 0, again.stderr
    assert "finished already, nothing to do" in again.stdout
    assert content(dataset) == before
    assert sorted((dataset / "runs").iterdir()) == runs
    needed = sigma("build", RECIPE, f"images={photos}", f"out={dataset}", "--redo", "ingest", env=nobody)
    refused(needed, "RAY_ADDRESS=127.0.0.1:1", "no Ray cluster answers there")
    assert build(photos, dataset).returncode == 0
    assert content(dataset) == before


def test_two_folders_hold_the_same_tars(photos: Path, dataset: Path, tmp_path: Path) -> None:
    assert build(photos, tmp_path / "other").returncode == 0
    assert content(tmp_path / "other") == content(dataset)


def test_status_shows_every_job_and_the_ledger(dataset: Path) -> None:
    shown = sigma("status", dataset).stdout
    for job in (
        "ingest",
        "fingerprint",
        "aesthetic",
        "dedup",
        "clean",
        "select",
        "caption",
        "mix",
        "nouns",
        "statistics",
        "shard",
    ):
        assert job in shown
    assert "22" in shown.split("inputs")[-1]


def test_stats_show_table_1_beside_the_papers(dataset: Path) -> None:
    shown = sigma("stats", dataset).stdout
    assert "synthetic" in shown
    assert "paper: Internal" in shown
    assert "294K" in shown
    assert "said the coin" in shown
    assert "cut to 300 tokens (words)" in shown


def test_stats_in_other_forms_and_side_by_side(dataset: Path) -> None:
    rows = json.loads(sigma("stats", dataset, "--format", "json").stdout)["rows"]
    assert [row["captions"] for row in rows[:3]] == ["raw", "synthetic", "mix"]
    assert all(row["tokenizer"] == "words" and row["ACL tokens"] > row["ACL words"] > 1 for row in rows[:3])
    assert sum(row["data set"].startswith("paper: ") for row in rows) == 6
    shown = " ".join(sigma("stats", dataset, "--compare", "synthetic", "raw").stdout.split())
    assert "Captions of synthetic and raw" in shown and "nouns per caption" in shown and "Not scored" in shown
    refused(sigma("stats", dataset, "--compare", "raw", "vlm"), "no captions of 'vlm' in this dataset; there are raw,")
    nouns = json.loads(sigma("stats", dataset, "--nouns", "--source", "synthetic", "--format", "json").stdout)
    assert nouns["rows"][0]["share of captions"] <= 1 and "Zipf slope" in nouns["notes"][0]
    unchanged = sigma("stats", dataset, "--against", dataset).stdout
    assert "0 nouns gained, 0 lost" in unchanged
    refused(sigma("stats", dataset, "--growth", "--pairs"), "one question at a time")
    refused(sigma("stats", dataset, "--format", "yaml"), "--format yaml: there are text, json, csv, markdown, latex")


def test_a_single_job_stops_there(photos: Path, tmp_path: Path) -> None:
    done = sigma("fingerprint", RECIPE, f"images={photos}", f"out={tmp_path / 'd'}", "run.runner=local")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "d" / "tables").iterdir() if path.name[0] != ".") == [
        "fingerprints",
        "images",
        "listing",
        "proxies",
    ]
    assert "pending" in sigma("status", tmp_path / "d").stdout


def test_every_run_leaves_a_record(dataset: Path) -> None:
    runs = [json.loads(path.read_text()) for path in (dataset / "runs").iterdir()]
    ingest = next(run for run in runs if run["job"] == "ingest")
    assert ingest["rows"] == 22
    assert ingest["rows_by_reason"]["truncated"] == 1
    assert ingest["seconds"] > 0
    assert ingest["versions"]["pillow"]


def test_features_are_encoded_once_and_training_says_that_it_uses_them(dataset: Path, tmp_path: Path) -> None:
    knobs = (f"dataset={dataset}", f"out={tmp_path}/model", "features.runner=local", f"features.folder={tmp_path}/f")
    recipe = ROOT / "recipes" / "train_demo.yaml"
    first, second = (sigma("encode", recipe, *knobs, "--stage", "vae_adaptation") for _ in range(2))
    for done, share in ((first, "5 of 5 shards encoded now"), (second, "0 of 5 shards encoded now")):
        assert done.returncode == 0, done.stderr
        assert "text-hashed" in done.stdout and "latents-dct-32px-square" in done.stdout
        assert done.stdout.count(share) == 2 and "bytes each" in done.stdout
    short = ("stages.0.steps=20", "--stage", "vae_adaptation")
    told = " ".join(sigma("train", recipe, *knobs, *short).stdout.split())
    assert "latents from" in told and "text from" in told
    refused(
        sigma("train", recipe, *knobs, *short, f"out={tmp_path}/other", "text.max_tokens=9"),
        "text.max_tokens = 16, the recipe now has 9",
        "sigma encode RECIPE --redo",
    )


def test_help_teaches(dataset: Path) -> None:
    shown = sigma("--help").stdout
    assert "sigma build folder" in shown
    assert "Show parts done per job, and the ledger." in shown


def build_here(photos: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return sigma_here(*build_it(photos, out, *more))


class TestRefusals:
    def test_unknown_key_names_the_nearest(self, photos: Path, tmp_path: Path) -> None:
        refused(build_here(photos, tmp_path / "d", "select.min_astetic=5"), "select.min_astetic", "min_aesthetic")
        assert not (tmp_path / "d").exists()

    def test_impossible_value(self, photos: Path, tmp_path: Path) -> None:
        refused(
            build_here(photos, tmp_path / "d", "mix.synthetic_share=60"),
            "mix.synthetic_share",
            "less than or equal to 1",
        )

    def test_bad_subset(self, photos: Path, tmp_path: Path) -> None:
        refused(build_here(photos, tmp_path / "d", "select.subsets={big: widht > 3}"), "select.subsets.big", "width")

    def test_missing_recipe(self, tmp_path: Path) -> None:
        refused(sigma_here("build", tmp_path / "none.yaml"), "no such recipe file")

    def test_missing_folder(self, tmp_path: Path) -> None:
        refused(build_here(tmp_path / "none", tmp_path / "d"), str(tmp_path / "none"))
        assert not (tmp_path / "d").exists()

    def test_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        refused(build_here(tmp_path / "photos", tmp_path / "d"), str(tmp_path / "photos"), "no image")
        assert not (tmp_path / "d").exists()

    def test_out_is_a_file(self, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "d").write_text("mine")
        refused(build_here(photos, tmp_path / "d"), "is a file")

    def test_out_under_a_file(self, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "d").write_text("mine")
        refused(build_here(photos, tmp_path / "d" / "e"), "a file is in the place of a folder")

    def test_out_holds_other_things(self, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "thesis.tex").write_text("mine")
        refused(build_here(photos, tmp_path / "d"), "holds other files")
        assert [path.name for path in (tmp_path / "d").iterdir()] == ["thesis.tex"]

    def test_another_recipe(self, photos: Path, dataset: Path) -> None:
        before = content(dataset)
        refused(
            build_here(photos, dataset, "mix.synthetic_share=0.5"),
            "mix.synthetic_share was 0.6 and is now 0.5",
            "--redo mix",
        )
        refused(build_here(photos, dataset, "part_rows=7"), "part_rows=12")
        refused(build_here(photos.parent, dataset), "was made from", "name another out")
        assert content(dataset) == before

    def test_unknown_job_to_redo(self, photos: Path, dataset: Path) -> None:
        refused(build_here(photos, dataset, "--redo", "sharding"), "--redo sharding", "no such job")

    def test_two_processes_at_once(self, photos: Path, dataset: Path) -> None:
        holder = Python(
            "-c",
            "import sys, time; from pathlib import Path; from engine.dataset import Dataset\n"
            f"with Dataset(Path({str(dataset)!r})).lock():\n print('held', flush=True); time.sleep(60)",
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            refused(build(photos, dataset), f"process {holder.pid}", "is writing this dataset")
        finally:
            holder.kill()
            holder.wait()
        assert build(photos, dataset).returncode == 0

    def test_no_space_left(self, photos: Path, tmp_path: Path) -> None:
        """A file-size limit makes the kernel refuse a write in the middle of a part, as a full disk does."""
        code = (
            "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); import sigma; sigma.main()"
        )
        arguments = ["build", str(RECIPE), f"images={photos}", f"out={tmp_path / 'd'}", "run.runner=local"]
        full = run_python("-c", code, *arguments)
        refused(full, "ingest stopped at part 0", "File too large")
        assert not list((tmp_path / "d").rglob(".tmp-*"))
        assert build(photos, tmp_path / "d").returncode == 0, "with room again it goes on"

    def test_nothing_left_to_pack(self, photos: Path, tmp_path: Path) -> None:
        refused(
            build(photos, tmp_path / "d", "select.min_short_side_px=9000"), "no image is left to pack", "--redo select"
        )

    def test_sql_reads_and_nothing_else(self, dataset: Path, tmp_path: Path) -> None:
        before = content(dataset)
        for query in (
            f"copy (select 1) to '{tmp_path / 'x.csv'}'",
            f"attach '{tmp_path / 'x.db'}'",
            "create table t (i int)",
            "set enable_external_access = true",
        ):
            refused(sigma_here("sql", dataset, query), "read-only")
        refused(sigma_here("sql", dataset, "select * from read_csv('/etc/passwd')"), "Permission Error")
        refused(sigma_here("sql", dataset, "select 1; select 2"), "one statement at a time")
        refused(sigma_here("sql", dataset, "selec 1"), "syntax error")
        assert content(dataset) == before

    def test_no_dataset(self, tmp_path: Path) -> None:
        for command in ("status", "stats", "report", "doctor"):
            refused(sigma_here(command, tmp_path), "no dataset here", "sigma build")

    def test_debug_shows_the_traceback(self, tmp_path: Path) -> None:
        done = sigma("--debug", "build", tmp_path / "none.yaml")
        assert done.returncode != 0
        assert "Traceback" in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_of_which_the_disk_takes_a_part_is_an_error(unbuffered: str, tmp_path: Path) -> None:
    with (tmp_path / "recipe.yaml").open("wb") as file:
        done = subprocess.run(
            [sys.executable, ROOT / "sigma.py", "recipe"],
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        )
    assert (done.returncode, done.stderr) == (1, "error: [Errno 27] File too large\n")
