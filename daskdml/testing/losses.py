"""What every pointwise loss promises; see the conventions in `daskdml.losses`."""

import pickle

import numpy as np

from daskdml.kernels.compile import TILE_ROWS
from daskdml.kernels.loss_rows import losses
from daskdml.kernels.pointwise import apply_loss


class LossContract:
    """Test a loss: derivatives, extreme values, weights, convexity and the facts it states of itself.

    A subclass defines `make`. The compiled tile is compared with the loss's array formulas, and both with numerical
    derivatives of the value.

    A loss that states ``smooth = False`` has kinks and a stand-in for its curvature. Its gradient is compared with
    numerical derivatives clear of the kinks, and at them it must be a subgradient; its curvature is no derivative and
    must be positive.

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

    def clear_of_kinks(self, raw, y):
        """Move raw predictions to where the loss has a derivative; only losses that are not smooth are asked.

        Away from ``raw == y``, by at least 0.1; a loss with other kinks overrides it.

        Parameters
        ----------
        raw, y : ndarrays of float64, shape (n,)

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        distance = raw - y
        return y + np.where(distance > 0, 1.0, -1.0) * np.maximum(np.abs(distance), 0.1)

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

    def test_order_three_leaves_out_the_value(self):
        """Order 3 returns 0.0 and writes the gradient and the curvature of order 2, bit for bit."""
        loss = self.make()
        for n in (1, 2, 17, TILE_ROWS - 1, TILE_ROWS):
            raw, y, weight = self._rows(n, spread=5.0)
            for w in (weight, np.ones(n)):
                _, gradient, curvature = tile(loss, raw, y, w, 2)
                found = tile(loss, raw, y, w, 3)
                assert found[0] == 0.0, f"{n} rows"
                np.testing.assert_array_equal(found[1], gradient, err_msg=f"gradient, {n} rows")
                np.testing.assert_array_equal(found[2], curvature, err_msg=f"curvature, {n} rows")

    def test_values_of_rows(self):
        """Order 4 gives the value of each row, as one-row tiles do."""
        loss = self.make()
        for n in (1, 17, TILE_ROWS):
            raw, y, weight = self._rows(n, spread=5.0)
            found = losses(raw, y, loss) * weight
            expected = [tile(loss, raw[i : i + 1], y[i : i + 1], weight[i : i + 1], 0)[0] for i in range(n)]
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)

    def test_gradient_is_the_derivative(self):
        """The gradient is the derivative of the value, by differences of fourth order, clear of kinks."""
        loss = self.make()
        raw, y, weight = self._rows(12)
        if not loss.smooth:
            raw = self.clear_of_kinks(raw, y)
        gradient = tile(loss, raw, y, weight, 1)[1]
        for i in np.ndindex(raw.shape):
            slope = _derivative(lambda r: tile(loss, r, y, weight, 0)[0], raw, i)
            np.testing.assert_allclose(gradient[i], slope, rtol=1e-7, atol=1e-8, err_msg=f"at {i}")

    def test_gradient_is_a_subgradient(self):
        """The value lies nowhere below the tangent that the gradient gives, whether it touches at a kink or not."""
        loss = self.make()
        raw, y, weight = self._rows(60)
        if raw.ndim == 1:
            # The kink of a loss that has one; for a smooth loss a place like any other.
            raw[::3] = y[::3]
        _, gradient, _ = tile(loss, raw, y, weight, 1)
        value = self._values(raw, y, weight)
        for step in (-1.0, -1e-3, 1e-3, 1.0):
            for k in np.ndindex(raw.shape[1:]):
                moved = raw.copy()
                moved[:, *k] += step
                tangent = value + gradient[:, *k] * step
                slack = 1e-13 * (1.0 + np.abs(value) + np.abs(tangent))
                assert (self._values(moved, y, weight) >= tangent - slack).all(), f"output {k}, step {step}"

    def test_curvature_is_the_second_derivative(self):
        """The curvature gives the derivative of the gradient, all k x k of it; a stand-in for it is positive."""
        loss = self.make()
        raw, y, weight = self._rows(12)
        second = self.second_derivatives(tile(loss, raw, y, weight, 2)[2], weight)
        if not loss.smooth:
            # A Newton step divides by it.
            assert np.linalg.eigvalsh(second).min() > 0
            return
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
        """A NaN raw prediction shows in the value and its row's gradient, whatever the weight, and in no other row.

        At order 3 there is no value to show it.
        """
        loss = self.make()
        for row in (0, 5, 16):
            raw, y, weight = self._rows(17)
            weight[5] = 0.0
            clean = tile(loss, raw, y, weight, 2)
            others = np.arange(17) != row
            for place in np.ndindex(raw.shape[1:]):
                spoiled = raw.copy()
                spoiled[row, *place] = np.nan
                for order in (0, 1, 2, 3):
                    value, gradient, curvature = tile(loss, spoiled, y, weight, order)
                    assert value == 0.0 if order == 3 else np.isnan(value), f"row {row}, order {order}"
                    if order:
                        assert np.isnan(gradient[row]).any(), f"row {row}, order {order}"
                        np.testing.assert_array_equal(gradient[others], clean[1][others])
                    if order >= 2:
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

    def test_full_tile_gives_a_row_the_same_bits_anywhere(self):
        """In a full tile a row's gradient and curvature do not depend on where the row stands, not by one bit."""
        loss = self.make()
        raw, y, weight = self._rows(TILE_ROWS, spread=5.0)
        for w in (weight, np.ones(TILE_ROWS)):
            _, gradient, curvature = tile(loss, raw, y, w, 3)
            for seed in (5, 6):
                turn = np.random.default_rng(seed).permutation(TILE_ROWS)
                _, turned_gradient, turned_curvature = tile(loss, raw[turn], y[turn], w[turn], 3)
                np.testing.assert_array_equal(turned_gradient, gradient[turn])
                np.testing.assert_array_equal(turned_curvature, curvature[turn])

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
            if not loss.smooth:
                # A kink is a narrow minimum: no draw comes close.
                good[0] = y[0]
            for r in (raw, good):
                lowest = min(lowest, self._values(r, y, np.ones(len(y))).min())
        assert lowest >= loss.infimum - 1e-12
        assert np.isinf(loss.infimum) or lowest <= loss.infimum + 1e-2

    def test_predict_is_the_mean_of_the_model(self):
        """The expected gradient vanishes under the model's own prediction: `predict` is the inverse link.

        Where `quantile` is a number, targets lie below the prediction with that probability. Where a curvature exceeds
        one, so does what the rounding of a prediction does to the gradient.
        """
        loss = self.make()
        raw, y, weight = self._rows(50)
        predicted = loss.predict(raw)
        scale = 1.0
        if loss.quantile is not None:
            below, above = (tile(loss, raw, predicted + side, weight, 1)[1] for side in (-1.0, 1.0))
            expected = loss.quantile * below + (1.0 - loss.quantile) * above
        elif loss.n_outputs == 1:
            _, expected, curvature = tile(loss, raw, predicted, weight, 2)
            scale = np.maximum(curvature / weight, 1.0)
        else:
            assert predicted.shape == raw.shape
            np.testing.assert_allclose(predicted.sum(axis=1), 1.0, rtol=1e-14)
            codes = range(loss.n_outputs)
            expected = sum(predicted[:, k, None] * tile(loss, raw, np.full(50, float(k)), weight, 1)[1] for k in codes)
        np.testing.assert_allclose(expected / scale, 0.0, atol=1e-13)

    def test_baseline_is_the_best_constant(self):
        """At the baseline the gradient of the sum vanishes, or changes its sign where `quantile` is a number."""
        loss = self.make()
        _, y, weight = self._rows(200)
        if loss.quantile is not None:
            rising = np.argsort(y)
            share = np.cumsum(weight[rising]) / weight.sum()
            best = loss.baseline(y[rising][np.searchsorted(share, loss.quantile)])
            sums = [tile(loss, np.full(200, best + side), y, weight, 1)[1].sum() for side in (-1e-9, 1e-9)]
            assert sums[0] < 0.0 < sums[1]
            return
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
        """Name, number of outputs, smoothness, domain, quantile and parameters are there and of the right type."""
        loss = self.make()
        assert isinstance(loss.name, str) and loss.n_outputs >= 1
        assert isinstance(loss.smooth, bool) and isinstance(loss.constant_hessian, bool)
        low, high = loss.y_domain
        assert low < high
        assert loss.quantile is None or 0.0 < loss.quantile < 1.0
        assert loss.params.dtype == np.float64 and loss.params.ndim == 1

    def test_pickled_loss_is_the_same_loss(self):
        """A loss travels to workers by pickle."""
        loss = self.make()
        raw, y, weight = self._rows(10)
        twin = pickle.loads(pickle.dumps(loss))
        for a, b in zip(tile(loss, raw, y, weight, 2), tile(twin, raw, y, weight, 2)):
            np.testing.assert_array_equal(a, b)

    def _values(self, raw, y, weight):
        loss = self.make()
        return np.array(
            [tile(loss, raw[i : i + 1], y[i : i + 1], weight[i : i + 1], 0)[0] for i in range(raw.shape[0])]
        )

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
