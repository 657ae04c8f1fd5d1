"""Stochastic gradient descent row by row, against scikit-learn's."""

import math
import pickle

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import SGDClassifier, SGDRegressor

from daskdml.kernels import sequential
from daskdml.kernels.sequential import (
    LEARNING_RATES,
    LOSSES,
    PENALTIES,
    DenseRows,
    Settings,
    SparseRows,
    add,
    begin,
    descend,
    dot,
    new_state,
    settle,
)

N, P = 60, 31  # of 31 numbers each width of vectors has its share
CLASSIFIES = LOSSES[:5]
LAYOUTS = ("float64", "float32", "csr", "csr32")
_RNG = np.random.default_rng(0)
_X = _RNG.normal(size=(N, P)) / np.sqrt(2 * P)  # squares of rows below 2 / eta: no rounding grows
_RAW = _X @ _RNG.normal(size=P) + 0.3 * _RNG.normal(size=N)
_WEIGHT = _RNG.integers(0, 4, N) * 0.7
_CLASSES = {-1: 0.5, 1: 1.7}


def _data(layout):
    """Return X as the kernel takes it, rows of it, and what scikit-learn computes with float64 from."""
    X = _X.astype(np.float32 if "32" in layout else np.float64)
    if "csr" in layout:
        X[np.random.default_rng(1).random(X.shape) < 0.6] = 0
        X = sparse.csr_matrix(X)
        return X, SparseRows.of(X), X.astype(np.float64)
    return X, DenseRows.of(X), X.astype(np.float64)


def _target(loss):
    if loss not in CLASSIFIES:
        return _RAW
    return np.where(_RAW > 0, 1.0, 0.0 if loss == "log_loss" else -1.0)


def _peer(settings, has_classes=False, **options):
    words = settings._asdict()
    for ours in ("weight_pos", "weight_neg", "intercept_decay", "stride"):
        del words[ours]
    words |= {"average": settings.average or False, "shuffle": False, "tol": None} | options
    if settings.loss not in CLASSIFIES:
        return SGDRegressor(**words)
    return SGDClassifier(**words, class_weight=_CLASSES if has_classes else None)


def _fit_peer(peer, X, loss, weight):
    return peer.fit(X, np.where(_RAW > 0, 1, -1) if loss in CLASSIFIES else _RAW, sample_weight=weight)


def _assert_close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-10, atol=1e-12 * np.abs(desired).max())


