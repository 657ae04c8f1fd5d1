"""Stochastic gradient descent row by row, as scikit-learn's SGDClassifier and SGDRegressor do it, in pieces.

Conventions. Rows are visited in the order given and lie anywhere: each is named by the address of its first number
(`DenseRows`), or by the addresses of its values and of its int32 columns (`SparseRows`). They are float32 or float64;
all arithmetic is float64. ``y`` holds -1 and 1 for the losses of classification, but 0 and 1 for ``log_loss``, as in
scikit-learn. What is learnt lies in a `State`, which is changed in place: a call goes on where the last one stopped, so
pieces give the bits of one call over all of their rows.

The coefficients are ``wscale * coef``, so that the decay of an L2 penalty costs one multiplication a row, whatever the
number of features (S. Shalev-Shwartz, Y. Singer, N. Srebro, "Pegasos", 2007); their average has a scale likewise
(L. Bottou, "Stochastic gradient descent tricks", 2012). `settle` multiplies it all out, which scikit-learn does at the
end of each ``fit`` or ``partial_fit``, as `begin` does what it does at the start of one.

Nothing is rounded otherwise than written, and sums over a row have an order of their own (`dot`): the plain bodies, the
vector code and another machine give the same bits, but for those of exp and pow, which are the C library's.
"""

import ctypes
import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable

from daskdml.kernels.compile import build, f4, f8, i8, vector
from daskdml.kernels.copying import ask_for
from daskdml.kernels.scalar import twice_artanh

LOSSES = (
    "hinge", "perceptron", "squared_hinge", "modified_huber", "log_loss",
    "squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive",
)  # fmt: skip
PENALTIES = (None, "l1", "l2", "elasticnet")
LEARNING_RATES = ("constant", "optimal", "invscaling", "adaptive", "pa1", "pa2")

HINGE, PERCEPTRON, SQUARED_HINGE, MODIFIED_HUBER, LOG_LOSS = range(5)
SQUARED_ERROR, HUBER, EPSILON_INSENSITIVE, SQUARED_EPSILON_INSENSITIVE = range(5, 9)
NO_PENALTY, L1, L2, ELASTICNET = range(4)
CONSTANT, OPTIMAL, INVSCALING, ADAPTIVE, PA1, PA2 = range(6)

# Places in State.scalars.
WSCALE, INTERCEPT, T, ETA = range(4)
AVERAGE_INTERCEPT, AVERAGE_A, AVERAGE_B = range(4, 7)
U, SQUARED_NORM, ABSOLUTE_NORM = range(7, 10)
LOSS_SUM, OBJECTIVE_SUM = range(10, 12)
N_SCALARS = 12

LEAST_WSCALE = 1e-9  # below, it is multiplied into the coefficients: scikit-learn's
MOST_SLOPE = 1e12  # slopes are cut there, in scikit-learn too
LANES = 16  # partial sums of a row's products: two or four vectors, which do not wait for each other
AHEAD = 4  # rows: about as long as a line takes from memory
_LINE, _LINES = 64, 8  # bytes; of a long row the processor asks for the later lines by itself
_COLUMN = np.int32(0)


def _inlined(function):
    """Have a function's body written into its callers.

    Arrays handed to a function that is called are counted by it: a row would take 1.5 times as long (measured).
    """
    return register_jitable(inline="always")(function)


# What goes in ---------------------------------------------------------------------------------------------------------


class DenseRows(NamedTuple):
    """Rows of numbers, each behind an address; the caller keeps what is there alive.

    Parameters
    ----------
    addresses : ndarray of int64, shape (n,)
        Of the first number of each row; the others of the row follow it without gaps.
    dtype : float32 or float64
    """

    addresses: np.ndarray
    dtype: np.dtype

    @classmethod
    def of(cls, X, order=None):
        """Name the rows of an array in C order, or those of some ``order``."""
        places = np.arange(X.shape[0]) if order is None else np.asarray(order, np.int64)
        return cls(X.ctypes.data + X.strides[0] * places, X.dtype)


