"""Networks whose parameters are with a parameter server, on a cluster whose workers are killed."""

import numpy as np
import pytest
from distributed import Client, LocalCluster

from daskdml import config_context
from daskdml.compress import Identity
from daskdml.linear_model import SGDClassifier
from daskdml.strategies import ASP, BSP, SSP, ParameterServer

from .test_networks import EPOCHS, collections, fit_and_kill, make  # noqa: F401 - a fixture

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.filterwarnings("ignore:MLPClassifier")]


@pytest.mark.parametrize(
    "consistency, groups", [(BSP(), None), (SSP(3), None), (ASP(), None), (SSP(3), 2), (ASP(), "host")], ids=str
)
def test_a_fit_goes_on_without_a_worker(consistency, groups, fit_and_kill):  # noqa: F811
    strategy = ParameterServer(consistency=consistency, groups=groups)
    model = fit_and_kill(make(solver="sgd", learning_rate_init=0.05, strategy=strategy), 3)
    assert model.n_iter_ == EPOCHS and model.score(*collections()) > 0.85
    report = model.fit_report_
    lags = report.histograms["staleness"]
    assert sum(lags.values()) > 0 and report.counts["bytes sent for steps"] > 1e6
    if consistency.bound is not None:
        assert max(lags) <= (2 if groups is None else groups - 1) * (2 * consistency.bound + 1)
    if groups == "host":  # all are on one machine: nobody is behind
        assert set(lags) == {0}


def test_in_step_it_takes_the_steps_of_sums(server_sums):
    """Of batches that are cut for as many ranks, to rounding; and says what went over the network."""
    X, y = collections()
    found = {}
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster),
        config_context(runtime="spmd"),
    ):
        for strategy in (ParameterServer(), server_sums(compression=Identity())):
            found[strategy] = SGDClassifier(
                "log_loss", learning_rate="constant", max_iter=3, tol=None, random_state=0, strategy=strategy,
                batch_size=512,
            ).fit(X, y > 0)  # fmt: skip
    served, summed = found.values()
    np.testing.assert_allclose(served.coef_, summed.coef_, rtol=1e-9)
    np.testing.assert_allclose(served.intercept_, summed.intercept_, rtol=1e-9)
    assert served.fit_report_.histograms["staleness"].keys() == {0, 1}
