"""Features on disk: arrays that numpy reads, a record that is whole, and the first knob that differs."""

from __future__ import annotations

import io

import numpy as np
import pytest

from schemas.features import SetRecord, decode_npy, difference, encode_npy, read_record, write_record


@pytest.mark.parametrize("array", [np.zeros((2, 4, 3, 5), np.float32), np.arange(12, dtype=np.uint16).reshape(3, 4)])
def test_an_array_comes_back_and_numpy_reads_it(array):
    data = encode_npy(array)
    assert data == encode_npy(array.copy(order="F"))
    for found in (decode_npy(memoryview(bytearray(data))), np.load(io.BytesIO(data))):
        assert found.dtype == array.dtype and np.array_equal(found, array)


def test_bytes_that_are_no_array():
    data = encode_npy(np.arange(6, dtype=np.float32))
    for damaged in (b"", data[:5], data[:-4], data + b"xxxx", b"x" * 200):
        with pytest.raises(ValueError):
            decode_npy(memoryview(bytearray(damaged)))


def test_a_record_is_absent_whole_or_damaged(tmp_path):
    assert read_record(tmp_path) is None
    record = SetRecord({"text.encoder": "t5"}, "digest", 3, 1, 10)
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    (tmp_path / "features.json").write_text("{}")
    with pytest.raises(ValueError, match=r"features\.json: damaged .* encode it anew"):
        read_record(tmp_path)


def test_the_first_knob_that_differs_is_named():
    made = {"text.encoder": "t5", "text.weights (content)": "ab"}
    assert difference(made, dict(made)) is None
    assert difference(made, made | {"text.weights (content)": None}) is None, "not known here: taken on trust"
    assert difference(made, made | {"text.encoder": "x"}) == "text.encoder = t5, the recipe now has x"
    assert difference(made | {"more": 1}, made) == "more = 1, the recipe now has None"
