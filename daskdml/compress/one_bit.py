"""One bit a number, and two levels a row."""

import numpy as np

from daskdml.compress.codec import Codec, largest_of


class OneBit(Codec):
    """Send which numbers of a row are above zero, and the mean of these and of the others.

        decode(encode(x))_ij = mean of x_i. above 0 if x_ij > 0, else mean of the others of row i

    A row of zeros stays one: of a feature that is always 0 no weight moves, where one scale and a sign for all would
    push its weights up and down (accuracy of a network on digits 0.899 instead of 0.977, in a prototype). Rows add up
    to what they did.

    Notes
    -----
    Meant for error feedback; without it what one bit cannot say is lost for good. ``1 / 8 + 8 / columns`` bytes a
    number; every rank gets the packets of all others. An array of one dimension is one row. F. Seide, H. Fu, J. Droppo,
    G. Li, D. Yu, "1-bit stochastic gradient descent and its application to data-parallel distributed training of
    speech DNNs", 2014.

    Examples
    --------
    >>> packet, _ = OneBit().encode(np.array([[3.0, 1.0, -4.0], [0.0, 0.0, 0.0]]))
    >>> OneBit().decode(packet)
    array([[ 2.,  2., -4.],
           [ 0.,  0.,  0.]])
    """

    name = "one_bit"
    reduce_kind = "gather"
    by_layer = True

    def _encode(self, x, state):
        rows, largest = _rows(x), largest_of(x)
        above = rows > 0
        levels = np.zeros((len(rows), 2), np.float32)
        if largest > 0:
            part = rows / largest
            n_above = above.sum(axis=1)
            for k, (chosen, n) in enumerate(((~above, above.shape[1] - n_above), (above, n_above))):
                levels[:, k] = np.where(chosen, part, 0).sum(axis=1, dtype=np.float64) / np.maximum(n, 1)
        return (np.packbits(above), levels, np.array([largest])), state

    def _decode(self, arrays, shape):
        bits, levels, largest = arrays
        n = int(np.prod(shape))
        above = np.unpackbits(bits, count=n).reshape(len(levels), -1 if n else 0)
        return np.take_along_axis(levels.astype(np.float64), above.astype(np.intp), axis=1) * largest[0]


def _rows(x):
    """Return an array as rows: one of one dimension is a single one."""
    return x.reshape(1, -1) if x.ndim < 2 else x.reshape(len(x), -1 if x.size else 0)
