"""The room costs nothing to import and never imports a table library to find out that X is not one of its tables."""

import subprocess
import sys

import pytest

CHECK = """
import sys
import numpy as np
import daskdml.data as data
{action}
heavy = [name for name in ("dask", "distributed", "pandas", "polars", "narwhals", "pyarrow") if name in sys.modules]
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "action",
    [
        "",
        "data.is_dask(np.ones(3)), data.is_frame([[1]]), data.as_matrix(np.ones((3, 2)))",
        "chunk, = data.Partitioned.from_any(np.ones((3, 2)), np.arange(3), np.ones(3)).chunks; chunk.blocks(0, 0, 256)",
        "data.apply_rows(lambda rows: rows.sum(axis=1), np.ones((3, 2)))",
        "data.target_summary(data.Block(None, np.arange(3) % 2, None, 0, 0), 'classes').check()",
        "data.encode_classes(np.array([0, 1]), np.arange(3) % 2)",
    ],
    ids=["import", "matrix", "partitioned", "apply", "summary", "encode"],
)
def test_numpy_imports_no_table_library(action):
    subprocess.run([sys.executable, "-c", CHECK.format(action=action)], check=True, timeout=60)
