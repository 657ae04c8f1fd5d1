"""Codecs keep the contract, and what each of them promises by itself."""

import numpy as np
import pytest
from sklearn.base import clone

from daskdml.compress import FP16, QSGD, ErrorFeedback, Identity, OneBit, PowerSGD, RandomK, SignificantRows, TopK
from daskdml.testing import CodecContract

ALL = [Identity(), FP16(), QSGD(), QSGD(bits=4), QSGD(bits=2, bucket=7), OneBit(), TopK(0.1), RandomK(0.1), PowerSGD(1)]
ALL.append(SignificantRows())
LOSSY = ALL[1:]
LINEAR = [codec for codec in LOSSY if codec.reduce_kind == "linear"]


class TestIdentity(CodecContract):
    def make(self):
        return Identity()

    def bound(self, x):
        return np.zeros_like(x)


class TestFP16(CodecContract):
    def make(self):
        return FP16()

    def bound(self, x):
        return np.abs(x) / 2048 + np.max(np.abs(x), initial=0.0) / 2**24


class TestQSGD(CodecContract):
    def make(self):
        return QSGD()

    def bound(self, x):
        return np.full(x.shape, np.max(np.abs(x), initial=0.0) / 127 * 1.0001)


class TestQSGD4(CodecContract):
    def make(self):
        return QSGD(bits=4, bucket=5)

    def bound(self, x):
        flat = np.abs(x).reshape(-1)
        buckets = [flat[i : i + 5].max() / 7 * 1.0001 for i in range(0, flat.size, 5)]
        return np.repeat(buckets, 5)[: flat.size].reshape(x.shape) + np.max(flat, initial=0.0) * 1e-38


class TestQSGD2(CodecContract):
    def make(self):
        return QSGD(bits=2, bucket=7)

    def bound(self, x):
        flat = np.abs(x).reshape(-1)
        buckets = [flat[i : i + 7].max() * 1.0001 for i in range(0, flat.size, 7)]
        return np.repeat(buckets, 7)[: flat.size].reshape(x.shape) + np.max(flat, initial=0.0) * 1e-38


class TestOneBit(CodecContract):
    def make(self):
        return OneBit()

    def bound(self, x):
        # A level lies between the numbers that it stands for.
        return np.full(x.shape, np.max(np.abs(x), initial=0.0) * 1.0001)


class TestSignificantRows(CodecContract):
    def make(self):
        return SignificantRows(threshold=1.0)

    def bound(self, x):
        """Rows of the mean row's norm are exact; those that are as long to rounding may be either."""
        if not x.any():
            return np.zeros_like(x)
        squares = np.square(x / np.max(np.abs(x))).reshape(len(x), -1).sum(axis=1)
        is_sent = squares > 1.000001 * squares.mean()
        return np.where(is_sent.reshape(-1, *[1] * (x.ndim - 1)), 0.0, np.abs(x))


