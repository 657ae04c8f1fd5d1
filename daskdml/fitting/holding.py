"""What estimators of trees share beside their fit: where they run, and what stands once they are fitted."""

import numpy as np
from sklearn.exceptions import NotFittedError

from daskdml.utils.config import get_config


class HoldsTrees:
    """Mixin of estimators whose fit leaves ``_model``."""

    def _check_runtime(self):
        if get_config()["runtime"] == "tasks":
            raise ValueError(
                f"{type(self).__name__} runs as ranks, config_context(runtime='spmd'), or on threads of this process, "
                "'threads'; runtime='tasks' has neither. Leave it at 'auto'."
            )

    def __sklearn_is_fitted__(self):
        return getattr(self, "_model", None) is not None

    def _fitted(self):
        """Return the model, or raise scikit-learn's error."""
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before "
                "using this estimator."
            )
        return self._model

    @property
    def _goes_on(self):
        """Whether a fit adds trees to those that there are."""
        return getattr(self, "warm_start", False) and self.__sklearn_is_fitted__()

    def _check_same_classes(self, found):
        """Raise ValueError where a fit that goes on has other classes, ``found.classes_``, than the last one."""
        known = getattr(self, "classes_", None)
        if known is not None and not np.array_equal(known, found.classes_):
            raise ValueError(
                f"A warm start goes on with the classes {known.tolist()}, but y holds {found.classes_.tolist()}; set "
                "warm_start=False."
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = True
        return tags
