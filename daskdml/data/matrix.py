"""From any in-memory table to what kernels read: a float matrix, dense in C or F order, or CSR.

Conventions. float32 stays float32, every other number becomes float64. Nothing is copied that can be read where it
lies: a homogeneous float frame, a memory map or a column-ordered array passes through as a view, possibly read-only.
Missing values of nullable columns become NaN.
"""

import numpy as np

from daskdml.data.kinds import aligned, as_table, is_cupy, is_dask, is_dask_frame, is_narwhal, is_pandas, is_sparse

RESHAPE = (
    "Reshape your data either using array.reshape(-1, 1) if your data has a single feature or array.reshape(1, -1) "
    "if it contains a single sample."
)
COMPLEX = "Complex data not supported\nX holds complex numbers; pass their real and imaginary parts as columns."


def as_matrix(X, *, dtype=None, allow_csc=False, ensure_finite=False):
    """Return one in-memory table as a float matrix.

    Parameters
    ----------
    X : array_like, DataFrame or sparse matrix, shape (n, p)
        NumPy, cupy, pandas, polars, pyarrow, SciPy sparse or nested lists.
    dtype : numpy dtype, default None
        Forces float32 or float64; None keeps float32 and turns everything else into float64.
    allow_csc : bool, default False
        Pass CSC through instead of converting it to CSR.
    ensure_finite : bool, default False
        Also look for NaN and infinity (one more read of X).

    Returns
    -------
    ndarray or csr_matrix or csr_array
        A dense result has unit stride along its rows (C) or down its columns (F, or rows cut from F).

    Raises
    ------
    ValueError
        For complex numbers, columns that are no numbers, another number of dimensions, or (``ensure_finite``) NaN.

    Notes
    -----
    Costs nothing for float arrays, CSR and homogeneous float frames; one copy for everything else.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.ones((3, 2), dtype=np.float32)
    >>> as_matrix(X) is X, as_matrix([[1, 2]]).dtype
    (True, dtype('float64'))
    """
    if is_dask(X):
        raise TypeError("as_matrix takes one chunk in memory, got a Dask collection; map it over the chunks instead.")
    if is_sparse(X):
        out = _from_sparse(X, dtype, allow_csc)
    elif is_pandas(X):
        out = _from_pandas(X, dtype)
    elif is_narwhal(X):
        out = _from_narwhal(X, dtype)
    elif is_cupy(X):
        check_two_dimensional(X)
        out = X.astype(_float_type(X.dtype, dtype), copy=False)
    else:
        out = _from_dense(X, dtype)
    if ensure_finite:
        check_finite(out)
    return out


def side_by_side(X):
    """Return rows as one matrix, as `as_matrix` does; a tuple holds panels of their columns.

    Parameters
    ----------
    X : table in memory, or tuple of tables with the same rows

    Returns
    -------
    ndarray or csr_matrix
    """
    if not isinstance(X, tuple):
        return as_matrix(X)
    panels = [as_matrix(panel) for panel in X]
    if any(is_sparse(panel) for panel in panels):
        from scipy import sparse

        return sparse.hstack(panels, format="csr")
    return np.concatenate(panels, axis=1)


def check_two_dimensional(X):
    """Raise scikit-learn's sentence when X has another number of dimensions than two."""
    ndim = len(X.shape)
    if ndim == 2:
        return
    if ndim > 2:
        raise ValueError(f"Found array with dim {ndim}, while dim <= 2 is required.")
    if is_pandas(X) or is_narwhal(X) or is_dask_frame(X):
        raise ValueError(
            f"Expected a 2-dimensional container but got {type(X)} instead. Pass a DataFrame containing a single row "
            "(i.e. single sample) or a single column (i.e. single feature) instead. "
            "Reshape your data to two dimensions, for instance with X.to_frame()."
        )
    got = "scalar" if ndim == 0 else "1D"
    raise ValueError(f"Expected 2D array, got {got} array instead:\narray={X}.\n{RESHAPE}")


def check_finite(X):
    """Raise scikit-learn's sentence when a matrix holds NaN or infinity."""
    values = X.data if is_sparse(X) else X
    # A finite sum proves finite values at the price of one read without a temporary; overflow only asks for the test.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()) or np.isfinite(values).all():
            return
    if np.isnan(values).any():
        raise ValueError("Input X contains NaN.")
    raise ValueError(f"Input X contains infinity or a value too large for {values.dtype!r}.")


