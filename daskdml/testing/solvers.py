"""What every solver promises `daskdml.solvers.minimize`."""

import numpy as np
import pytest

from daskdml.losses import Logistic, Multinomial
from daskdml.penalties import ElasticNet
from daskdml.solvers import State, minimize
from daskdml.testing.problems import Quadratic, linear_problem


class SolverContract:
    """Test a solver on quadratics with a closed form and on logistic regression against SciPy.

    A subclass defines `make`.

    Attributes
    ----------
    takes_l1 : bool, default False
        Whether penalties may have an L1 part.
    gap_is_a_bound : bool, default False
        Whether the gap it reports is never below the true one (where the objective's ``gap`` is a bound).
    max_iter : int, default 200

    Examples
    --------
    >>> from daskdml.solvers import Newton
    >>> class TestNewton(SolverContract):
    ...     def make(self, objective):
    ...         return Newton(exact=True)
    >>> TestNewton().test_quadratics_to_closed_form()
    """

    takes_l1 = False
    gap_is_a_bound = False
    max_iter = 200

    def make(self, objective):
        """Return the solver under test for one objective.

        Parameters
        ----------
        objective : object with ``penalty``, ``scale`` and ``gap``

        Returns
        -------
        solver
        """
        raise NotImplementedError

    def test_quadratics_to_closed_form(self):
        """The minimum of a quadratic is the solution of its linear system, singular systems included."""
        for p in (1, 4, 30):
            for rows in (4 * p, max(p // 2, 1)):
                problem = _quadratic(p, rows)
                found = self._minimize(problem, problem, np.zeros(p))
                assert found.converged, found.stopped_because
                error = found.theta - problem.best
                assert 0.5 * error @ problem.matrix @ error <= 1e-12

    def test_ill_scaled_quadratics(self):
        """Coordinates over six decades end where the closed form is."""
        problem = _quadratic(12, 60, decades=3)
        found = self._minimize(problem, problem, np.zeros(12))
        error = found.theta - problem.best
        assert found.converged
        assert 0.5 * error @ problem.matrix @ error <= 1e-11

    def test_quadratics_with_an_l1_term(self):
        """With L1 the optimality conditions hold at the end, zeros are exact zeros."""
        self._need_l1()
        for p, strength in ((1, 0.01), (6, 0.1), (30, 0.05), (30, 100.0)):
            problem = _quadratic(p, 4 * p, penalty=ElasticNet(l1=strength, l2=0.01))
            # The lowest value is not known in closed form: go on until steps do not help.
            problem.gap = _squared_violation(problem)
            found = self._minimize(problem, problem, np.zeros(p), tol=1e-20)
            assert problem.penalty.violation(found.theta, found.evaluation.gradient, problem.scale) <= 1e-7
            if strength == 100.0:
                assert not found.theta.any()

    def test_logistic_regression(self):
        """The coefficients are SciPy's to eight digits, for two classes and more, dense and weighted."""
        for k in (2, 3):
            for weighted in (False, True):
                X, y, weight = _classes(k, weighted)
                loss = Logistic() if k == 2 else Multinomial(k)
                problem = linear_problem(X, y, loss, ElasticNet(l2=0.05), weight=weight)
                found = self._minimize(problem.objective, problem.evaluators, problem.start, to_rounding=True)
                assert found.converged
                best = _by_scipy(X, y, np.ones(len(y)) if weight is None else weight, k, 0.05)
                coef, intercept = problem.objective.unflatten(found.theta)
                if k > 2:
                    best[:, -1] -= best[:, -1].mean()
                    intercept = intercept - intercept.mean()
                ours = np.column_stack([coef, intercept])
                np.testing.assert_allclose(ours, best, atol=1e-7 * np.abs(best).max())

    def test_ill_scaled_logistic_regression(self):
        """Columns over eight decades, divided by their deviations as in a fit, give the coefficients of equal ones."""
        X, y, _ = _classes(2, False)
        size = 10.0 ** np.linspace(-4, 4, X.shape[1])
        coefs = []
        for factor in (np.ones(X.shape[1]), size):
            moved = X * factor
            # No penalty, so that the answers correspond exactly.
            problem = linear_problem(
                moved, y, Logistic(), ElasticNet(), center=moved.mean(axis=0), deviation=moved.std(axis=0)
            )
            found = self._minimize(problem.objective, problem.evaluators, problem.start, to_rounding=True)
            assert found.converged
            coefs.append(problem.objective.unflatten(found.theta)[0][0] * factor)
        np.testing.assert_allclose(coefs[1], coefs[0], rtol=1e-6)

    def test_warm_start(self):
        """Started at the minimum it stays there, at the price of a few evaluations and at most one step."""
        problem = self._logistic()
        best = self._minimize(problem.objective, problem.evaluators, problem.start, to_rounding=True).theta
        again = self._minimize(problem.objective, problem.evaluators, best, tol=1e-10)
        assert again.converged and again.n_iter <= 1
        np.testing.assert_allclose(again.theta, best, atol=1e-8 * np.abs(best).max())

    def test_missing_capability_is_named_before_any_pass(self):
        """Evaluators that lack what the solver needs are refused by name before they are asked for anything."""
        problem = _quadratic(4, 8)
        solver = self.make(problem)
        for name in solver.needs:
            lacking = _Lacking(problem, name)
            with pytest.raises(TypeError, match=f"{type(solver).__name__} needs {name}, which _Lacking lacks"):
                minimize(solver, lacking, State(np.zeros(4), None, None), tol=1e-8, max_iter=10)
        assert problem.asked == []

    def test_asks_for_nothing_it_does_not_name(self):
        """``needs`` lists every evaluator method that is called."""
        problem = _quadratic(6, 12)
        solver = self.make(problem)
        self._minimize(problem, problem, np.zeros(6))
        assert set(problem.asked) <= set(solver.needs)

    def test_to_rounding(self):
        """Whatever ``tol``, a run to rounding ends with a gap of nothing; a loose ``tol`` alone ends sooner."""
        problem = self._logistic()
        loose = self._minimize(problem.objective, problem.evaluators, problem.start, tol=1e-2)
        exact = self._minimize(problem.objective, problem.evaluators, problem.start, tol=1e-2, to_rounding=True)
        assert loose.stopped_because == "tol" and exact.stopped_because == "rounding"
        assert exact.converged and exact.gap <= 1e-12 * abs(exact.evaluation.value)
        assert loose.n_iter < exact.n_iter

    def test_too_few_steps_say_so(self):
        """When ``max_iter`` is reached it says so, and is not converged; no step at all returns the start."""
        problem = self._logistic()
        for max_iter in (0, 1):
            found = self._minimize(problem.objective, problem.evaluators, problem.start, tol=1e-14, max_iter=max_iter)
            assert not found.converged and found.stopped_because == "max_iter" and found.n_iter == max_iter
        assert self._minimize(problem.objective, problem.evaluators, problem.start, max_iter=0).theta is problem.start

    def test_objective_never_rises(self):
        """Values along the way only fall, beyond rounding, also from a bad start."""
        problem = self._logistic()
        bad = 5.0 * np.random.default_rng(0).normal(size=problem.start.size)
        values = []
        self._minimize(
            problem.objective, problem.evaluators, bad, to_rounding=True,
            on_step=lambda n_iter, state, proposal: values.append(state.evaluation.value),
        )  # fmt: skip
        assert len(values) > 2
        assert all(b <= a + 1e-12 * abs(a) for a, b in zip(values, values[1:]))

    def test_reported_gap_holds(self):
        """The gap at the end is the true one to a factor; where it is a bound, it is one at every step."""
        penalty = ElasticNet(l1=0.02, l2=0.01) if self.takes_l1 else ElasticNet(l2=0.02)
        problem = self._logistic(penalty)
        best = self._minimize(problem.objective, problem.evaluators, problem.start, to_rounding=True).evaluation.value
        steps = []
        found = self._minimize(
            problem.objective, problem.evaluators, problem.start, tol=1e-7,
            on_step=lambda n_iter, state, proposal: steps.append((state.evaluation.value - best, proposal.gap)),
        )  # fmt: skip
        assert found.converged
        assert found.evaluation.value - best <= 2 * found.gap + 1e-14
        if self.gap_is_a_bound:
            assert all(true <= gap + 1e-14 for true, gap in steps)

    def test_objective_that_is_not_finite_is_given_back(self):
        """NaN in the rows ends it at once, as not finite."""
        X, y, _ = _classes(2, False)
        X[7, 1] = np.nan
        problem = linear_problem(X, y, Logistic(), ElasticNet(l2=0.1))
        with np.errstate(all="ignore"):
            found = self._minimize(problem.objective, problem.evaluators, problem.start)
        assert not found.converged and found.stopped_because == "not finite" and found.n_iter == 0

    def test_nothing_is_kept_in_the_solver(self):
        """One solver object minimises again with the same bits."""
        problem = self._logistic()
        solver = self.make(problem.objective)
        state = State(problem.start, None, None)
        runs = [minimize(solver, problem.evaluators, state, tol=1e-12, max_iter=self.max_iter) for _ in range(2)]
        np.testing.assert_array_equal(runs[0].theta, runs[1].theta)
        assert runs[0].n_iter == runs[1].n_iter

    def _minimize(self, objective, evaluators, theta, *, tol=1e-12, max_iter=None, **options):
        max_iter = self.max_iter if max_iter is None else max_iter
        state = State(theta, None, None)
        return minimize(self.make(objective), evaluators, state, tol=tol, max_iter=max_iter, **options)

    def _logistic(self, penalty=None):
        X, y, _ = _classes(2, False)
        return linear_problem(X, y, Logistic(), penalty or ElasticNet(l2=0.02))

    def _need_l1(self):
        if not self.takes_l1:
            pytest.skip("takes no L1")


class _Lacking:
    """Evaluators without one of their methods."""

    def __init__(self, evaluators, name):
        self._evaluators, self._name = evaluators, name

    def __getattr__(self, name):
        if name == self._name:
            raise AttributeError(name)
        return getattr(self._evaluators, name)


def _squared_violation(problem):
    def gap(u, evaluation):
        return problem.penalty.violation(u, evaluation.gradient, problem.scale) ** 2

    return gap


def _quadratic(p, rows, penalty=None, decades=0):
    rng = np.random.default_rng([p, rows])
    A = rng.normal(size=(rows, p)) * 10.0 ** np.linspace(-decades, decades, p)
    hessian = A.T @ A / rows
    return Quadratic(hessian, hessian @ (rng.normal(size=p) / np.sqrt(np.diag(hessian))), penalty)


def _classes(k, weighted):
    rng = np.random.default_rng(k)
    X = rng.normal(size=(300, 6))
    noise = rng.gumbel(size=(300, k))
    y = np.argmax(X @ rng.normal(size=(6, k)) + noise, axis=1).astype(np.float64)
    return X, y, rng.uniform(0.2, 3.0, 300) if weighted else None


def _by_scipy(X, y, weight, k, l2):
    """Minimise the textbook formula with SciPy's trust region, which uses nothing of ours."""
    from scipy import optimize

    rows = np.column_stack([X, np.ones(len(X))])
    outputs = 1 if k == 2 else k
    penalised = np.ones(rows.shape[1]) * l2
    penalised[-1] = 0.0
    hot = np.eye(k)[y.astype(int)]

    def parts(flat):
        coef = flat.reshape(outputs, -1)
        raw = rows @ coef.T
        raw = np.column_stack([np.zeros(len(raw)), raw]) if outputs == 1 else raw
        top = raw.max(axis=1, keepdims=True)
        log_p = raw - top - np.log(np.exp(raw - top).sum(axis=1, keepdims=True))
        return coef, log_p, np.exp(log_p)

    def value(flat):
        coef, log_p, _ = parts(flat)
        return -(weight * (hot * log_p).sum(axis=1)).sum() / weight.sum() + 0.5 * (penalised * coef**2).sum()

    def gradient(flat):
        coef, _, p = parts(flat)
        g = (rows.T @ (weight[:, None] * (p - hot))).T[k - outputs if outputs == 1 else 0 :]
        return (g / weight.sum() + penalised * coef).ravel()

    def hessian(flat):
        _, _, p = parts(flat)
        width = rows.shape[1]
        out = np.zeros((outputs, width, outputs, width))
        for a in range(outputs):
            for c in range(outputs):
                pa, pc = (p[:, 1], p[:, 1]) if outputs == 1 else (p[:, a], p[:, c])
                h = weight * pa * ((a == c) - pc)
                out[a, :, c, :] = rows.T @ (rows * h[:, None]) / weight.sum() + (a == c) * np.diag(penalised)
        return out.reshape(outputs * width, -1) + (1e-12 if outputs > 1 else 0.0) * np.eye(outputs * width)

    flat = np.zeros(outputs * rows.shape[1])
    flat = optimize.minimize(value, flat, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-10}).x
    for _ in range(3):  # to the last digit
        flat = flat - np.linalg.lstsq(hessian(flat), gradient(flat), rcond=1e-13)[0]
    return flat.reshape(outputs, -1)
