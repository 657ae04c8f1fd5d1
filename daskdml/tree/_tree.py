"""Decision trees."""

from daskdml.fitting import ClassesOfTrees, GrownTrees, NumbersOfTrees
from daskdml.trees.pruning import pruning_path
from daskdml.utils.params import Options


class _Tree(GrownTrees):
    """What single trees share: their nodes, and the way to scikit-learn."""

    _stands_alone = True

    @property
    def tree_(self):
        """The nodes, as scikit-learn's Tree."""
        return self.to_sklearn().tree_

    def get_depth(self):
        """Return the steps from the root to the deepest leaf."""
        return int(self._fitted().trees[0].depths.max())

    def get_n_leaves(self):
        """Return how many leaves there are."""
        return self._fitted().trees[0].n_leaves

    def cost_complexity_pruning_path(self, X, y, sample_weight=None):
        """Return at which ``ccp_alpha`` which nodes of the tree fall; grows the tree without pruning first.

        Parameters
        ----------
        X, y, sample_weight : see `fit`

        Returns
        -------
        Bunch
            ``ccp_alphas`` and ``impurities``, ndarrays: the effective alphas, and the total impurity of leaves after
            each.
        """
        from sklearn.base import clone
        from sklearn.utils import Bunch

        grown = clone(self).set_params(ccp_alpha=0.0).fit(X, y, sample_weight=sample_weight)
        alphas, impurities = pruning_path(grown._model.trees[0])
        return Bunch(ccp_alphas=alphas, impurities=impurities)

    def to_sklearn(self):
        """Return scikit-learn's tree with the same nodes, parameters and predictions.

        Returns
        -------
        estimator of scikit-learn
        """
        from sklearn import tree

        twin = self._twin(getattr(tree, type(self).__name__), self._fitted().trees[0])
        if hasattr(self, "feature_names_in_"):
            twin.feature_names_in_ = self.feature_names_in_
        return twin


class DecisionTreeClassifier(ClassesOfTrees, _Tree):
    """Classify by one tree; scikit-learn's parameters and attributes.

    Parameters
    ----------
    criterion : {"gini", "entropy", "log_loss"}, default "gini"
        "entropy" and "log_loss" are the same.
    splitter : {"best", "random"}, default "best"
        "random" draws one threshold a feature, evenly between the least and the largest value of the node.
    max_depth : int or None, default None
    min_samples_split : int or float, default 2
        Rows of a node that may be split; a float is a share of all rows.
    min_samples_leaf : int or float, default 1
    min_weight_fraction_leaf : float, default 0.0
        Of the weight of all rows.
    max_features : int, float, {"sqrt", "log2"} or None, default None
        How many features a node tries; a float is a share, None all of them.
    random_state : int, RandomState, Generator or None, default None
        Draws features and thresholds. None is a fixed draw, the same as 0.
    max_leaf_nodes : int or None, default None
        With a limit the leaf that gains most is split first.
    min_impurity_decrease : float, default 0.0
    class_weight : dict, "balanced" or None, default None
        What the weights of each class are multiplied by.
    ccp_alpha : float, default 0.0
        The tree is pruned by minimal cost-complexity.
    monotonic_cst : array_like of int or None, default None
        1, 0 or -1 for each feature; of two classes only.
    max_bins : int, default 255
        Bins of values that are not missing, at most 255.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_classes_ : int
    tree_ : scikit-learn's Tree
    feature_importances_ : ndarray of shape (n_features,)
    max_features_, n_outputs_ : int
    n_features_in_, feature_names_in_, fit_report_ : as everywhere

    Notes
    -----
    Rows are binned once and all of them are given to every worker: a byte a value, and two more while they are given;
    beside them 16 bytes a row, and some 60 for the thread. A worker, or this process, then grows the tree by one
    thread: some nanosecond a row, feature and level.

    The same trees come from any number of threads, workers and chunks of the same rows, after a death too: sums are of
    integers, and what is drawn hangs on the numbers of rows and trees.

    Equal to scikit-learn's trees, where a feature has no more distinct values than ``max_bins`` and no two splits are
    equally good; of more values only the edges of their quantiles are split at. Draws are others than scikit-learn's.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, y).score(X, y) > 0.9
    True
    """

    _constraints = {
        "criterion": [Options({"gini", "entropy", "log_loss"})],
        "class_weight": [Options({"balanced"}), dict, None],
    }

    def __init__(
        self, *, criterion="gini", splitter="best", max_depth=None, min_samples_split=2, min_samples_leaf=1,
        min_weight_fraction_leaf=0.0, max_features=None, random_state=None, max_leaf_nodes=None,
        min_impurity_decrease=0.0, class_weight=None, ccp_alpha=0.0, monotonic_cst=None, max_bins=255,
    ):  # fmt: skip
        self.criterion = criterion
        self.splitter = splitter
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.max_features = max_features
        self.random_state = random_state
        self.max_leaf_nodes = max_leaf_nodes
        self.min_impurity_decrease = min_impurity_decrease
        self.class_weight = class_weight
        self.ccp_alpha = ccp_alpha
        self.monotonic_cst = monotonic_cst
        self.max_bins = max_bins


