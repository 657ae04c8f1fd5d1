"""Block functions for the tests of this room; tests register this module by value, so that workers need no copy."""

import functools
import os
import time

import numpy as np


def column_sums(block):
    return np.append(block.X.sum(axis=0, dtype=np.float64), block.y.sum())


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