def _cases():
    """Each loss with four penalties, going through the values of all else; then pa1 and pa2."""
    for i, loss in enumerate(LOSSES):
        for k, penalty in enumerate(PENALTIES):
            m = 4 * i + k
            yield (loss, penalty, LEARNING_RATES[(i + k) % 4], LAYOUTS[(i + 2 * k + i // 4) % 4], (0, True, 10)[m % 3],
                   m % 5 < 3, m % 7 < 4, loss in CLASSIFIES and (m // 2) % 2 == 0)  # fmt: skip
    for k, penalty in enumerate((None, "l2", "l1", "elasticnet")):
        for loss in ("hinge", "epsilon_insensitive"):
            yield (loss, penalty, ("pa1", "pa2")[k % 2], LAYOUTS[k], (0, True, 0, 10)[k], k < 2, k > 0,
                   loss == "hinge" and k > 1)  # fmt: skip


CASES = list(_cases())


def test_cases_have_each_value_twice():
    for place, values in enumerate([LOSSES, PENALTIES, LEARNING_RATES, LAYOUTS, (0, True, 10), *[(True, False)] * 3]):
        for value in values:
            assert sum(case[place] == value for case in CASES) >= 2, value


@pytest.mark.parametrize(
    "loss, penalty, learning_rate, layout, average, fit_intercept, is_weighted, has_classes", CASES
)
def test_equals_scikit_learn(loss, penalty, learning_rate, layout, average, fit_intercept, is_weighted, has_classes):
    settings = Settings(
        loss, 0.2, penalty, 0.01 if learning_rate == "optimal" else 0.001, 0.3, learning_rate, 0.3, 0.25, fit_intercept,
        None, average, *((_CLASSES[1], _CLASSES[-1]) if has_classes else (1.0, 1.0)),
    )  # fmt: skip
    X, rows, wide = _data(layout)
    weight = _WEIGHT if is_weighted else None
    for epochs in (1, 3):
        state = new_state(P, settings)
        for _ in range(epochs):
            assert descend(rows, _target(loss), weight, state, settings)
        settle(state)
        peer = _fit_peer(_peer(settings, has_classes, max_iter=epochs), wide, loss, weight)
        assert state.t == peer.t_ == epochs * N + 1
        if average:
            _assert_close(state.coef, peer._standard_coef.ravel())
            _assert_close(state.average_coef, peer.coef_.ravel())
            _assert_close(state.average_intercept, peer.intercept_[0])
        else:
            _assert_close(state.coef, peer.coef_.ravel())
            _assert_close(state.intercept, peer.intercept_[0])
    assert np.abs(state.coef).max() > 0


@pytest.mark.parametrize("alpha", [3.0, 20.0])  # the scale halves with each row; is zero at once
@pytest.mark.parametrize("layout", ["float64", "csr"])
@pytest.mark.parametrize("average", [0, 10])
def test_scales_that_get_too_small(alpha, layout, average):
    settings = Settings("squared_error", alpha=alpha, learning_rate="constant", eta0=0.2, average=average)
    X, rows, wide = _data(layout)
    state = new_state(P, settings)
    descend(rows, _RAW, None, state, settings)
    settle(state)
    peer = _fit_peer(_peer(settings, max_iter=1), wide, settings.loss, None)
    if average:  # a difference of numbers up to 1e9 times larger: scikit-learn's bits are lost too
        np.testing.assert_allclose(state.average_coef, peer.coef_.ravel(), rtol=1e-5, atol=1e-8)
    _assert_close(state.coef, (peer._standard_coef if average else peer.coef_).ravel())
    _assert_close(state.average_intercept if average else state.intercept, peer.intercept_[0])


@pytest.mark.parametrize("learning_rate", ["adaptive", "optimal", "invscaling"])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("layout", ["float64", "csr"])
def test_sums_stop_where_scikit_learn_does(learning_rate, penalty, layout):
    """By its rule: patience of 3 epochs, of which adaptive makes smaller rates until 1e-6."""
    settings = Settings("log_loss", penalty=penalty, alpha=0.02, learning_rate=learning_rate, eta0=0.3)
    X, rows, wide = _data(layout)
    state = new_state(P, settings)
    best, without, epochs, tol = np.inf, 0, 0, 2e-3
    while epochs < 200:
        state.loss_sum = state.objective_sum = 0.0
        descend(rows, _target("log_loss"), None, state, settings)
        epochs += 1
        mean = state.objective_sum / N
        without = without + 1 if mean > best - tol else 0
        best = min(best, mean)
        if without >= 3:
            if learning_rate != "adaptive" or state.eta <= 1e-6:
                break
            state.eta, without = state.eta / 5, 0
    settle(state)
    peer = _fit_peer(_peer(settings, tol=tol, n_iter_no_change=3, max_iter=200), wide, "log_loss", None)
    assert epochs == peer.n_iter_ < 200
    _assert_close(state.coef, peer.coef_.ravel())


def test_a_second_call_is_partial_fit():
    """`begin` and `settle` around it: L1 and the rate start afresh, t goes on."""
    settings = Settings("hinge", penalty="elasticnet", alpha=0.01, learning_rate="optimal")
    X, rows, wide = _data("float64")
    state, peer = new_state(P, settings), _peer(settings)
    for _ in range(3):
        begin(state, settings)
        descend(rows, _target("hinge"), None, state, settings)
        settle(state)
        peer.partial_fit(wide, _target("hinge"), classes=[-1, 1])
    _assert_close(state.coef, peer.coef_.ravel())


@pytest.mark.parametrize("learning_rate", ["pa1", "pa2"])
def test_rows_of_zeros(learning_rate):
    """pa1 passes over them, before t counts them: averages show it."""
    settings = Settings("hinge", penalty="l2", learning_rate=learning_rate, eta0=0.5, average=5)
    X = _X.copy()
    X[::3] = 0
    state = new_state(P, settings)
    descend(DenseRows.of(X), _target("hinge"), None, state, settings)
    settle(state)
    peer = _fit_peer(_peer(settings, max_iter=1), X, "hinge", None)
    _assert_close(state.average_coef, peer.coef_.ravel())
    _assert_close(state.average_intercept, peer.intercept_[0])


def _bits(state):
    return [array.tobytes() for array in (state.coef, state.average_coef, state.q, state.scalars)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("learning_rate", ["optimal", "adaptive"])
def test_pieces_have_the_bits_of_one_call(layout, learning_rate):
    """With a state that goes through a file in between."""
    settings = Settings("log_loss", penalty="elasticnet", learning_rate=learning_rate, eta0=0.3, average=7)
    X = _data(layout)[0]
    make = SparseRows if "csr" in layout else DenseRows
    order, y = np.random.default_rng(2).permutation(N), _target("log_loss")
    whole, pieces = new_state(P, settings), new_state(P, settings)
    descend(make.of(X, order), y[order], _WEIGHT[order], whole, settings)
    for chosen in np.split(order, [1, 1, 6, 30, 59]):
        descend(make.of(X, chosen), y[chosen], _WEIGHT[chosen], pieces, settings)
        pieces = pickle.loads(pickle.dumps(pieces))
    assert _bits(whole) == _bits(pieces)
    ordered = new_state(P, settings)
    X = X[order]  # named, for its rows are not kept alive otherwise
    descend(make.of(X), y[order], _WEIGHT[order], ordered, settings)
    assert _bits(whole) == _bits(ordered)
    settle(whole)
    settle(pieces)
    assert _bits(whole) == _bits(pieces) and whole.wscale == whole.average_b == 1.0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("loss", LOSSES)
def test_plain_bodies_have_the_same_bits(layout, loss, monkeypatch):
    settings = Settings(loss, penalty="elasticnet", alpha=0.01, learning_rate="constant", eta0=0.3, average=3)
    X, rows, _ = _data(layout)
    first = (DenseRows.of if "csr" not in layout else SparseRows.of)(X, np.arange(12))
    states = [new_state(P, settings), new_state(P, settings)]
    for state in states:
        assert descend(first, _target(loss)[:12].copy(), None, state, settings)
        settle(state)
        monkeypatch.setattr(sequential, "_compiled", lambda dtype: sequential._descend)
        monkeypatch.setattr(sequential, "_compiled_settle", lambda: sequential._settle)
    if loss == "log_loss":  # math.exp may be another one
        for name in ("coef", "average_coef", "q", "scalars"):
            np.testing.assert_allclose(getattr(states[0], name), getattr(states[1], name), rtol=1e-13, atol=1e-16)
    else:
        assert _bits(states[0]) == _bits(states[1])


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 15, 16, 17, 31, 40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_all_lengths(n, dtype):
    rng = np.random.default_rng(n)
    x, w = rng.normal(size=n).astype(dtype), rng.normal(size=n)
    assert dot(x.ctypes.data, n, dtype(0), w) == pytest.approx(math.fsum(x.astype(float) * w), abs=1e-14)
    new = w + x * 0.3 if dtype is np.float64 else w + x.astype(float) * 0.3
    squares, absolutes = add(x.ctypes.data, n, dtype(0), 0.3, w)
    assert (w == new).all()
    assert squares == pytest.approx((new * new).sum()) and absolutes == pytest.approx(np.abs(new).sum())
    settings = Settings("squared_error", penalty=None, learning_rate="constant", eta0=1.0, fit_intercept=False)
    state = new_state(n, settings, coef=w)
    descend(DenseRows.of(x[None]), np.ones(1), None, state, settings)
    wide = x.astype(float)
    np.testing.assert_allclose(state.coef, w - (wide @ w - 1) * wide, rtol=1e-12, atol=1e-13)


def test_columns_that_come_twice():
    """Values of one column count as their sum would, as in scikit-learn."""
    X = sparse.csr_matrix((np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1, 1, 0, 1, 1], np.int32), [0, 5]), (1, 2))
    settings = Settings("squared_error", penalty=None, learning_rate="constant", eta0=0.5, fit_intercept=False)
    state = new_state(2, settings)
    descend(SparseRows.of(X), np.ones(1), None, state, settings)
    assert state.coef.tolist() == [1.5, 6.0]


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_numbers_that_are_not_finite_are_told():
    settings = Settings("squared_error", penalty=None, learning_rate="constant", eta0=1e305, fit_intercept=False)
    rows = DenseRows.of(_X)
    state = new_state(P, settings)
    assert not descend(rows, _RAW, None, state, settings)
    with pytest.raises(ValueError, match="under-/overflow"):
        _fit_peer(_peer(settings, max_iter=1), _X, settings.loss, None)
    fine = Settings("hinge")
    assert descend(DenseRows.of(_X[:0]), _RAW[:0], None, new_state(P, fine), fine)
    assert not descend(rows, _RAW, None, new_state(P, fine, intercept=np.nan), fine)


def test_settings_that_do_not_go_together():
    rows = DenseRows.of(_X)
    for settings in (Settings("log_loss", learning_rate="pa1"), Settings("hinge", alpha=0.0, learning_rate="optimal")):
        with pytest.raises(ValueError, match="learning_rate"):
            descend(rows, _RAW, None, new_state(P, settings), settings)