class TestTopK(CodecContract):
    def make(self):
        return TopK(ratio=0.3)

    def bound(self, x):
        sizes = np.sort(np.abs(x), axis=None)[::-1]
        k = -(-3 * x.size // 10)
        return np.where(np.abs(x) > sizes[k - 1], 0, np.abs(x)) if x.size else x


class TestRandomK(CodecContract):
    def make(self):
        return RandomK(ratio=0.3)

    def bound(self, x):
        return np.abs(x)  # which are sent is drawn

    @pytest.mark.parametrize("n", [1, 2, 3, 10, 11, 253])
    @pytest.mark.parametrize("ratio", [0.01, 0.3, 0.5, 1.0])
    def test_one_number_of_each_part_arrives_and_no_other(self, n, ratio):
        x, state, k = np.arange(1.0, n + 1), RandomK(ratio).start(5), int(np.ceil(ratio * n))
        for _ in range(20):
            packet, state = RandomK(ratio).encode(x, state)
            found = RandomK(ratio).decode(packet)
            assert (found[found != 0] == x[found != 0]).all()
            assert [np.count_nonzero(found[n * i // k : n * (i + 1) // k]) for i in range(k)] == [1] * k


class TestPowerSGD(CodecContract):
    def make(self):
        return PowerSGD(rank=1)

    def bound(self, x):
        if x.ndim < 2:
            return np.zeros_like(x)
        largest = np.max(np.abs(x))
        return np.full(x.shape, largest * np.sqrt(((x / largest) ** 2).sum()) * 1.0001)


class TestErrorFeedback(CodecContract):
    def make(self):
        return ErrorFeedback(TopK(ratio=0.3))

    bound = TestTopK.bound


def gradients(n, shape=(23, 11), seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=shape) * 10.0 ** rng.integers(-2, 2, shape[1])).astype(np.float32) for _ in range(n)]


@pytest.mark.parametrize("codec", LOSSY, ids=str)
def test_a_row_of_zeros_stays_one(codec):
    """Sign(0) is no direction."""
    x = gradients(1)[0]
    x[4] = 0.0
    state = None
    for _ in range(5):
        packet, state = codec.encode(x, state)
        assert np.abs(codec.decode(packet)[4]).max() < 1e-5 and np.isfinite(codec.decode(packet)).all()


@pytest.mark.parametrize("codec", ALL, ids=str)
def test_states_are_not_changed_and_draws_differ(codec):
    x = gradients(1)[0]
    for seed in (0, 1):
        state = codec.start(seed)
        once, after = codec.encode(x, state)
        again, _ = codec.encode(x, state)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(once.arrays, again.arrays, strict=True))
        if isinstance(codec, (QSGD, RandomK)):
            later, _ = codec.encode(x, after)
            other, _ = codec.encode(x, codec.start(seed + 1))
            assert later.arrays[0].tobytes() != once.arrays[0].tobytes() != other.arrays[0].tobytes()


@pytest.mark.parametrize(
    "codec, times",
    [(FP16(), 1.99), (QSGD(), 3.9), (QSGD(bits=4), 7.7), (OneBit(), 20), (TopK(0.01), 66), (RandomK(0.01), 99),
     (PowerSGD(2), 54)],
    ids=str,
)  # fmt: skip
def test_payload_of_a_layer_784_x_128(codec, times):
    x = np.random.default_rng(0).normal(size=(784, 128)).astype(np.float32)
    assert x.nbytes / codec.encode(x)[0].nbytes >= times


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 1000])
def test_all_codes_of_few_bits(bits, n):
    from daskdml.compress.qsgd import pack, unpack

    most = 2 ** (bits - 1) - 1
    codes = np.random.default_rng(0).integers(-most, most + 1, n).astype(np.int8)
    packed = pack(codes, bits)
    assert packed.nbytes == -(-n * bits // 8) and (unpack(packed, bits, n) == codes).all()


def test_top_k_of_ties_takes_the_first_and_no_zeros():
    x = np.array([0.0, 2.0, -2.0, 2.0, 0.0, 2.0])
    assert (TopK(0.5).decode(TopK(0.5).encode(x)[0]) == [0, 2, -2, 2, 0, 0]).all()
    assert (TopK(1.0).decode(TopK(1.0).encode(x)[0]) == x).all()
    assert TopK(0.5).encode(np.zeros(6))[0].nbytes == 0
    assert np.count_nonzero(TopK(1e-9).decode(TopK(1e-9).encode(x)[0])) == 1


def test_far_apart_places():
    x = np.zeros(200_000)
    x[[3, 199_999]] = 1.0, -2.0
    packet = TopK(1e-5).encode(x)[0]
    assert packet.arrays[0].dtype == np.uint32 and (TopK(1e-5).decode(packet) == x).all()


def test_random_places_come_round():
    """In the end all of them."""
    codec, x = RandomK(0.25), np.arange(1.0, 11.0)
    state, seen = codec.start(7), np.zeros(10)
    for _ in range(60):
        packet, state = codec.encode(x, state)
        seen += codec.decode(packet) != 0
    assert (seen > 0).all()


def add_up(codec, arrays, states):
    """Carry out the rounds of several ranks; return (totals, own parts, states)."""
    ranks = [codec.rounds(x, state) for x, state in zip(arrays, states)]
    parts, results = [next(rank) for rank in ranks], []
    while not results:
        total = sum(parts)
        parts = []
        for rank in ranks:
            try:
                parts.append(rank.send(total))
            except StopIteration as end:
                results.append(end.value)
    return tuple(zip(*results))


@pytest.mark.parametrize(
    "codec", [RandomK(0.1), PowerSGD(2), ErrorFeedback(RandomK(0.1)), ErrorFeedback(PowerSGD(2))], ids=str
)
@pytest.mark.parametrize("n_ranks", [1, 3])
def test_codes_of_ranks_add_up(codec, n_ranks):
    """Ranks agree on a sum, which is that of what each of them sent; with feedback nothing is lost."""
    states, sent, given = [codec.start(3)] * n_ranks, 0.0, 0.0
    for k in range(20):
        arrays = [x.astype(np.float64) for x in gradients(n_ranks, seed=k)]
        totals, own, states = add_up(codec, arrays, states)
        for total in totals:
            assert total.tobytes() == totals[0].tobytes()
        np.testing.assert_allclose(totals[0], sum(own), rtol=1e-9, atol=1e-9)
        sent, given = sent + totals[0], given + sum(arrays)
    if isinstance(codec, ErrorFeedback):
        np.testing.assert_allclose(sent + sum(state.residual for state in states), given, rtol=1e-9, atol=1e-9)


def test_a_matrix_of_low_rank_is_sent_whole_after_a_step():
    rng = np.random.default_rng(0)
    M = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 20))
    packet, _ = PowerSGD(2).encode(M)
    np.testing.assert_allclose(PowerSGD(2).decode(packet), M, atol=1e-10)


def test_power_iteration_goes_on():
    """With the same matrix again and again the best matrix of its rank is found."""
    M = np.random.default_rng(0).normal(size=(30, 20))
    u, s, v = np.linalg.svd(M)
    codec, state = PowerSGD(2), None
    for _ in range(300):
        packet, state = codec.encode(M, state)
    np.testing.assert_allclose(codec.decode(packet), (u[:, :2] * s[:2]) @ v[:2], atol=1e-6)


