from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.dataset import Dataset, read_parquet
from engine.streamed import GROUPS_AHEAD, WIDE, streamed
from tests.building import put, table_of

NUM_ROWS = 128 * 6 + 5


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = Dataset(tmp_path_factory.mktemp("dataset"))
    rows = (
        {"row_id": row, "image_id": f"{row:032x}", "jpeg": None if row % 7 == 3 else b"%d" % row * 50}
        for row in range(NUM_ROWS)
    )
    return put(dataset, "proxies", 0, table_of("proxies", rows))


def test_a_streamed_part_has_the_rows_of_the_file(part: Path) -> None:
    whole = read_parquet(part)
    with streamed(part, WIDE["proxies"]) as found:
        assert found.num_rows == len(found["jpeg"]) == NUM_ROWS
        for _ in range(2):  # it may be gone through again
            assert [jpeg.as_py() for jpeg in found["jpeg"]] == whole["jpeg"].to_pylist()
        for name in ("row_id", "image_id", "width"):
            assert found[name].equals(whole[name])
        assert found.select(["image_id", "row_id"]).equals(whole.select(["image_id", "row_id"]))


def test_few_row_groups_are_read_ahead(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, number: int, columns: list[str]) -> object:
        read.append(number)
        return real(self, number, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    with streamed(part, WIDE["proxies"]) as found:
        pictures = iter(found["jpeg"])
        for _ in range(200):  # of the second group
            next(pictures)
        assert set(read) <= set(range(2 + GROUPS_AHEAD))


@pytest.mark.parametrize("where", [0.3, 0.6, 0.95])
def test_a_damaged_file_is_named_and_what_came_of_it_is_refused(part: Path, tmp_path: Path, where: float) -> None:
    damaged = tmp_path / part.name
    data = bytearray(part.read_bytes())
    data[int(where * len(data))] ^= 4
    damaged.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged .*run sigma build again"), streamed(damaged, "jpeg") as found:
        list(found["jpeg"])


def test_damage_that_nobody_looked_at_is_refused_too(part: Path, tmp_path: Path) -> None:
    damaged = tmp_path / part.name
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 4
    damaged.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"), streamed(damaged, "jpeg"):
        pass
    with pytest.raises(ValueError, match="missing"), streamed(tmp_path / "none.parquet", "jpeg"):
        pass
