"""Two inner loops as explicit vector code: rows times a vector, and a weighted sum of rows.

LLVM vectorises the plain loops too, but keeps neither eight rows nor eight column vectors in registers: 24 ms against
15 ms for 1,000,000 x 50 float64 on one core. Each function has a plain body, which is its definition and what runs when
compilation is switched off, and an implementation in LLVM vector instructions.

Both see X as a flat buffer of rows ``ld`` apart and cut its ``p >= lanes`` columns into ``ceil(p / lanes)`` vectors.
The last one is moved left so that it ends at the last column; its overlapping lanes are neutralised outside (a zero in
``w``, an ignored lane in the sum). So there is neither a masked load nor a scalar remainder.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

ROWS = 8  # rows multiplied at once
COLUMNS = 8  # column vectors summed at once
# 512 bits of float64, 256 of float32: rows begin anywhere, and wider loads would nearly all cross a cache line.
LANES = {"float32": 8, "float64": 8}


def padded(p, dtype):
    """Length of p columns laid out in whole vectors."""
    lanes = LANES[np.dtype(dtype).name]
    return -(-p // lanes) * lanes


def spread(w, p, dtype):
    """Lay w out in padded lanes, the overlap of the last vector zeroed.

    Parameters
    ----------
    w : ndarray of shape (p,)
    p : int, at least the number of lanes
    dtype : float32 or float64

    Returns
    -------
    ndarray of shape (padded(p),)
    """
    lanes = LANES[np.dtype(dtype).name]
    out = np.zeros(padded(p, dtype), dtype=dtype)
    whole = p // lanes * lanes
    out[:whole] = w[:whole]
    if p > whole:
        out[whole + lanes - (p - whole) : whole + lanes] = w[whole:]
    return out


def gather(padded_sum, p, dtype):
    """Take the p columns out of padded lanes: the inverse of `spread`."""
    lanes = LANES[np.dtype(dtype).name]
    whole = p // lanes * lanes
    rest = p - whole
    return np.concatenate([padded_sum[:whole], padded_sum[whole + lanes - rest : whole + lanes][:rest]])


def dot_rows(X, start, ld, n_rows, p, w, lanes, out, out_start):
    """Set ``out[out_start + i] = X[i, :] @ w`` for ``n_rows`` rows, `ROWS` at once.

    Parameters
    ----------
    X : flat ndarray; row i begins at ``start + i * ld``
    w : ndarray of padded lanes, see `spread`
    lanes : int, at most p
    out : ndarray of float64
    """
    for i in range(n_rows):
        row = start + i * ld
        total = X.dtype.type(0)
        for v in range((p + lanes - 1) // lanes):
            j = min(v * lanes, p - lanes)
            for k in range(lanes):
                total += X[row + j + k] * w[v * lanes + k]
        out[out_start + i] = total


def sum_rows(X, start, ld, n_rows, p, factor, lanes, out):
    """Add ``sum_i factor[i] * X[i, :]`` to padded lanes, `COLUMNS` vectors at once.

    Parameters
    ----------
    X : flat ndarray; row i begins at ``start + i * ld``
    factor : ndarray of shape (>= n_rows,), dtype of X
    lanes : int, at most p
    out : ndarray of float64, padded lanes
    """
    for v in range((p + lanes - 1) // lanes):
        j = min(v * lanes, p - lanes)
        for k in range(lanes):
            total = X.dtype.type(0)
            for i in range(n_rows):
                total += factor[i] * X[start + i * ld + j + k]
            out[v * lanes + k] += total


class _Emit:
    """Short names for the LLVM instructions the two loops are made of."""

    def __init__(self, builder, element, lanes):
        self.b = builder
        self.i64 = ir.IntType(64)
        self.element = element
        self.vector = ir.VectorType(element, lanes)
        suffix = f"v{lanes}" + ("f64" if isinstance(element, ir.DoubleType) else "f32")
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        self.fma_function = builder.module.globals.get(f"llvm.fma.{suffix}") or ir.Function(
            builder.module, kind, f"llvm.fma.{suffix}"
        )
        self.align = 8 if isinstance(element, ir.DoubleType) else 4
        self.zero = ir.Constant(self.vector, [0.0] * lanes)

    def int(self, value):
        return ir.Constant(self.i64, value)

    def minimum(self, x, y):
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)

    def load(self, data, index):
        pointer = self.b.bitcast(self.b.gep(data, [index]), self.vector.as_pointer())
        return self.b.load(pointer, align=self.align)

    def prefetch(self, data, index):
        i32 = ir.IntType(32)
        pointer = self.b.bitcast(self.b.gep(data, [index]), ir.IntType(8).as_pointer())
        name = "llvm.prefetch.p0"
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        function = self.b.module.globals.get(name) or ir.Function(self.b.module, kind, name)
        self.b.call(function, [pointer, ir.Constant(i32, 0), ir.Constant(i32, 3), ir.Constant(i32, 1)])

    def fma(self, x, y, z):
        return self.b.call(self.fma_function, [x, y, z])

    def splat(self, scalar):
        lanes = self.vector.count
        one = self.b.insert_element(ir.Constant(self.vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        return self.b.shuffle_vector(one, ir.Constant(self.vector, ir.Undefined), zeros)

    def loop(self, stop, carried):
        """Open ``for index in range(stop)``; returns (index, carried values, close(new values) -> final values)."""
        before = self.b.block
        head = self.b.append_basic_block("head")
        body = self.b.append_basic_block("body")
        done = self.b.append_basic_block("done")
        self.b.branch(head)
        self.b.position_at_end(head)
        index = self.b.phi(self.i64)
        index.add_incoming(self.int(0), before)
        values = []
        for value in carried:
            phi = self.b.phi(value.type)
            phi.add_incoming(value, before)
            values.append(phi)
        self.b.cbranch(self.b.icmp_signed("<", index, stop), body, done)
        self.b.position_at_end(body)

        def close(new):
            for phi, value in zip(values, new):
                phi.add_incoming(value, self.b.block)
            index.add_incoming(self.b.add(index, self.int(1)), self.b.block)
            self.b.branch(head)
            self.b.position_at_end(done)
            return values

        return index, values, close

    def row_sums(self, vectors):
        """Add up the lanes of each of n vectors (n a power of two) by additions of shuffled pairs; row i in lane i."""
        rows = [[r] for r in range(len(vectors))]
        while len(vectors) > 1:
            vectors = [self._pair(x, y) for x, y in zip(vectors[0::2], vectors[1::2])]
            rows = [[r for two in zip(a, b) for r in two] for a, b in zip(rows[0::2], rows[1::2])]
        packed, order = vectors[0], rows[0]
        # Lanes repeat the row order: fold the halves until one lane a row is left, then sort the lanes.
        while packed.type.count > len(order):
            half = packed.type.count // 2
            packed = self.b.fadd(self._take(packed, range(half)), self._take(packed, range(half, 2 * half)))
        return self._take(packed, [order.index(r) for r in range(len(order))])

    def _pair(self, x, y):
        n = x.type.count
        low = [i // 2 + (n if i % 2 else 0) for i in range(n)]
        high = [n // 2 + i // 2 + (n if i % 2 else 0) for i in range(n)]
        return self.b.fadd(self._take2(x, y, low), self._take2(x, y, high))

    def _take2(self, x, y, lanes):
        return self.b.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))

    def _take(self, x, lanes):
        return self._take2(x, ir.Constant(x.type, ir.Undefined), list(lanes))


def _element(dtype):
    return ir.DoubleType() if dtype == types.float64 else ir.FloatType()


def _dot(n_rows):
    """Make the intrinsic for a fixed number of rows."""

    @intrinsic
    def dot(context, X, start, ld, p, w, out, out_start):
        i64 = types.int64
        signature = types.void(X, i64, i64, i64, w, out, i64)

        def emit(ctx, builder, sig, args):
            X_data, w_data, out_data = (ctx.make_array(sig.args[k])(ctx, builder, args[k]).data for k in (0, 4, 5))
            _, start, ld, p, _, _, out_start = args
            lanes = LANES[str(sig.args[0].dtype)]
            e = _Emit(builder, _element(sig.args[0].dtype), lanes)
            rows = [builder.add(start, builder.mul(ld, e.int(r))) for r in range(n_rows)]
            before_last = builder.sdiv(builder.sub(p, e.int(1)), e.int(lanes))

            def accumulate(place, j, sums):
                w_v = e.load(w_data, place)
                return [e.fma(e.load(X_data, builder.add(row, j)), w_v, s) for row, s in zip(rows, sums)]

            v, sums, close = e.loop(before_last, [e.zero] * n_rows)
            place = builder.mul(v, e.int(lanes))
            sums = close(accumulate(place, place, sums))
            sums = accumulate(builder.mul(before_last, e.int(lanes)), builder.sub(p, e.int(lanes)), sums)
            total = e.row_sums(sums)
            doubles = ir.VectorType(ir.DoubleType(), n_rows)
            if total.type != doubles:
                total = builder.fpext(total, doubles)
            pointer = builder.bitcast(builder.gep(out_data, [out_start]), doubles.as_pointer())
            builder.store(total, pointer, align=8)
            return ctx.get_dummy_value()

        return signature, emit

    return dot


def _sum(n_vectors):
    """Make the intrinsic for a fixed number of column vectors, the last of which has an offset of its own."""

    @intrinsic
    def weighted_sum(context, X, start, last, ld, n_rows, factor, out, out_start):
        i64 = types.int64
        signature = types.void(X, i64, i64, i64, i64, factor, out, i64)

        def emit(ctx, builder, sig, args):
            X_data, factor_data, out_data = (
                ctx.make_array(sig.args[k])(ctx, builder, args[k]).data for k in (0, 5, 6)
            )
            _, start, last, ld, n_rows, _, _, out_start = args
            lanes = LANES[str(sig.args[0].dtype)]
            e = _Emit(builder, _element(sig.args[0].dtype), lanes)
            i, sums, close = e.loop(n_rows, [e.zero] * n_vectors)
            f = builder.load(builder.gep(factor_data, [i]))
            # Mixed types compile so that one walker serves both; they only run with equal types.
            f = e.splat(f if f.type == e.element else builder.fptrunc(f, e.element))
            row = builder.mul(i, ld)
            ahead = builder.add(start, builder.mul(builder.add(i, n_rows), ld))
            columns = [builder.add(builder.add(start, row), e.int(c * lanes)) for c in range(n_vectors - 1)]
            columns.append(builder.add(last, row))
            # The next tile is fetched while this one is summed: the bus would idle otherwise (24 -> 19 ms).
            per_line = 64 // (e.align * lanes) or 1
            for c in range(0, n_vectors, per_line):
                e.prefetch(X_data, builder.add(ahead, e.int(c * lanes)))
            sums = close([e.fma(e.load(X_data, column), f, s) for column, s in zip(columns, sums)])
            doubles = ir.VectorType(ir.DoubleType(), lanes)
            for c, total in enumerate(sums):
                place = builder.add(out_start, e.int(c * lanes))
                wide = total if total.type == doubles else builder.fpext(total, doubles)
                pointer = builder.bitcast(builder.gep(out_data, [place]), doubles.as_pointer())
                builder.store(builder.fadd(builder.load(pointer, align=8), wide), pointer, align=8)
            return ctx.get_dummy_value()

        return signature, emit

    return weighted_sum


_dot_1, _dot_8 = _dot(1), _dot(ROWS)
_sum_1, _sum_2, _sum_3, _sum_4, _sum_5, _sum_6, _sum_7, _sum_8 = (_sum(n) for n in range(1, COLUMNS + 1))


@overload(dot_rows)
def _dot_rows_compiled(X, start, ld, n_rows, p, w, lanes, out, out_start):
    def vectorised(X, start, ld, n_rows, p, w, lanes, out, out_start):
        whole = n_rows // ROWS * ROWS
        for i in range(0, whole, ROWS):
            _dot_8(X, start + i * ld, ld, p, w, out, out_start + i)
        for i in range(whole, n_rows):
            _dot_1(X, start + i * ld, ld, p, w, out, out_start + i)

    return vectorised


@overload(sum_rows)
def _sum_rows_compiled(X, start, ld, n_rows, p, factor, lanes, out):
    def vectorised(X, start, ld, n_rows, p, factor, lanes, out):
        n_vectors = (p + lanes - 1) // lanes
        for first in range(0, n_vectors, COLUMNS):
            count = min(COLUMNS, n_vectors - first)
            place = first * lanes
            last = start + min(place + (count - 1) * lanes, p - lanes)
            # A switch, since the number of accumulators must be known to stay in registers.
            if count == 8:
                _sum_8(X, start + place, last, ld, n_rows, factor, out, place)
            elif count == 7:
                _sum_7(X, start + place, last, ld, n_rows, factor, out, place)
            elif count == 6:
                _sum_6(X, start + place, last, ld, n_rows, factor, out, place)
            elif count == 5:
                _sum_5(X, start + place, last, ld, n_rows, factor, out, place)
            elif count == 4:
                _sum_4(X, start + place, last, ld, n_rows, factor, out, place)
            elif count == 3:
                _sum_3(X, start + place, last, ld, n_rows, factor, out, place)
            elif count == 2:
                _sum_2(X, start + place, last, ld, n_rows, factor, out, place)
            else:
                _sum_1(X, start + place, last, ld, n_rows, factor, out, place)

    return vectorised
