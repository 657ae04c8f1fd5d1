"""What classifiers and regressors answer when they are asked how good they are, on Dask input too."""

from sklearn.base import ClassifierMixin, RegressorMixin


class ScoredByAccuracy(ClassifierMixin):
    """A classifier: its score is the accuracy."""

    def score(self, X, y, sample_weight=None):
        """Return the accuracy, a float, also on Dask input.

        Parameters
        ----------
        X : any input, shape (n, n_features)
        y : array_like or Dask collection, shape (n,)
        sample_weight : the same, optional

        Returns
        -------
        float
        """
        from daskdml.metrics import accuracy_score

        return accuracy_score(y, self.predict(X), sample_weight=sample_weight)


class ScoredByR2(RegressorMixin):
    """A regressor: its score is the coefficient of determination."""

    def score(self, X, y, sample_weight=None):
        """Return R², a float, also on Dask input.

        Parameters
        ----------
        X : any input, shape (n, n_features)
        y : array_like or Dask collection, shape (n,) or (n, n_targets)
        sample_weight : the same, shape (n,), optional

        Returns
        -------
        float
        """
        from daskdml.metrics import r2_score

        return r2_score(y, self.predict(X), sample_weight=sample_weight)