class DecisionTreeRegressor(NumbersOfTrees, _Tree):
    """Predict numbers by one tree; scikit-learn's parameters and attributes.

    Parameters
    ----------
    criterion : {"squared_error", "friedman_mse", "poisson"}, default "squared_error"
        "friedman_mse" chooses the splits that "squared_error" does. "absolute_error" is refused: medians of parts do
        not add up; `daskdml.ensemble.HistGradientBoostingRegressor` has that loss.
    splitter : {"best", "random"}, default "best"
        This and the others: see `DecisionTreeClassifier`.
    max_depth, min_samples_split, min_samples_leaf, min_weight_fraction_leaf : likewise
    max_features : int, float, {"sqrt", "log2"} or None, default None
    random_state, max_leaf_nodes, min_impurity_decrease, ccp_alpha, monotonic_cst, max_bins : likewise

    Attributes
    ----------
    tree_ : scikit-learn's Tree
    feature_importances_ : ndarray of shape (n_features,)
    max_features_, n_outputs_ : int
    n_features_in_, feature_names_in_, fit_report_ : as everywhere

    Notes
    -----
    See `DecisionTreeClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> DecisionTreeRegressor(max_depth=3, random_state=0).fit(X, y).score(X, y) > 0.4
    True
    """

    _constraints = {
        "criterion": [Options({"squared_error", "friedman_mse", "poisson"})],
    }

    def __init__(
        self, *, criterion="squared_error", splitter="best", max_depth=None, min_samples_split=2,
        min_samples_leaf=1, min_weight_fraction_leaf=0.0, max_features=None, random_state=None,
        max_leaf_nodes=None, min_impurity_decrease=0.0, ccp_alpha=0.0, monotonic_cst=None, max_bins=255,
    ):  # fmt: skip
        self.criterion = criterion
        self.splitter = splitter
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.max_features = max_features
        self.random_state = random_state
        self.max_leaf_nodes = max_leaf_nodes
        self.min_impurity_decrease = min_impurity_decrease
        self.ccp_alpha = ccp_alpha
        self.monotonic_cst = monotonic_cst
        self.max_bins = max_bins


class ExtraTreeClassifier(ClassesOfTrees, _Tree):
    """Classify by one tree whose thresholds are drawn; scikit-learn's parameters and attributes.

    Parameters
    ----------
    criterion : {"gini", "entropy", "log_loss"}, default "gini"
    splitter : {"best", "random"}, default "random"
        This and the others: see `DecisionTreeClassifier`.
    max_depth, min_samples_split, min_samples_leaf, min_weight_fraction_leaf : likewise
    max_features : int, float, {"sqrt", "log2"} or None, default "sqrt"
    random_state, max_leaf_nodes, min_impurity_decrease, class_weight, ccp_alpha, monotonic_cst, max_bins : likewise

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_classes_ : int
    tree_ : scikit-learn's Tree
    feature_importances_ : ndarray of shape (n_features,)
    max_features_, n_outputs_ : int
    n_features_in_, feature_names_in_, fit_report_ : as everywhere

    Notes
    -----
    See `DecisionTreeClassifier`.

    Drawn thresholds seldom fall into the long tails of a feature of many values, as each tail is one bin: on normal
    features, where scikit-learn's forest has an R² of 0.864, this one has 0.833; on even ones both have 0.90. Cap the
    tails, or use fewer digits, where they matter.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> ExtraTreeClassifier(max_depth=5, random_state=0).fit(X, y).score(X, y) > 0.9
    True
    """

    _constraints = {
        "criterion": [Options({"gini", "entropy", "log_loss"})],
        "class_weight": [Options({"balanced"}), dict, None],
    }

    def __init__(
        self, *, criterion="gini", splitter="random", max_depth=None, min_samples_split=2, min_samples_leaf=1,
        min_weight_fraction_leaf=0.0, max_features="sqrt", random_state=None, max_leaf_nodes=None,
        min_impurity_decrease=0.0, class_weight=None, ccp_alpha=0.0, monotonic_cst=None, max_bins=255,
    ):  # fmt: skip
        self.criterion = criterion
        self.splitter = splitter
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.max_features = max_features
        self.random_state = random_state
        self.max_leaf_nodes = max_leaf_nodes
        self.min_impurity_decrease = min_impurity_decrease
        self.class_weight = class_weight
        self.ccp_alpha = ccp_alpha
        self.monotonic_cst = monotonic_cst
        self.max_bins = max_bins


