from __future__ import annotations

import subprocess
import sys

import pytest

FRESH = """
import sys
from importlib.util import find_spec

import pyarrow as pa

import schemas

pa.array([1])
assert find_spec("pandas") is not None
print("pandas" in sys.modules)
import pandas as pd

arrays = pa.array(pd.Series([1.0, None])), pa.array(pd.Categorical(["a"]))
print(arrays[0].null_count, arrays[1].type.value_type, pa.table({"a": [1]}).to_pandas().shape)
"""


@pytest.mark.parametrize(
    ("first", "there"), [("schemas", False), ("pyarrow", True)], ids=["schemas first", "Arrow first"]
)
def test_arrow_imports_no_pandas_and_knows_it_once_it_is_imported(first: str, there: bool) -> None:
    words = [sys.executable, "-c", f"import {first}\n{FRESH}"]
    said = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split("\n") == [str(there), "1 string (1, 1)", ""]
    assert not said.stderr
