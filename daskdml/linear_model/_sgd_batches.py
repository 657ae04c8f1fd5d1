"""SGDClassifier and SGDRegressor with a strategy: a step along the mean of a batch, which ranks compute together."""

import warnings

from daskdml.kernels.sequential import optimal_init
from daskdml.objectives.linear_batches import LinearBatches, MarginLoss
from daskdml.solvers.descent import Plain
from daskdml.training import Rates, Schedule, Training, TrainingState

AUTO_BATCH, AUTO_STEPS = 200, 50  # at most so many rows of a batch, at least so many steps of an epoch
SPARSE_INTERCEPT_RATE = 0.01  # scikit-learn's


class ByBatches:
    """Trains all outputs of a model together, by batches.

    Parameters
    ----------
    model : SGDClassifier or SGDRegressor
    run : Run
    labels, factors : see `LinearBatches`
    """

    def __init__(self, model, run, labels, factors):
        self.model, self.run, self.factors = model, run, factors
        l1_share = {"l1": 1.0, "elasticnet": model.l1_ratio}.get(model.penalty, 0.0)
        alpha, strength = float(model.alpha), float(model.alpha) if model.penalty else 0.0
        l2, l1 = strength * (1.0 - l1_share), strength * l1_share
        loss = MarginLoss(model.loss, float(model.epsilon))
        self.objective = LinearBatches(run.n_features, loss, labels, factors, l2, l1)
        start = optimal_init(model._settings(1.0, 1.0)) if model.learning_rate == "optimal" else 0.0
        intercept_rate = SPARSE_INTERCEPT_RATE if run.layout == "csr" else 1.0
        self.transform = Plain(
            model.learning_rate, float(model.power_t), alpha, start, l2, l1,
            intercept_rate if model.fit_intercept else 0.0, int(model.average),
        )  # fmt: skip

    @staticmethod
    def check(model, is_incremental):
        """Refuse what batches cannot be trained with, and warn of what ranks forget from call to call.

        Parameters
        ----------
        model : SGDClassifier or SGDRegressor
            With a strategy.
        is_incremental : bool
            Whether this is a call of ``partial_fit``.
        """
        strategy = model.strategy
        if isinstance(strategy, type) or not hasattr(strategy, "advance"):
            raise ValueError(
                f"strategy must be one of daskdml.strategies, such as AllReduce(), or None; got {strategy!r}."
            )
        if model.learning_rate in ("pa1", "pa2"):
            raise ValueError(
                f"learning_rate={model.learning_rate!r} makes steps as long as the one row of each asks for, and a "
                "batch has many. Leave out the strategy, or use 'constant', 'optimal', 'invscaling' or 'adaptive'."
            )
        if is_incremental and strategy.remembers:
            warnings.warn(
                f"{type(strategy).__name__} with error feedback: each call of partial_fit begins without what the last "
                "one left out; give more rows to a call.",
                stacklevel=5,
            )  # fmt: skip

    def schedule(self, seed, is_mixed, held_out):
        """Return which rows form which batch."""
        n, model = self.run.n_samples, self.model
        batch_size = min(AUTO_BATCH, max(n // AUTO_STEPS, 1)) if model.batch_size == "auto" else int(model.batch_size)
        if batch_size > n:
            warnings.warn(
                f"batch_size={batch_size} is larger than the number of rows, {n}; a batch is all rows.", stacklevel=5
            )
            batch_size = n
        return Schedule.of(
            n, batch_size, seed, is_shuffled=bool(model.shuffle), is_mixed=is_mixed, held_out=held_out,
            least=min(self.run.n_ranks, batch_size) if model.strategy.spreads else 1,
        )  # fmt: skip

    def training(self, schedule, max_epochs, tol, center):
        """Return the training."""
        model = self.model
        has_scores = bool(model.early_stopping)
        # scikit-learn's SGD stops after so many epochs without improvement, its networks after one more.
        patience = int(model.n_iter_no_change) - 1
        rates = Rates(float(model.eta0), "adaptive" if model.learning_rate == "adaptive" else "constant")
        return Training(
            self.objective, schedule, self.transform, model.strategy, max_epochs, tol, patience, rates,
            kind=model._kind, scores=has_scores, is_judged_by_score=has_scores, center=center,
        )  # fmt: skip

    def begin(self, training, coef, intercept, t, age):
        """Return the state to begin with.

        Parameters
        ----------
        training : Training
        coef : ndarray of shape (k, p)
        intercept : ndarray of shape (k,)
        t : float
            One more than the steps so far.
        age : int
            Epochs so far.
        """
        return self._state(self.objective.flatten([coef.T], [intercept]), (), int(t) - 1, age)

    def resume(self, training, memory, age):
        """Return the state to go on with from what `outcome` has returned."""
        return self._state(*memory, age)

    def _state(self, theta, moments, n_updates, age):
        # An average that begins late, since the parameter was changed, begins with what there is.
        moments = moments or (theta,)
        moments = tuple(moment.copy() for moment in moments[: self.transform.n_moments])
        return TrainingState(theta.copy(), moments, float(self.model.eta0), age=age, n_updates=n_updates)

    def outcome(self, training, state, t):
        """Return coefficients, intercepts, epochs, one more than the steps of all fits, and what to go on from."""
        theta = self.transform.learnt(state.theta, state.moments, state.n_updates)
        coef, intercept = self.objective.coefs(theta)[0].T, self.objective.intercepts(theta)[0]
        memory = state.theta, state.moments, state.n_updates
        return coef.copy(), intercept.copy(), state.epoch, 1.0 + state.n_updates, memory
