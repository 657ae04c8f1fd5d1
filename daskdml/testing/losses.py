"""What every pointwise loss promises; see the conventions in `daskdml.losses`."""

import pickle

import numpy as np

from daskdml.kernels.compile import TILE_ROWS
from daskdml.kernels.pointwise import apply_loss


class LossContract:
    """Test a loss: derivatives, extreme values, weights, convexity and the facts it states of itself.

    A subclass defines `make`. The compiled tile is compared with the loss's array formulas, and both with numerical
    derivatives of the value.

    Attributes
    ----------
    extreme : float, default 800
        All must be finite for raw predictions of at most this size; a loss that overflows says so by a smaller number.

    Examples
    --------
    >>> from daskdml.losses import Logistic
    >>> class TestLogistic(LossContract):
    ...     def make(self):
    ...         return Logistic()
    >>> TestLogistic().test_weights_multiply()
    """

    extreme = 800.0

    def make(self):
        """Return the loss under test."""
        raise NotImplementedError

    def targets(self, rng, n):
        """Return n targets inside the loss's domain; a subclass with an unusual domain overrides it.

        Parameters
        ----------
        rng : numpy.random.Generator
        n : int

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        loss = self.make()
        low, high = loss.y_domain
        if loss.n_outputs > 1 or (low, high) == (0, 1):
            return rng.integers(int(low), int(high) + 1, n).astype(np.float64)
        return np.clip(rng.normal(scale=3.0, size=n), low, high)

    def second_derivatives(self, curvature, weight):
        """Return the k x k second derivatives of rows from what the tile writes as curvature.

        One output: the curvature itself. More: softmax's ``weight (diag(p) - p p^T)`` from ``weight p``; a loss of
        another structure overrides it.

        Parameters
        ----------
        curvature : ndarray of shape (n,) or (n, k)
        weight : ndarray of shape (n,)

        Returns
        -------
        ndarray of shape (n, k, k)
        """
        if curvature.ndim == 1:
            return curvature[:, None, None]
        p = curvature / weight[:, None]
        return weight[:, None, None] * (np.eye(p.shape[1]) * p[:, :, None] - p[:, :, None] * p[:, None, :])

    def test_tile_agrees_with_the_array_formulas(self):
        """The compiled tile and `arrays` give the same value, gradient and curvature."""
        loss = self.make()
        for n in (1, 2, 17, TILE_ROWS):
            raw, y, weight = self._rows(n, spread=5.0)
            for order in (0, 1, 2):
                found, expected = tile(loss, raw, y, weight, order), loss.arrays(raw, y, weight, order)
                for what, a, b in list(zip(("value", "gradient", "curvature"), found, expected))[: order + 1]:
                    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13, err_msg=f"{what}, {n} rows, order {order}")

    def test_gradient_is_the_derivative(self):
        """The gradient is the derivative of the value, by differences of fourth order."""
        loss = self.make()
        raw, y, weight = self._rows(12)
        gradient = tile(loss, raw, y, weight, 1)[1]
        for i in np.ndindex(raw.shape):
            slope = _derivative(lambda r: tile(loss, r, y, weight, 0)[0], raw, i)
            np.testing.assert_allclose(gradient[i], slope, rtol=1e-7, atol=1e-8, err_msg=f"at {i}")

    def test_curvature_is_the_second_derivative(self):
        """The curvature gives the derivative of the gradient, all k x k of it."""
        loss = self.make()
        raw, y, weight = self._rows(12)
        second = self.second_derivatives(tile(loss, raw, y, weight, 2)[2], weight)
        for i in np.ndindex(raw.shape):
            change = _derivative(lambda r: tile(loss, r, y, weight, 1)[1], raw, i)
            column = i[1] if raw.ndim == 2 else 0
            np.testing.assert_allclose(
                second[i[0], column], np.atleast_1d(change[i[0]]), rtol=1e-7, atol=1e-8, err_msg=f"at {i}"
            )

    def test_loss_is_convex(self):
        """The second derivatives are positive semi-definite everywhere."""
        loss = self.make()
        raw, y, weight = self._rows(TILE_ROWS, spread=20.0)
        second = self.second_derivatives(tile(loss, raw, y, weight, 2)[2], weight)
        assert np.linalg.eigvalsh(second).min() >= -1e-12 * np.abs(second).max()

    def test_constant_hessian_is_constant(self):
        """A loss that calls its hessian constant has the weight as curvature."""
        loss = self.make()
        raw, y, weight = self._rows(40)
        curvature = tile(loss, raw, y, weight, 2)[2]
        assert loss.constant_hessian == bool(np.array_equal(curvature, np.broadcast_to(weight, curvature.T.shape).T))

    def test_extreme_predictions_are_finite(self):
        """Nothing overflows for raw predictions as large as `extreme`, of either sign."""
        loss = self.make()
        for size in (30.0, 40.0, 700.0, 710.0, 750.0, 800.0):
            raw, y, weight = self._rows(64)
            raw = np.sign(raw) * min(size, self.extreme)
            with np.errstate(all="raise", under="ignore"):
                found, expected = tile(loss, raw, y, weight, 2), loss.arrays(raw, y, weight, 2)
                assert np.isfinite(loss.predict(raw)).all()
            for what, a, b in zip(("value", "gradient", "curvature"), found, expected):
                assert np.isfinite(a).all(), f"{what} at raw = +-{size}"
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-300, err_msg=f"{what} at raw = +-{size}")

    def test_nan_propagates(self):
        """A NaN raw prediction shows in the value and its row's gradient, whatever the weight, and in no other row."""
        loss = self.make()
        for row in (0, 5, 16):
            raw, y, weight = self._rows(17)
            weight[5] = 0.0
            clean = tile(loss, raw, y, weight, 2)
            others = np.arange(17) != row
            for place in np.ndindex(raw.shape[1:]):
                spoiled = raw.copy()
                spoiled[row, *place] = np.nan
                for order in (0, 1, 2):
                    value, gradient, curvature = tile(loss, spoiled, y, weight, order)
                    assert np.isnan(value), f"row {row}, order {order}"
                    if order:
                        assert np.isnan(gradient[row]).any(), f"row {row}, order {order}"
                        np.testing.assert_array_equal(gradient[others], clean[1][others])
                    if order == 2:
                        np.testing.assert_array_equal(curvature[others], clean[2][others])

    def test_weights_multiply(self):
        """Weights multiply value, gradient and curvature; a weight of zero removes the row."""
        loss = self.make()
        raw, y, _ = self._rows(30)
        weight = np.random.default_rng(3).integers(0, 4, 30).astype(float)
        value, gradient, curvature = tile(loss, raw, y, weight, 2)
        one = [tile(loss, raw[i : i + 1], y[i : i + 1], np.ones(1), 2) for i in range(30)]
        np.testing.assert_allclose(value, sum(w * part[0] for w, part in zip(weight, one)), rtol=1e-13)
        for k, found in ((1, gradient), (2, curvature)):
            expected = np.stack([w * part[k][0] for w, part in zip(weight, one)])
            np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-300)

    def test_rows_do_not_see_each_other(self):
        """A row's gradient and curvature are the same wherever the row stands, to the last digit or two."""
        loss = self.make()
        raw, y, weight = self._rows(TILE_ROWS)
        turn = np.random.default_rng(4).permutation(TILE_ROWS)
        _, gradient, curvature = tile(loss, raw, y, weight, 2)
        _, turned_gradient, turned_curvature = tile(loss, raw[turn], y[turn], weight[turn], 2)
        np.testing.assert_allclose(turned_gradient, gradient[turn], rtol=1e-14)
        np.testing.assert_allclose(turned_curvature, curvature[turn], rtol=1e-14)

    def test_infimum_is_the_lowest_value(self):
        """No value is below `infimum`, and some come close to it where it is finite."""
        loss = self.make()
        lowest = np.inf
        for spread in (0.1, 1.0, 10.0, 100.0):
            raw, y, _ = self._rows(TILE_ROWS, spread=spread)
            raw = np.clip(raw, -self.extreme, self.extreme)
            good = raw.copy()
            if loss.n_outputs > 1:
                good[np.arange(len(y)), y.astype(int)] += spread
            else:
                good = np.where(y > np.mean(y), np.abs(raw), -np.abs(raw))
            for r in (raw, good):
                for i in range(len(y)):
                    lowest = min(lowest, tile(loss, r[i : i + 1], y[i : i + 1], np.ones(1), 0)[0])
        assert lowest >= loss.infimum - 1e-12
        assert np.isinf(loss.infimum) or lowest <= loss.infimum + 1e-2

    def test_predict_is_the_mean_of_the_model(self):
        """The expected gradient vanishes under the model's own prediction: `predict` is the inverse link."""
        loss = self.make()
        raw, y, weight = self._rows(50)
        predicted = loss.predict(raw)
        if loss.n_outputs == 1:
            expected = tile(loss, raw, predicted, weight, 1)[1]
        else:
            assert predicted.shape == raw.shape
            np.testing.assert_allclose(predicted.sum(axis=1), 1.0, rtol=1e-14)
            codes = range(loss.n_outputs)
            expected = sum(
                predicted[:, k, None] * tile(loss, raw, np.full(50, float(k)), weight, 1)[1] for k in codes
            )
        np.testing.assert_allclose(expected, 0.0, atol=1e-13)

    def test_baseline_is_the_best_constant(self):
        """At the baseline the gradient of the sum vanishes."""
        loss = self.make()
        _, y, weight = self._rows(200)
        if loss.n_outputs == 1:
            best = loss.baseline(np.average(y, weights=weight))
            raw = np.full(200, best)
        else:
            shares = np.bincount(y.astype(int), weight, minlength=loss.n_outputs) / weight.sum()
            best = loss.baseline(shares)
            assert abs(best.sum()) < 1e-12
            raw = np.tile(best, (200, 1))
        np.testing.assert_allclose(tile(loss, raw, y, weight, 1)[1].sum(axis=0), 0.0, atol=1e-11)

    def test_facts_are_stated(self):
        """Name, number of outputs, smoothness, domain and parameters are there and of the right type."""
        loss = self.make()
        assert isinstance(loss.name, str) and loss.n_outputs >= 1
        assert isinstance(loss.smooth, bool) and isinstance(loss.constant_hessian, bool)
        low, high = loss.y_domain
        assert low < high
        assert loss.params.dtype == np.float64 and loss.params.ndim == 1

    def test_pickled_loss_is_the_same_loss(self):
        """A loss travels to workers by pickle."""
        loss = self.make()
        raw, y, weight = self._rows(10)
        twin = pickle.loads(pickle.dumps(loss))
        for a, b in zip(tile(loss, raw, y, weight, 2), tile(twin, raw, y, weight, 2)):
            np.testing.assert_array_equal(a, b)

    def _rows(self, n, spread=2.0):
        rng = np.random.default_rng(n)
        k = self.make().n_outputs
        raw = rng.normal(scale=spread, size=(n, k) if k > 1 else n)
        return raw, self.targets(rng, n), rng.uniform(0.5, 2.0, n)


def tile(loss, raw, y, weight, order):
    """Evaluate a loss's tile as kernels do: calling ``loss.tile`` itself would run its uncompiled body.

    Returns
    -------
    value : float
    gradient, curvature : ndarrays of the shape of raw
    """
    return apply_loss(np.ascontiguousarray(raw, dtype=np.float64), y, weight, loss, order)


def _derivative(function, x, i, step=1e-3):
    """Differentiate by four points: the error is of order step^4."""

    def at(t):
        moved = x.copy()
        moved[i] += t
        return function(moved)

    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
