"""Networks keep the contract of estimators."""

import numpy as np
import pytest
from sklearn import neural_network as theirs

from daskdml.neural_network import MLPClassifier, MLPRegressor
from daskdml.testing import ClassifierContract, RegressorContract

WRONG = (
    ("hidden_layer_sizes", 0), ("hidden_layer_sizes", (4, -1)), ("activation", "swish"), ("solver", "sag"),
    ("alpha", -1.0), ("batch_size", 0), ("batch_size", "all"), ("learning_rate", "optimal"),
    ("learning_rate_init", 0.0), ("power_t", -1.0), ("max_iter", 0), ("shuffle", "columns"), ("random_state", "no"),
    ("tol", -1.0), ("verbose", -1), ("warm_start", 2), ("momentum", 1.5), ("nesterovs_momentum", 2),
    ("early_stopping", 2), ("validation_fraction", 1.0), ("beta_1", 1.0), ("beta_2", 1.0), ("epsilon", 0.0),
    ("n_iter_no_change", 0), ("max_fun", 0), ("dtype", "float16"), ("strategy", "allreduce"),
)  # fmt: skip


# scikit-learn compares to seven digits, which is what float32 has.
ROUNDED = {
    name: "float32 has seven digits; with dtype='float64' it passes"
    for name in (
        "check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data",
        "check_methods_subset_invariance",
    )
}  # fmt: skip


UNLIKE = {"tol": 1e-4, "n_iter_no_change": 10, "hidden_layer_sizes": (100,), "dtype": "float32", "max_iter": 100}


class OfBatches:
    """What differs from linear models: batches depend on the order of rows, and weights are no repetitions of them."""

    test_order_of_rows_does_not_matter = None
    test_weights_are_repetitions = None
    test_class_missing_from_a_chunk = None  # sorts the rows; below
    tight = {}
    wrong_parameters = WRONG

    def expected_failures(self, params):
        return ROUNDED if params.get("dtype") == "float32" else {}

    # Ends by itself after three epochs.
    defaults = {"hidden_layer_sizes": (8,), "tol": 10.0, "n_iter_no_change": 2, "dtype": "float64"}

    def make(self, **params):
        return self.kind(**{**self.defaults, **params})

    def fitted(self, model):
        return np.concatenate([np.ravel(part) for part in (*model.coefs_, *model.intercepts_)])

    def narrowed(self, model):
        return self.fitted(model)


class OfConvex(OfBatches):
    """Without hidden layers there is one optimum, which L-BFGS finds."""

    test_order_of_rows_does_not_matter = RegressorContract.test_order_of_rows_does_not_matter
    test_weights_are_repetitions = RegressorContract.test_weights_are_repetitions
    test_scikit_learns_checks = None
    chunk_tolerance = 1e-8
    starved = {"max_iter": 1}
    defaults = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 10.0, "tol": 1e-13, "dtype": "float64",
                "max_iter": 1000}  # fmt: skip


class TestClassifier(OfBatches, ClassifierContract):
    kind = MLPClassifier
    starved = {"max_iter": 1}
    configurations = (
        {**UNLIKE, "dtype": "float64"}, {**UNLIKE, "solver": "sgd", "dtype": "float64", "learning_rate_init": 0.01},
        {**UNLIKE, "solver": "lbfgs", "dtype": "float64", "alpha": 1.0}, UNLIKE,
    )  # fmt: skip


class TestThreeClasses(OfBatches, ClassifierContract):
    kind = MLPClassifier
    n_classes = 3
    test_scikit_learns_checks = None


class TestConvexClassifier(OfConvex, ClassifierContract):
    kind = MLPClassifier
    test_class_missing_from_a_chunk = ClassifierContract.test_class_missing_from_a_chunk
    n_classes = 3


class TestRegressor(OfBatches, RegressorContract):
    kind = MLPRegressor
    starved = {"max_iter": 1}
    test_several_targets_are_single_ones_side_by_side = None  # they share a hidden layer
    configurations = TestClassifier.configurations


class TestConvexRegressor(OfConvex, RegressorContract):
    kind = MLPRegressor
    test_several_targets_are_single_ones_side_by_side = None


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_parameters_are_scikit_learns(kind):
    ours, known = kind().get_params(), getattr(theirs, kind.__name__)().get_params()
    assert {key: ours[key] for key in known} == known
    assert set(ours) - set(known) == {
        "strategy", "dtype", "learning_rate_scaling", "warm_up", "batch_growth",
    }  # fmt: skip
