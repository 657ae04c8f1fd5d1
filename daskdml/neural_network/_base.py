"""What both networks share: the fit by batches or by L-BFGS, warm starts, raw predictions."""

import copy
import functools
import numbers
import warnings
from types import SimpleNamespace

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.metaestimators import available_if

from daskdml.data import apply_rows, as_matrix, check_features, is_dask, whole_rows
from daskdml.fitting import Follower, Planned, fitting, one_dimensional, planning, report_training
from daskdml.kernels.device import module_of, on_host
from daskdml.kernels.layers import ACTIVATIONS
from daskdml.neural_network._given import check_given, given_rows, read, summed
from daskdml.neural_network._lbfgs import minimise
from daskdml.neural_network._planning import check_foreseen, expect_lbfgs, expect_training
from daskdml.objectives.network import Network
from daskdml.programs.training import train
from daskdml.solvers.descent import Adam, Momentum
from daskdml.strategies import AllReduce
from daskdml.training import Rates, Schedule, Training, TrainingState, is_mixable, least_parts
from daskdml.training.asking import check_place, check_strategy, warn_of_forgetting
from daskdml.utils.batches import AUTO_BATCH
from daskdml.utils.config import get_config
from daskdml.utils.params import Interval, Options, check_params
from daskdml.utils.random import as_seed

_INT, _REAL = numbers.Integral, numbers.Real

CONSTRAINTS = {
    "hidden_layer_sizes": ["array-like", Interval(_INT, 1, None)],
    "activation": [Options(set(ACTIVATIONS))],
    "solver": [Options({"lbfgs", "sgd", "adam"})],
    "alpha": [Interval(_REAL, 0, None, "left")],
    "batch_size": [Options({"auto"}), Interval(_INT, 1, None)],
    "learning_rate": [Options({"constant", "invscaling", "adaptive"})],
    "learning_rate_init": [Interval(_REAL, 0, None, "neither")],
    "power_t": [Interval(_REAL, 0, None, "left")],
    "max_iter": [Interval(_INT, 1, None)],
    "shuffle": ["boolean", Options({"rows"})],
    "random_state": ["random_state"],
    "tol": [Interval(_REAL, 0, None, "left")],
    "verbose": ["boolean", Interval(_INT, 0, None)],
    "warm_start": ["boolean"],
    "momentum": [Interval(_REAL, 0, 1)],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(_REAL, 0, 1, "left")],
    "beta_1": [Interval(_REAL, 0, 1, "left")],
    "beta_2": [Interval(_REAL, 0, 1, "left")],
    "epsilon": [Interval(_REAL, 0, None, "neither")],
    "n_iter_no_change": [Interval(_INT, 1, None), Options({np.inf})],
    "max_fun": [Interval(_INT, 1, None)],
    "learning_rate_scaling": [Options({"linear", "sqrt"}), None],
    "warm_up": [Interval(_REAL, 0, None, "left")],
    "batch_growth": [Interval(_REAL, 1, None, "left")],
    "dtype": [Options({"float32", "float64"})],
}


