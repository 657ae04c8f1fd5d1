"""The logistic objective in float64, and its minimum to rounding: what every solution is measured by.

F(coef, intercept) = mean_i loss(y_i, x_i @ coef + intercept) + |coef * unit|^2 / (2 C n)

scikit-learn's objective divided by C n; the gap of a solution is (F - F*) / |F*|. ``unit`` is 1, or the columns'
standard deviations: the objective of a user who standardises X first, at the coefficients for X as it was.

Nothing here comes from daskdml: the minimum is found by Newton's method with conjugate gradients, preconditioned by the
Hessian of a sample of the rows (its diagonal, for CSR).
"""

import numpy as np
from scipy import linalg, sparse

# Newton stops when its decrement promises less than this, relative to F.
ROUNDING = 1e-15
SAMPLE_ROWS, SAMPLE_ROWS_PER_PARAM = 20_000, 50
SLAB_BYTES = 200e6


class LogisticObjective:
    """L2-penalised logistic loss of two or more classes.

    Parameters
    ----------
    X : ndarray, cupy array or csr_matrix of shape (n, p)
        Read in float64, slab by slab.
    y : array of shape (n,), int
        Class codes from 0.
    C : float, default 1.0
    n_classes : int, default 2
    standardised : bool, default False
        The penalty sees the coefficients of standardised columns.
    xp : module, default numpy
        Where slabs are computed: numpy or cupy.
    """

    def __init__(self, X, y, C=1.0, n_classes=2, standardised=False, xp=np):
        self.X, self.y, self.C, self.xp, self.standardised = X, y, C, xp, standardised
        self.n, self.p = X.shape
        self.k = 1 if n_classes == 2 else n_classes
        self.l2 = 1.0 / (C * self.n)
        self.mean, self.scale = self._moments()
        self.unit = self.scale if standardised else np.ones(self.p)

    def gap(self, coef, intercept):
        """Return (F - F*) / |F*| of a solution; `solve` must have been called."""
        return (self.value(coef, intercept) - self.minimum) / abs(self.minimum)

    def value(self, coef, intercept):
        """Return F at coef of shape (k, p) or (p,) and intercept of shape (k,)."""
        coef = np.asarray(coef, dtype=np.float64).reshape(self.k, self.p)
        b = np.broadcast_to(np.asarray(intercept, dtype=np.float64).ravel(), self.k)
        total = 0.0
        for X, y in self._slabs():
            total += self._losses(self._margins(X, coef, b), y)
        return total / self.n + 0.5 * self.l2 * float(np.sum((coef * self.unit) ** 2))

    def solve(self):
        """Find the minimum to rounding; return (coef, intercept) and keep F* as ``minimum``."""
        theta = self._start()
        factor = None
        evaluation = self._evaluate(theta)
        for _ in range(60):
            value, gradient, weights = evaluation
            factor = factor or self._preconditioner(theta, weights)
            step = self._newton_step(gradient, weights, factor)
            decrement = -0.5 * gradient @ step
            theta, evaluation = self._advance(theta, step, evaluation)
            if decrement <= ROUNDING * abs(value):
                break
        coef, intercept = self._unflatten(theta)
        self.minimum = self.value(coef, intercept)
        return coef, intercept

    def _slabs(self):
        if sparse.issparse(self.X):
            yield self.X, self.y
            return
        rows = max(1, int(SLAB_BYTES / (8 * self.p)))
        for start in range(0, self.n, rows):
            yield self.X[start : start + rows].astype(np.float64, copy=False), self.y[start : start + rows]

    def _moments(self):
        """Return what columns are shifted and divided by; CSR columns are left where they are."""
        if sparse.issparse(self.X):
            return np.zeros(self.p), np.ones(self.p)
        total, squares = 0.0, 0.0
        for X, _ in self._slabs():
            total += _host(X.sum(axis=0))
        mean = total / self.n
        for X, _ in self._slabs():
            squares += _host(((X - self.xp.asarray(mean)) ** 2).sum(axis=0))
        deviation = np.sqrt(squares / self.n)
        return mean, np.where(deviation > 0, deviation, 1.0)

    def _margins(self, X, coef, b):
        return X @ self.xp.asarray(coef.T) + self.xp.asarray(b)

    def _losses(self, raw, y):
        xp = self.xp
        if self.k == 1:
            return float(xp.sum(xp.logaddexp(0.0, raw[:, 0]) - y * raw[:, 0]))
        top = raw.max(axis=1)
        norm = top + xp.log(xp.exp(raw - top[:, None]).sum(axis=1))
        return float(xp.sum(norm - raw[xp.arange(len(y)), y]))

    def _probabilities(self, raw):
        xp = self.xp
        if self.k == 1:
            return 1.0 / (1.0 + xp.exp(-raw))
        raw = xp.exp(raw - raw.max(axis=1, keepdims=True))
        return raw / raw.sum(axis=1, keepdims=True)

    def _unflatten(self, theta):
        """Turn parameters of the shifted and scaled columns into those of the columns as they are."""
        theta = theta.reshape(self.k, self.p + 1)
        coef = theta[:, :-1] / self.scale
        return coef, theta[:, -1] - coef @ self.mean

    def _pull_back(self, product, total):
        """Turn a gradient by (coef, intercept) into one by theta."""
        product = (product - np.outer(total, self.mean)) / self.scale
        return np.concatenate([product, total[:, None]], axis=1).ravel() / self.n

    def _evaluate(self, theta):
        """Return F, its gradient, and per slab the probabilities at theta."""
        coef, b = self._unflatten(theta)
        value, product, total, probabilities = 0.0, 0.0, 0.0, []
        for X, y in self._slabs():
            raw = self._margins(X, coef, b)
            value += self._losses(raw, y)
            prob = self._probabilities(raw)
            g = prob.copy()
            if self.k == 1:
                g[:, 0] -= y
            else:
                g[self.xp.arange(len(y)), y] -= 1
            product = product + _host(g.T @ X)
            total = total + _host(g.sum(axis=0))
            probabilities.append(prob)
        gradient = self._pull_back(product, total) + self._penalty(theta)
        return value / self.n + 0.5 * self.l2 * np.sum((coef * self.unit) ** 2), gradient, probabilities

    def _penalty(self, theta):
        """Return the penalty's gradient; it is linear, so this is its Hessian's product as well."""
        out = theta.reshape(self.k, -1) * self.l2
        out[:, :-1] *= (self.unit / self.scale) ** 2
        out[:, -1] = 0
        return out.ravel()

    def _hessian_product(self, v, probabilities):
        coef, b = self._unflatten(v)
        product, total = 0.0, 0.0
        for (X, _), prob in zip(self._slabs(), probabilities):
            along = self._margins(X, coef, b)
            if self.k == 1:
                g = prob * (1 - prob) * along
            else:
                g = prob * (along - (prob * along).sum(axis=1, keepdims=True))
            product = product + _host(g.T @ X)
            total = total + _host(g.sum(axis=0))
        return self._pull_back(product, total) + self._penalty(v)

    def _start(self):
        """Return the solution on every few rows, where that is cheap; else the constant model of equal classes."""
        stride = self.n // self._sample_rows()
        if stride < 4 or sparse.issparse(self.X):
            return np.zeros(self.k * (self.p + 1))
        n_classes = 2 if self.k == 1 else self.k
        part = LogisticObjective(self.X[::stride], self.y[::stride], self.C, n_classes, self.standardised, self.xp)
        coef, intercept = part.solve()
        theta = np.concatenate([coef * self.scale, (intercept + coef @ self.mean)[:, None]], axis=1)
        return theta.ravel()

    def _sample_rows(self):
        return max(SAMPLE_ROWS, SAMPLE_ROWS_PER_PARAM * self.k * (self.p + 1))

    def _preconditioner(self, theta, probabilities):
        """Return the function that solves with the Hessian of a sample of rows, or with its diagonal for CSR."""
        if sparse.issparse(self.X):
            prob = probabilities[0][:, 0]
            h = prob * (1 - prob)
            diagonal = np.append(self.X.multiply(self.X).T @ h, h.sum()) / self.n + self.l2
            return lambda r: r / diagonal
        stride = max(1, self.n // self._sample_rows())
        X = _host(self.X[::stride]).astype(np.float64)
        Z = np.column_stack([(X - self.mean) / self.scale, np.ones(len(X))])
        prob = np.concatenate([_host(part) for part in probabilities])[::stride]
        m, q = Z.shape
        H = np.empty((self.k, q, self.k, q))
        for a in range(self.k):
            for b in range(a + 1):
                h = prob[:, a] * ((a == b) - prob[:, b])
                H[a, :, b] = (Z * h[:, None]).T @ Z / m
                H[b, :, a] = H[a, :, b].T
        H = H.reshape(self.k * q, self.k * q)
        ridge = self._penalty(np.ones(self.k * q)) + 1e-9 * np.trace(H) / len(H)
        factor = linalg.cho_factor(H + np.diag(ridge))
        return lambda r: linalg.cho_solve(factor, r)

    def _newton_step(self, gradient, probabilities, precondition):
        """Solve H step = -gradient by preconditioned conjugate gradients, to a tenth of a per cent."""
        step, r = np.zeros_like(gradient), -gradient
        z = precondition(r)
        d, rz = z, r @ z
        goal = 1e-6 * rz
        for _ in range(300):
            Hd = self._hessian_product(d, probabilities)
            alpha = rz / (d @ Hd)
            step, r = step + alpha * d, r - alpha * Hd
            z = precondition(r)
            rz, before = r @ z, rz
            if not rz > goal:
                break
            d = z + rz / before * d
        return step

    def _advance(self, theta, step, evaluation):
        """Take the longest of the steps 1, 1/2, 1/4 ... that does not raise F by more than rounding."""
        length = 1.0
        while length > 1e-4:
            found = self._evaluate(theta + length * step)
            if found[0] <= evaluation[0] * (1 + 1e-15):
                return theta + length * step, found
            length /= 2
        return theta, evaluation


def _host(array):
    return array.get() if hasattr(array, "get") else np.asarray(array)
