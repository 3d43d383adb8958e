from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from curation.shards.rewriter import members_of
from curation.shards.writer import index_is_current, samples_digest, write_index
from engine import catalog
from engine.dataset import Dataset, commit_table
from engine.runner import PartFailed
from schemas.recipe import DataRecipe
from schemas.shard import END_OF_ARCHIVE
from schemas.shard_index import INDEX_SCHEMA, read_index
from schemas.tables import schema_of
from tests.building import build, computed, picture, put, recipe, rows, write_pictures
from tests.dying import Died, dying_at
from tests.trees import content

pytestmark = pytest.mark.slow


def tars(dataset: Dataset) -> list[Path]:
    return sorted(dataset.shards.glob("*/*.tar"))


def metadata_of(dataset: Dataset, row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(member_of(dataset, row, "json"))
    return found


def member_of(dataset: Dataset, row: dict[str, Any], member: str) -> bytes:
    with (dataset.shards / row["shard"]).open("rb") as tar:
        return os.pread(tar.fileno(), row[f"{member}_size"], row[f"{member}_offset"])


# ------------------------------------------------------------------------------------------------ one tar


def test_members_are_sorted_and_have_no_time_and_no_owner(demo: Dataset) -> None:
    assert tars(demo)
    for path in tars(demo):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert [member.name for member in members] == sorted(member.name for member in members)
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        assert all(member.isreg() and member.name.count(".") == 1 for member in members)
        assert path.read_bytes().endswith(END_OF_ARCHIVE)
        assert path.stat().st_size == sum(512 + -(-m.size // 512) * 512 for m in members) + 1024


def test_each_row_names_the_digest_of_its_tar(demo: Dataset) -> None:
    digests = {str(path.relative_to(demo.shards)): hashlib.sha256(path.read_bytes()).hexdigest() for path in tars(demo)}
    assert {row["shard"]: row["shard_sha256"] for row in rows(demo, "samples")} == digests


def test_the_index_points_at_the_bytes_of_each_member(demo: Dataset) -> None:
    samples = rows(demo, "samples")
    index = read_index(demo.shards).to_pylist()
    assert len(samples) == len(index) == 15
    columns = set(index[0])
    assert index == [{key: value for key, value in row.items() if key in columns} for row in samples]
    for row in index:
        with tarfile.open(demo.shards / row["shard"]) as tar:
            for member, extension in (("image", row["image_ext"]), ("txt", "txt"), ("json", "json")):
                found = tar.extractfile(f"{row['key']}.{extension}")
                assert found is not None
                assert member_of(demo, row, member) == found.read()
                assert tar.getmember(f"{row['key']}.{extension}").offset_data == row[f"{member}_offset"]


def test_originals_are_stored_byte_for_byte(demo: Dataset) -> None:
    images = {row["row_id"]: row for row in rows(demo, "images")}
    for row in rows(demo, "samples"):
        image = images[row["row_id"]]
        data = member_of(demo, row, "image")
        assert data == (Path(image["source"]) / image["member"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == image["sha256"]
        assert (row["key"], row["width"], row["height"]) == (image["image_id"], image["width"], image["height"])


def test_the_text_is_the_mixed_caption(demo: Dataset) -> None:
    mix = {row["row_id"]: row for row in rows(demo, "mix")}
    for row in rows(demo, "samples"):
        assert member_of(demo, row, "txt").decode() == mix[row["row_id"]]["caption"]
        assert (row["caption_source"], row["num_tokens"]) == (
            mix[row["row_id"]]["caption_source"],
            mix[row["row_id"]]["num_tokens"],
        )


def test_the_json_names_the_source_of_a_sample(demo: Dataset) -> None:
    tables = {
        name: {row["row_id"]: row for row in rows(demo, name)} for name in ("images", "mix", "captions", "raw_captions")
    }
    prints = {row["row_id"]: row["phash"] for row in rows(demo, "fingerprints")}
    scores = {row["row_id"]: row for row in rows(demo, "scores")}
    recipes = set()
    for row in rows(demo, "samples"):
        image, mix, caption = (tables[name][row["row_id"]] for name in ("images", "mix", "captions"))
        raw = tables["raw_captions"][row["row_id"]]
        found = metadata_of(demo, row)
        recipes.add(found.pop("recipe"))
        assert found == {
            "image_id": row["image_id"],
            "caption_raw": raw["caption"],
            "caption_raw_reason": raw["reason"],
            "caption_raw_from": None,
            "caption_original": image["raw_caption"],
            "captions_synthetic": [{"captioner": caption["captioner"], "caption": caption["caption"]}],
            "caption_source": mix["caption_source"],
            "caption_coin": mix["coin"],
            "caption_fallback": mix["fallback"],
            "width": image["width"],
            "height": image["height"],
            "aspect": image["height"] / image["width"],
            "bucket": row["bucket"],
            "aesthetic": scores[row["row_id"]]["aesthetic"],
            "aesthetic_scorer": scores[row["row_id"]]["aesthetic_scorer"],
            "phash": f"{prints[row['row_id']]:016x}",
            "subsets": ["wide"] if image["height"] / image["width"] < 0.8 else [],
            "source": f"photos/{image['member']}",
            "url": None,
            "license": image["license"],
            "sha256": image["sha256"],
            "resized": False,
        }
    assert len(recipes) == 1


def test_wids_counts_the_samples_of_the_tars(demo: Dataset) -> None:
    wids = json.loads((demo.shards / "wids.json").read_text())
    counts = Counter(row["shard"] for row in rows(demo, "samples"))
    assert (wids["__kind__"], wids["wids_version"]) == ("wids-shard-index-v1", 1)
    assert wids["shardlist"] == [
        {"url": url, "nsamples": counts[url], "filesize": (demo.shards / url).stat().st_size} for url in sorted(counts)
    ]
    assert len(wids["shardlist"]) == len(tars(demo))


def test_two_builds_in_two_folders_are_equal(small: Dataset, tmp_path: Path) -> None:
    photos = small.root.parent / "photos"
    again, _ = build(recipe(photos, tmp_path / "another place", shard={"max_samples": 3}))
    assert content(again.root) == content(small.root)
    assert len(tars(again)) == 3


# ------------------------------------------------------------------------------------------------ lost originals


def ledger(dataset: Dataset) -> list[tuple[Any, ...]]:
    with catalog.connect(dataset) as connection:
        return connection.sql("SELECT member, outcome, stage, reason, shard IS NULL FROM ledger").fetchall()


@pytest.fixture
def planned(tmp_path: Path) -> Dataset:
    """Four pictures whose shards are planned but not yet written."""
    write_pictures(tmp_path / "photos", [(96, 64)] * 3 + [(64, 96)])
    made = recipe(tmp_path / "photos", tmp_path / "ds")
    return build(made, upto="mix")[0]


def finish(dataset: Dataset, **sections: Any) -> dict[str, int]:
    return computed(build(recipe(dataset.root.parent / "photos", dataset.root, **sections))[1])


def test_a_changed_or_vanished_original_is_left_out_and_named(planned: Dataset) -> None:
    photos = planned.root.parent / "photos"
    (photos / "000.jpg").unlink()
    (photos / "001.jpg").write_bytes((photos / "002.jpg").read_bytes())
    finish(planned)
    assert ledger(planned) == [
        ("000.jpg", "error", "shard", "source_missing", True),
        ("001.jpg", "error", "shard", "source_changed", True),
        ("002.jpg", "kept", None, None, False),
        ("003.jpg", "kept", None, None, False),
    ]
    samples = {row["row_id"]: row for row in rows(planned, "samples")}
    assert samples[0]["detail"] == "No such file or directory"
    assert samples[1]["detail"] == "other bytes than when it was ingested"
    assert samples[0]["key"] is samples[0]["image_offset"] is samples[1]["image_size"] is None
    kept = {samples[2]["key"], samples[3]["key"]}
    assert set(read_index(planned.shards)["key"].to_pylist()) == kept
    members: set[str] = set()
    for path in tars(planned):
        with tarfile.open(path) as tar:
            members |= {name.partition(".")[0] for name in tar.getnames()}
    assert members == kept


def test_a_grown_original_counts_as_changed(planned: Dataset) -> None:
    with (planned.root.parent / "photos" / "002.jpg").open("ab") as file:
        file.write(b"\0")
    finish(planned)
    assert ledger(planned)[2][1:4] == ("error", "shard", "source_changed")


def test_an_empty_shard_leaves_no_tar(planned: Dataset) -> None:
    (planned.root.parent / "photos" / "003.jpg").unlink()
    finish(planned)
    assert [path.parent.name for path in tars(planned)] == ["0.68"]
    assert len(json.loads((planned.shards / "wids.json").read_text())["shardlist"]) == 1
    assert ledger(planned)[3][1:4] == ("error", "shard", "source_missing")


def test_an_original_that_came_back_is_packed_by_redo(planned: Dataset) -> None:
    lost = planned.root.parent / "photos" / "003.jpg"
    data = lost.read_bytes()
    lost.unlink()
    finish(planned)
    lost.write_bytes(data)
    assert finish(planned) == {}
    made = recipe(planned.root.parent / "photos", planned.root)
    _, told = build(made, redo=["shard"])
    assert computed(told) == {"shard_plan": 1, "samples": 2}
    assert [row[1] for row in ledger(planned)] == ["kept"] * 4
    assert read_index(planned.shards).num_rows == 4


# ------------------------------------------------------------------------------------------------ originals away

LOOSE, STRICT = {"min_short_side_px": 1}, {"min_short_side_px": 50}


@pytest.fixture
def written(tmp_path: Path) -> Dataset:
    """Six pictures in two shards, of which the rule `STRICT` drops one."""
    write_pictures(tmp_path / "photos", [(96, 64)] * 5 + [(60, 40)])
    return build(written_recipe(tmp_path))[0]


def written_recipe(folder: Path, out: str = "ds", select: Any = LOOSE, **shard: Any) -> DataRecipe:
    return recipe(folder / "photos", folder / out, select=dict(select), shard={"max_samples": 3, **shard})


def unmount(folder: Path) -> None:
    (folder / "photos").rename(folder / "away")
    (folder / "photos").mkdir()


def test_a_threshold_moved_while_originals_are_away_loses_no_packed_picture(written: Dataset, tmp_path: Path) -> None:
    expected = content(build(written_recipe(tmp_path, "other", STRICT))[0].root)
    unmount(tmp_path)
    build(written_recipe(tmp_path, select=STRICT), redo=["select"])
    assert [row[1] for row in ledger(written)] == ["kept"] * 5 + ["rejected"]
    assert {name: digest for name, digest in content(written.root).items() if name.startswith("shards/")} == {
        name: digest for name, digest in expected.items() if name.startswith("shards/")
    }
    assert not (written.shards / ".previous").exists()


@pytest.mark.parametrize("job", ["shard", "mix", "clean"])
def test_a_redo_copies_from_the_shards(written: Dataset, tmp_path: Path, job: str) -> None:
    before = content(written.root)
    unmount(tmp_path)
    _, told = build(written_recipe(tmp_path), redo=[job])
    assert computed(told).get("samples", 0) == (2 if job == "shard" else 0)
    assert content(written.root) == before


def test_a_picture_that_nothing_holds_any_more_stops_the_build_and_the_old_shards_stay(
    written: Dataset, tmp_path: Path
) -> None:
    row, keys = read_index(written.shards).to_pylist()[1], set(read_index(written.shards)["key"].to_pylist())
    name = next(each["member"] for each in rows(written, "images") if each["image_id"] == row["key"])
    tar = written.shards / row["shard"]
    data = bytearray(tar.read_bytes())
    data[row["image_offset"] + 300] ^= 1
    tar.write_bytes(bytes(data))
    unmount(tmp_path)
    made = written_recipe(tmp_path, max_samples=5)
    for _ in range(2):
        with pytest.raises(
            PartFailed, match=rf"{name}\): its original is gone .* or leave out .* shard.drop_lost=true"
        ):
            build(made, redo=["shard"])
        assert {member.key for tar in written.shards.rglob("*.tar") for member in members_of(tar)} == keys
    build(written_recipe(tmp_path, max_samples=5, drop_lost=True))
    assert sorted(row[1] for row in ledger(written)) == ["error"] + ["kept"] * 5


def test_originals_that_are_back_let_a_refused_build_go_on(written: Dataset, tmp_path: Path) -> None:
    expected = content(build(written_recipe(tmp_path, "other", resize_longest_px=50))[0].root)
    unmount(tmp_path)
    with pytest.raises(PartFailed, match="does not hold what the recipe wants of it"):
        build(written_recipe(tmp_path, resize_longest_px=50), redo=["shard"])
    (tmp_path / "photos").rmdir()
    (tmp_path / "away").rename(tmp_path / "photos")
    build(written_recipe(tmp_path, resize_longest_px=50))
    assert content(written.root) == expected


def test_a_resized_picture_is_copied_while_the_recipe_wants_the_same_size(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 4)
    dataset, _ = build(written_recipe(tmp_path, resize_longest_px=50))
    before = content(dataset.root)
    unmount(tmp_path)
    build(written_recipe(tmp_path, resize_longest_px=50), redo=["shard"])
    assert content(dataset.root) == before


def test_shards_cut_to_and_fro_by_builds_that_stop_lose_nothing(written: Dataset, tmp_path: Path) -> None:
    before = content(written.root)
    unmount(tmp_path)
    num_died = 0
    for stop_at, samples in ((2, 2), (4, 4), (3, 3), (5, 1), (1, 5), (4, 2)):
        try:
            with dying_at(stop_at, only=".tar"):
                build(written_recipe(tmp_path, max_samples=samples), redo=["shard"])
        except Died:
            num_died += 1
    assert num_died >= 4
    build(written_recipe(tmp_path), redo=["shard"])
    assert content(written.root) == before


# ------------------------------------------------------------------------------------------------ resizing


def test_larger_pictures_are_resized_where_the_recipe_asks(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    picture(0, 200, 100).save(folder / "large.png")
    picture(1, 120, 60).save(folder / "exact.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(2, 200, 100).save(folder / "turned.jpg", exif=turned)
    made = recipe(folder, tmp_path / "ds", shard={"resize_longest_px": 120, "resize_quality": 90})
    dataset, _ = build(made)
    found = {}
    for row in rows(dataset, "samples"):
        image = Image.open(io.BytesIO(member_of(dataset, row, "image")))
        metadata = metadata_of(dataset, row)
        assert image.size == (row["width"], row["height"]) == (metadata["width"], metadata["height"])
        assert metadata["aspect"] == row["height"] / row["width"]
        found[metadata["source"]] = (row["image_ext"], image.size, metadata["resized"], row["bucket"])
    assert found == {
        "photos/large.png": ("jpg", (120, 60), True, "0.5"),
        "photos/exact.png": ("png", (120, 60), False, "0.5"),
        "photos/turned.jpg": ("jpg", (60, 120), True, "2.0"),
    }
    again, _ = build(made.model_copy(update={"out": str(tmp_path / "again")}))
    assert content(again.root) == content(dataset.root)


# ------------------------------------------------------------------------------------------------ the index


def test_the_index_is_written_again_when_it_is_lost(small: Dataset, copy_of: Any) -> None:
    dataset = copy_of(small)
    before = content(dataset.root)
    for name in ("index.parquet", "wids.json"):
        assert index_is_current(dataset.held())
        (dataset.shards / name).unlink()
        assert not index_is_current(dataset.held())
        assert write_index(dataset.held()) == 8
        assert content(dataset.root) == before


def test_the_index_has_the_bytes_of_all_samples_written_at_once(
    small: Dataset, copy_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row groups end inside parts and parts inside row groups, and a sample that lies in no shard is left out."""
    dataset = copy_of(small)
    first = dataset.read_part("samples", 0)
    lost = first.set_column(
        first.schema.get_field_index("shard"),
        schema_of("samples").field("shard"),
        pa.array([None, *first["shard"].to_pylist()[1:]]),
    )
    put(dataset, "samples", 0, lost)
    parts = [dataset.read_part("samples", number) for number in range(3)]
    assert [len(part) for part in parts] == [3, 2, 3]
    whole = pa.concat_tables(parts)
    made_by = {"sigma.samples": samples_digest(dataset.held())}
    for group_rows in (2, 3, 5, 100):
        monkeypatch.setattr("curation.shards.writer.ROW_GROUP_ROWS", group_rows)
        assert write_index(dataset.held()) == 7
        expected = tmp_path / f"{group_rows}.parquet"
        commit_table(expected, whole.filter(whole["shard"].is_valid()), INDEX_SCHEMA, made_by, group_rows)
        assert (dataset.shards / "index.parquet").read_bytes() == expected.read_bytes()
    assert sum(entry["nsamples"] for entry in json.loads((dataset.shards / "wids.json").read_text())["shardlist"]) == 7


def test_a_shard_that_is_written_again_renews_the_index(planned: Dataset) -> None:
    """A lost part of `samples` is computed again, and by then an original may be gone."""
    finish(planned)
    planned.part("samples", 1).unlink()
    tars(planned)[1].unlink()  # what a tar holds would be copied from it
    (planned.root.parent / "photos" / "003.jpg").unlink()
    assert finish(planned) == {"samples": 1}
    assert [row[1] for row in ledger(planned)] == ["kept", "kept", "kept", "error"]
    assert read_index(planned.shards).num_rows == 3
    assert len(json.loads((planned.shards / "wids.json").read_text())["shardlist"]) == 1


def test_every_caption_of_a_list_is_in_the_sample(tmp_path: Path) -> None:
    """The first is the caption, from a table and from a `.json` next to the image alike."""
    write_pictures(tmp_path / "in", ((96, 64),) * 3, captions=False)
    lists = {"000.jpg": ["A red kite over a hill", " Kite over a hill ", 7], "001.jpg": ["Two dogs asleep on a porch"]}
    lines = [json.dumps({"file_name": name, "caption": texts}) + "\n" for name, texts in lists.items()]
    (tmp_path / "in" / "captions.jsonl").write_text("".join(lines))
    (tmp_path / "in" / "002.json").write_text('{"caption": ["A tall lighthouse", "A lighthouse"]}')
    dataset, _ = build(recipe(tmp_path / "in", tmp_path / "ds"))
    assert [(row["raw_caption"], row["other_captions"]) for row in rows(dataset, "images")] == [
        ("A red kite over a hill", ["Kite over a hill"]),
        ("Two dogs asleep on a porch", None),
        ("A tall lighthouse", ["A lighthouse"]),
    ]
    words = [metadata_of(dataset, row) for row in read_index(dataset.shards).to_pylist()]
    said = {each["caption_original"]: each.get("captions_original") for each in words}
    assert said == {
        "A red kite over a hill": ["A red kite over a hill", "Kite over a hill"],
        "Two dogs asleep on a porch": None,
        "A tall lighthouse": ["A tall lighthouse", "A lighthouse"],
    }
