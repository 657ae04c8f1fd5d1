"""One bit a number, and two levels a column."""

import numpy as np

from daskdml.compress.codec import Codec, largest_of
from daskdml.compress.qsgd import QSGD


class OneBit(Codec):
    """Send which numbers of a column are above zero, and the mean of these and of the others.

    Of the number in row i and column j::

        decode(encode(x))_ij = mean of x_.j above 0 if x_ij > 0, else mean of the others of column j

    Rows of zeros stay zeros, and are left out: of a feature that is always 0 no weight moves, where a sign for all
    would push its weights up and down (accuracy of a network on digits 0.899 instead of 0.977, in a prototype). Columns
    add up to what they did.

    Notes
    -----
    Meant for error feedback; without it what one bit cannot say is lost for good. ``1 / 8 + 8 / rows`` bytes a number;
    every rank gets the packets of all others. An array of one dimension is one column. F. Seide, H. Fu, J. Droppo,
    G. Li, D. Yu, "1-bit stochastic gradient descent and its application to data-parallel distributed training of
    speech DNNs", 2014.

    Examples
    --------
    >>> packet, _ = OneBit().encode(np.array([[3.0, 1.0], [1.0, -5.0], [0.0, 0.0], [-2.0, -1.0]]))
    >>> OneBit().decode(packet).round(6)
    array([[ 2.,  1.],
           [ 2., -3.],
           [ 0.,  0.],
           [-2., -3.]])
    """

    name = "one_bit"
    reduce_kind = "gather"
    by_layer = True

    def finer(self):
        """Return a codec that leaves out less: eight bits.

        Returns
        -------
        Codec or None
        """
        return QSGD()

    def _encode(self, x, state):
        rows, largest = _columns(x), largest_of(x)
        sent = rows.any(axis=1)
        part = rows[sent] / (largest or 1.0)
        above = part > 0
        levels = np.zeros((2, rows.shape[1]), np.float32)
        for k, chosen in enumerate((~above, above)):
            total = np.where(chosen, part, 0).sum(axis=0, dtype=np.float64)
            levels[k] = total / np.maximum(chosen.sum(axis=0), 1)
        return (np.packbits(sent), np.packbits(above), levels, np.array([largest])), state

    def _decode(self, arrays, shape):
        sent, bits, levels, largest = arrays
        n_columns = levels.shape[1]
        n_rows = int(np.prod(shape)) // n_columns if n_columns else 0
        sent = np.unpackbits(sent, count=n_rows).astype(bool)
        above = np.unpackbits(bits, count=int(sent.sum()) * n_columns).reshape(-1, n_columns).astype(bool)
        x = np.zeros((n_rows, n_columns))
        x[sent] = np.where(above, levels[1], levels[0]) * largest[0]
        return x


def _columns(x):
    """Return an array as columns: one of one dimension is a single one."""
    return x.reshape(-1, 1) if x.ndim < 2 else x.reshape(len(x), -1 if x.size else 0)
