"""A dataset that an earlier version wrote is renamed once, and nothing of it is computed again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from curation.upkeep.doctor import check_dataset
from engine import catalog
from engine.dataset import Dataset, as_stored, commit_table, content_digest, read_parquet, schema_of
from engine.old_layout import CONTENT_KEY, bring_up_to_date, rename_old_layout
from engine.paid import Paid
from schemas.columns import REDUCE_TABLES
from schemas.recipe import DataRecipe
from tests.building import build, computed
from tests.dying import Died, dying_at

pytestmark = pytest.mark.slow


def age(dataset: Dataset) -> dict[str, list[str]]:
    """Give a finished dataset the layout it once had; the names that its parts had before, by table."""
    held = dataset.held()
    names = {table: [name.file for name in held.listed(table)] for table in held.tables()}
    for table in held.tables():
        record = held.record(table)
        if record is None:
            continue
        rows = {name.number: read_parquet(held.path(table, name.number)) for name in held.listed(table)}
        shutil.rmtree(dataset.folder(table))
        if table in REDUCE_TABLES:
            whole = pa.concat_tables(rows.values())
            commit_table(dataset.tables / f"{table}.parquet", whole, schema_of(table), {"sigma.made_by": table})
        for number, part in rows.items() if table not in REDUCE_TABLES else ():
            path = dataset.folder(table) / f"part-{number:05d}.parquet"
            commit_table(path, part, schema_of(table), {CONTENT_KEY.decode(): content_digest(as_stored(table, part))})
        old = {"job": record.job, "knobs": record.knobs, "fingerprint": table,
               "upstream": {name: name for name in record.inputs}}  # fmt: skip
        dataset.record_path(table).write_text(json.dumps(old))
    shutil.rmtree(dataset.root / "paid")
    return names


def recipe_of(dataset: Dataset) -> DataRecipe:
    return DataRecipe.load(dataset.recipe, [f"out={dataset.root}"])


def test_it_gets_the_names_of_today_and_a_build_has_nothing_to_do(
    small: Dataset, copy_of: Callable[[Dataset], Dataset]
) -> None:
    dataset = copy_of(small)
    names = age(dataset)
    tars = {path: path.stat().st_ino for path in dataset.shards.rglob("*") if path.is_file()}
    _, told = build(recipe_of(dataset))
    assert computed(told) == {}
    held = dataset.held()
    assert {table: [name.file for name in held.listed(table)] for table in held.tables()} == names
    assert {path: path.stat().st_ino for path in tars} == tars
    assert [finding for finding in check_dataset(dataset.root) if not finding.fine] == []
    assert Paid.of(dataset, "captions", 0).earlier().num_rows == 3


def test_captions_that_were_dropped_or_not_finished_are_paid_for(
    small: Dataset, copy_of: Callable[[Dataset], Dataset]
) -> None:
    dataset = copy_of(small)
    captions = [dataset.read_part("captions", number) for number in range(3)]
    age(dataset)
    folder = dataset.root / ".paid" / "captions"
    commit_table(folder / "part-00000.parquet", captions[1], schema_of("captions"), {})
    commit_table(folder / "part-00001.batches" / "x.parquet", captions[0], schema_of("captions"), {})
    (folder / "failed.json").write_text('{"num_failed": 2, "num_asked": 8}')
    catalog.connect(dataset).close()
    assert [Paid.of(dataset, "captions", number).earlier().num_rows for number in (0, 1)] == [6, 6]
    record = dataset.record("captions")
    assert record is not None and record.failed == [2, 8]
    assert not folder.exists()


@pytest.mark.parametrize("change", range(3, 50, 11))
def test_it_can_be_stopped_anywhere_and_done_again(
    small: Dataset, copy_of: Callable[[Dataset], Dataset], change: int
) -> None:
    dataset = copy_of(small)
    names = age(dataset)
    with pytest.raises(Died), dying_at(change):
        rename_old_layout(dataset)
    dataset.sweep()
    rename_old_layout(dataset)
    held = dataset.held()
    assert {table: [name.file for name in held.parts(table).values()] for table in held.tables()} == names


def test_one_that_cannot_be_written_is_refused_in_a_line(
    small: Dataset, copy_of: Callable[[Dataset], Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = copy_of(small)
    age(dataset)

    def denied(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", denied)
    with pytest.raises(ValueError, match=r"the layout of an earlier version .*; run sigma status .* once where it can"):
        bring_up_to_date(dataset)