def _float_type(found, wanted=None):
    """Return the dtype a matrix of dtype `found` is read as."""
    if found.kind == "c":
        raise ValueError(COMPLEX)
    if found.kind not in "fiubO":
        raise ValueError(
            f"X holds values of type {found}, which are no numbers; encode them first, for instance with "
            "daskdml.preprocessing.TableEncoder on a DataFrame."
        )
    if wanted is not None:
        return np.dtype(wanted)
    return np.dtype(np.float32 if found.newbyteorder("=") == np.float32 else np.float64)


def _from_dense(X, dtype):
    if isinstance(X, np.matrix):
        raise TypeError("np.matrix is not supported. Please convert to a numpy array with np.asarray.")
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        X = X.astype(_float_type(X.dtype, dtype)).filled(np.nan)
    if type(X) is not np.ndarray:
        X = np.asarray(as_table(X))
    # Dtype before dimensions: scikit-learn names complex data first.
    target = _float_type(X.dtype, dtype)
    check_two_dimensional(X)
    if X.dtype.kind == "O":
        return _from_objects(X, target)
    if X.dtype != target or not X.dtype.isnative:
        X = X.astype(target)
    by_columns = X.strides[0] == X.itemsize and X.strides[1] >= X.itemsize * len(X)
    if not (X.flags.c_contiguous or X.flags.f_contiguous or by_columns):
        return np.ascontiguousarray(X)
    return aligned(X)


def _from_objects(X, target):
    try:
        return X.astype(target)
    except ValueError as error:
        raise ValueError(
            f"X holds objects that are no numbers ({error}); encode them first, for instance with "
            "daskdml.preprocessing.TableEncoder on a DataFrame."
        ) from error


def _from_sparse(X, dtype, allow_csc):
    target = _float_type(X.dtype, dtype)
    check_two_dimensional(X)
    if X.format != "csr" and not (allow_csc and X.format == "csc"):
        X = X.tocsr()
    if X.dtype != target:
        out = type(X)(X.shape, dtype=target)
        out.indptr, out.indices, out.data = X.indptr, X.indices, X.data.astype(target)
        X = out
    return aligned(X)


def _refuse_columns(names, types):
    shown = ", ".join(f"{name!r} ({kind})" for name, kind in list(zip(names, types))[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    raise ValueError(
        f"X has columns that are no numbers: {shown}{more}; encode them first with "
        "daskdml.preprocessing.TableEncoder, or drop them."
    )


def _numpy_type(dtype):
    """Return the NumPy dtype behind a pandas dtype, or None when the column is no number."""
    if not isinstance(dtype, np.dtype):
        dtype = getattr(dtype, "subtype", None) or getattr(dtype, "numpy_dtype", None)
        if not isinstance(dtype, np.dtype):
            return None
    return dtype if dtype.kind in "fiubc" else None


def _from_pandas(X, dtype):
    check_two_dimensional(X)
    found = [_numpy_type(kind) for kind in X.dtypes]
    bad = [i for i, kind in enumerate(found) if kind is None]
    if bad:
        _refuse_columns([X.columns[i] for i in bad], [X.dtypes.iloc[i] for i in bad])
    target = _common_float(found, dtype)
    if all(isinstance(kind, np.dtype) for kind in X.dtypes):
        return _from_dense(X.to_numpy(dtype=target), target)
    if all(hasattr(kind, "subtype") for kind in X.dtypes):
        return _from_sparse(X.sparse.to_coo(), target, allow_csc=False)
    return _from_dense(X.to_numpy(dtype=target, na_value=np.nan), target)


def _common_float(found, wanted):
    types = {_float_type(kind, wanted) for kind in found}
    return types.pop() if len(types) == 1 else np.dtype(wanted or np.float64)


def _from_narwhal(X, dtype):
    check_two_dimensional(X)
    import narwhals as nw

    frame = nw.from_native(X, eager_only=True)
    schema = frame.schema
    bad = [name for name, kind in schema.items() if not (kind.is_numeric() or kind == nw.Boolean)]
    if bad:
        _refuse_columns(bad, [schema[name] for name in bad])
    single = dtype is None and len(schema) > 0 and all(kind == nw.Float32 for kind in schema.values())
    target = np.dtype(dtype or (np.float32 if single else np.float64))
    narwhal = nw.Float32 if target == np.float32 else nw.Float64
    cast = [nw.col(name).cast(narwhal) for name, kind in schema.items() if kind != narwhal]
    frame = frame.with_columns(cast) if cast else frame
    return _from_dense(np.asarray(frame.to_numpy(), dtype=target).reshape(X.shape), target)
