"""What every topology promises; see `daskdml.comm`."""

import numpy as np
import pytest

from daskdml.comm import exchange
from daskdml.compress import FP16, Identity


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
        """Return the topology under test: ``allreduce``, ``bytes_sent``, ``seconds`` and ``needs_exact``."""
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

    A subclass defines `make` and `bound`.

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
