"""Block functions for the tests of this room; tests register this module by value, so that workers need no copy."""

import functools
import os
import pickle
import time

import numpy as np
import pandas as pd


def column_sums(block):
    return np.append(block.X.sum(axis=0, dtype=np.float64), block.y.sum())


def long_sums(block):
    return np.outer(np.arange(1.0, 1000.0), block.X.sum(axis=0))


def slow_sums(block, seconds):
    time.sleep(seconds)
    return column_sums(block)


def slowly(seconds):
    return functools.partial(slow_sums, seconds=seconds)


def rows_and_start(block):
    return block.index, block.start, len(block.y)


def gram(block):
    return block.X.T @ block.X


def targets_only(block):
    assert block.y is not None
    return int(block.y.sum())


def fail_on(block, index):
    if block.index == index:
        raise KeyError("the blocks did it")
    return 0


def parity(y):
    return y % 2


def itself(y):
    return y


def process_id(block):
    return os.getpid()


def total(block):
    return float(block.X.sum(dtype=np.float64))


def write_source(kind, folder, n_files, rows, p):
    """Write n_files of rows x p float32; return the sum of all values."""
    rng = np.random.default_rng(0)
    total = 0.0
    folder.mkdir()
    if kind == "npy":
        meta = {"chunks": ((rows,) * n_files, (p,)), "dtype": np.dtype("f4"), "axis": 0}
        (folder / "info").write_bytes(pickle.dumps(meta))
    for i in range(n_files):
        X = rng.random((rows, p), dtype=np.float32)
        total += X.sum(dtype=float)
        if kind == "npy":
            np.save(folder / f"{i}.npy", X)
        else:
            frame = pd.DataFrame(X, columns=[f"x{k}" for k in range(p)])
            frame.to_parquet(folder / f"part.{i:04d}.parquet", compression=None, use_dictionary=False)
    return total
