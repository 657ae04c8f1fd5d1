"""AllReduce: what it refuses and warns of, the bytes of its packets, and the ways they take."""

import csv
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from daskdml.compress import FP16, QSGD, ErrorFeedback, Identity, OneBit, PowerSGD, RandomK, TopK
from daskdml.neural_network import MLPClassifier
from daskdml.strategies import AllReduce, LocalSGD
from daskdml.testing import SimulatedCluster

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "codecs.csv"
TOPOLOGIES = ("auto", "central", "tree", "ring")


def fit(strategy, n_ranks, **params):
    """Return coefficients in a row, and the bytes of the rank that sent most, of two epochs of digits."""
    X, y = load_digits(return_X_y=True)
    params = {"hidden_layer_sizes": (32,), "solver": "sgd", "max_iter": 2, "random_state": 0, **params}
    model = MLPClassifier(strategy=strategy, batch_size=512, **params)
    cluster = SimulatedCluster(n_ranks, rows_per_block=64)
    cluster.fit(model, X[:1024] / 16, y[:1024])
    coefs = np.concatenate([part.ravel() for part in (*model.coefs_, *model.intercepts_)])
    most = max(cluster.report.bytes_sent.values(), default=0)
    return coefs, model.fit_report_.counts.get("bytes sent for steps"), most


@pytest.mark.parametrize("n_ranks", [2, 3, 7])
def test_codecs_that_are_added_up_have_the_rows_of_one_process(n_ranks):
    """Of which batches are cut for nobody: to the rounding of the codec, which the number of ranks changes."""
    for codec, tolerance in ((Identity(), 1e-5), (FP16(), 5e-3)):
        alone, *_ = fit(AllReduce(), 1)
        np.testing.assert_allclose(fit(AllReduce(compression=codec), n_ranks)[0], alone, atol=tolerance)


@pytest.mark.parametrize(
    "way", [{"compression": OneBit()}, {"compression": PowerSGD(1)}, {"significance": 1.0}], ids=str
)
def test_first_updates_are_exact(way, spread_sums):
    """All of them, where there are as many; then a codec begins as if it were the start of a fit."""
    exact, *_ = fit(spread_sums(compression=Identity()), 3)
    np.testing.assert_allclose(fit(AllReduce(exact_updates=4, **way), 3)[0], exact, atol=1e-6)
    found = [fit(AllReduce(exact_updates=n, **way), 3) for n in (0, 2, 3)]
    apart = [np.abs(coefs - exact).max() for coefs, *_ in found]
    assert apart[0] > apart[1] > apart[2] > 1e-6
    assert found[0][1] < found[1][1] < found[2][1]


def test_a_codec_that_remembers_already_is_refused():
    with pytest.raises(
        ValueError, match="add what was left out twice: give the codec inside it, and error_feedback=True"
    ):
        fit(AllReduce(compression=ErrorFeedback(TopK(0.1))), 1)
    inside = ErrorFeedback(TopK(0.1)).codec
    assert isinstance(AllReduce(compression=inside).codec(100), ErrorFeedback)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 7, 1000, 65_535, 65_536, 65_537, 200_000])
