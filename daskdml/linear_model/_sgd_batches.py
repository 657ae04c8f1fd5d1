"""SGDClassifier and SGDRegressor with a strategy: a step along the mean of a batch, which ranks compute together."""

import warnings

from daskdml.kernels.sequential import optimal_init
from daskdml.objectives.linear_batches import LinearBatches, MarginLoss
from daskdml.solvers.descent import Plain
from daskdml.training import Rates, Schedule, Training, TrainingState, least_parts
from daskdml.utils.batches import AUTO_BATCH

AUTO_STEPS = 50  # of an epoch with batch_size="auto", at least
SPARSE_INTERCEPT_RATE = 0.01  # scikit-learn's


def warn_of_long_batches(model, n):
    """Warn where a batch is to have more rows than there are."""
    if model.batch_size != "auto" and model.batch_size > n:
        warnings.warn(
            f"batch_size={model.batch_size} is larger than the number of rows, {n}; a batch is all rows.", stacklevel=6
        )


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
        n, is_auto = run.n_samples, model.batch_size == "auto"
        batch_size = min(AUTO_BATCH, max(n // AUTO_STEPS, 1)) if is_auto else int(model.batch_size)
        self.step_rows = min(batch_size * model.strategy.accumulate, n)
        # scikit-learn counts rows, where a step is a row: averages begin with the step that has so many behind it.
        average = -(-int(model.average) // self.step_rows)
        self.transform = Plain(
            model.learning_rate, float(model.power_t), alpha, start, l2, l1,
            intercept_rate if model.fit_intercept else 0.0, average,
        )  # fmt: skip

    @staticmethod
    def check(model):
        """Refuse what batches cannot be trained with.

        Parameters
        ----------
        model : SGDClassifier or SGDRegressor
            With a strategy.
        """
        if model.learning_rate in ("pa1", "pa2"):
            raise ValueError(
                f"learning_rate={model.learning_rate!r} makes steps as long as the one row of each asks for, and a "
                "batch has many. Leave out the strategy, or use 'constant', 'optimal', 'invscaling' or 'adaptive'."
            )

    def schedule(self, seed, is_mixed, held_out):
        """Return which rows form which batch."""
        n, model, strategy = self.run.n_samples, self.model, self.model.strategy
        warn_of_long_batches(model, n)
        return Schedule.of(
            n, self.step_rows, seed, is_shuffled=bool(model.shuffle), is_mixed=is_mixed, held_out=held_out,
            least=least_parts(self.run.n_ranks, self.step_rows, strategy.parts_per_rank) if strategy.spreads else 1,
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
            is_on_device=self.run.layout == "device",
        )  # fmt: skip

    def t_after(self, n_rows):
        """Return one more than the steps that so many rows are, about."""
        return 1.0 + round(n_rows / self.step_rows)

    def begin(self, training, coef, intercept, t, age, average=None):
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
        average : (ndarray, ndarray), optional
            Mean coefficients and intercepts so far; without, these.
        """
        parts = (coef, intercept), (coef, intercept) if average is None else average
        theta, moment = (self.objective.flatten([w.T], [b]) for w, b in parts)
        moments = (moment,)[: self.transform.n_moments]
        return TrainingState(theta, moments, float(self.model.eta0), age=age, n_updates=int(t) - 1)

    def outcome(self, training, state, t):
        """Return what was found, and what to go on from.

        Returns
        -------
        found, learnt : (ndarray of shape (k, p), ndarray of shape (k,))
            Coefficients and intercepts that predict, and those that the next step is taken from.
        n_iter : int
            Epochs of this fit.
        t : float
            One more than the steps of all fits.
        n_rows : int
            Of this fit's epochs.
        steps : float
            That t again.
        """
        found = self._parts(self.transform.learnt(state.theta, state.moments, state.n_updates))
        steps = 1.0 + state.n_updates
        return found, self._parts(state.theta), state.epoch, steps, state.n_seen, steps

    def _parts(self, theta):
        return self.objective.coefs(theta)[0].T.copy(), self.objective.intercepts(theta)[0].copy()
