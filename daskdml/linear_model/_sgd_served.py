"""SGDClassifier and SGDRegressor of very many features with a parameter server: a step a row."""

import numpy as np

from daskdml.kernels.sequential import ABSOLUTE_NORM, N_SCALARS, SQUARED_NORM, new_state
from daskdml.linear_model._sgd import ByRows
from daskdml.linear_model._sgd_batches import AUTO_STEPS, ByBatches, warn_of_long_batches
from daskdml.training import Schedule, least_parts
from daskdml.training.served_rows import ServedRowsTraining

MOST_COLUMNS = 2**31 - 1  # whose numbers are of 32 bits
AUTO_ROWS = 1 << 14  # of a worker in a batch with batch_size="auto", if there are enough


class ByServedRows(ByRows):
    """Trains each output of a model for itself, a step a row; coefficients are with a parameter server."""

    @staticmethod
    def check(model):
        """Refuse what coefficients that nobody holds whole cannot be trained with.

        Parameters
        ----------
        model : SGDClassifier or SGDRegressor
            With a strategy.
        """
        ByBatches.check(model)
        strategy, where = model.strategy, "ParameterServer(sparse=True), which has the coefficients that rows store,"
        refused = {
            "average": (model.average, "needs all of them after every step. Leave it at False"),
            "compression": (strategy.compression is not None, "sends no gradients that a codec would make less of"),
            "groups": (strategy.groups is not None, "has no gradients that a group could add up. Leave it at None"),
        }  # fmt: skip
        for name, (is_set, why) in refused.items():
            if is_set:
                raise ValueError(f"{name}: {where} {why}; or give sparse=False.")

    def schedule(self, seed, is_mixed, held_out):
        """Return which rows form which batch."""
        n, model, n_ranks = self.run.n_samples, self.model, self.run.n_ranks
        if self.run.n_features > MOST_COLUMNS:
            raise ValueError(
                f"X has {self.run.n_features:,} columns, and a parameter server has rows for {MOST_COLUMNS:,}: hash "
                "features into fewer."
            )
        auto = min(AUTO_ROWS * n_ranks, max(n // AUTO_STEPS, 1))
        warn_of_long_batches(model, n)
        rows = auto if model.batch_size == "auto" else min(int(model.batch_size), n)
        return Schedule.of(
            n, rows, seed, is_shuffled=bool(model.shuffle), is_mixed=is_mixed, held_out=held_out,
            least=least_parts(n_ranks, rows),
        )  # fmt: skip

    def training(self, schedule, max_epochs, tol, center):
        """Return the training."""
        model = self.model
        return ServedRowsTraining(
            self.settings, self.labels, schedule, self.run.n_features, max_epochs, tol, int(model.n_iter_no_change),
            bool(model.early_stopping), center, model.strategy, self.run.dtype,
        )  # fmt: skip

    def begin(self, training, coef, intercept, t, age, average=None):
        """Return the state to begin with; coefficients other than zero beside it."""
        states = [new_state(0, one, None, b, float(np.max(t))) for one, b in zip(self.settings, intercept.tolist())]
        state = training.begin(states, age)
        columns = np.flatnonzero(coef.any(axis=0)).astype(np.int32) if coef.any() else ()
        if not len(columns):
            return state
        rows = np.ascontiguousarray(coef[:, columns].T)
        norms = state.theta[:, -N_SCALARS:]
        norms[:, SQUARED_NORM], norms[:, ABSOLUTE_NORM] = (rows**2).sum(axis=0), np.abs(rows).sum(axis=0)
        return state._replace(coef=(columns, rows))

    def outcome(self, training, state, t):
        """Return what was found; nothing is kept beside it to go on from."""
        intercept = np.array([model.intercept for model in training.states(state.theta)])
        n_iter = int(state.n_epochs.max())
        n_rows = n_iter * self.run.n_samples
        return (state.coef, intercept), None, n_iter, t + n_rows, n_rows, t + n_rows
