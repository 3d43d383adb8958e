from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from captioning.captioners.attributes import AttributesCaptioner
from captioning.captioners.base import Generated
from captioning.captioners.make import CAPTIONERS
from commands.looking import write_report_page
from curation.shards.writer import write_index
from curation.upkeep.doctor import check_dataset
from engine import catalog, duck
from engine.dataset import Dataset, commit_table, content_digest
from engine.ledger import ledger_counts
from engine.names import DIGITS, PartName
from engine.one_state import Replaced, one_state
from engine.part_check import problem_of
from schemas.columns import TABLES
from schemas.files import remove_folder
from schemas.recipe import DataRecipe
from schemas.shard_index import INDEX_FILE, read_index
from schemas.tables import SCHEMAS, schema_of
from tests.building import build, computed, put, recipe, table_of, write_pictures
from viewer.database import Database

pytestmark = [pytest.mark.slow, pytest.mark.meanings]

LEDGER = {"listing", "images", "selection", "mix", "balance", "samples"}
UGLY = """it's [a] "set" * and ?/width=7/Übung 照片 😀 $HOME {x} %s;--"""


def ask(dataset: Dataset, sql: str) -> list[tuple[Any, ...]]:
    with catalog.connect(dataset) as connection:
        return connection.execute(sql).fetchall()


# ------------------------------------------------------------------------------------------------ the ledger


def test_the_ledger_adds_up_at_every_step(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 4 + [(96, 30)])
    (tmp_path / "photos" / "zero.jpg").write_bytes(b"")
    made = recipe(tmp_path / "photos", tmp_path / "ds", select={"min_short_side_px": 50})
    empty, small = ("error", "ingest", "empty", 1), ("rejected", "select", "too_small", 1)
    for upto, counts in {
        "ingest": [empty, ("pending", "select", None, 5)],
        "dedup": [empty, ("pending", "select", None, 5)],
        "select": [small, empty, ("pending", "mix", None, 4)],
        "mix": [small, empty, ("pending", "shard", None, 4)],
        "shard": [("kept", None, None, 4), small, empty],
    }.items():
        dataset, _ = build(made, upto=upto)
        with catalog.connect(dataset) as connection:
            assert ledger_counts(connection) == counts


def test_parts_that_are_missing_are_pending(demo: Dataset, copy_of: Any) -> None:
    dataset = copy_of(demo)
    dataset.part("images", 1).unlink()
    dataset.part("samples", 0).unlink()
    outcomes = dict(ask(dataset, "SELECT outcome, count(*) FROM ledger GROUP BY ALL"))
    assert sum(outcomes.values()) == 22
    assert outcomes["pending"] >= 10


def test_a_picture_that_is_kept_anew_is_pending_until_it_has_a_caption(tmp_path: Path) -> None:
    """The old `mix` has no caption for it, which does not mean that there is none."""
    write_pictures(tmp_path / "photos", [(96, 64), (96, 64), (40, 30)])
    strict, loose = (recipe(tmp_path / "photos", tmp_path / "ds", select={"min_short_side_px": px}) for px in (50, 1))
    build(strict)
    dataset, _ = build(loose, upto="select", redo=["select"])
    query = "SELECT outcome, stage, reason FROM ledger"
    assert ask(dataset, query) == [("kept", None, None), ("kept", None, None), ("pending", "mix", None)]
    build(loose)
    assert ask(dataset, query) == [("kept", None, None)] * 3


def test_a_picture_without_any_caption_is_rejected_by_the_mix(tmp_path: Path, monkeypatch: Any) -> None:
    class Silent(AttributesCaptioner):
        name = "silent"

        def caption(self, images: Sequence[Any], seeds: Sequence[int]) -> list[Generated]:
            return [Generated("")] * len(images)

    monkeypatch.setitem(CAPTIONERS, "attributes", lambda section: Silent())
    names = write_pictures(tmp_path / "photos", [(96, 64)] * 3, captions=False)
    (tmp_path / "photos" / names[1]).with_suffix(".txt").write_text("two words")
    dataset, _ = build(recipe(tmp_path / "photos", tmp_path / "ds", caption={"max_failed_share": 1}))
    assert ask(dataset, "SELECT outcome, stage, reason, shard IS NULL FROM ledger") == [
        ("rejected", "mix", "no_caption", True),
        ("kept", None, None, False),
        ("rejected", "mix", "no_caption", True),
    ]