class SparseRows(NamedTuple):
    """Rows of CSR matrices, each behind two addresses; the caller keeps what is there alive.

    Parameters
    ----------
    values, columns : ndarray of int64, shape (n,)
        Addresses of the first value of each row, and of its int32 column.
    counts : ndarray of int64, shape (n,)
        Values of each row.
    dtype : float32 or float64
    """

    values: np.ndarray
    columns: np.ndarray
    counts: np.ndarray
    dtype: np.dtype

    @classmethod
    def of(cls, X, order=None):
        """Name the rows of a CSR matrix, or those of some ``order``; its ``indices`` must be int32."""
        places = np.arange(X.shape[0]) if order is None else np.asarray(order, np.int64)
        starts = X.indptr[places].astype(np.int64)
        counts = X.indptr[places + 1] - starts
        values = X.data.ctypes.data + X.data.itemsize * starts
        return cls(values, X.indices.ctypes.data + 4 * starts, counts, X.data.dtype)


class Settings(NamedTuple):
    """What to minimise and how, in scikit-learn's words.

    Parameters
    ----------
    loss : one of `LOSSES`
    epsilon : float
        Of ``huber`` and the epsilon-insensitive losses.
    penalty : one of `PENALTIES`
    alpha : float
        Factor of the penalty.
    l1_ratio : float
        Of ``elasticnet``: its share of L1.
    learning_rate : one of `LEARNING_RATES`
        ``adaptive`` leaves ``state.eta`` to the caller. ``pa1`` and ``pa2`` go with ``hinge`` and
        ``epsilon_insensitive`` alone.
    eta0 : float
        First learning rate; C of ``pa1`` and ``pa2``.
    power_t : float
        Of ``invscaling``.
    fit_intercept : bool
    intercept_decay : float or None
        Factor of the steps of the intercept; None for scikit-learn's: 1.0 for dense rows, 0.01 for sparse ones.
    average : bool or int
        Averaging begins once ``t >= average``; 0 or False for never.
    weight_pos, weight_neg : float
        Weights of rows with y > 0 and of the others.
    stride : float
        Steps that each step counts for in rates: others take those in between.
    """

    loss: str = "hinge"
    epsilon: float = 0.1
    penalty: str | None = "l2"
    alpha: float = 1e-4
    l1_ratio: float = 0.15
    learning_rate: str = "optimal"
    eta0: float = 0.01
    power_t: float = 0.5
    fit_intercept: bool = True
    intercept_decay: float | None = None
    average: int = 0
    weight_pos: float = 1.0
    weight_neg: float = 1.0
    stride: float = 1.0


def _scalar(place, doc):
    def get(self):
        return float(self.scalars[place])

    def put(self, value):
        self.scalars[place] = value

    return property(get, put, doc=doc)


