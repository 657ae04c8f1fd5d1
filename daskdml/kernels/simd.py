"""Two inner loops as explicit vector code: rows times a vector, and a weighted sum of rows.

LLVM vectorises the plain loops too, but neither shares a vector of ``w`` between rows nor keeps eight column vectors in
registers. Each function has a plain body, which is its definition and what runs when compilation is switched off, and
an implementation in LLVM vector instructions.

Rows are read one after the other, in the order of memory, and nothing is prefetched by hand: processors recognise that
order and read ahead by themselves. Eight rows read in turns ran at half the speed (1,000,000 x 50 float64, one core,
Zen 4: 45 ms against 27 ms), and explicit prefetches on top of the plain order cost 10 to 40%.

Both see X as a flat buffer of rows ``ld`` apart and cut its ``p >= lanes`` columns into ``ceil(p / lanes)`` vectors.
The last one is moved left so that it ends at the last column; its overlapping lanes are neutralised outside (a zero in
``w``, an ignored lane in the sum). So there is neither a masked load nor a scalar remainder.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

ROWS = 4  # rows multiplied at once
COLUMNS = 8  # column vectors of a row held in registers
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
    """Set ``out[out_start + i] = X[i, :] @ w`` for ``n_rows`` rows, `ROWS` at once; the same bits for any grouping.

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
    """Add ``sum_i factor[i] * X[i, :]`` to padded lanes in float64, `COLUMNS` vectors at once.

    Parameters
    ----------
    X : flat ndarray; row i begins at ``start + i * ld``
    factor : ndarray of shape (>= n_rows,), float64
    lanes : int, at most p
    out : ndarray of float64, padded lanes
    """
    for v in range((p + lanes - 1) // lanes):
        j = min(v * lanes, p - lanes)
        for k in range(lanes):
            total = 0.0
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

    def fence(self):
        """Keep the loads above before the loads below: an order for the compiler, no instruction."""
        self.b.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], side_effect=True)

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

    def each_count(self, count, most, body):
        """Emit ``body(k)`` for each k in 1 .. most, of which that for ``count`` runs, and ``body(None)`` beyond.

        Values only stay in registers where their number is known to the compiler.
        """
        done = self.b.append_basic_block("done")
        beyond = self.b.append_basic_block("beyond")
        choice = self.b.switch(count, beyond)
        for k in [*range(1, most + 1), None]:
            block = self.b.append_basic_block(f"count_{k}") if k else beyond
            if k:
                choice.add_case(self.int(k), block)
            self.b.position_at_end(block)
            body(k)
            self.b.branch(done)
        self.b.position_at_end(done)

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


def _dot(n_rows, most_vectors):
    """Make the intrinsic that multiplies groups of ``n_rows`` rows, unrolled for rows of few vectors."""

    @intrinsic
    def dot(context, X, start, ld, n_groups, p, w, out, out_start):
        i64 = types.int64
        signature = types.void(X, i64, i64, i64, i64, w, out, i64)

        def emit(ctx, builder, sig, args):
            X_data, w_data, out_data = (ctx.make_array(sig.args[k])(ctx, builder, args[k]).data for k in (0, 5, 6))
            _, start, ld, n_groups, p, _, _, out_start = args
            lanes = LANES[str(sig.args[0].dtype)]
            e = _Emit(builder, _element(sig.args[0].dtype), lanes)
            last = builder.sub(p, e.int(lanes))
            before_last = builder.sdiv(builder.sub(p, e.int(1)), e.int(lanes))

            def short(rows, n_vectors, w_vectors):
                columns = [e.int(v * lanes) for v in range(n_vectors - 1)] + [last]
                for row in rows:
                    total = e.zero
                    for column, w_v in zip(columns, w_vectors):
                        total = e.fma(e.load(X_data, builder.add(row, column)), w_v, total)
                    e.fence()
                    yield total

            def long(rows):
                def accumulate(place, j, sums):
                    w_v = e.load(w_data, place)
                    return [e.fma(e.load(X_data, builder.add(row, j)), w_v, s) for row, s in zip(rows, sums)]

                v, sums, close = e.loop(before_last, [e.zero] * n_rows)
                place = builder.mul(v, e.int(lanes))
                sums = close(accumulate(place, place, sums))
                return accumulate(builder.mul(before_last, e.int(lanes)), last, sums)

            def all_groups(n_vectors):
                w_vectors = [e.load(w_data, e.int(v * lanes)) for v in range(n_vectors or 0)]
                group, _, close = e.loop(n_groups, [])
                first = builder.mul(group, e.int(n_rows))
                rows = [builder.add(start, builder.mul(ld, builder.add(first, e.int(r)))) for r in range(n_rows)]
                total = e.row_sums(list(short(rows, n_vectors, w_vectors)) if n_vectors else long(rows))
                doubles = ir.VectorType(ir.DoubleType(), n_rows)
                if total.type != doubles:
                    total = builder.fpext(total, doubles)
                place = builder.gep(out_data, [builder.add(out_start, first)])
                builder.store(total, builder.bitcast(place, doubles.as_pointer()), align=8)
                close([])

            e.each_count(builder.add(before_last, e.int(1)), most_vectors, all_groups)
            return ctx.get_dummy_value()

        return signature, emit

    return dot


