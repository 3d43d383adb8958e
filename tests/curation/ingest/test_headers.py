"""The header job: what ingest will say where a header tells it, a few KiB of each file, and nothing else changed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from curation import build as pipeline
from curation.forecast import survey
from curation.images.header import read_header
from curation.images.lazy_bytes import FIRST_BYTES, LazyBytes
from curation.ingest import headers
from curation.sources.read import open_lazily
from curation.upkeep.find import Wanted, find
from curation.upkeep.purge import purge
from engine.dataset import Dataset
from schemas.recipe import DataRecipe
from schemas.tables import schema_of
from tests.building import Told, build, recipe, rows, steps, write_pictures
from tests.hard_cases import PIXELS, REASONS
from tests.photos import animation, encode, orientation_tag, oriented, photo, png_chunk, write_files
from tests.serving import serving
from tests.trees import content, kill_when, sigma

pytestmark = pytest.mark.slow

COLUMNS = (
    "format",
    "mode",
    "width",
    "height",
    "exif_orientation",
    "frames",
    "icc",
    "colour",
    "num_bytes",
    "reason",
    "detail",
)
NEEDS_DECODING = {"cut.jpg", "cut.png", "hole.png", "never_written.webp"}


def probed(made: DataRecipe, redo: bool = False) -> tuple[Dataset, Told]:
    told = Told()
    pipeline.build(made, [headers.map_job(made)], told, frozenset({headers.JOB} if redo else ()))
    return Dataset(made.out_path()), told


@pytest.mark.parametrize(("seconds", "threads"), [(0.0, 1), (0.002, 3)])
def test_several_threads_read_only_where_reading_waits(
    seconds: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set[int]()

    def header_row(listed: headers.Listed, max_pixels: int) -> headers.Row:
        seen.add(threading.get_ident())
        if seconds:
            time.sleep(seconds)
        return (listed[0], *[None] * (len(schema_of(headers.JOB)) - 1))

    monkeypatch.setattr(headers, "header_row", header_row)
    listed = {"row_id": range(300), "source": ["/photos"] * 300, "member": ["a.jpg"] * 300}
    columns = [pa.array(listed.get(field.name, [None] * 300), field.type) for field in schema_of("listing")]
    rows = pa.Table.from_arrays(columns, schema=schema_of("listing"))
    found = headers.HeaderWorker(1, 2)({"listing": rows}, lambda *_: None)[headers.JOB]
    assert found["row_id"].to_pylist() == [*range(300)]
    assert len(seen) == threads


@pytest.mark.parametrize("offset", [None, 0])
def test_files_of_a_kind_are_read_together_and_members_in_their_order(
    offset: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[int]()

    def header_row(listed: headers.Listed, max_pixels: int) -> headers.Row:
        read.append(listed[0])
        return (listed[0], *[None] * (len(schema_of(headers.JOB)) - 1))

    monkeypatch.setattr(headers, "header_row", header_row)
    members = [
        f"t.parquet#{9 - number}/image" if offset == 0 else f"{number}.{'ab'[number % 2]}" for number in range(8)
    ]
    listed = {"row_id": range(8), "source": ["/photos"] * 8, "member": members, "byte_offset": [offset] * 8}
    columns = [pa.array(listed.get(field.name, [None] * 8), field.type) for field in schema_of("listing")]
    rows = pa.Table.from_arrays(columns, schema=schema_of("listing"))
    found = headers.HeaderWorker(1, 2)({"listing": rows}, lambda *_: None)[headers.JOB]
    assert found["row_id"].to_pylist() == [*range(8)]
    assert read == ([0, 2, 4, 6, 1, 3, 5, 7] if offset is None else [*range(8)])


def test_headers_give_the_reasons_that_ingest_gives(tmp_path: Path) -> None:
    files = {name: data for name, (data, *_) in (PIXELS | REASONS).items()}
    write_files(tmp_path / "photos", files)
    made = recipe(tmp_path / "photos", tmp_path / "ds", ingest={"max_megapixels": 50}, part_rows=20)
    probed(made)
    dataset, _ = build(made, upto="ingest")
    names = {row["row_id"]: row["member"] for row in rows(dataset, "listing")}
    found = {names[row["row_id"]]: row for row in rows(dataset, "headers")}
    wanted = {row["member"]: row for row in rows(dataset, "images")}
    assert len(found) == len(wanted) == len(files)
    for member, row in found.items():
        if member in NEEDS_DECODING:
            assert (row["reason"], row["detail"]) == (None, None) and wanted[member]["reason"] is not None
            row = row | {"reason": wanted[member]["reason"], "detail": wanted[member]["detail"]}
        assert [row[name] for name in COLUMNS] == [wanted[member][name] for name in COLUMNS], member
    assert found["bomb.png"]["reason"] == "too_many_pixels" and found["bomb.png"]["width"] == 30_000
    assert found["not_found.jpg"]["reason"] == "not_an_image" and found["empty.jpg"]["reason"] == "empty"


def test_a_file_that_cannot_be_read_is_a_row(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(20, 10)] * 2)
    made = recipe(tmp_path / "photos", tmp_path / "ds")
    probed(made)
    (tmp_path / "photos" / "001.jpg").unlink()
    dataset, _ = probed(made, redo=True)
    assert [row["reason"] for row in rows(dataset, "headers")] == [None, "unreadable"]
    assert rows(dataset, "headers")[1]["detail"] == "No such file or directory"


def test_the_survey_counts(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(600, 600), (1200, 600), (100, 100), (5000, 600)])
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"")
    made = recipe(tmp_path / "photos", tmp_path / "ds", select={"min_short_side_px": 512})
    dataset, _ = probed(made)
    found = survey.survey(dataset, made.select)
    assert (found.num_inputs, found.num_probed, found.num_pictures) == (5, 5, 4)
    assert [row[:2] for row in found.formats] == [("JPEG", 4)] and found.reasons == [("empty", 1)]
    assert (found.short_side_px[0], found.short_side_px[3], found.short_side_px[-1]) == (100, 600, 600)
    assert found.megapixels[-1] == 3.0
    assert (found.num_large_enough, found.num_in_shape, found.num_passing) == (3, 3, 2)
    assert found.buckets == [("0.5", 1), ("1.0", 1)]
    text = "\n".join(survey.lines(found, made.select))
    assert "5 of 5 inputs" in text and "704 x 1408" in text and "min_short_side_px=512" in text


def late_exif_png() -> bytes:
    data = encode(oriented(photo("chelsea.png"), 6), "PNG")
    exif = orientation_tag(6).tobytes().removeprefix(b"Exif\x00\x00")
    return data[:-12] + png_chunk(b"eXIf", exif) + data[-12:]


BIG = {
    "photo.jpg": encode(photo("coffee.png"), "JPEG", quality=98, exif=orientation_tag(8)) + bytes(3_000_000),
    "late.png": late_exif_png(),
    "photo.png": encode(photo("coffee.png"), "PNG"),
    "exif.webp": encode(photo("coffee.png"), "WEBP", lossless=True, exif=orientation_tag(6)),
    "photo.webp": encode(photo("coffee.png"), "WEBP", quality=95),
    "frames.webp": animation("WEBP", 5, (400, 300)) + bytes(30_000),
    "photo.tif": encode(photo("coffee.png"), "TIFF"),
    "photo.bmp": encode(photo("coffee.png"), "BMP"),
}


@pytest.mark.parametrize("name", BIG)
def test_of_a_big_file_only_the_header_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BIG[name])
    data = open_lazily(str(tmp_path), name)
    assert isinstance(data, LazyBytes)
    assert read_header(data) == read_header(BIG[name])
    few = FIRST_BYTES + {"photo.png": 65_536, "late.png": 65_536, "exif.webp": 1_000}.get(name, 0)
    assert data.num_read <= (len(BIG[name]) if name == "frames.webp" else few)  # its frames have to be found
    data.close()


def test_a_long_header_is_read_on(tmp_path: Path) -> None:
    picture = photo("coffee.png")
    whole = encode(picture, "JPEG", quality=98, icc_profile=bytes(60_000)) + bytes(1_000_000)
    (tmp_path / "a.jpg").write_bytes(whole)
    data = open_lazily(str(tmp_path), "a.jpg")
    assert isinstance(data, LazyBytes)
    assert read_header(data) == read_header(whole) and read_header(whole).icc
    assert data.num_read < 200_000


def test_only_ranges_are_requested_over_http(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(BIG["photo.jpg"])
    with serving(tmp_path) as served:
        data = open_lazily(f"{served.url}/files", "a.jpg", None, len(BIG["photo.jpg"]))
        assert isinstance(data, LazyBytes)
        assert read_header(data) == read_header(BIG["photo.jpg"])
        assert served.ranges == [f"bytes=0-{FIRST_BYTES - 1}"]
        assert data.num_read == FIRST_BYTES


def test_an_error_of_reading_is_not_taken_for_damaged_data(tmp_path: Path) -> None:
    def fetch(begin: int, count: int) -> bytes:
        raise OSError(5, "Input/output error")

    data = LazyBytes(BIG["photo.tif"][:FIRST_BYTES], len(BIG["photo.tif"]), fetch)
    with pytest.raises(OSError):
        bytes(data)
    assert data.failed is not None and data.failed.errno == 5


def test_a_build_after_it_is_the_build_without_it(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 5 + [(64, 96)] * 2)
    first = recipe(tmp_path / "photos", tmp_path / "with")
    dataset, told = probed(first)
    assert told.results[0][1] is not None and told.results[0][1].computed == 3
    assert {outcome for outcome, *_ in pipeline.conserve(dataset.held())[0]} == {"pending"}
    build(first)
    plain, _ = build(recipe(tmp_path / "photos", tmp_path / "without"))
    tree = {name: digest for name, digest in content(dataset.root).items() if "headers" not in name}
    assert tree == content(plain.root)


def test_status_shows_it_where_it_was_read(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(20, 10)] * 4)
    made = recipe(tmp_path / "photos", tmp_path / "ds")
    dataset, _ = build(made, upto="ingest")
    assert "headers" not in sigma("status", dataset.root).stdout
    probed(made)
    dataset.part("headers", 1).unlink()
    shown = sigma("status", dataset.root).stdout.splitlines()
    assert [line.split() for line in shown if line.startswith("headers")] == [["headers", "headers", "1", "of", "2"]]


def test_other_knobs_read_all_again_and_missing_parts_alone(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 7)
    made = recipe(tmp_path / "photos", tmp_path / "ds")
    dataset, _ = probed(made)
    dataset.part("headers", 1).unlink()
    assert probed(made)[1].results[0][1].computed == 1  # type: ignore[union-attr]
    assert probed(made)[1].results[0][1] is None
    strict = recipe(tmp_path / "photos", tmp_path / "ds", ingest={"max_megapixels": 0.001})
    assert headers.other_knobs(dataset, strict) and not headers.other_knobs(dataset, made)
    probed(strict, redo=True)
    assert {row["reason"] for row in rows(dataset, "headers")} == {"too_many_pixels"}


def test_a_purged_image_leaves_nothing_in_headers(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 4)
    made = recipe(tmp_path / "photos", tmp_path / "ds")
    probed(made)
    dataset, _ = build(made, upto="select")
    gone = rows(dataset, "images")[1]["image_id"]
    with dataset.lock():
        purge(dataset, steps(made), find(dataset, Wanted(image_ids=(gone,)), "asked"))
    row: dict[str, Any] = rows(dataset, "headers")[1]
    assert (row["reason"], row["detail"], row["width"], row["format"]) == ("purged", "asked", None, None)
    assert [row["width"] for row in rows(dataset, "headers")] == [96, None, 96, 96]


def arguments(photos: Path, out: Path, runner: str) -> list[str | Path]:
    made = Path(__file__).parents[3] / "recipes" / "folder.yaml"
    return ["ingest", made, f"images={photos}", f"out={out}", f"run.runner={runner}", "part_rows=5", "--probe-only"]


def test_killed_and_on_ray_the_bytes_are_the_same(tmp_path: Path, on_ray: None) -> None:
    photos = tmp_path / "photos"
    write_pictures(photos, [(96, 64)] * 300)
    (photos / "bad.jpg").write_bytes(b"<html>")
    assert sigma(*arguments(photos, tmp_path / "whole", "local")).returncode == 0
    assert kill_when(tmp_path / "killed", 80, arguments(photos, tmp_path / "killed", "local"))
    done = sigma(*arguments(photos, tmp_path / "killed", "ray"), "run.workers=2")
    assert done.returncode == 0, done.stderr
    assert "not_an_image" in done.stdout and "301 of 301 inputs" in done.stdout
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.parametrize(("option", "said"), [("--retry-failed", "a full ingest"), ("--redo=ingest", "--redo headers")])
def test_options_that_exclude_each_other_are_refused(tmp_path: Path, option: str, said: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    done = sigma(*arguments(tmp_path, tmp_path / "out", "local"), option)
    assert done.returncode == 1 and said in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()