def _aligned(array):
    """Return a copy that begins at the start of a line of the cache, for what is stored to be read again at once.

    Vectors that lie across two lines make a row of 30 numbers take 70 in place of 50 nanoseconds (measured).
    """
    room = np.empty(array.size + _LINE // 8)
    first = -room.ctypes.data // 8 % (_LINE // 8)
    out = room[first : first + array.size]
    out[:] = array
    return out


@dataclass
class State:
    """What is learnt, and all that a later piece needs to go on; see `new_state`.

    Attributes
    ----------
    coef : ndarray of shape (p,)
        The coefficients are ``wscale * coef``; after `settle` wscale is 1.
    average_coef : ndarray of shape (p,), or (0,) without averaging
        The averages are ``(average_coef + average_a * coef) / average_b``; after `settle` they are ``average_coef``.
    q : ndarray of shape (p,), or (0,) without L1
        What L1 has taken from each coefficient since `begin`.
    scalars : ndarray of shape (12,)
        See the properties.
    """

    coef: np.ndarray
    average_coef: np.ndarray
    q: np.ndarray
    scalars: np.ndarray

    wscale = _scalar(WSCALE, "Scale of the coefficients.")
    intercept = _scalar(INTERCEPT, "Intercept.")
    t = _scalar(T, "One more than the rows seen.")
    eta = _scalar(ETA, "Learning rate of the last row; where it is not a function of t, of the next one.")
    average_intercept = _scalar(AVERAGE_INTERCEPT, "Average of the intercept.")
    average_a = _scalar(AVERAGE_A, "First scale of the averages.")
    average_b = _scalar(AVERAGE_B, "Second scale of the averages.")
    u = _scalar(U, "What L1 could have taken from each coefficient since `begin`.")
    squared_norm = _scalar(SQUARED_NORM, "Squares of the coefficients that the last step changed (scikit-learn's).")
    absolute_norm = _scalar(ABSOLUTE_NORM, "Absolute values of the coefficients that the last step changed.")
    loss_sum = _scalar(LOSS_SUM, "Sum of unweighted losses since the caller last put 0 here.")
    objective_sum = _scalar(OBJECTIVE_SUM, "The same with penalties: what scikit-learn's ``tol`` looks at.")

    def __setstate__(self, arrays):
        self.__dict__.update((name, _aligned(array)) for name, array in arrays.items())


def new_state(n_features, settings, coef=None, intercept=0.0, t=1.0):
    """Make a state to begin with.

    Parameters
    ----------
    n_features : int
    settings : Settings
    coef : array-like of shape (n_features,) or None for zeros
    intercept : float, default 0.0
    t : float, default 1.0

    Returns
    -------
    State
        As after `begin`.
    """
    coef = np.zeros(n_features) if coef is None else np.asarray(coef, np.float64)
    has_l1 = settings.penalty in ("l1", "elasticnet")
    scalars = np.zeros(N_SCALARS)
    scalars[[WSCALE, INTERCEPT, T, AVERAGE_B]] = 1.0, intercept, t, 1.0
    average_coef, q = np.zeros(n_features if settings.average else 0), np.zeros(n_features if has_l1 else 0)
    state = State(_aligned(coef), _aligned(average_coef), _aligned(q), _aligned(scalars))
    begin(state, settings)
    return state


def begin(state, settings):
    """Do what scikit-learn does at the start of each ``fit`` or ``partial_fit``.

    The learning rate goes back to eta0, L1 forgets what it has taken, norms are those of all coefficients, and sums are
    zero. The state must be settled.

    Parameters
    ----------
    state : State
    settings : Settings
    """
    state.q[:] = 0.0
    state.u = state.loss_sum = state.objective_sum = 0.0
    state.eta = settings.eta0
    state.squared_norm, state.absolute_norm = state.coef @ state.coef, np.abs(state.coef).sum()


def settle(state):
    """Multiply the scales into coefficients and averages: ``state.coef`` and ``state.average_coef`` are they, then.

    Parameters
    ----------
    state : State

    Notes
    -----
    It changes bits of what follows: pieces that shall give those of one call are settled after the last alone.
    """
    _compiled_settle()(state.coef, state.average_coef, state.scalars)


def optimal_init(settings):
    """Return t0 of the schedule ``optimal``, whose rate is ``1 / (alpha (t0 + t - 1))``.

    Such that the first rate is ``s / max(1, dloss(1, -s))`` with ``s = alpha^(-1/4)``, the typical size of a
    coefficient.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    float

    Notes
    -----
    A heuristic of L. Bottou's, to which scikit-learn keeps: https://leon.bottou.org/projects/sgd
    """
    size = math.sqrt(1.0 / math.sqrt(settings.alpha))
    slope = loss_and_slope(LOSSES.index(settings.loss), settings.epsilon, 1.0, -size)[1]
    return 1.0 / (size / max(1.0, slope) * settings.alpha)


# The descent ----------------------------------------------------------------------------------------------------------


def descend(rows, y, weight, state, settings):
    """Take one step per row, in the order given.

    With ``p = w x + b`` and the learning rate eta of the schedule::

        w <- max(0, 1 - eta alpha (1 - l1_ratio)) w - eta c dloss(y, p) x
        b <- b - intercept_decay eta c dloss(y, p)

    c being the weight of the row times that of its class. L1 then moves the coefficients of the row's columns towards
    zero by all that has come up since their last time: ``u`` grows by ``eta alpha l1_ratio`` a row, and coefficient j
    has moved by ``q_j``. ``pa1`` and ``pa2`` have steps ``min(eta0, loss / |x|^2)`` and
    ``loss / (|x|^2 + 1 / (2 eta0))`` towards y in place of ``- eta dloss``.

    Parameters
    ----------
    rows : DenseRows or SparseRows
    y : ndarray of float64, shape (n,)
        Targets, or -1 and 1; for ``log_loss`` 0 and 1.
    weight : ndarray of float64, shape (n,), or None for ones
    state : State
        Changed in place.
    settings : Settings

    Returns
    -------
    bool
        Whether intercept and ``state.coef`` are finite still. It is looked at after the last row.

    Notes
    -----
    scikit-learn's step for step. It looks for numbers that are not finite after each epoch, and sees to ``tol`` and to
    the rate of ``adaptive``; those are left to the caller. L1: Y. Tsuruoka, J. Tsujii, S. Ananiadou, "Stochastic
    gradient descent training for L1-regularized log-linear models with cumulative penalty", ACL 2009. pa1, pa2:
    K. Crammer et al., "Online passive-aggressive algorithms", JMLR 7 (2006). Averages: W. Xu, "Towards optimal one pass
    large scale learning with averaged stochastic gradient descent", 2011.

    Examples
    --------
    >>> X, y = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), np.array([1.0, -1.0, 1.0])
    >>> settings = Settings("perceptron", penalty=None, learning_rate="constant", eta0=1.0)
    >>> state = new_state(2, settings)
    >>> descend(DenseRows.of(X), y, None, state, settings)
    True
    >>> settle(state)
    >>> state.coef, state.intercept
    (array([0., 2.]), 1.0)
    """
    codes, numbers = _pack(settings, isinstance(rows, SparseRows), np.dtype(rows.dtype).itemsize)
    if isinstance(rows, SparseRows):
        values, columns, counts, dtype = rows
    else:
        values, dtype = rows
        columns = counts = _NOTHING
    return bool(
        _compiled(np.dtype(dtype).name)(
            values, columns, counts, np.dtype(dtype).type(0), y, _NO_WEIGHTS if weight is None else weight,
            codes, numbers, state.coef, state.average_coef, state.q, state.scalars,
        )
    )  # fmt: skip


_NOTHING, _NO_WEIGHTS = np.empty(0, np.int64), np.empty(0)


@functools.lru_cache(maxsize=256)
def _pack(settings, is_sparse, itemsize):
    """Return the settings as the kernel takes them: an array of codes and one of numbers."""
    s = settings
    if s.learning_rate in ("pa1", "pa2") and s.loss not in ("hinge", "epsilon_insensitive"):
        raise ValueError(f"learning_rate={s.learning_rate!r} goes with hinge or epsilon_insensitive, not {s.loss!r}")
    if s.learning_rate == "optimal" and not s.alpha > 0:
        raise ValueError("learning_rate='optimal' needs alpha > 0")
    decay = (0.01 if is_sparse else 1.0) if s.intercept_decay is None else s.intercept_decay
    ratio = {"l1": 1.0, "elasticnet": s.l1_ratio}.get(s.penalty, 0.0)
    start = optimal_init(s) if s.learning_rate == "optimal" else 0.0
    codes = LOSSES.index(s.loss), PENALTIES.index(s.penalty), LEARNING_RATES.index(s.learning_rate), is_sparse, itemsize
    numbers = (
        s.epsilon, s.alpha, ratio, s.eta0, s.power_t, start, s.weight_pos, s.weight_neg,
        decay if s.fit_intercept else 0.0, s.average, s.stride,
    )  # fmt: skip
    return np.array(codes, np.int64), np.array(numbers, np.float64)


@functools.cache
def _compiled(dtype):
    addresses, reals, learnt = vector(i8, read=True), vector(f8, read=True), vector(f8)
    signature = types.boolean(
        addresses, addresses, addresses, f4 if dtype == "float32" else f8, reals, reals, addresses, reals,
        learnt, learnt, learnt, learnt,
    )  # fmt: skip
    return build(_descend, signature, rounds_as_written=True)


@functools.cache
def _compiled_settle():
    return build(_settle, types.void(vector(f8), vector(f8), vector(f8)), rounds_as_written=True)


def _descend(values, columns, counts, like, y, weight, codes, numbers, coef, average_coef, q, s):
    loss, penalty, schedule, is_sparse, itemsize = codes[0], codes[1], codes[2], codes[3], codes[4]
    epsilon, alpha, l1_ratio, eta0, power_t = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    start, weight_pos, weight_neg, decay, average = numbers[5], numbers[6], numbers[7], numbers[8], numbers[9]
    stride = numbers[10]
    # Variables and not places of s: each row waits for these of the row before, and memory would add to that.
    wscale, intercept, t, eta = s[WSCALE], s[INTERCEPT], s[T], s[ETA]
    for i in range(values.size):
        x, at, n = values[i], columns[i] if is_sparse else 0, counts[i] if is_sparse else coef.size
        if i + AHEAD < values.size:
            ask_for_piece(values[i + AHEAD], n * itemsize)
            if is_sparse:
                ask_for_piece(columns[i + AHEAD], n * 4)
        product = dot_sparse(x, at, n, like, coef) if is_sparse else dot(x, n, like, coef)
        p = product * wscale + intercept
        if schedule == OPTIMAL:
            eta = 1.0 / (alpha * (start + t - 1.0))
        elif schedule == INVSCALING:
            eta = eta0 / t**power_t
        value, slope = loss_and_slope(loss, epsilon, y[i], p)
        s[LOSS_SUM] += value
        s[OBJECTIVE_SUM] += value
        if schedule >= PA1:
            square = square_of(x, n, like)
            if schedule == PA1 and square == 0.0:
                continue  # before t counts it, in scikit-learn too
            step = min(eta0, value / square) if schedule == PA1 else value / (square + 0.5 / eta0)
            step *= y[i] if loss == HINGE else -1.0 if y[i] - p < 0.0 else 1.0
        else:
            if penalty != NO_PENALTY:
                norms = (1.0 - l1_ratio) * 0.5 * s[SQUARED_NORM] + l1_ratio * s[ABSOLUTE_NORM]
                s[OBJECTIVE_SUM] += alpha * norms
            step = -eta * (-MOST_SLOPE if slope < -MOST_SLOPE else MOST_SLOPE if slope > MOST_SLOPE else slope)
        step *= weight_pos if y[i] > 0.0 else weight_neg
        if weight.size > 0:
            step *= weight[i]
        if penalty >= L2:
            wscale = _scaled(wscale, max(0.0, 1.0 - (1.0 - l1_ratio) * eta * alpha), coef, average_coef, s)
        if step != 0.0:
            _add_to_coef(x, at, n, like, step, is_sparse, wscale, coef, s)
            intercept += step * decay
        if average > 0.0 and average <= t:
            _add_to_average(x, at, n, like, step, is_sparse, wscale, t - average + 1.0, average_coef, s)
            s[AVERAGE_INTERCEPT] += (intercept - s[AVERAGE_INTERCEPT]) / (t - average + 1.0)
        if penalty == L1 or penalty == ELASTICNET:
            s[U] += l1_ratio * eta * alpha
            _truncate(at, n, is_sparse, s[U], wscale, coef, q)
        t += stride
    s[WSCALE], s[INTERCEPT], s[T], s[ETA] = wscale, intercept, t, eta
    return _all_finite(coef, intercept)


@_inlined
def loss_and_slope(loss, epsilon, y, p):
    """Return loss and derivative by p: the formulas of scikit-learn's guide, section 1.5.8."""
    z = y * p
    if loss == LOG_LOSS:  # log(1 + exp(p)) - y p; beyond -37 the slope is exp(p) - y to the last bit
        e = math.exp(-p if p > -37.0 else p)
        slope = ((1.0 - y) - y * e) / (1.0 + e) if p > -37.0 else e - y
        # exp(-|p|) without a branch on the sign of p, which processors cannot foresee, nor a division by zero.
        e = min(e, 1.0 / (e + 1e-300))
        return max(p, 0.0) - z + twice_artanh(e / (2.0 + e)), slope
    if loss == HINGE:
        return (1.0 - z, -y) if z <= 1.0 else (0.0, 0.0)
    if loss == PERCEPTRON:
        return (-z, -y) if z <= 0.0 else (0.0, 0.0)
    if loss == SQUARED_HINGE:
        return ((1.0 - z) * (1.0 - z), -2.0 * y * (1.0 - z)) if 1.0 - z > 0.0 else (0.0, 0.0)
    if loss == MODIFIED_HUBER:
        if z < -1.0:
            return -4.0 * z, -4.0 * y
        return ((1.0 - z) * (1.0 - z), 2.0 * (1.0 - z) * -y) if z < 1.0 else (0.0, 0.0)
    r = p - y
    sign = 1.0 if r >= 0.0 else -1.0
    beyond = abs(r) - epsilon
    if loss == SQUARED_ERROR:
        return 0.5 * (r * r), r
    if loss == HUBER:
        return (0.5 * (r * r), r) if beyond <= 0.0 else (epsilon * (abs(r) - 0.5 * epsilon), sign * epsilon)
    if loss == EPSILON_INSENSITIVE:
        return (beyond, sign) if beyond > 0.0 else (0.0, 0.0)
    return (beyond * beyond, 2.0 * sign * beyond) if beyond > 0.0 else (0.0, 0.0)


@_inlined
def _scaled(wscale, factor, coef, average_coef, s):
    """Return the scale after a decay, which is 1 again where it got too small to divide by."""
    s[SQUARED_NORM] *= factor * factor
    s[ABSOLUTE_NORM] *= factor
    if wscale * factor >= LEAST_WSCALE:
        return wscale * factor
    s[WSCALE] = wscale * factor
    _settle(coef, average_coef, s)
    return 1.0


@_inlined
def _settle(coef, average_coef, s):
    if average_coef.size > 0:
        share = 1.0 / s[AVERAGE_B]
        for j in range(coef.size):
            average_coef[j] = (average_coef[j] + s[AVERAGE_A] * coef[j]) * share
        s[AVERAGE_A], s[AVERAGE_B] = 0.0, 1.0
    for j in range(coef.size):
        coef[j] *= s[WSCALE]
    s[WSCALE] = 1.0


@_inlined
def _add_to_coef(x, at, n, like, step, is_sparse, wscale, coef, s):
    factor = step / wscale
    if is_sparse:
        squares, absolutes = add_sparse(x, at, n, like, factor, coef)
    else:
        squares, absolutes = add(x, n, like, factor, coef)
    s[SQUARED_NORM], s[ABSOLUTE_NORM] = squares * (wscale * wscale), absolutes * wscale


@_inlined
def _add_to_average(x, at, n, like, step, is_sparse, wscale, n_averaged, average_coef, s):
    """Average without touching all coefficients: average_a holds the scales that each ``coef`` has had on average."""
    factor = s[AVERAGE_A] * (-step / wscale)
    if factor != 0.0:
        if is_sparse:
            add_sparse_alone(x, at, n, like, factor, average_coef)
        else:
            add(x, n, like, factor, average_coef)
    share = 1.0 / n_averaged
    if n_averaged > 1.0:
        s[AVERAGE_B] /= 1.0 - share
    s[AVERAGE_A] += share * s[AVERAGE_B] * wscale


@_inlined
def _truncate(at, n, is_sparse, u, wscale, coef, q):
    for k in range(n):
        j = load(at, k, _COLUMN) if is_sparse else np.uint64(k)
        z = coef[j]
        if z > 0.0:
            coef[j] = max(0.0, z - (u + q[j]) / wscale)
        elif z < 0.0:
            coef[j] = min(0.0, z + (u - q[j]) / wscale)
        q[j] += wscale * (coef[j] - z)


@_inlined
def _all_finite(coef, intercept):
    odd = 0.0 * intercept  # 0, or NaN
    for j in range(coef.size):
        if not math.isfinite(coef[j]):
            return False
    return odd == 0.0


# Rows -----------------------------------------------------------------------------------------------------------------


def load(address, place, like):
    """Return number ``place`` of those of like's type (float32, float64, int32) behind an address.

    Parameters
    ----------
    address, place : int
    like : float32, float64 or int32 scalar
        Its type alone counts.

    Returns
    -------
    float, or for int32, which must not be negative, an unsigned integer
    """
    kind = {"float32": ctypes.c_float, "float64": ctypes.c_double, "int32": ctypes.c_int32}[np.dtype(type(like)).name]
    return kind.from_address(int(address) + ctypes.sizeof(kind) * int(place)).value


def dot(x, n, like, w):
    """Return the product of a row and ``w``, as the sum of `LANES` sums of every sixteenth number.

    Those are added up by halves, 8 and 8, 4 and 4, 2 and 2; where the rest of the row has 8, 4, 2 or 1 numbers more,
    their products are added to the lanes there are then.

    Parameters
    ----------
    x : int
        Address of the row.
    n : int
    like : float32 or float64 scalar
        Of the type of the row.
    w : ndarray of shape (n,)
    """
    sums = [0.0] * LANES
    j = 0
    for width in _widths(n):
        while len(sums) > width:
            sums = [sums[k] + sums[k + len(sums) // 2] for k in range(len(sums) // 2)]
        sums = [sums[k] + load(x, j + k, like) * w[j + k] for k in range(width)]
        j += width
    while len(sums) > 1:
        sums = [sums[k] + sums[k + len(sums) // 2] for k in range(len(sums) // 2)]
    return sums[0]


def add(x, n, like, factor, w):
    """Add ``factor`` times a row to ``w``; return sums of squares and absolute values of the new ``w``, as in `dot`.

    Parameters
    ----------
    x : int
        Address of the row.
    n : int
    like : float32 or float64 scalar
    factor : float
    w : ndarray of shape (n,)
        Changed in place.
    """
    for j in range(n):
        w[j] += load(x, j, like) * factor
    moduli, ones = np.abs(w), np.ones(n)
    return dot(w.ctypes.data, n, np.float64(0), w), dot(moduli.ctypes.data, n, np.float64(0), ones)


def _widths(n):
    return [LANES] * (n // LANES) + [width for width in (8, 4, 2, 1) if n % LANES & width]


@_inlined
def dot_sparse(x, at, n, like, w):
    """Return the product of a sparse row and ``w``, as the sum of four sums."""
    a = b = c = d = 0.0
    whole = n // 4 * 4
    for k in range(0, whole, 4):
        a += load(x, k, like) * w[load(at, k, _COLUMN)]
        b += load(x, k + 1, like) * w[load(at, k + 1, _COLUMN)]
        c += load(x, k + 2, like) * w[load(at, k + 2, _COLUMN)]
        d += load(x, k + 3, like) * w[load(at, k + 3, _COLUMN)]
    for k in range(whole, n):
        a += load(x, k, like) * w[load(at, k, _COLUMN)]
    return (a + b) + (c + d)


@_inlined
def add_sparse(x, at, n, like, factor, w):
    """Add ``factor`` times a sparse row to ``w``; return the sums of squares and absolute values of its columns."""
    a = b = c = d = 0.0
    whole = n // 2 * 2
    for k in range(0, whole, 2):
        i, j = load(at, k, _COLUMN), load(at, k + 1, _COLUMN)
        first = w[i] + load(x, k, like) * factor
        w[i] = first
        second = w[j] + load(x, k + 1, like) * factor  # after the first is there: columns may be equal
        w[j] = second
        a, b = a + first * first, b + second * second
        c, d = c + abs(first), d + abs(second)
    if whole < n:
        j = load(at, whole, _COLUMN)
        first = w[j] + load(x, whole, like) * factor
        w[j] = first
        a, c = a + first * first, c + abs(first)
    return a + b, c + d


@_inlined
def add_sparse_alone(x, at, n, like, factor, w):
    """Add ``factor`` times a sparse row to ``w``."""
    for k in range(n):
        w[load(at, k, _COLUMN)] += load(x, k, like) * factor


@_inlined
def square_of(x, n, like):
    """Return the sum of squares of the numbers of a row."""
    total = 0.0
    for k in range(n):
        value = load(x, k, like)
        total += value * value
    return total


@_inlined
def ask_for_piece(address, n_bytes):
    """Ask for memory that will be read soon; changes nothing."""
    for line in range(min(_LINES, n_bytes // _LINE + 1)):
        ask_for(address + line * _LINE)


@intrinsic
def _load(context, address, place, like):
    def emit(ctx, builder, sig, args):
        pointer = builder.inttoptr(args[0], ctx.get_data_type(sig.args[2]).as_pointer())
        value = builder.load(builder.gep(pointer, [args[1]]))
        if isinstance(sig.args[2], types.Integer):
            return builder.zext(value, ir.IntType(64))
        return builder.fpext(value, ir.DoubleType()) if sig.args[2] == f4 else value

    returned = types.uint64 if isinstance(like, types.Integer) else f8
    return returned(i8, i8, like), emit


@overload(load)
def _load_compiled(address, place, like):
    return lambda address, place, like: _load(address, place, like)


class _Row:
    """LLVM instructions for vectors of a row, and of the array beside it."""

    def __init__(self, ctx, builder, address, kind, array_type, array):
        self.builder = builder
        self.element = ctx.get_data_type(kind)
        self.x = builder.inttoptr(address, self.element.as_pointer())
        self.w = ctx.make_array(array_type)(ctx, builder, array).data

    def at(self, pointer, place, width):
        element = self.element if pointer is self.x else ir.DoubleType()
        pointer = self.builder.gep(pointer, [place])
        return self.builder.bitcast(pointer, ir.VectorType(element, width).as_pointer())

    def load_x(self, place, width):
        values = self.builder.load(self.at(self.x, place, width), align=4 if self.element == ir.FloatType() else 8)
        return self.builder.fpext(values, _doubles(width)) if self.element == ir.FloatType() else values

    def load_w(self, place, width):
        return self.builder.load(self.at(self.w, place, width), align=8)

    def store_w(self, values, place):
        self.builder.store(values, self.at(self.w, place, values.type.count), align=8)

    def walk(self, n, n_sums, body):
        """Emit ``body(place, width) -> n_sums vectors`` for a row, and their sums in the order of `dot`."""
        builder, i64 = self.builder, ir.IntType(64)
        zero = ir.Constant(_doubles(LANES), [0.0] * LANES)
        totals = [cgutils.alloca_once_value(builder, zero) for _ in range(n_sums)]
        with cgutils.for_range(builder, builder.lshr(n, i64(LANES.bit_length() - 1))) as loop:
            self._include(totals, body, builder.mul(loop.index, i64(LANES)), LANES)
        width = LANES
        while width > 1:
            width //= 2
            totals = [cgutils.alloca_once_value(builder, self._halved(builder.load(total))) for total in totals]
            # The rest's numbers of this width stand behind those of all larger widths.
            with builder.if_then(builder.icmp_unsigned("!=", builder.and_(n, i64(width)), i64(0))):
                self._include(totals, body, builder.and_(n, i64(-2 * width)), width)
        return [builder.extract_element(builder.load(total), ir.IntType(32)(0)) for total in totals]

    def _include(self, totals, body, place, width):
        for total, terms in zip(totals, body(place, width)):
            self.builder.store(self.builder.fadd(self.builder.load(total), terms), total)

    def _halved(self, values):
        half = values.type.count // 2
        low, high = (
            self.builder.shuffle_vector(values, values, ir.Constant(ir.VectorType(ir.IntType(32), half), [*lanes]))
            for lanes in (range(half), range(half, 2 * half))
        )
        return self.builder.fadd(low, high)

    def absolute(self, values):
        name = f"llvm.fabs.v{values.type.count}f64"
        kind = ir.FunctionType(values.type, [values.type])
        function = self.builder.module.globals.get(name) or ir.Function(self.builder.module, kind, name)
        return self.builder.call(function, [values])

    def splat(self, scalar, width):
        one = self.builder.insert_element(ir.Constant(_doubles(width), ir.Undefined), scalar, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
        return self.builder.shuffle_vector(one, one, zeros)


def _doubles(width):
    return ir.VectorType(ir.DoubleType(), width)


@intrinsic
def _dot(context, x, n, like, w):
    def emit(ctx, builder, sig, args):
        row = _Row(ctx, builder, args[0], sig.args[2], sig.args[3], args[3])

        def products(place, width):
            return [builder.fmul(row.load_x(place, width), row.load_w(place, width))]

        return row.walk(args[1], 1, products)[0]

    return f8(i8, i8, like, w), emit


@intrinsic
def _add(context, x, n, like, factor, w):
    def emit(ctx, builder, sig, args):
        row = _Row(ctx, builder, args[0], sig.args[2], sig.args[4], args[4])

        def added(place, width):
            step = builder.fmul(row.load_x(place, width), row.splat(args[3], width))
            new = builder.fadd(row.load_w(place, width), step)
            row.store_w(new, place)
            return builder.fmul(new, new), row.absolute(new)

        return ctx.make_tuple(builder, sig.return_type, row.walk(args[1], 2, added))

    return types.UniTuple(f8, 2)(i8, i8, like, f8, w), emit


@overload(dot)
def _dot_compiled(x, n, like, w):
    return lambda x, n, like, w: _dot(x, n, like, w)


@overload(add)
def _add_compiled(x, n, like, factor, w):
    return lambda x, n, like, factor, w: _add(x, n, like, factor, w)
