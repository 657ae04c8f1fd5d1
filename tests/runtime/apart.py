"""Dask arrays whose column panels different workers hold."""

import sys

import cloudpickle
import dask
import dask.array as da
import numpy as np
from distributed import wait

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

WIDTHS, BANDS = (5, 1, 6), (2000, 1500, 2500)


def hold(piece):
    return piece.copy()


def columns_apart(client, X, bands=BANDS, widths=WIDTHS, turn=0, beside=1, unknown=False, strict=True):
    """Return X as a Dask array whose panels the workers hold in turns, ``beside`` at a time, and the worker of each."""
    workers = sorted(client.nthreads())  # asks; what a new client knows of its scheduler may still be nothing
    stops = np.cumsum(widths)
    rows, places = [], {}
    for i, stop in enumerate(np.cumsum(bands)):
        row = []
        for j, right in enumerate(stops):
            piece = X[stop - bands[i] : stop, right - widths[j] : right]
            address = workers[(j // beside + turn * i) % len(workers)]
            future = client.submit(hold, piece, workers=[address], allow_other_workers=not strict, pure=False)
            places[future.key] = address
            shape = (np.nan if unknown else bands[i], widths[j])
            row.append(da.from_delayed(dask.delayed(future), shape, dtype=X.dtype, meta=X[:0, :0]))
        rows.append(da.concatenate(row, axis=1, allow_unknown_chunksizes=unknown))
    out = da.concatenate(rows, axis=0, allow_unknown_chunksizes=unknown).persist()
    wait(out)
    return out, places
