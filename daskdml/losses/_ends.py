"""Means at the end of a domain, such as that of a class no row has: moved inside it as far as scikit-learn does.

Their best constant raw value would not be finite.
"""

import numpy as np

LEAST_SHARE = float(np.finfo(np.float64).eps)  # of one of several classes
LEAST_MEAN = 10 * LEAST_SHARE
