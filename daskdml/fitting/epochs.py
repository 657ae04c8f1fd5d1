"""What the report of a fit says of a training by epochs, whichever estimator was trained."""

import warnings

import numpy as np

from daskdml.report import Record

MOST_DRIFT = 0.1


def report_epochs(fit, state, n_trained, counts, scores=()):
    """Write down what each epoch of a fit came to.

    Parameters
    ----------
    fit : Fit
    state : daskdml.training TrainingState, or SequentialState
        At the end.
    n_trained : int
        Rows of an epoch.
    counts : dict
        For ``report.counts``, beside rounds and bytes.
    scores : tuple of float, default ()
        By epochs, the last ones of this fit.
    """
    run, report = fit.run, fit.report
    passes = run.passes
    for epoch in range(len(state.trace)):
        report.append(_record(state, epoch, passes, n_trained / run.n_samples, scores))
    run.rows_read += state.epoch * n_trained
    report.phases = {phase: taken for phase, taken in (state.seconds or {}).items() if phase != "all"}
    report.counts = {
        **counts, "rounds": state.n_rounds, "bytes sent": state.bytes_sent, "bytes received": state.bytes_received,
    }  # fmt: skip
    for what, both in (state.moved or {}).items():
        for direction, n_bytes in zip(("sent", "received"), both):
            if n_bytes:
                report.counts[f"bytes {direction} for {what}"] = n_bytes


def _record(state, epoch, passes, share, scores):
    """Return what an epoch of this fit came to; each is a share of a pass."""
    trace, n = state.trace[epoch], len(state.trace)
    seconds = trace.seconds
    return Record(
        step=epoch + 1, stage="epoch", passes=passes + (epoch + 1) * share, seconds=seconds["all"],
        value=state.losses[epoch - n], score=scores[epoch - n] if scores else float("nan"),
        seconds_compute=seconds.get("compute", 0.0) + seconds.get("update", 0.0),
        seconds_reduce=seconds.get("encode", 0.0) + seconds.get("transfer", 0.0),
        seconds_wait=seconds.get("wait", 0.0), bytes_moved=trace.bytes_sent, bytes_received=trace.bytes_received,
        rounds=trace.n_rounds,
    )  # fmt: skip


class Follower:
    """Shows the epochs of a training while it goes on; called with (step, state) now and then.

    Parameters
    ----------
    fit : Fit
    n_trained : int
        Rows of an epoch.
    """

    def __init__(self, fit, n_trained):
        self._progress, self._share, self._passes = fit.progress, n_trained / fit.run.n_samples, fit.run.passes
        self._n_shown = 0

    def __call__(self, step, state):
        for epoch in range(self._n_shown, len(state.trace)):
            self._progress.update(_record(state, epoch, self._passes, self._share, getattr(state, "scores", ())))
        self._n_shown = len(state.trace)


def report_training(estimator, fit, state, training):
    """Write down how a training by batches went: its epochs, how ranks communicated, and what is to be warned of.

    Parameters
    ----------
    estimator : estimator
        Named in warnings, which are those of the method that calls this one's caller's caller's caller.
    fit : Fit
    state : daskdml.training TrainingState
        At the end.
    training : daskdml.training.Training
    """
    strategy, schedule = training.strategy, training.schedule.cut_as(state.cut)
    if state.n_ranks > 1:
        fit.report.where += f", {strategy.manner(state.n_ranks)}"
    report_epochs(fit, state, schedule.n_trained, {"updates": state.n_updates}, state.scores)
    fit.report.counts["memories lost"] = state.n_lost
    shared = state.shared or {}
    fit.report.notes = list(shared.get("notes", ()))
    if "order" in shared:
        fit.report.order = order_of(shared["order"])
    for what in ("rows moved", "coefficients read"):
        if what in shared:
            fit.report.counts[what] = int(shared[what])
    staleness = shared.get("staleness", ())
    if len(staleness):
        fit.report.histograms["staleness"] = histogram_of(staleness)
    if not strategy.is_sharded:  # else each rank has a part of the model
        n_batches = training.n_merged(training.epoch_of(state) - 1)
        fit.report.notes += schedule.idle_ranks(state.n_ranks, n_batches, strategy.spreads)
    for who, what in (
        ("ranks differ", "workers train on rows of their own"),
        ("batches differ", "batches are of rows that lie near each other"),
    ):
        labels, features = shared.get(who, (0.0, 0.0))
        if labels > MOST_DRIFT or features > MOST_DRIFT:
            text = (
                f"{type(estimator).__name__}: {what}, which differ: their shares of the labels by up to {labels:.2f}, "
                f"means of features by up to {features:.2f} standard deviations. Bring rows into a random order with "
                "shuffle='rows'."
            )
            fit.report.notes.append(text)
            warnings.warn(text, stacklevel=6)


def histogram_of(counts):
    """Return how often it was how many, as a dict, of how often it was 0, 1, 2 ..."""
    return {k: n for k, n in enumerate(np.asarray(counts).tolist()) if n}


def order_of(recorded):
    """Return what shards have done by shards; None where a death has changed who holds them, or nobody asked."""
    if recorded is None:
        return None
    of, rows = recorded
    by_shard = {shard: rows[rows[:, 0] == shard, 1:].tolist() for shard in sorted(set(rows[:, 0].tolist()))}
    return {"of": of, "shards": {shard: [tuple(one) for one in done] for shard, done in by_shard.items()}}