def test_codecs_are_estimators():
    codec = ErrorFeedback(TopK(ratio=0.5))
    other = clone(codec).set_params(codec__ratio=0.25)
    assert other.codec.ratio == 0.25 and codec.codec.ratio == 0.5 and "codec__ratio" in codec.get_params()


@pytest.mark.parametrize(
    "codec, message",
    [
        (TopK(0.0), r"'ratio' parameter of TopK must be a float in the range \(0.0, 1.0\]. Got 0.0"),
        (RandomK(1.5), "'ratio' parameter of RandomK"),
        (QSGD(bits=3), "'bits' parameter of QSGD must be one of 2, 4, 8. Got 3"),
        (QSGD(bucket=0), "'bucket' parameter of QSGD"),
        (PowerSGD(rank=0), "'rank' parameter of PowerSGD"),
        (ErrorFeedback(TopK(2)), "'ratio' parameter of TopK"),
        (ErrorFeedback(FP16()), r"each hop on the way leaves out something: use it without error feedback"),
    ],
    ids=str,
)
def test_bad_parameters(codec, message):
    with pytest.raises(ValueError, match=message):
        codec.start()


def test_after_numbers_that_are_none_feedback_begins_anew():
    codec, state = ErrorFeedback(TopK(0.5)), None
    packet, state = codec.encode(np.array([1.0, np.nan, 3.0, 4.0]), state)
    assert np.isnan(codec.decode(packet)[1]) and (state.residual == 0).all()


@pytest.mark.parametrize("codec", [*LINEAR, *map(ErrorFeedback, LINEAR)], ids=str)
@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_ranks_see_numbers_that_are_none_and_go_on_afterwards(codec, strange):
    """Wherever it stands: most places of an array RandomK does not send."""
    bad = gradients(1)[0]
    bad[7, 3] = strange
    totals, _, states = add_up(codec, [gradients(1)[0], bad], [codec.start()] * 2)
    assert all(np.isnan(total).any() for total in totals)
    totals, _, _ = add_up(codec, gradients(2), states)
    assert all(np.isfinite(total).all() for total in totals)


def test_power_iteration_goes_on_after_zeros():
    """The first rows stay zero, as those of dead pixels do: a basis of zeros would point there for good."""
    codec, M = PowerSGD(2), np.random.default_rng(0).normal(size=(30, 20))
    M[:4] = 0.0
    for first in (np.zeros_like(M), np.outer(M[:, 0], M[10])):
        _, state = codec.encode(first)
        packet, _ = codec.encode(M, state)
        assert np.linalg.norm(codec.decode(packet)) > 0.3 * np.linalg.norm(M)


@pytest.mark.parametrize("codec", ALL, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_numbers_stay_finite(codec, dtype):
    x = np.full((3, 4), np.finfo(dtype).max)
    if codec.name == "power_sgd":
        x[1:] = 0.0  # one row: a matrix of such numbers has a norm that is no number
    assert np.isfinite(codec.decode(codec.encode(x)[0])).all()


@pytest.mark.parametrize("codec", ALL[2:], ids=str)
def test_arrays_by_columns_and_wrong_dtypes(codec):
    x = np.asfortranarray(gradients(1)[0])
    x[2, 3] = np.nan
    once, again = (codec.decode(codec.encode(part)[0]) for part in (x, np.ascontiguousarray(x)))
    np.testing.assert_allclose(once, again, rtol=1e-4, atol=1e-5)
    assert np.isnan(once[2, 3])
    with pytest.raises(TypeError, match="float32 or float64, got int64"):
        codec.encode(np.arange(10))


def test_a_residual_of_another_shape_is_refused():
    codec = ErrorFeedback(TopK(0.5))
    _, state = codec.encode(np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"\(4, 3\) before, \(3,\) now"):
        codec.encode(np.ones(3), state)


class SendsNothing(TopK):
    def _encode(self, x, state):
        return (np.empty(0, np.uint16), np.empty(0, x.dtype)), state


class OnlySaysItIsUnbiased(TopK):
    unbiased = True


class OpensDifferently(TopK):
    """Another array on every second time that a packet is opened."""

    times = 0

    def decode(self, packet):
        self.times += 1
        return super().decode(packet) * (1 + 1e-3 * (self.times % 2))


@pytest.mark.parametrize(
    "codec, caught_by",
    [
        (SendsNothing(0.3), "test_a_biased_codec_leaves_out_less_than_there_is"),
        (SendsNothing(0.3), "test_with_feedback_nothing_is_lost"),
        (OnlySaysItIsUnbiased(0.3), "test_unbiased_codecs_are_right_in_the_mean"),
        (OpensDifferently(0.3), "test_with_feedback_nothing_is_lost"),
    ],
)
def test_the_contract_catches_planted_faults(codec, caught_by):
    class Planted(CodecContract):
        def make(self):
            return codec

        def bound(self, x):
            return np.abs(x)

    with pytest.raises(AssertionError):
        getattr(Planted(), caught_by)()
