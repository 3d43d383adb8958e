from __future__ import annotations

import subprocess
import sys

FRESH = """
import sys
from importlib.util import find_spec

import pyarrow as pa

from schemas.tables import schema_of

rows = pa.Table.from_pylist([{"row_id": 1}], schema=pa.schema([schema_of("images").field("row_id")]))
assert find_spec("pandas") is not None
print("pandas" in sys.modules)
import pandas as pd

arrays = pa.array(pd.Series([1.0, None])), pa.array(pd.Categorical(["a"]))
print(arrays[0].null_count, arrays[1].type.value_type, rows.to_pandas().shape)
"""


def test_arrow_imports_no_pandas_and_knows_it_once_it_is_imported() -> None:
    said = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    assert said.stdout.split("\n") == ["False", "1 string (1, 1)", ""]
    assert not said.stderr
