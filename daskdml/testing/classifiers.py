"""What every classifier promises beyond `EstimatorContract`: labels of all types, wherever they lie."""

import numpy as np
import pytest

from daskdml.testing.estimators import EstimatorContract
from daskdml.testing.tables import DENSE, dense


class ClassifierContract(EstimatorContract):
    """Test a classifier; a subclass defines `make`.

    Attributes
    ----------
    n_classes : int, default 2
    takes_one_class : bool, default False
        Whether labels of a single class are fitted, as scikit-learn's trees do.
    is_certain : bool, default False
        Whether a probability may be 0.

    Examples
    --------
    >>> from daskdml.linear_model import LogisticRegression
    >>> class TestLogisticRegression(ClassifierContract):
    ...     def make(self, **params):
    ...         return LogisticRegression(**params)
    >>> TestLogisticRegression().test_class_missing_from_a_chunk()
    """

    n_classes = 2
    takes_one_class = False
    is_certain = False
    tight = {"tol": 1e-8}
    single = ("predict",)
    several = ("predict_proba", "predict_log_proba")

    def targets(self, X):
        """Return class codes that follow a linear function of X, with noise drawn from the row itself.

        Parameters
        ----------
        X : ndarray of shape (n, p)

        Returns
        -------
        ndarray of int, shape (n,)
        """
        rng = np.random.default_rng(7)
        raw = X @ rng.normal(size=(X.shape[1], self.n_classes))
        noise = 2.0 * np.sin(1e4 * (X @ rng.normal(size=(X.shape[1], self.n_classes)) + np.arange(len(X))[:, None]))
        return np.argmax(raw + noise, axis=1)

    def test_labels_of_every_type(self):
        """Text, booleans, integers, floats and objects are labels, and predictions have their type."""
        X, y = self.rows()
        expected = self.make().fit(X, y)
        names = np.array(["ash", "birch", "cedar", "elm"])[: self.n_classes]
        choices = [
            names, names.astype(object), np.arange(self.n_classes) * 7 - 3, np.arange(self.n_classes) + 0.0,
            np.arange(self.n_classes, dtype=np.uint8), np.arange(self.n_classes) * 10**12,
        ]  # fmt: skip
        if self.n_classes == 2:
            choices.append(np.array([False, True]))
        for labels in choices:
            for kind in ("numpy", "dask array"):
                where = f"{labels.dtype}, {kind}"
                table = DENSE[kind](X)
                model = self.make().fit(table, self._beside(table, labels[y]))
                np.testing.assert_array_equal(model.classes_, labels, err_msg=where)
                self._close(self.fitted(model), self.fitted(expected), self.chunk_tolerance, where)
                predicted = dense(model.predict(table))
                np.testing.assert_array_equal(predicted, labels[expected.predict(X)], err_msg=where)
                assert predicted.dtype.kind == labels.dtype.kind, where

    def test_labels_in_frames(self):
        """Series of text, categories and nullable numbers are labels."""
        import pandas as pd

        X, y = self.rows()
        expected = self.fitted(self.make().fit(X, y))
        names = np.array(["ash", "birch", "cedar", "elm"])[: self.n_classes]
        for column in (pd.Series(names[y]), pd.Series(names[y]).astype("category"), pd.Series(y).astype("Int64")):
            model = self.make().fit(X, column)
            self._close(self.fitted(model), expected, 1e-12, str(column.dtype))
            lazy = DENSE["dask frame"](X)
            from daskdml.testing.tables import cuts, partitions

            frame = pd.DataFrame({"y": column.to_numpy() if column.dtype != "category" else column})
            frame.index = np.arange(len(X)) * 10
            model = self.make().fit(lazy, partitions(frame, cuts(len(X)))["y"])
            self._close(self.fitted(model), expected, self.chunk_tolerance, f"{column.dtype}, Dask")

    def test_class_missing_from_a_chunk(self):
        """Rows sorted by class, so that no chunk has them all, are as good as shuffled ones."""
        import dask.array as da

        X, y = self.rows()
        turn = np.argsort(y, kind="stable")
        expected = self.fitted(self.make().fit(X, y))
        for labels in (y, np.array(["ash", "birch", "cedar", "elm"])[y]):
            lazy = da.from_array(X[turn], chunks=(20, -1)), da.from_array(labels[turn], chunks=20)
            self._close(self.fitted(self.make().fit(*lazy)), expected, self.chunk_tolerance, str(labels.dtype))

    def test_one_class_is_refused(self):
        """Labels of a single class, or weights that leave a single one, are refused by name, where they are refused."""
        X, y = self.rows()
        if self.takes_one_class:
            one = self.make().fit(X, np.full(len(X), 3))
            assert (one.predict(X) == 3).all() and (one.predict_proba(X) == 1).all()
            return
        for kind in ("numpy", "dask array"):
            table = DENSE[kind](X)
            self._refuses(table, self._beside(table, np.full(len(X), 3)), "2 classes.*one class.*3", kind)
            if self.n_classes == 2:
                self._refuses(table, y, "2 classes.*class.*1", kind, (y == 1).astype(float))

    def test_continuous_labels_are_refused(self):
        """Numbers with a fraction are no labels, nor are missing ones."""
        X, y = self.rows()
        self._refuses(X, y + 0.5 * np.sin(np.arange(len(y))), "Unknown label type", "floats")
        spoiled = np.array(["ash", "birch", "cedar", "elm"], dtype=object)[y]
        spoiled[3] = None
        self._refuses(X, spoiled, "Unknown label|NaN|None|missing|mixes", "None among strings")

    def test_probabilities(self):
        """Probabilities are in [0, 1], sum to one, agree with their logarithm and with the prediction."""
        X, y = self.rows()
        model = self.make().fit(X, y)
        p = model.predict_proba(X)
        assert p.shape == (len(X), self.n_classes) and p.min() >= 0
        np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-14)
        with np.errstate(divide="raise" if not self.is_certain else "ignore"):
            np.testing.assert_allclose(np.log(p), model.predict_log_proba(X), rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(model.classes_[p.argmax(axis=1)], model.predict(X))
        far = 1e6 * X
        log_p = model.predict_log_proba(far)
        assert (np.isfinite(log_p) | self.is_certain).all() and not np.isnan(log_p).any()
        assert np.isfinite(model.predict_proba(far)).all()

    def test_class_weights_are_row_weights(self):
        """``class_weight`` multiplies weights by class; "balanced" gives all classes the same."""
        model = self.make()
        if "class_weight" not in model.get_params():
            pytest.skip("takes no class_weight")
        X, y = self.rows()
        weight = np.random.default_rng(0).uniform(0.5, 2, len(X))
        given = {k: 1.0 + 2 * k for k in range(self.n_classes)}
        balanced = len(y) / (self.n_classes * np.bincount(y))
        for chosen, by_class in ((given, np.array([given[k] for k in range(self.n_classes)])), ("balanced", balanced)):
            options = {"sample_weight": weight} if chosen is given else {}
            by_row = by_class[y] * options.get("sample_weight", 1.0)
            expected = self.fitted(self.make().fit(X, y, sample_weight=by_row))
            for kind in ("numpy", "dask array", "csr"):
                found = self.make(class_weight=chosen).fit(self._table(kind, X), y, **options)
                self._close(self.fitted(found), expected, 1e-8, f"{chosen}, {kind}")
