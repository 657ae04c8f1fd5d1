"""What a fit of a network says of itself: notes, phases, bytes of both directions."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from daskdml.compress import TopK
from daskdml.neural_network import MLPClassifier
from daskdml.strategies import AllReduce, LocalSGD
from daskdml.testing import SimulatedCluster

pytestmark = pytest.mark.filterwarnings("ignore:MLPClassifier")


def digits():
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def model(**params):
    return MLPClassifier((16,), **{"max_iter": 3, "random_state": 0, **params})


def on(size, estimator, **given):
    return SimulatedCluster(size, rows_per_block=64).fit(estimator, *digits(), **given)


@pytest.mark.parametrize("strategy, batch_size, says", [
    (None, 200, "work for 1 of 4 workers"), (None, 1024, None), (None, 512, "work for 2 of 4 workers"),
    (AllReduce(accumulate=4), 200, None), (LocalSGD(4), 200, None), (AllReduce(compression=TopK()), 200, None),
], ids=str)  # fmt: skip
def test_ranks_that_wait_in_every_step_are_told_of(strategy, batch_size, says):
    notes = on(4, model(solver="sgd", strategy=strategy, batch_size=batch_size)).fit_report_.notes
    assert [says in note and "multiple of 1024" in note for note in notes] == ([True] if says else [])


@pytest.mark.parametrize("strategy", [None, LocalSGD(4)], ids=str)
def test_rows_in_their_order_are_one_rank_at_a_time(strategy):
    """A batch of rows that follow each other is on one worker, or two."""
    (note,) = on(4, model(solver="sgd", strategy=strategy, shuffle=False, batch_size=512)).fit_report_.notes
    assert "work for 1 of 4 workers" in note and "shuffle=True" in note


def test_a_step_that_grows_is_judged_as_it_was_in_the_end():
    assert on(4, model(solver="sgd", batch_growth=2.0, max_iter=4)).fit_report_.notes == []
    (note,) = on(4, model(solver="sgd", batch_growth=2.0, max_iter=2)).fit_report_.notes
    assert "work for 2 of 4 workers" in note
    # A step of 500 rows is of two micro-batches, however it is put together.
    (note,) = on(4, model(solver="sgd", strategy=AllReduce(accumulate=2), batch_size=250)).fit_report_.notes
    assert "work for 2 of 4 workers" in note


def test_one_process_waits_for_nobody():
    assert model().fit(*digits()).fit_report_.notes == []


def test_a_guard_has_nothing_to_do_in_one_process():
    """Nothing is left out there: what gets no better is not the strategy's fault."""
    X, y = digits()
    guarded = model(solver="sgd", learning_rate_init=2.0, max_iter=15, tol=0.1, n_iter_no_change=20,
                    strategy=AllReduce(compression=TopK(), guard=True)).fit(X, y)  # fmt: skip
    plain = model(solver="sgd", learning_rate_init=2.0, max_iter=15, tol=0.1, n_iter_no_change=20).fit(X, y)
    assert guarded.fit_report_.notes == [] and guarded.loss_curve_ == plain.loss_curve_


def test_a_fitted_model_keeps_one_copy_of_its_parameters():
    guarded = on(4, model(solver="sgd", strategy=AllReduce(compression=TopK(0.1), guard=True)))
    assert guarded._state.shared is None


@pytest.mark.parametrize("params, warns", [
    ({}, True), ({"strategy": LocalSGD(4)}, True), ({"strategy": AllReduce(accumulate=2)}, False),
    ({"batch_growth": 2.0}, False),
], ids=str)  # fmt: skip
def test_scaling_that_has_nothing_to_scale_warns(params, warns, recwarn):
    model(solver="sgd", learning_rate_scaling="linear", **params).fit(*digits())
    found = [warning.filename for warning in recwarn if "the rate stays as it is" in str(warning.message)]
    assert found == ([__file__] if warns else [])


def test_warm_up_begins_anew_in_each_fit():
    """And goes on from call to call of partial_fit: with a rate that does not rise the loss would fall faster."""
    X, y = digits()
    for n in (1, 2):
        found = {}
        for warm_up in (0.0, 50.0):
            again = model(warm_up=warm_up, solver="sgd", max_iter=n, warm_start=True).fit(X, y)
            before = again.coefs_[0].copy()
            found[warm_up] = np.abs(again.fit(X, y).coefs_[0] - before).max()
        assert found[50.0] < 0.1 * found[0.0]
    calls = model(warm_up=2.0, solver="sgd")
    for _ in range(4):
        before = getattr(calls, "coefs_", [0])[0]
        calls.partial_fit(X, y, classes=range(10))
    assert np.abs(calls.coefs_[0] - before).max() > 0.3 * found[0.0]


def test_phases_have_names_and_bytes_directions():
    X, y = digits()
    found = on(2, model(batch_size=512), X_val=X[:500], y_val=y[:500])
    report = found.fit_report_
    assert "score" in report.phases and "exchange" not in report.phases
    assert report.records[-1].bytes_received > 0 and report.records[-1].bytes_moved > 0
    assert report.counts["bytes received"] == report.records[-1].bytes_received
    page = report._repr_html_()
    assert "MB sent by a rank" in page and "MB received by a rank" in page
