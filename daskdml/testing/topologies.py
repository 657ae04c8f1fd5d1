"""What every topology promises; see `daskdml.comm`."""

import numpy as np
import pytest

from daskdml.comm import exchange
from daskdml.compress import FP16, ErrorFeedback, Identity


class TopologyContract:
    """Test a topology: right sums, equal bits on all ranks, nothing undelivered, the bytes it says, any schedule.

    A subclass defines `make`. Everything is checked for 1 to 17 ranks, lengths 0 to 1,000 (a million for a few) and
    each of ``codecs``; a topology that ``needs_exact`` with the exact ones among them.

    Examples
    --------
    >>> from daskdml.comm import TOPOLOGIES
    >>> class TestRing(TopologyContract):
    ...     def make(self):
    ...         return TOPOLOGIES["ring"]
    >>> TestRing().test_bytes_are_what_it_says()
    """

    codecs = (Identity(), FP16())
    sizes = range(1, 18)
    lengths = (0, 1, 5, 1000)
    sizes_of_long = (2, 5)  # all others cost a minute

    def make(self):
        """Return the topology under test.

        It has ``allreduce``, ``allgather``, ``bytes_sent``, ``seconds`` and ``needs_exact``.
        """
        raise NotImplementedError

    def test_sums_are_right_and_replicas_equal(self):
        """Every rank gets the sum, within what the codec loses, and the same bits as every other."""
        for codec in self._codecs():
            for size in self.sizes:
                for length in self.lengths:
                    self._check(size, length, codec)

    def test_long_vectors(self):
        """The same for a million entries."""
        for codec in self._codecs():
            for size in self.sizes_of_long:
                self._check(size, 1_000_000, codec)

    def test_any_schedule_gives_the_same_bits(self):
        """Whoever's turn it is: the order of arrival changes nothing."""
        for size in (2, 3, 6, 17):
            values = _values(size, 40)
            expected = self._reduce(values, Identity())[0][0]
            for seed in range(10):
                for found in self._reduce(values, Identity(), seed=seed)[0]:
                    np.testing.assert_array_equal(found, expected)

    def test_the_largest_is_right(self):
        """Another way to combine than adding."""
        for size in self.sizes:
            values = _values(size, 7)
            for found in self._reduce(values, Identity(), combine=np.maximum)[0]:
                np.testing.assert_array_equal(found, np.max(values, axis=0))

    def test_values_of_others_are_left_alone(self):
        """No rank writes into an array that it was given or received."""
        values = _values(5, 12)
        before = [value.copy() for value in values]
        self._reduce(values, Identity())
        np.testing.assert_array_equal(values, before)

    def test_packets_of_all_reach_all(self):
        """``allgather`` of arrays of any length, in the order of ranks, to the bit of what each rank's packet holds.

        No packet arrives twice, lossy codecs encode once, and whoever's turn it is changes nothing.
        """
        allgather = self.make().allgather
        for size in self.sizes:
            values = [_values(size, 1000)[rank][: 7 * rank] for rank in range(size)]
            for codec in self.codecs:  # no packet is opened on its way, so all of them fit
                expected = [codec.decode(codec.encode(value)[0]) for value in values]
                for seed in (None, 0, 1):
                    ranks = [allgather(rank, size, values[rank]) for rank in range(size)]
                    results, sent = exchange(ranks, codec, seed)
                    for found in results:
                        assert [one.tobytes() for one in found] == [one.tobytes() for one in expected]
                    assert sum(sent) == (size - 1) * sum(codec.encode(value)[0].nbytes for value in values)

    def test_bytes_are_what_it_says(self):
        """``bytes_sent`` is what the transport counts."""
        topology = self.make()
        for size in self.sizes:
            for length in (0, 16, 1000):
                _, sent = self._reduce(_values(size, length), Identity())
                for rank in range(size):
                    said = topology.bytes_sent(rank, size, 8 * length)
                    # Slices of uneven length: one entry a message more or less.
                    assert abs(sent[rank] - said) <= 16 * size, f"rank {rank} of {size}: sent {sent[rank]}, said {said}"
                    if length % size == 0:
                        assert sent[rank] == said

    def test_predicted_seconds(self):
        """Nothing for one rank; more for more latency, less bandwidth, more bytes."""
        seconds = self.make().seconds
        assert seconds(1, 800, 1e-3, 1e8) == 0
        for size in (2, 5, 16):
            base = seconds(size, 800, 1e-3, 1e8)
            assert seconds(size, 800, 2e-3, 1e8) > base
            assert seconds(size, 800, 1e-3, 1e7) > base
            assert seconds(size, 8000, 1e-3, 1e8) > base

    def _codecs(self):
        return [codec for codec in self.codecs if codec.exact or not self.make().needs_exact]

    def _check(self, size, length, codec):
        values = _values(size, length)
        results, _ = self._reduce(values, codec)
        largest = np.max(np.sum(np.abs(values), axis=0), initial=0)
        # Half precision is off by 2**-11 of the largest entry at each of at most size + 1 roundings.
        atol = 1e-12 * size if codec.exact else 2.0**-10 * (size + 1) * largest
        for found in results:
            np.testing.assert_allclose(found, np.sum(values, axis=0), rtol=0, atol=atol)
            assert found.tobytes() == results[0].tobytes(), f"replicas of {size} ranks differ"

    def _reduce(self, values, codec, *, combine=np.add, seed=None):
        allreduce, size = self.make().allreduce, len(values)
        return exchange([allreduce(rank, size, values[rank], combine) for rank in range(size)], codec, seed)


