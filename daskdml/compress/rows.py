"""The rows that matter."""

import numbers

import numpy as np

from daskdml.compress.codec import Codec, largest_of
from daskdml.utils.params import Interval


class SignificantRows(Codec):
    """Send the rows of a matrix whose norm is at least so many times as large as the mean row's.

    With error feedback a row waits until what has accumulated is large enough: a filter in space and in time.

    Parameters
    ----------
    threshold : float, default 1.0
        Times the root of the mean squared norm of rows. The largest row is always sent.

    Notes
    -----
    Meant for error feedback. Bytes depend on the data: of features that are rarely other than zero, rows wait for many
    batches. Every rank gets the packets of all others. K. Hsieh et al., "Gaia: Geo-distributed machine learning
    approaching LAN speeds", 2017, with thresholds relative to the other rows.

    Examples
    --------
    >>> codec = SignificantRows()
    >>> codec.decode(codec.encode(np.array([[1.0, 2.0], [0.1, 0.0], [3.0, 0.0]]))[0])
    array([[1., 2.],
           [0., 0.],
           [3., 0.]])
    """

    name = "significant_rows"
    reduce_kind = "gather"
    by_layer = True
    _constraints = {"threshold": [Interval(numbers.Real, 0, None)]}

    def __init__(self, threshold=1.0):
        self.threshold = threshold

    def finer(self):
        """Return a codec of a quarter of the threshold, or None below a tenth.

        Returns
        -------
        Codec or None
        """
        return SignificantRows(self.threshold / 4) if self.threshold > 0.1 else None

    def _encode(self, x, state):
        rows, largest = x.reshape(len(x), -1) if x.ndim and x.size else x.reshape(0, 1), largest_of(x)
        squares = np.square(rows / (largest or 1.0), dtype=np.float64).sum(axis=1)
        chosen = squares >= self.threshold**2 * squares.mean() if len(rows) else np.zeros(0, bool)
        chosen |= squares == squares.max(initial=0.0)
        chosen &= squares > 0
        return (np.packbits(chosen), rows[chosen]), state

    def _decode(self, arrays, shape):
        bits, rows = arrays
        n = shape[0] if shape and np.prod(shape) else 0
        x = np.zeros((n, rows.shape[1] if n else 1), rows.dtype)
        x[np.unpackbits(bits, count=n).astype(bool)] = rows
        return x