@intrinsic
def _sum_columns(context, X, start, last, ld, n_rows, n_vectors, factor, out, out_start):
    """Sum rows of at most `COLUMNS` column vectors, the last of which has an offset of its own."""
    i64 = types.int64
    signature = types.void(X, i64, i64, i64, i64, i64, factor, out, i64)

    def emit(ctx, builder, sig, args):
        X_data, factor_data, out_data = (ctx.make_array(sig.args[k])(ctx, builder, args[k]).data for k in (0, 6, 7))
        _, start, last, ld, n_rows, n_vectors, _, _, out_start = args
        lanes = LANES[str(sig.args[0].dtype)]
        read, e = _Emit(builder, _element(sig.args[0].dtype), lanes), _Emit(builder, ir.DoubleType(), lanes)

        def load(column):
            values = read.load(X_data, column)
            return values if values.type == e.vector else builder.fpext(values, e.vector)

        def all_rows(count):
            if count is None:
                return
            places = [e.int(c * lanes) for c in range(count)]
            i, sums, close = e.loop(n_rows, [e.zero] * count)
            f = e.splat(builder.load(builder.gep(factor_data, [i])))
            row = builder.mul(i, ld)
            columns = [builder.add(builder.add(start, row), place) for place in places[:-1]] + [builder.add(last, row)]
            sums = close([e.fma(load(column), f, total) for column, total in zip(columns, sums)])
            for place, total in zip(places, sums):
                at = builder.gep(out_data, [builder.add(out_start, place)])
                at = builder.bitcast(at, e.vector.as_pointer())
                builder.store(builder.fadd(builder.load(at, align=8), total), at, align=8)

        e.each_count(n_vectors, COLUMNS, all_rows)
        return ctx.get_dummy_value()

    return signature, emit


_dot_rows, _dot_row = _dot(ROWS, COLUMNS), _dot(1, 0)


@overload(dot_rows)
def _dot_rows_compiled(X, start, ld, n_rows, p, w, lanes, out, out_start):
    def vectorised(X, start, ld, n_rows, p, w, lanes, out, out_start):
        whole = n_rows // ROWS * ROWS
        _dot_rows(X, start, ld, n_rows // ROWS, p, w, out, out_start)
        _dot_row(X, start + whole * ld, ld, n_rows - whole, p, w, out, out_start + whole)

    return vectorised


@overload(sum_rows)
def _sum_rows_compiled(X, start, ld, n_rows, p, factor, lanes, out):
    def vectorised(X, start, ld, n_rows, p, factor, lanes, out):
        n_vectors = (p + lanes - 1) // lanes
        for first in range(0, n_vectors, COLUMNS):
            count = min(COLUMNS, n_vectors - first)
            place = first * lanes
            last = start + min(place + (count - 1) * lanes, p - lanes)
            _sum_columns(X, start + place, last, ld, n_rows, count, factor, out, place)

    return vectorised