def _values(size, length):
    return list(np.random.default_rng((size, length)).normal(size=(size, length)))


class CodecContract:
    """Test a codec: shape, dtype and bound of what comes back, honest bytes, no state shared between calls.

    Of an unbiased one the mean of draws is tested, of a biased one what error feedback needs of it. A subclass defines
    `make` and `bound`.

    Examples
    --------
    >>> class TestIdentity(CodecContract):
    ...     def make(self):
    ...         return Identity()
    ...     def bound(self, x):
    ...         return np.zeros_like(x)
    >>> TestIdentity().test_errors_are_bounded()
    """

    def make(self):
        """Return the codec under test."""
        raise NotImplementedError

    def bound(self, x):
        """Return the largest error allowed for each entry of x.

        Parameters
        ----------
        x : ndarray of float64

        Returns
        -------
        ndarray of the shape of x
        """
        raise NotImplementedError

    def test_errors_are_bounded(self):
        """What is opened is off by `bound` at most, at any scale, with the shape and dtype of what was sealed."""
        for x in _arrays():
            found = self._there_and_back(x)
            assert found.shape == x.shape and found.dtype == x.dtype
            assert (np.abs(found.astype(np.float64) - x) <= self.bound(x.astype(np.float64))).all()

    def test_a_biased_codec_leaves_out_less_than_there_is(self):
        """By the sum of squares: else what error feedback remembers would grow for ever."""
        if self.make().unbiased:
            pytest.skip("unbiased")
        for k in range(10):
            for x in (_gradient(k), _gradient(k)[:, k], _gradient(k)[k, :1]):
                assert np.linalg.norm(x - self._there_and_back(x)) < np.linalg.norm(x)

    def test_unbiased_codecs_are_right_in_the_mean(self):
        """Of 1,000 draws, within five standard errors."""
        codec = self.make()
        if not codec.unbiased:
            pytest.skip("biased")
        x, state, draws = _gradient(0), codec.start(seed=3), []
        for _ in range(1000):
            packet, state = codec.encode(x, state)
            draws.append(codec.decode(packet).astype(np.float64))
        error = np.std(draws, axis=0) / np.sqrt(1000)
        assert codec.exact or error.max() > 0
        # What is drawn a few times in a thousand, or never, is not normal: ten draws more or less are allowed for.
        slack = 0.01 * self.bound(x.astype(np.float64)) + 1e-6 * np.abs(x)
        assert (np.abs(np.mean(draws, axis=0) - x) <= 5 * error + slack).all()

    def test_with_feedback_nothing_is_lost(self):
        """What was decoded and the residual add up to all arrays, of which a part has been sent after forty of them."""
        codec = self.make()
        if codec.reduce_kind == "sum":
            pytest.skip("each hop on the way leaves out something")
        codec = codec if isinstance(codec, ErrorFeedback) else ErrorFeedback(codec)
        state, sent, given = None, 0.0, 0.0
        for k in range(40):
            x = _gradient(k)
            packet, state = codec.encode(x, state)
            sent, given = sent + codec.decode(packet).astype(np.float64), given + x.astype(np.float64)
        largest = np.abs(given).max()
        np.testing.assert_allclose(sent + state.residual, given, rtol=1e-5, atol=1e-6 * largest)
        assert np.linalg.norm(state.residual) < 0.9 * np.linalg.norm(given)
        assert np.abs(state.residual).max() < largest

    def test_an_exact_codec_keeps_bits(self):
        """``exact`` is a promise."""
        if not self.make().exact:
            pytest.skip("not exact")
        for x in _arrays():
            assert self._there_and_back(x).tobytes() == x.tobytes()

    def test_numbers_that_are_none_stay_visible(self):
        """NaN and infinity arrive as such: a rank must see that another one failed."""
        x = np.array([1.0, np.nan, np.inf, -np.inf, 2.0])
        found = self._there_and_back(x)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
        np.testing.assert_array_equal(np.isposinf(found), np.isposinf(x))
        np.testing.assert_array_equal(np.isneginf(found), np.isneginf(x))

    def test_the_same_packet_for_the_same_array(self):
        """Two fresh codecs agree to the bit, and the array is left alone."""
        for x in _arrays():
            before = x.copy()
            one, two = (self.make().encode(x)[0] for _ in range(2))
            assert all(a.tobytes() == b.tobytes() for a, b in zip(one.arrays, two.arrays, strict=True))
            np.testing.assert_array_equal(x, before)

    def test_packets_name_their_codec_and_count_their_bytes(self):
        """``nbytes`` is the size of what travels; the packet of another codec is refused."""
        codec = self.make()
        for x in _arrays():
            packet, _ = codec.encode(x)
            assert packet.codec == codec.name
            assert packet.nbytes == sum(len(array.tobytes()) for array in packet.arrays)
            with pytest.raises(ValueError, match="cannot be opened by codec"):
                codec.decode(packet._replace(codec="another"))

    def test_facts(self):
        """The attributes that topologies and strategies ask for."""
        codec = self.make()
        assert codec.reduce_kind in ("sum", "gather", "linear")
        assert (codec.reduce_kind == "linear") == hasattr(codec, "rounds") or hasattr(codec, "codec")
        assert isinstance(codec.exact, bool) and isinstance(codec.unbiased, bool)
        assert codec.unbiased or not codec.exact

    def _there_and_back(self, x):
        codec = self.make()
        return codec.decode(codec.encode(x)[0])


def _arrays():
    rng = np.random.default_rng(0)
    yield np.empty(0)
    yield np.zeros(3)
    yield np.array([np.finfo(np.float64).max / 2, 1.0])
    for scale in (1e-300, 1e-30, 1.0, 1e9, 1e200):
        yield rng.normal(size=17) * scale
    yield (rng.normal(size=(4, 5)) * 10.0 ** rng.integers(-3, 4, size=5)).astype(np.float32)


def _gradient(k):
    """Return one of many matrices with columns of different sizes, whose mean is not zero."""
    rng = np.random.default_rng((k, 1))
    sizes = 10.0 ** np.random.default_rng(0).integers(-2, 2, 11)
    return ((rng.normal(size=(23, 11)) + 1.0) * sizes).astype(np.float32)
