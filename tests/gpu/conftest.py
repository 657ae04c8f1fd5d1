"""Tests of this folder need a real device."""

import pytest


@pytest.fixture(autouse=True)
def device():
    """Skip where there is none."""
    cupy = pytest.importorskip("cupy")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no CUDA device: {error}")
