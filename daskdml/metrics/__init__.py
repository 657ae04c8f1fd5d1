"""Metrics in one pass: each block gives a partial, partials are added in block order, the sum is finished once.

Signatures, values, warnings and errors are scikit-learn's. Inputs are NumPy, pandas, polars, lists and Dask collections
in any mixture of chunkings; the answer is a number, never a lazy object. Input in memory is computed in this process.
"""

from daskdml.metrics._classification import accuracy_score, log_loss
from daskdml.metrics._ranking import roc_auc_score
from daskdml.metrics._regression import mean_squared_error, r2_score

__all__ = ["accuracy_score", "log_loss", "mean_squared_error", "r2_score", "roc_auc_score"]