class TrainedNetwork(Planned, BaseEstimator):
    """A network that is trained on all rows; see `MLPClassifier` and `MLPRegressor`."""

    _constraints: dict = {}

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Train the network.

        Parameters
        ----------
        X : array_like, CSR/CSC matrix, DataFrame, dask.array or dask.dataframe, shape (n_samples, n_features)
            Rows of cupy stay on their device, where the network is trained too; what workers send goes through the
            host.
        y : array_like, Series or Dask collection, shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : the same, shape (n_samples,), or a number for every row, optional
        X_val, y_val, sample_weight_val : as X, y and sample_weight, optional
            Rows that are scored after each epoch, in ``validation_scores_``; with ``early_stopping=True`` they decide
            instead of rows that are held out. They are copied to every worker.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters, y, weights or shapes, and for NaN or infinity in X.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val, sample_weight_val), is_incremental=False)

    def _check_solver(self):
        if self.solver == "lbfgs":
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    def _check_params(self, is_incremental, has_given):
        check_params(self, {**CONSTRAINTS, **self._constraints})
        if any(not isinstance(size, _INT) or size <= 0 for size in self._hidden_sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, each an int, got {list(self._hidden_sizes)}.")
        if is_incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.early_stopping and self.solver != "lbfgs" and not self.validation_fraction and not has_given:
            raise ValueError(
                "early_stopping=True scores rows that are held out, and validation_fraction=0.0 holds out none; give a "
                "validation_fraction in (0.0, 1.0), or X_val and y_val."
            )
        if get_config()["runtime"] == "tasks":
            raise ValueError(
                f"{type(self).__name__} runs as ranks, config_context(runtime='spmd'), or on threads of this process, "
                "'threads'; runtime='tasks' has neither. Leave it at 'auto'."
            )
        strategy = AllReduce() if self.strategy is None else self.strategy
        check_strategy(strategy)
        strategy.check(self)
        idle = {
            "validation rows": has_given, "a strategy": self.strategy is not None, "warm_up": self.warm_up,
            "learning_rate_scaling": self.learning_rate_scaling, "batch_growth": self.batch_growth > 1,
        }  # fmt: skip
        what = [name for name, is_given in idle.items() if is_given]
        if self.solver == "lbfgs" and what:
            raise ValueError(f"solver='lbfgs' looks at all rows in each step and has no use for {' and '.join(what)}.")
        if self.learning_rate_scaling and strategy.accumulate == 1 and self.batch_growth == 1:
            warnings.warn(
                f"learning_rate_scaling={self.learning_rate_scaling!r} is for steps of several batches, and here each "
                "is one: the rate stays as it is. AllReduce(accumulate=k) or batch_growth make steps of more; or "
                "multiply learning_rate_init.",
                stacklevel=4,
            )  # fmt: skip
        elif self.learning_rate_scaling == "linear" and self.solver == "adam":
            warnings.warn(
                "learning_rate_scaling='linear' is for solver='sgd', whose steps are as long as gradients; those of "
                "'adam' are not, and want 'sqrt'.",
                stacklevel=4,
            )  # fmt: skip
        if is_incremental:
            warn_of_forgetting(strategy)
        return strategy

    def _plan(self, X, y, sample_weight):
        strategy = self._check_params(False, False)
        check_foreseen(strategy)
        y, X = self._targets(y), whole_rows(X)
        reader = functools.partial(read, np.dtype(self.dtype))
        with planning(self, X, y, sample_weight, reader) as plan:
            if plan.sample.layout == "device":
                raise ValueError("plan cannot say yet how fast a device is; ask with X.get(), or NumPy chunks.")
            summary = plan.targets(summed(self._kind_of(y)))
            loss, n_outputs = self._planned_targets(plan, summary)
            sizes = (plan.sample.n_features, *map(int, self._hidden_sizes), n_outputs)
            network = Network(sizes, self.activation, loss, self.alpha, self.dtype)
            theta = network.start(0)
            if self.solver == "lbfgs":
                return plan.finish(self, expect_lbfgs(plan, network, theta, int(self.max_iter)))
            n = plan.sample.n_samples
            schedule = self._schedule(plan.sample.run, n, 0, AllReduce(accumulate=strategy.accumulate), None)
            training = Training(
                network, schedule, self._transform(), strategy, int(self.max_iter), float(self.tol),
                self.n_iter_no_change, self._rates(strategy, n), growth=float(self.batch_growth),
            )  # fmt: skip
            return plan.finish(self, expect_training(plan, training, theta))

    def _transform(self):
        if self.solver == "sgd":
            return Momentum(self.momentum, bool(self.nesterovs_momentum))
        return Adam(self.beta_1, self.beta_2, self.epsilon)

    @property
    def _hidden_sizes(self):
        sizes = self.hidden_layer_sizes
        return tuple(sizes) if hasattr(sizes, "__iter__") else (sizes,)

    def _fit(self, X, y, sample_weight, given, is_incremental):
        has_given = check_given(given)
        strategy = self._check_params(is_incremental, has_given)
        goes_on = self.__sklearn_is_fitted__() and (self.warm_start or is_incremental)
        if goes_on:
            check_features(self, X, reset=False)
        y, X = self._targets(y), whole_rows(X)
        reader = functools.partial(read, np.dtype(self.dtype))
        with fitting(self, X, y, sample_weight, verbose=self.verbose, matrix=reader) as fit:
            check_place(strategy, fit.run.layout)
            found = self._train(fit, self._kind_of(y), strategy, given if has_given else None, goes_on, is_incremental)
        vars(self).pop("feature_names_in_", None)
        vars(self).update(vars(found))
        vars(self).update(vars(fit.features))
        self.fit_report_ = fit.report
        return self

    def _targets(self, y):
        return y if is_table(y) else one_dimensional(y)

    def _kind_of(self, y):
        """Return what is predicted: "classes", "labels" (several of which a row may have) or "values"."""
        return self._kind

    def _train(self, fit, kind, strategy, given, goes_on, is_incremental):
        """Return the namespace of fitted attributes."""
        run, found = fit.run, SimpleNamespace()
        summary = fit.targets(summed(kind))
        loss, n_outputs = self._prepare_targets(run, summary, found, goes_on, is_incremental)
        sizes = (run.n_features, *map(int, self._hidden_sizes), n_outputs)
        network = Network(sizes, self.activation, loss, self.alpha, self.dtype)
        seed = as_seed(0 if self.random_state is None else self.random_state)
        theta = self._theta(network) if goes_on else None
        if theta is None and not strategy.is_sharded:  # else ranks draw their shards
            theta = network.start(seed)
        if self.solver == "lbfgs":
            return self._by_lbfgs(fit, network, theta, found)
        n = run.n_samples
        schedule = self._schedule(run, n, seed, strategy, given)
        transform = self._transform()
        scores = given is not None or self.early_stopping
        state = self._begin(theta, transform, goes_on, is_incremental, scores)
        center = 0.0 if kind == "classes" else np.asarray(summary.total) / summary.weight
        if given is not None:
            given = given_rows(self, fit.features, kind, given, getattr(found, "classes_", None), n_outputs)
        training = Training(
            network, schedule, transform, strategy, 1 if is_incremental else int(self.max_iter), float(self.tol),
            self.n_iter_no_change, self._rates(strategy, n),
            kind=kind, scores=scores,
            is_judged_by_score=bool(self.early_stopping), given=given, center=center,
            growth=float(self.batch_growth), is_on_device=run.layout == "device", is_incremental=is_incremental,
        )  # fmt: skip
        follow = Follower(fit, schedule.n_trained) if self.verbose else None
        state = train(run, training, state, fit.what, (seed, given and given.arrays), follow)
        if state.stopped_because == "not finite":
            self._explain_nonfinite(run)
        if state.stopped_because == "no score":
            run.locate_nonfinite()
            raise ValueError(
                "The score of the validation rows is not a number: their weights are all 0, or X_val holds NaN. Use "
                "another random_state, or give other rows."
            )
        self._note(found, fit, training, state, is_incremental)
        return found

    def _rates(self, strategy, n):
        kind, batch_size = self.learning_rate if self.solver == "sgd" else "constant", self._batch_size(n)
        return Rates(
            float(self.learning_rate_init), kind, float(self.power_t), self.learning_rate_scaling, float(self.warm_up),
            min(strategy.accumulate * batch_size, n) / batch_size,
        )  # fmt: skip

    def _batch_size(self, n):
        return min(AUTO_BATCH if self.batch_size == "auto" else int(self.batch_size), n)

    def _schedule(self, run, n, seed, strategy, given):
        if self.batch_size != "auto" and self.batch_size > n:
            warnings.warn(
                f"batch_size={self.batch_size} is larger than the number of rows, {n}; a batch is all rows.",
                stacklevel=5,
            )  # fmt: skip
        batch_size = min(strategy.accumulate * self._batch_size(n), n)
        is_mixed = bool(self.shuffle) and (self.shuffle == "rows" or is_mixable(n, run.n_features, self.dtype))
        held_out = self.validation_fraction if self.early_stopping and given is None else 0.0
        schedule = Schedule.of(
            n, batch_size, seed, is_shuffled=bool(self.shuffle), is_mixed=is_mixed, held_out=held_out,
            least=least_parts(run.n_ranks, batch_size, strategy.parts_per_rank) if strategy.spreads else 1,
        )  # fmt: skip
        if held_out and n - schedule.n_trained < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return schedule

    def _theta(self, network):
        shapes = [np.shape(coef) for coef in self.coefs_]
        if shapes != list(network.shapes):
            raise ValueError(
                f"A fit that goes on has layers of {shapes}, but hidden_layer_sizes={self.hidden_layer_sizes} and the "
                f"targets ask for {list(network.shapes)}; set warm_start=False."
            )
        return network.flatten(self.coefs_, self.intercepts_)

    def _begin(self, theta, transform, goes_on, is_incremental, scores):
        """Return the state to begin with: moments go on from call to call of partial_fit, what was found of fit too."""
        zeros = () if theta is None else tuple(np.zeros_like(theta) for _ in range(transform.n_moments))
        fresh = TrainingState(theta, zeros, float(self.learning_rate_init))
        if not goes_on or self._state is None:
            return fresh
        kept = self._state._replace(
            theta=theta, epoch=0, batch=0, stopped_because="", seconds=None, trace=(), shared=None, n_rounds=0,
            bytes_sent=0, bytes_received=0, moved=None, n_lost=0, n_steps=0, n_ranks=1, cut=(),
        )  # fmt: skip
        if not scores:
            kept = kept._replace(scores=(), best_score=-np.inf)
        elif kept.best_score > -np.inf:
            kept = kept._replace(best_theta=theta)  # what is best so far is what the last fit left
        if is_incremental and len(kept.moments) == transform.n_moments and kept.moments[0].dtype == theta.dtype:
            return kept
        return kept._replace(moments=zeros, rate=fresh.rate, n_updates=0)

    def _note(self, found, fit, training, state, is_incremental):
        """Write down what was found, and how the fit ended."""
        n_iter, name, network = state.epoch, type(self).__name__, training.objective
        theta = state.theta
        if self.early_stopping and state.best_theta is not None:
            theta = state.best_theta
        scores = list(state.scores) if state.scores else None
        found.__dict__.update(
            coefs_=network.coefs(theta), intercepts_=network.intercepts(theta), loss_curve_=list(state.losses),
            loss_=state.losses[-1], n_iter_=n_iter, t_=state.n_seen, validation_scores_=scores,
            best_loss_=None if self.early_stopping else state.best_loss,
            best_validation_score_=state.best_score if self.early_stopping else None,
            n_layers_=len(network.sizes), n_outputs_=network.sizes[-1], out_activation_=self._out_activation(network),
            _network=network, _state=state._replace(theta=None, best_theta=None, shared=None),
        )  # fmt: skip
        report_training(self, fit, state, training)
        has_converged = bool(state.stopped_because) or is_incremental
        fit.close(
            converged=has_converged, stopped_because=state.stopped_because or "max_iter", n_iter=n_iter
        )  # fmt: skip
        if not has_converged:
            warnings.warn(
                f"{name}: the maximum of iterations ({self.max_iter}) was reached and the optimization hasn't "
                "converged yet: the loss may go on getting better; raise max_iter.",
                ConvergenceWarning, stacklevel=5,
            )  # fmt: skip

    def _explain_nonfinite(self, run):
        run.locate_nonfinite()
        raise ValueError(
            "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
            "preprocessed, for example with daskdml.preprocessing.StandardScaler; or lower learning_rate_init, now "
            f"{self.learning_rate_init}."
        )

    def _by_lbfgs(self, fit, network, theta, found):
        result = minimise(fit, network, theta, float(self.tol), int(self.max_iter), int(self.max_fun))
        if not np.isfinite(result.x).all() or not np.isfinite(result.fun):
            self._explain_nonfinite(fit.run)
        theta = result.x.astype(network.dtype)
        found.__dict__.update(
            coefs_=network.coefs(theta), intercepts_=network.intercepts(theta), loss_=float(result.fun),
            n_iter_=int(result.nit), n_layers_=len(network.sizes), n_outputs_=network.sizes[-1], t_=0,
            out_activation_=self._out_activation(network), _network=network, _state=None, loss_curve_=[],
            validation_scores_=None, best_loss_=None, best_validation_score_=None,
        )  # fmt: skip
        has_converged = result.status == 0
        reason = "" if has_converged else "max_iter" if result.status == 1 else str(result.message)
        fit.close(converged=has_converged, stopped_because=reason, n_iter=int(result.nit))
        if not has_converged:
            warnings.warn(
                f"lbfgs failed to converge after {result.nit} iteration(s) (status={result.status}): {result.message} "
                "Increase the number of iterations (max_iter) or of calls (max_fun), or scale the data.",
                ConvergenceWarning, stacklevel=5,
            )  # fmt: skip
        return found

    def _out_activation(self, network):
        kinds = {"multinomial": "softmax", "logistic": "logistic", "poisson": "exp", "squared": "identity"}
        return kinds[network.loss.name]

    def to_sklearn(self):
        """Return scikit-learn's own estimator with the same parameters, coefficients and predictions.

        Returns
        -------
        estimator of scikit-learn
            To predict, for its tools, and where daskdml is not installed.
        """
        from sklearn import neural_network
        from sklearn.preprocessing import LabelBinarizer

        self._check_fitted()
        twin = getattr(neural_network, type(self).__name__)()
        params = self.get_params(deep=False)
        twin.set_params(**{name: params[name] for name in twin.get_params(deep=False)})
        twin.shuffle = bool(self.shuffle)
        for name, value in vars(self).items():
            if name.endswith("_") and not name.startswith("_") and name != "fit_report_":
                setattr(twin, name, copy.copy(value))
        if hasattr(self, "classes_"):
            twin._label_binarizer = LabelBinarizer().fit(np.eye(self.n_outputs_) if self._has_labels else self.classes_)
        return twin

    # Predictions -----------------------------------------------------------------------------------------------------

    def __sklearn_is_fitted__(self):
        return hasattr(self, "coefs_")

    def _check_fitted(self):
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before "
                "using this estimator."
            )

    def _flat(self):
        """Return all parameters as one vector: the one that they are views of, if nobody has replaced some."""
        network, parts = self._network, [*self.coefs_, *self.intercepts_]
        theta = getattr(parts[0], "base", None)
        if isinstance(theta, np.ndarray) and theta.shape == (network.n_params,) and theta.dtype == network.dtype:
            own = [*network.coefs(theta), *network.intercepts(theta)]
            if all(_is_same(part, view) for part, view in zip(parts, own)):
                return theta
        return network.flatten(self.coefs_, self.intercepts_)

    def _map_raw(self, X, finish, **result):
        """Apply ``finish(raw predictions)`` to the rows of X, lazily on Dask input."""
        self._check_fitted()
        check_features(self, X, reset=False)
        theta = self._flat()
        fn = functools.partial(_raw_of, self._network, theta, finish)
        return apply_rows(fn, whole_rows(X), on_host=True, **result) if is_dask(X) else fn(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def is_table(y):
    """Tell whether targets have several columns."""
    shape = None if y is None else np.shape(y) if isinstance(y, list) else getattr(y, "shape", None)
    return shape is not None and len(shape) == 2 and shape[1] > 1


def _is_same(left, right):
    """Tell whether two arrays are the same memory."""
    return left.shape == right.shape and left.ctypes.data == right.ctypes.data and left.dtype == right.dtype


def _raw_of(network, theta, finish, X):
    X = as_matrix(X)
    with np.errstate(over="ignore", invalid="ignore"):
        theta = module_of(X).asarray(theta)
        raw = on_host(network.raw(theta, X.astype(network.dtype, copy=False))).astype(np.float64)
    if not np.isfinite(raw.sum()) and not np.isfinite(raw).all():
        as_matrix(X, ensure_finite=True)
    return raw if finish is None else finish(raw)


is_stochastic = available_if(lambda estimator: estimator._check_solver())