def test_the_ledger_says_why(demo: Dataset) -> None:
    rows = ask(
        demo,
        "SELECT member, outcome, stage, reason, value, threshold, duplicate_of IS NOT NULL, key IS NOT NULL "
        "FROM ledger WHERE member LIKE 'bad/%'",
    )
    assert {row[0].removeprefix("bad/"): row[1:] for row in rows} == {
        "blinking.gif": ("error", "ingest", "animated", None, None, False, False),
        "coffee_copy.png": ("rejected", "select", "duplicate", 0, 3, True, False),
        "cut_in_half.jpg": ("error", "ingest", "truncated", None, None, False, False),
        "empty.jpg": ("error", "ingest", "empty", None, None, False, False),
        "error_page.jpg": ("error", "ingest", "not_an_image", None, None, False, False),
        "thumbnail.png": ("rejected", "select", "too_small", 72, 160, False, False),
    } | {"hubble_recompressed.jpg": rows[[row[0] for row in rows].index("bad/hubble_recompressed.jpg")][1:]}
    assert [row[1:4] for row in rows if "hubble" in row[0]] == [("rejected", "select", "duplicate")]


# ------------------------------------------------------------------------------------------------ views


def test_every_table_is_a_view_before_its_job_has_run(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(20, 10)])
    dataset, _ = build(recipe(tmp_path / "photos", tmp_path / "ds"), upto="ingest")
    for table, schema in SCHEMAS.items():
        names = [row[0] for row in ask(dataset, f"DESCRIBE {table}")]
        assert names == schema.names
        assert ask(dataset, f"SELECT count(*) FROM {table}") == [(table in ("listing", "images", "proxies"),)]


def test_types_do_not_change_when_a_job_runs(demo: Dataset, tmp_path: Path) -> None:
    put(Dataset(tmp_path), "listing", 0, demo.read_part("listing", 0))
    for table in SCHEMAS:
        described = f"SELECT column_name, column_type FROM (DESCRIBE {table})"
        assert ask(Dataset(tmp_path), described) == ask(demo, described), table


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no dataset here; make one with sigma build RECIPE out="):
        catalog.connect(Dataset(tmp_path))


def test_any_folder_name_will_do(tmp_path: Path) -> None:
    photos = tmp_path / UGLY / "photos"
    write_pictures(photos, [(96, 64)] * 3 + [(20, 10)])
    made = recipe(photos, tmp_path / UGLY / "ds", select={"min_short_side_px": 50})
    dataset, told = build(made)
    assert computed(told)["samples"] == 1
    assert computed(build(made)[1]) == {}
    expected = [("kept", 3), ("rejected", 1)]
    query = "SELECT outcome, count(*) FROM ledger GROUP BY ALL ORDER BY 1"
    assert ask(dataset, query) == expected
    assert ask(dataset, "SELECT width FROM images ORDER BY row_id LIMIT 1") == [(96,)]
    with catalog.connect_read_only(dataset) as connection:
        assert duck.query(connection, query).fetchall() == expected
    with duckdb.connect(str(dataset.catalog), read_only=True) as connection:
        assert connection.execute(query).fetchall() == expected


def test_duckdb_alone_opens_the_catalog_from_anywhere(demo: Dataset) -> None:
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); "
        "print(c.execute('SELECT count(*), count(key) FROM ledger').fetchall())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(demo.catalog)], cwd="/", capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[(22, 15)]", done.stderr


def test_a_lost_catalog_is_written_again(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(20, 10)])
    made = recipe(tmp_path / "photos", tmp_path / "ds")
    dataset, _ = build(made)
    dataset.catalog.unlink()
    assert computed(build(made)[1]) == {}
    with duckdb.connect(str(dataset.catalog), read_only=True) as connection:
        assert connection.execute("SELECT outcome FROM ledger").fetchall() == [("kept",)]


