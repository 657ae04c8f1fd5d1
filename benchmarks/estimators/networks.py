"""CPU seconds of an epoch of a 784-128-10 network beside scikit-learn and torch, one thread each."""

import functools
import gc
import importlib.util
import time

import numpy as np

from benchmarks.report import Sheet
from benchmarks.timing import ratios, threads

ROWS, TEST_ROWS, FEATURES, HIDDEN, CLASSES = 60_000, 10_000, 784, 128, 10
APART, NOISE = 3.3, 0.3
RATE, ALPHA = 1e-3, 1e-4
# Of batches of so many rows: how many times faster than scikit-learn, than torch.
LEAST = {256: {"scikit-learn": 1.5, "torch": 1.0}, 32: {"scikit-learn": 1.1}}


def make_rows(n_rows=ROWS, seed=0, n_test=TEST_ROWS):
    """Draw rows of ten classes: the prototype of a class, the same for every seed, and noise of equal size all over.

    Parameters
    ----------
    n_rows, seed, n_test : int

    Returns
    -------
    X, y, X_test, y_test : ndarrays, float32 and int64
    ceiling : float
        Accuracy of the Bayes rule on the test rows: classes are equally likely and the noise is the same in every
        direction, so that it is the nearest prototype.
    """
    # In units of the noise prototypes lie APART * sqrt(2) from each other, whatever the number of features.
    prototypes = np.random.default_rng(1).standard_normal((CLASSES, FEATURES)) * (APART * NOISE / np.sqrt(FEATURES))
    prototypes, rng = prototypes.astype(np.float32), np.random.default_rng([seed, 2])
    y = rng.integers(0, CLASSES, n_rows + n_test)
    X = rng.standard_normal((n_rows + n_test, FEATURES), dtype=np.float32)
    X *= np.float32(NOISE)
    X += prototypes[y]
    nearest = (X[n_rows:] @ prototypes.T - (prototypes**2).sum(axis=1) / 2).argmax(axis=1)
    return X[:n_rows], y[:n_rows], X[n_rows:], y[n_rows:], float(np.mean(nearest == y[n_rows:]))


def run(rows=None, full=False):
    """Batches of 256: 1.5x scikit-learn and no slower than torch; batches of 32: 1.1x scikit-learn.

    Each side learns as many epochs, from other first coefficients and batches in each round; seconds are those of the
    process, all that a fit does, divided by the epochs. Accuracy and log loss are those of rows that nobody trained on.

    Parameters
    ----------
    rows : int, optional
        Instead of the size that the limits are about.
    full : bool, default False
        Seven rounds of three epochs instead of one of one.

    Returns
    -------
    Sheet
    """
    sheet = Sheet("networks", at_size=rows is None)
    X, y, X_test, y_test, ceiling = make_rows(rows or ROWS)
    sides = {"daskdml": _ours, "scikit-learn": _scikit_learn}
    if importlib.util.find_spec("torch") is None:
        sheet.skip("torch", "torch is not installed: pip install torch")
    else:
        sides["torch"] = _torch
    n_epochs, n_rounds = (3, 7) if full else (1, 1)
    # The first call is not counted: libraries that a first fit loads, and kernels.
    with threads(1):
        for side in sides.values():
            side(X[:1000], y[:1000], 32, 1, 0)
    for batch, least in LEAST.items():
        work = f"{FEATURES}-{HIDDEN}(relu)-{CLASSES}, Adam, {len(X):,} rows float32, batches of {batch}, 1 thread"
        with threads(1):
            calls = {name: functools.partial(side, X, y, batch, n_epochs) for name, side in sides.items()}
            seconds, models = _take_turns(calls, n_rounds)
        for name in sides:
            scores = [score(predict(X_test), y_test) for predict in models[name]]
            accuracies, losses = zip(*scores)
            note = f"after {n_epochs} epoch{'s' * (n_epochs > 1)}; the Bayes rule {ceiling:.4f}"
            sheet.add(work, name, "CPU seconds an epoch", [s / n_epochs for s in seconds[name]],
                      quality=("accuracy", float(np.mean(accuracies))), note=note)  # fmt: skip
            sheet.add(work, name, "log loss of test rows", list(losses), note=note)
        for name in sides:
            if name != "daskdml":
                must = (">=", least[name]) if name in least else None
                sheet.add(work, f"daskdml against {name}", "times faster",
                          ratios(seconds[name], seconds["daskdml"]), must=must)  # fmt: skip
    return sheet


def score(proba, y):
    """Return accuracy and log loss of probabilities."""
    from sklearn.metrics import log_loss

    proba = np.asarray(proba, np.float64)
    proba /= proba.sum(axis=1, keepdims=True)  # of float32 numbers the sum is 1 to seven digits
    return float(np.mean(proba.argmax(axis=1) == y)), float(log_loss(y, proba, labels=np.arange(proba.shape[1])))


def _take_turns(calls, n_rounds):
    """Call each with the number of the round, a round after the other, another one first each time.

    Returns
    -------
    seconds : dict {name: list of float}
        Of this process, all of its threads together.
    results : dict {name: list of object}
    """
    seconds, results, names = {name: [] for name in calls}, {name: [] for name in calls}, list(calls)
    for i in range(n_rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            gc.collect()
            start = time.process_time()
            results[name].append(calls[name](i))
            seconds[name].append(time.process_time() - start)
    return seconds, results


def _of_all(n_epochs, batch, seed):
    """Return the parameters that ours and scikit-learn's have in common."""
    return dict(
        hidden_layer_sizes=(HIDDEN,), batch_size=batch, max_iter=n_epochs, random_state=seed, tol=0.0,
        n_iter_no_change=n_epochs + 1, learning_rate_init=RATE, alpha=ALPHA,
    )  # fmt: skip


def _ours(X, y, batch, n_epochs, seed):
    """Fit ours; like the others it returns what predicts probabilities."""
    from daskdml.neural_network import MLPClassifier

    return MLPClassifier(**_of_all(n_epochs, batch, seed)).fit(X, y).predict_proba


def _scikit_learn(X, y, batch, n_epochs, seed):
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(**_of_all(n_epochs, batch, seed)).fit(X, y).predict_proba


def _torch(X, y, batch, n_epochs, seed):
    """Fit torch's layers as a user would: from first coefficients as wide as scikit-learn's, with the same penalty.

    The loss of an epoch, which the other sides add up and keep, is not asked for.
    """
    import torch
    from torch import nn

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
        coefs, intercepts = [[getattr(model[i], name) for i in (0, 2)] for name in ("weight", "bias")]
        for coef, intercept in zip(coefs, intercepts):
            nn.init.xavier_uniform_(coef)
            bound = (6 / sum(coef.shape)) ** 0.5
            nn.init.uniform_(intercept, -bound, bound)
        groups = [dict(params=coefs, weight_decay=ALPHA / batch), dict(params=intercepts, weight_decay=0.0)]
        adam, loss = torch.optim.Adam(groups, lr=RATE, fused=True), nn.CrossEntropyLoss()
        X, y = torch.from_numpy(X), torch.from_numpy(y)
        for _ in range(n_epochs):
            order = torch.randperm(len(X))
            for i in range(0, len(X), batch):
                rows = order[i : i + batch]
                adam.zero_grad(set_to_none=True)
                loss(model(X[rows]), y[rows]).backward()
                adam.step()
    finally:
        torch.set_num_threads(before)

    def predict(X):
        with torch.no_grad():
            return torch.softmax(model(torch.from_numpy(X)), dim=1).numpy()

    return predict