def test_packets_have_no_more_bytes_than_a_round_may(dtype, n):
    """Wherever the largest numbers stand, in front of them gaps of any size; one number is sent in any case."""
    random, size = np.random.default_rng(n), np.dtype(dtype).itemsize
    x = random.normal(size=n).astype(dtype)
    apart, behind = np.zeros(n, dtype), np.zeros(n, dtype)
    apart[:: max(n // 2, 1)] = 1.0  # as far from each other as can be
    behind[-(n // 4 + 1) :] = 1.0
    for limit in (1, 6, 11, 12, 100, 1000, 1001, 65_432, 400_000, 10_000_000):
        codec = AllReduce(max_bytes_per_round=limit).codec(n, size)
        for values in (x, apart, behind):
            packet, _ = codec.encode(values)
            n_sent = np.count_nonzero(codec.decode(packet))
            assert packet.nbytes <= limit or n_sent == 1
        packet, _ = codec.encode(x)
        # Places of two bytes where four were allowed for are what may be left.
        used = (size + 2) / (size + 4) if n > 65_536 else 1.0
        whole = n * (size + 2)
        assert packet.nbytes >= min(used * (limit - size - 3), whole)


def test_a_model_of_float64_has_packets_of_its_bytes():
    """Numbers of eight bytes, not as many as there could be of four: counted where they are sent."""
    sent = {}
    for dtype in ("float32", "float64"):
        for limit in (600, 1200):
            sent[dtype, limit] = fit(AllReduce(max_bytes_per_round=limit), 2, dtype=dtype)[1]
        # Four steps, and all else is the same for both limits.
        assert sent[dtype, 1200] - sent[dtype, 600] == pytest.approx(4 * 600, rel=0.02)
        assert sent[dtype, 1200] - sent[dtype, 600] <= 4 * 600


@pytest.mark.parametrize("n_ranks", [2, 3, 6])
def test_exact_sums_have_the_same_bits_by_every_way(n_ranks):
    alone, found = fit(AllReduce(), 1)[0], {}
    for topology in TOPOLOGIES:
        coefs, _, found[topology] = fit(AllReduce(topology), n_ranks)
        np.testing.assert_array_equal(coefs, alone)
    if n_ranks > 3:
        assert found["ring"] < found["tree"] < found["central"]


@pytest.mark.parametrize(
    "strategy",
    [{"compression": TopK(0.05)}, {"compression": QSGD()}, {"significance": 1.0}, {"max_bytes_per_round": 500}],
    ids=str,
)
def test_packets_of_all_have_the_same_bits_by_every_way(strategy):
    found, sent = {}, {}
    for topology in TOPOLOGIES:
        found[topology], _, sent[topology] = fit(AllReduce(topology, **strategy), 6)
        np.testing.assert_array_equal(found[topology], found["auto"])
    # Which packets a rank passes on is another matter, and some are longer.
    assert sent["auto"] == pytest.approx(sent["ring"], rel=0.05)
    assert sent["ring"] < sent["tree"] < sent["central"]


def test_added_codes_take_the_way_that_is_asked_for():
    """Of which the order of additions, and so the last bits, depend."""
    found, sent = {}, {}
    for topology in TOPOLOGIES:
        found[topology], _, sent[topology] = fit(AllReduce(topology, compression=PowerSGD(1)), 6)
        np.testing.assert_allclose(found[topology], found["auto"], atol=1e-5)
    assert sent["ring"] < sent["tree"] < sent["central"]


def measured(what, *, problem, solver, strategy, epochs=""):
    """Return the values of some problems of the benchmark that warnings quote."""
    rows = csv.DictReader(line for line in MEASURED.read_text().splitlines() if not line.startswith("#"))
    return [
        (float(row["value"]), row["note"]) for row in rows
        if row["work"].startswith(problem) and f", {solver}, " in row["work"]
        and ("half of" in row["work"]) == (epochs == "half") and row["who"] == strategy and row["what"] == what
    ]  # fmt: skip


def warned(strategy, **params):
    with pytest.warns(UserWarning, match=r"python -m benchmarks codecs --full") as found:
        strategy.check(MLPClassifier(**params))
    (text,) = (str(one.message) for one in found)
    return text


def lost(problem, solver, strategy, epochs=""):
    what = "points beyond dense's, mean of the seeds"
    found = measured(what, problem=problem, solver=solver, strategy=strategy, epochs=epochs)
    return [-points for points, _ in found]


def test_what_is_said_of_adam_was_measured():
    said = set()
    lossy = TopK(), PowerSGD(), OneBit(), QSGD(4)
    for one in (*({"compression": codec} for codec in lossy), {"significance": 1.0}):
        said.add(warned(AllReduce(**one), solver="adam").split(" in front", 1)[1])
    (text,) = said
    for name, words in (("TopK(0.01)", "TopK(0.01)"), ("RandomK(0.01)", "RandomK(0.01) cost"),
                        ("rows, significance 3", "significance=3")):  # fmt: skip
        found = lost("digits", "adam", name)
        assert f"{words} {min(found):.1f} to {max(found):.1f}" in text
    for name in ("PowerSGD(2)", "OneBit"):
        assert f"up to {max(lost('digits', 'adam', name)):.1f}" in text
    for name in ("FP16", "QSGD(8)"):
        assert max(lost("digits", "adam", name)) < 0.05
    assert max(lost("", "adam", "OneBit, 50 exact updates")) < 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = ({"compression": codec} for codec in (FP16(), QSGD(), Identity()))
        for one in (*exact, {"compression": OneBit(), "exact_updates": 50}):
            AllReduce(**one).check(MLPClassifier(solver="adam"))


def test_what_is_said_of_rows_that_wait_was_measured():
    text = warned(AllReduce(significance=3.0), solver="sgd")
    most = max(lost("digits", "sgd", "rows, significance 3"))
    half = lost("digits", "sgd", "rows, significance 3", "half")
    assert f"up to {most:.1f} points after 40 epochs" in text and f"{min(half):.1f} to {max(half):.1f} after 20" in text
    assert max(lost("digits", "sgd", "rows, significance 1")) < 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AllReduce(significance=1.0).check(MLPClassifier(solver="sgd"))


def test_what_is_said_of_momentum_and_feedback_was_measured():
    text = warned(AllReduce(compression=TopK(), error_feedback=False), solver="sgd")
    found = lost("", "sgd", "TopK(0.01), no feedback")
    assert f"{min(found):.1f} to {max(found):.1f} points" in text
    text = warned(AllReduce(compression=RandomK()), solver="sgd", momentum=0.9)
    for name, pattern in (("RandomK(0.01)", r"accuracy (\S+) instead"), ("dense", r"instead of (\S+),")):
        found = measured("accuracy of test rows", problem="digits, 64", solver="sgd", strategy=name)
        assert found
        for accuracy, _ in found:
            # The median of three seeds, and their mean in the text.
            assert accuracy == pytest.approx(float(re.search(pattern, text)[1]), abs=0.05)


def test_what_is_said_of_averaged_moments_was_measured():
    text = warned(LocalSGD(), solver="adam")
    found = [
        float(re.search(r"mean ([^,]+),", note)[1])
        for _, note in measured("log loss beyond dense's", problem="", solver="adam", strategy="LocalSGD(8)")
    ]
    assert f"{min(found):.2f} to {max(found):.2f} higher" in text
    assert max(lost("", "adam", "LocalSGD(8)")) < 0.1