def places(dataset: Dataset) -> set[str]:
    """The datasets whose files the views of a catalog read."""
    with duckdb.connect(str(dataset.catalog), read_only=True) as connection:
        texts = " ".join(sql for (sql,) in connection.execute("SELECT sql FROM duckdb_views()").fetchall())
    return set(re.findall(r"'([^']*)/tables/", texts))


@pytest.mark.parametrize(
    "opens",
    [
        lambda dataset: catalog.connect(dataset).close(),
        lambda dataset: check_dataset(dataset.root),
        lambda dataset: build(DataRecipe.load(dataset.recipe, [f"out={dataset.root}"])),
    ],
    ids=["sql", "doctor", "build"],
)
def test_the_catalog_of_a_copied_dataset_reads_the_copy_once_a_command_has_opened_it(
    small: Dataset, copy_of: Any, opens: Any
) -> None:
    dataset = copy_of(small)
    assert places(dataset) == {str(small.root)}
    opens(dataset)
    assert places(dataset) == {str(dataset.root)}
    assert places(small) == {str(small.root)}
    before = dataset.catalog.stat().st_mtime_ns
    opens(dataset)
    assert dataset.catalog.stat().st_mtime_ns == before


def test_a_dataset_that_cannot_be_written_is_read_all_the_same(
    small: Dataset, copy_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = copy_of(small)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr("engine.catalog.write_bytes", refuse)
    with catalog.connect(dataset) as connection:
        assert connection.execute("SELECT count(*) FROM ledger").fetchall() == [(8,)]


def test_the_newest_client_of_duckdb_1_opens_the_catalog(small: Dataset, tmp_path: Path) -> None:
    """In an environment of its own, with the newest 1.x that the registry has."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path), "duckdb>=1.0,<2"]
    installed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if installed.returncode:
        pytest.skip(f"duckdb 1.x cannot be installed: {installed.stderr.strip()[-200:]}")
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); import duckdb; assert duckdb.__version__ < '2'; "
        "c = duckdb.connect(sys.argv[1], read_only=True); "
        "views = c.execute('SELECT view_name FROM duckdb_views() WHERE NOT internal').fetchall(); "
        "names = [name for (name,) in views]; "
        "[c.execute(f'SELECT * FROM {name}').fetchall() for name in names]; "
        "print(len(names), c.execute('SELECT count(*), count(key) FROM ledger').fetchall())"
    )
    program = [sys.executable, "-S", "-c", script, str(small.catalog), str(tmp_path)]
    asked = subprocess.run(program, capture_output=True, text=True, check=False)
    assert asked.stdout.strip() == f"{len(SCHEMAS) + 3} [(8, 8)]", asked.stderr


# ------------------------------------------------------------------------------------------------ a user's query


@pytest.fixture
def connection(demo: Dataset) -> Any:
    with catalog.connect_read_only(demo) as found:
        yield found


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM ledger",
        "FROM images LIMIT 1",
        "WITH big AS (SELECT * FROM images WHERE width > 500) SELECT count(*) FROM big",
        "DESCRIBE ledger",
        "SHOW TABLES",
        "SUMMARIZE scores",
        "EXPLAIN SELECT * FROM ledger",
        "  explain  analyze\nSELECT * FROM ledger",
        "VALUES (1)",
        "SELECT 1;",
        "SELECT * FROM nouns JOIN images USING (row_id)",
    ],
)
def test_what_only_reads_works(connection: Any, sql: str) -> None:
    assert duck.query(connection, sql).fetchall()


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("COPY (SELECT 1) TO '{root}/x.csv'", "a dataset is read-only here: SELECT .* works, COPY does not"),
        ("ATTACH '{root}/x.db'", "ATTACH does not"),
        ("INSERT INTO images VALUES (1)", "INSERT does not"),
        ("DELETE FROM images", "DELETE does not"),
        ("UPDATE images SET width = 1", "UPDATE does not"),
        ("CREATE TABLE t AS SELECT 1", "CREATE does not"),
        ("DROP VIEW images", "DROP does not"),
        ("SET memory_limit = '1GB'", "SET does not"),
        ("SET enable_external_access = true", "SET does not"),
        ("PRAGMA threads = 1", "a dataset is read-only here"),
        ("INSTALL httpfs", "a dataset is read-only here"),
        ("LOAD httpfs", "LOAD does not"),
        ("EXPORT DATABASE '{root}/x'", "EXPORT does not"),
        ("PREPARE p AS COPY (SELECT 1) TO '{root}/x.csv'", "PREPARE does not"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '{root}/x.csv'", "COPY does not"),
        ("EXPLAIN COPY (SELECT 1) TO '{root}/x.csv'", "COPY does not"),
        ("EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", "CREATE does not"),
        ("/**/ EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", "EXPLAIN does not"),
        ("EXPLAIN /**/ ANALYZE CREATE TABLE t AS SELECT 1", "CREATE does not|Parser Error"),
        ("EXPLAIN (ANALYZE) CREATE TABLE t AS SELECT 1", "CREATE does not|Parser Error"),
        ("EXPLAIN (FORMAT json, ANALYZE) COPY (SELECT 1) TO '{root}/x.csv'", "EXPLAIN does not|Parser Error"),
        ("SELECT 1; DROP VIEW images", "one statement at a time, this has 2"),
        ("", "one statement at a time, this has 0"),
        ("SELECT * FROM read_text('/etc/passwd')", "Permission Error: Cannot access file"),
        ("SELECT * FROM read_csv('/etc/passwd')", "Permission Error: Cannot access file"),
        ("SELECT * FROM read_text('{root}/../../../../../../etc/passwd')", "Permission Error: Cannot access file"),
        ("SELECT * FROM glob('/etc/*')", "Permission Error: Cannot access file"),
        ("SELECT * FROM '/etc/passwd'", "Error"),
        ("SELECT * FROM nothing", "Catalog Error: Table with name nothing does not exist"),
        ("SELECT widht FROM images", "Binder Error"),
        ("SELEC 1", "Parser Error: syntax error"),
    ],
)
def test_what_does_more_than_read_the_dataset_is_refused(connection: Any, demo: Dataset, sql: str, why: str) -> None:
    before = sorted(os.listdir(demo.root))
    with pytest.raises(ValueError, match=why) as refused:
        duck.query(connection, sql.replace("{root}", str(demo.root)))
    assert "\n" not in str(refused.value)
    assert sorted(os.listdir(demo.root)) == before
    assert connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]


def test_the_connection_itself_sees_nothing_else(connection: Any) -> None:
    """Even a statement that got past the first look can read no other file and not change the rules."""
    for sql in ("SELECT * FROM read_text('/etc/passwd')", "ATTACH '/tmp/x.db'", "COPY (SELECT 1) TO '/tmp/x.csv'"):
        with pytest.raises(duckdb.PermissionException):
            connection.execute(sql)
    for sql in ("SET enable_external_access = true", "RESET allowed_directories", "SET lock_configuration = false"):
        with pytest.raises(duckdb.Error):
            connection.execute(sql)


def test_captions_beside_are_one_view_with_their_source(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", [(96, 64)] * 4)
    dataset, _ = build(recipe(tmp_path / "photos", tmp_path / "ds"))
    names = [*SCHEMAS["captions"].names, "source"]
    with catalog.connect(dataset) as connection:
        empty = connection.sql("SELECT * FROM captions_beside")
        assert (empty.columns, empty.fetchall()) == (names, [])
    for source in ("vlm", "endpoint"):
        for number in dataset.held().parts("captions"):
            put(dataset, f"captions_beside/{source}", number, dataset.read_part("captions", number))
    assert dataset.held().extra_captions() == ["captions_beside/endpoint", "captions_beside/vlm"]
    with catalog.connect(dataset) as connection:
        assert connection.sql("SELECT * FROM captions_beside").columns == names
        counts = connection.sql("SELECT source, count(*), min(row_id) FROM captions_beside GROUP BY 1 ORDER BY 1")
        assert counts.fetchall() == [("endpoint", 4, 0), ("vlm", 4, 0)]
        assert connection.sql("SELECT count(*) FROM captions").fetchall() == [(4,)]


# ------------------------------------------------------------------------------------------------ while a build runs


def count_images(connection: Any) -> int:
    return int(connection.execute("SELECT count(*) FROM images").fetchall()[0][0])


def test_a_part_that_is_written_meanwhile_is_not_seen(small: Dataset, copy_of: Any) -> None:
    dataset = copy_of(small)
    last = dataset.parts("images")[-1]
    data = last.read_bytes()
    last.unlink()
    with one_state(dataset), catalog.connect(dataset) as connection:
        before = count_images(connection)
        last.write_bytes(data)
        assert count_images(connection) == before < 8


@pytest.mark.parametrize("error", [duckdb.IOException("no such file"), ValueError("missing"), KeyError(287)])
def test_what_comes_of_tables_that_were_moved_away_says_so(small: Dataset, copy_of: Any, error: Exception) -> None:
    dataset = copy_of(small)
    with (
        pytest.raises(Replaced, match="a build is replacing tables of this dataset"),
        one_state(dataset),
    ):
        remove_folder(dataset.folder("images"))
        raise error


def test_a_table_that_was_replaced_meanwhile_is_refused_although_nothing_failed(small: Dataset, copy_of: Any) -> None:
    dataset = copy_of(small)
    with pytest.raises(Replaced), one_state(dataset), catalog.connect(dataset) as connection:
        count_images(connection)
        put(dataset, "selection", 0, dataset.read_part("selection", 0).slice(0, 1))


def test_an_error_of_a_dataset_at_rest_stays_what_it_is(small: Dataset) -> None:
    with pytest.raises(KeyError), one_state(small):
        raise KeyError(287)


def test_shards_from_before_their_digests_are_whole_and_have_a_new_index(small: Dataset, copy_of: Any) -> None:
    dataset = copy_of(small)
    index = dataset.shards / INDEX_FILE
    for path in dataset.parts("samples"):
        without_columns(path, "content")
    index.unlink()
    assert write_index(dataset.held()) == read_index(dataset.shards)["content"].null_count > 0
    assert not [finding.text for finding in check_dataset(dataset.root) if not finding.fine]


def without_columns(path: Path, *columns: str) -> None:
    """Write a part as it was before its table had some columns."""
    old, name = pq.read_table(path).drop_columns(list(columns)).replace_schema_metadata(None), PartName.parse(path.name)
    assert name is not None
    path.unlink()
    name = name._replace(content=content_digest(old)[:DIGITS])
    commit_table(path.with_name(name.file), old, old.schema, {})


def test_parts_from_before_a_column_was_added_read_as_null_there(small: Dataset, copy_of: Any) -> None:
    dataset = copy_of(small)
    for path in dataset.parts("images")[:1]:
        without_columns(path, "colour", "metadata_left_out", "other_captions")
    with catalog.connect(dataset) as connection:
        columns = [name for name, *_ in connection.sql("DESCRIBE images").fetchall()]
        assert columns == SCHEMAS["images"].names
        old_rows, all_rows = connection.sql(
            "SELECT count(*) FILTER (colour IS NULL AND other_captions IS NULL AND width = 96), count(*) FROM images"
        ).fetchall()[0]
    assert old_rows >= 3 and all_rows == 8
    assert problem_of(dataset.parts("images")[0], "images") is None


# ------------------------------------------------------------------------------------------------ what is read


def test_only_the_files_of_what_is_read_are_compared_with_their_seals(small: Dataset, copy_of: Any) -> None:
    dataset = copy_of(small)
    path = dataset.part("scores", 1)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    with catalog.connect(dataset, reads=["ledger", "images"]) as connection:
        assert count_images(connection) == 8
        assert connection.execute("SELECT count(*) FROM ledger").fetchall() == [(8,)]
        assert connection.execute("SELECT count(*) FROM scores").fetchall() == [(0,)]
    for reads in (["scores"], None):
        with pytest.raises(ValueError, match=rf"{path}: damaged"):
            catalog.connect(dataset, reads=reads)


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT 1", set()),
        ('SELECT (SELECT max(width) FROM "Images")', {"images"}),
        ("WITH a AS (FROM nouns) SELECT * FROM a", {"nouns"}),
        ("FROM ledger JOIN scores USING (row_id)", {*LEDGER, "scores"}),
        ("FROM raw_offers", {"raw_captions", "selection"}),
        ("FROM captions_beside", {"captions_beside"}),
        ("FROM query_table('ima' || 'ges')", {*SCHEMAS, "captions_beside"}),
    ],
)
def test_the_tables_that_a_query_reads_are_found(sql: str, tables: set[str]) -> None:
    assert catalog.named_in(sql) == tables


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(
    "opens", [catalog.connect, catalog.connect_read_only, Database], ids=lambda opens: opens.__name__
)
def test_a_listing_that_has_lost_a_part_is_refused_with_its_name(
    small: Dataset, copy_of: Any, number: int, opens: Any
) -> None:
    """The other tables then have rows of no input."""
    dataset = copy_of(small)
    dataset.part("listing", number).unlink()
    lost = dataset.folder("listing") / f"part-{number:05d}"
    with pytest.raises(ValueError, match=f"{lost}: missing; .*put the file back"):
        opens(dataset)


@pytest.mark.parametrize(
    ("table", "num_pending"),
    [("images", 2), ("mix", 2), ("samples", 3), ("selection", 2), ("raw_captions", 0), ("captions", 0)],
)
def test_another_table_that_has_lost_a_part_is_unfinished(
    small: Dataset, copy_of: Any, table: str, num_pending: int
) -> None:
    """What became of a picture is known without its captions: that their table has lost a part, doctor says."""
    dataset = copy_of(small)
    dataset.parts(table)[-1].unlink()
    write_report_page(dataset.root)
    assert ask(dataset, "SELECT count(*) FROM ledger WHERE outcome = 'pending'") == [(num_pending,)]
    assert next(finding.subject for finding in check_dataset(dataset.root) if not finding.fine) == table


def test_a_query_may_spill_again_after_what_was_spilled_is_swept(small: Dataset, copy_of: Any) -> None:
    """Connections to a dataset share a DuckDB, which keeps the folder that it has spilled into."""
    dataset = copy_of(small)
    for _ in range(2):
        with catalog.connect(dataset, "30MB", threads=1) as connection:
            connection.execute(
                "CREATE TEMP TABLE sorted AS SELECT md5(range::VARCHAR) AS m FROM range(600000) ORDER BY m"
            )
            assert connection.execute("SELECT count(*) FROM sorted").fetchone() == (600000,)
            assert (dataset.root / ".duckdb-spill").is_dir()
        catalog.sweep_spilled(dataset)
        assert not (dataset.root / ".duckdb-spill").exists()


def test_a_limit_of_memory_is_that_of_its_dataset_alone(small: Dataset, copy_of: Any) -> None:
    dataset, limit = copy_of(small), "SELECT current_setting('memory_limit')"
    catalog.connect(dataset, "64MB", threads=1)
    assert catalog.database(dataset).sql(limit).fetchall() == [("61.0 MiB",)]
    ours = catalog.database(small)
    assert ours.sql(limit).fetchall() == [("1.1 GiB",)]
    assert catalog.database(dataset) is ours


def test_parts_from_before_a_column_was_added_are_read_in_their_order(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path / "dataset")
    inputs = [{"row_id": number, "source": "x", "source_name": "x", "member": "m"} for number in range(4)]
    for number, row in enumerate(inputs):
        put(dataset, "listing", number, table_of("listing", [row]))
        path = put(
            dataset,
            "captions",
            number,
            table_of("captions", [{"row_id": number, "captioner": "c", "refused_caption": "no"}]),
        )
        if number in (1, 2):
            pq.write_table(pq.read_table(path).drop_columns(["refused_caption", "cut"][:number]), path)
    with catalog.connect(dataset, reads=["captions"]) as connection:
        found = connection.execute("SELECT row_id, refused_caption FROM captions").fetchall()
    assert found == [(0, "no"), (1, None), (2, None), (3, "no")]


def test_a_catalog_from_before_a_table_gained_a_column_is_written_anew(
    small: Dataset, copy_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = copy_of(small)
    with monkeypatch.context() as before:
        fewer = {name: column for name, column in TABLES["screens"].items() if name != "border"}
        before.setitem(TABLES, "screens", fewer)
        schema_of.cache_clear()
        catalog.mend_catalog(dataset)
        old = dataset.catalog.read_bytes()
    schema_of.cache_clear()
    catalog.mend_catalog(dataset)
    assert dataset.catalog.read_bytes() != old
    assert all(finding.fine for finding in check_dataset(dataset.root))
