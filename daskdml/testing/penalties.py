"""What every penalty promises; see the conventions in `daskdml.penalties`."""

import pickle

import numpy as np


class PenaltyContract:
    """Test a penalty of ``coef = scale * u``: derivatives, prox, violation, conjugate and inner solver.

    A subclass defines `make`. Everything is checked at three scalings: all ones, uneven ones, and some zeros
    (coordinates that are not penalised, such as the intercept).

    Examples
    --------
    >>> from daskdml.penalties import ElasticNet
    >>> class TestLasso(PenaltyContract):
    ...     def make(self):
    ...         return ElasticNet(l1=0.3)
    >>> TestLasso().test_prox_is_the_minimum()
    """

    def make(self):
        """Return the penalty under test."""
        raise NotImplementedError

    def rest(self, u, scale):
        """Return the value of the part that has no gradient; as it stands for penalties whose smooth part is quadratic.

        Parameters
        ----------
        u, scale : ndarrays of shape (p,)

        Returns
        -------
        float
        """
        penalty = self.make()
        return penalty.value(u, scale) - 0.5 * u @ penalty.gradient(u, scale)

    def test_value_is_convex_and_least_at_zero(self):
        """The value is zero at zero, nowhere below, and lies under its chords."""
        penalty = self.make()
        for u, scale in self._points():
            v = self._rng(1).normal(size=u.size)
            assert penalty.value(np.zeros_like(u), scale) == 0.0
            assert penalty.value(u, scale) >= 0.0
            chord = 0.3 * penalty.value(u, scale) + 0.7 * penalty.value(v, scale)
            assert penalty.value(0.3 * u + 0.7 * v, scale) <= chord + 1e-12

    def test_gradient_is_the_derivative_of_the_smooth_part(self):
        """Value less `rest` has `gradient` as its derivative; without a rest the value itself has."""
        penalty = self.make()
        for u, scale in self._points():
            for j in range(u.size):
                slope = _difference(lambda v: penalty.value(v, scale) - self.rest(v, scale), u, j)
                np.testing.assert_allclose(penalty.gradient(u, scale)[j], slope, rtol=1e-7, atol=1e-8)
            assert not penalty.smooth or abs(self.rest(u, scale)) < 1e-12

    def test_curvature_is_the_second_derivative(self):
        """`curvature` is the diagonal of the gradient's derivative."""
        penalty = self.make()
        for u, scale in self._points():
            second = [_difference(lambda v: penalty.gradient(v, scale)[j], u, j) for j in range(u.size)]
            np.testing.assert_allclose(penalty.curvature(scale), second, rtol=1e-7, atol=1e-8)

    def test_prox_is_the_minimum(self):
        """No point beats the prox: the objective grows from it by half the squared distance at least."""
        penalty, rng = self.make(), self._rng(2)
        for u, scale in self._points():
            for step in (0.0, 0.1, 1.0, 30.0):
                best = penalty.prox(u, step, scale)

                def objective(v):
                    return step * self.rest(v, scale) + 0.5 * ((v - u) ** 2).sum()

                for size in (1e-4, 1e-2, 1.0, 10.0):
                    for _ in range(20):
                        v = best + size * rng.normal(size=u.size) * (rng.random(u.size) < 0.5)
                        rounding = 1e-13 * (1 + step * penalty.value(v, scale))
                        assert objective(v) - objective(best) >= 0.5 * ((v - best) ** 2).sum() - rounding

    def test_unpenalised_coordinates_are_left_alone(self):
        """Where the scale is zero there is no gradient, no curvature, no shrinking."""
        penalty = self.make()
        for u, scale in self._points():
            free = scale == 0
            assert not penalty.gradient(u, scale)[free].any() and not penalty.curvature(scale)[free].any()
            np.testing.assert_array_equal(penalty.prox(u, 3.0, scale)[free], u[free])

    def test_violation_is_zero_at_the_minimum_and_nowhere_else(self):
        """`violation` vanishes at the minimum of penalty plus a quadratic; elsewhere it grows with the distance."""
        penalty = self.make()
        for a, scale in self._points():
            for curvature in (0.5, 4.0):

                def gradient(u):
                    return curvature * (u - a) + penalty.gradient(u, scale)

                # With a diagonal quadratic the prox with the right step is the whole answer.
                total = curvature + penalty.curvature(scale)
                best = np.array([
                    penalty.prox(np.array([curvature * a[j] / total[j]]), 1 / total[j], scale[j : j + 1])[0]
                    for j in range(a.size)
                ])  # fmt: skip
                assert penalty.violation(best, gradient(best), scale) <= 1e-12 * (1 + np.abs(a).max()) * curvature
                for j in range(a.size):
                    moved = best.copy()
                    moved[j] += 0.01
                    # Strong convexity: the gradient grows by the curvature times the distance at least.
                    assert penalty.violation(moved, gradient(moved), scale) >= 0.01 * curvature * 0.999

    def test_conjugate_is_the_supremum(self):
        """`conjugate` bounds ``v @ u - penalty(u)`` for all u, closely; v is shrunk no more than it must be."""
        penalty = self.make()
        rng = self._rng(3)
        for v, scale in self._points():
            for size in (0.01, 1.0, 20.0):
                found, factor = penalty.conjugate(size * v, scale)
                assert 0.0 <= factor <= 1.0
                shrunk = np.where(scale > 0, factor * size * v, 0.0)
                u = np.zeros_like(v)
                # Ascent by coordinates; the penalty is separable in all tests made here.
                for j in np.flatnonzero(scale):
                    u[j] = _highest(lambda t: shrunk[j] * t - penalty.value(_unit(j, t, v.size), scale))
                reached = shrunk @ u - penalty.value(u, scale)
                np.testing.assert_allclose(found, reached, rtol=1e-6, atol=1e-9)
                for _ in range(30):
                    u = rng.normal(size=v.size) * 10.0 ** rng.integers(-2, 3)
                    assert shrunk @ u - penalty.value(np.where(scale > 0, u, 0.0), scale) <= found + 1e-9
                if 0.0 < factor < 1.0:
                    far = 1e6 * np.sign(v) * (scale > 0)
                    price = [penalty.value(_unit(j, far[j], v.size), scale) for j in range(v.size)]
                    assert (1.01 * shrunk * far - price).max() > 1.0, "v was shrunk more than needed"

    def test_minimize_quadratic_meets_the_optimality_conditions(self):
        """The minimum of a quadratic plus the penalty's rest violates nothing, from any start, singular or not."""
        penalty = self.make()
        for seed, (start, scale) in enumerate(self._points()):
            p = start.size
            rng = self._rng(seed)
            for rows in (3 * p, p // 2):
                A = rng.normal(size=(rows, p))
                hessian = A.T @ A / rows + np.diag(penalty.curvature(scale))
                # In the range of the matrix, so that there is a minimum.
                linear = hessian @ rng.normal(size=p)
                best = penalty.minimize_quadratic(hessian, linear, start, scale)
                assert penalty.violation(best, hessian @ best - linear, scale) <= 1e-8 * np.abs(linear).max()

    def test_pickled_penalty_is_the_same_penalty(self):
        """A penalty travels to workers by pickle."""
        penalty = self.make()
        twin = pickle.loads(pickle.dumps(penalty))
        for u, scale in self._points():
            assert twin.value(u, scale) == penalty.value(u, scale)

    def _rng(self, seed):
        return np.random.default_rng(seed)

    def _points(self):
        rng = self._rng(0)
        uneven = 10.0 ** rng.uniform(-1, 1, 7)
        some = np.where(np.arange(7) % 3 == 2, 0.0, uneven)
        for scale in (np.ones(7), uneven, some):
            yield rng.normal(size=7), scale


def _unit(j, t, p):
    u = np.zeros(p)
    u[j] = t
    return u


def _difference(function, x, j, step=1e-4):
    up, down = x.copy(), x.copy()
    up[j] += step
    down[j] -= step
    return (function(up) - function(down)) / (2 * step)


def _highest(function):
    """Maximise a concave function of one number that is 0 at 0: golden sections of a bracket that grows to hold it."""
    low, high = -1.0, 1.0
    while function(low) > function(low / 2) + 1e-14 and low > -1e9:
        low *= 2
    while function(high) > function(high / 2) + 1e-14 and high < 1e9:
        high *= 2
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(200):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if function(a) >= function(b) else (a, high)
    middle = 0.5 * (low + high)
    return middle if function(middle) > 0 else 0.0