class ExtraTreeRegressor(NumbersOfTrees, _Tree):
    """Predict numbers by one tree whose thresholds are drawn; scikit-learn's parameters and attributes.

    Parameters
    ----------
    criterion : {"squared_error", "friedman_mse", "poisson"}, default "squared_error"
        "friedman_mse" chooses the splits that "squared_error" does. "absolute_error" is refused: medians of parts do
        not add up; `daskdml.ensemble.HistGradientBoostingRegressor` has that loss.
    splitter : {"best", "random"}, default "random"
        This and the others: see `DecisionTreeClassifier`.
    max_depth, min_samples_split, min_samples_leaf, min_weight_fraction_leaf : likewise
    max_features : int, float, {"sqrt", "log2"} or None, default 1.0
    random_state, max_leaf_nodes, min_impurity_decrease, ccp_alpha, monotonic_cst, max_bins : likewise

    Attributes
    ----------
    tree_ : scikit-learn's Tree
    feature_importances_ : ndarray of shape (n_features,)
    max_features_, n_outputs_ : int
    n_features_in_, feature_names_in_, fit_report_ : as everywhere

    Notes
    -----
    See `DecisionTreeClassifier`.

    Drawn thresholds seldom fall into the long tails of a feature of many values, as each tail is one bin: on normal
    features, where scikit-learn's forest has an R² of 0.864, this one has 0.833; on even ones both have 0.90. Cap the
    tails, or use fewer digits, where they matter.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> ExtraTreeRegressor(max_depth=5, random_state=0).fit(X, y).score(X, y) > 0.4
    True
    """

    _constraints = {
        "criterion": [Options({"squared_error", "friedman_mse", "poisson"})],
    }

    def __init__(
        self, *, criterion="squared_error", splitter="random", max_depth=None, min_samples_split=2,
        min_samples_leaf=1, min_weight_fraction_leaf=0.0, max_features=1.0, random_state=None,
        max_leaf_nodes=None, min_impurity_decrease=0.0, ccp_alpha=0.0, monotonic_cst=None, max_bins=255,
    ):  # fmt: skip
        self.criterion = criterion
        self.splitter = splitter
        self.max_depth = max_depth
        self.min_samples_split = min_samples_split
        self.min_samples_leaf = min_samples_leaf
        self.min_weight_fraction_leaf = min_weight_fraction_leaf
        self.max_features = max_features
        self.random_state = random_state
        self.max_leaf_nodes = max_leaf_nodes
        self.min_impurity_decrease = min_impurity_decrease
        self.ccp_alpha = ccp_alpha
        self.monotonic_cst = monotonic_cst
        self.max_bins = max_bins


def export_text(decision_tree, **options):
    """Return the rules of a tree as text, by `sklearn.tree.export_text`.

    Parameters
    ----------
    decision_tree : fitted tree of this module
    **options
        Those of scikit-learn's function.

    Returns
    -------
    str

    Examples
    --------
    >>> print(export_text(DecisionTreeClassifier().fit([[0.0], [1.0]], ["no", "yes"]), feature_names=["x"]))
    |--- x <= 0.50
    |   |--- class: no
    |--- x >  0.50
    |   |--- class: yes
    <BLANKLINE>
    """
    from sklearn import tree

    return tree.export_text(decision_tree.to_sklearn(), **options)


def plot_tree(decision_tree, **options):
    """Draw a tree with matplotlib, by `sklearn.tree.plot_tree`.

    Parameters
    ----------
    decision_tree : fitted tree of this module
    **options
        Those of scikit-learn's function.

    Returns
    -------
    list of matplotlib annotations

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> len(plot_tree(DecisionTreeClassifier().fit([[0.0], [1.0]], ["no", "yes"])))
    5
    """
    from sklearn import tree

    return tree.plot_tree(decision_tree.to_sklearn(), **options)
