"""A whole tree of a forest, grown by one thread from binned rows that all lie in its memory.

Conventions. ``columns`` are bins by features. The rows of a node are a range of ``rows``, ascending, beside two words:

* of classes ``a`` is the weight, as an integer, and ``b`` the class; a bin has one sum for each class;
* of numbers ``b`` is the weight, as an integer; a bin has the sums of weight times target and of weights. Targets are
  integers too, in steps that fit the largest one of a node: beside an outlier the others would be zeros else.

Sums of integers are exact, so a split hangs on the rows alone. What is drawn for a node hangs on the way to it.
"""

import functools

import numpy as np
from numba.extending import register_jitable

from daskdml.kernels import forest_splits as splits
from daskdml.kernels.compile import build, f8, i8, matrix, types, vector
from daskdml.kernels.growing import mix, ticks

_SUM_BITS = 60  # of the sums of targets
_GROUP_BYTES = 1 << 18  # of histograms that are added up together
_EPSILON = np.finfo(np.float64).eps  # scikit-learn's, of impurities
u1, u4, u8 = types.uint8, types.uint32, types.uint64


def choose_rows(first_row, key, chances, label, weight, n_rows, scale, rows, a, b):
    """Draw how often each row counts, and write the words of those that do.

    Parameters
    ----------
    first_row : int
        Global number of the first row: a draw hangs on the row's number and the key alone.
    key : int
    chances : ndarray of uint64, shape (m,)
        Of a row to be drawn at most 0, 1, ... times, in units of 2**-53; empty for once each.
    label : ndarray of int64, shape (n,)
        Classes; empty for numbers.
    weight : ndarray of float64, shape (n,) or (0,) for ones
    n_rows : int
    scale : float
        Steps per unit of weight.
    rows, a, b : ndarrays of uint32, int64, int64, shape (n,)
        Written to.

    Returns
    -------
    int
        How many rows count.
    """
    return _choose_rows_kernel()(
        np.uint64(first_row), np.uint64(key), chances, label, weight, n_rows, scale, rows, a, b
    )


@functools.cache
def _choose_rows_kernel():
    signature = i8(
        u8, u8, vector(u8, read=True), vector(i8, read=True), vector(f8, read=True), i8, f8, vector(u4), vector(i8),
        vector(i8),
    )  # fmt: skip
    return build(_choose_rows, signature, rounds_as_written=True)


@register_jitable
def times_drawn(row, key, chances):
    """Return how often a row counts."""
    if chances.size == 0:
        return np.int64(1)
    u = mix(mix(row * np.uint64(0x9E3779B97F4A7C15) + key) + key) >> np.uint64(11)
    times = np.int64(0)
    while times < chances.size and u >= chances[times]:
        times += 1
    return times


def _choose_rows(first_row, key, chances, label, weight, n_rows, scale, rows, a, b):
    m = 0
    for i in range(n_rows):
        times = times_drawn(first_row + np.uint64(i), key, chances)
        w = weight[i] if weight.size else 1.0
        if times == 0 or not w > 0:
            continue
        # One step at least: a row that hardly counts is there all the same.
        counted = max(np.int64(np.rint(w * scale)), np.int64(1)) * times
        rows[m] = i
        a[m], b[m] = (counted, label[i]) if label.size else (np.int64(0), counted)
        m += 1
    return m


def draws(first_row, n_rows, key, chances):
    """Return how often each of some rows counts, an ndarray of int64; see `choose_rows`."""
    out = np.empty(n_rows, np.int64)
    build(_draws, types.void(u8, u8, vector(u8, read=True), vector(i8)))(
        np.uint64(first_row), np.uint64(key), chances, out
    )
    return out


def _draws(first_row, key, chances, out):
    for i in range(out.size):
        out[i] = times_drawn(first_row + np.uint64(i), key, chances)


def grow(columns, facts, points, senses, rows, a, b, value, key, ints, floats, took=None):
    """Grow one tree.

    Parameters
    ----------
    columns : ndarray of uint8, shape (p, n), C order
    facts : ndarray of int64, shape (p,)
        Bins of each feature without the missing one.
    points : ndarray of float64, shape (p, 256)
        What stands for the values of a bin, ascending, where thresholds are drawn.
    senses : ndarray of int64, shape (p,) or (0,)
        Of monotonic constraints: -1, 0, 1; for numbers and two classes, of which the second grows or falls.
    rows, a, b : ndarrays of uint32, int64, int64, shape (m,)
        See the module; their order is changed.
    value : ndarray of float64, shape (n,) or (0,)
        Targets that are numbers.
    key : int
        Of everything that is drawn.
    ints, floats : sequence
        By the names in `daskdml.kernels.forest_splits`: ``CRITERION, CHANNELS, MAX_FEATURES``, ... (``MAX_DEPTH`` and
        ``MAX_LEAVES`` -1 for no limit; ``COUNTS`` whether rows are counted, where leaves must have a number of them);
        ``IS_WHOLE`` whether weights are whole numbers; ``A_STEP, B_STEP`` of ``a`` and ``b``, the former of classes
        only, ``LEAST_WEIGHT`` of a leaf as a share of all, ``LEAST_DECREASE`` of impurity by a split.
    took : ndarray of int64, shape (2,), optional
        Added to: the `daskdml.kernels.growing.ticks` of searching nodes, and of dividing them.

    Returns
    -------
    nodes : ndarray of int64, shape (n_nodes, 9)
        Columns ``FEATURE`` (-1 in leaves), ``BIN`` (the last one to the left), ``NEXT`` (the first one to the right
        that has rows, -1 for missing values only), ``MISSING_LEFT, LEFT`` (the right child follows), ``START, STOP``,
        ``DEPTH``, ``MIDDLE`` (where the rows of the right child begin).
    facts : ndarray of float64, shape (n_nodes, 7)
        Columns ``THRESHOLD`` (where it is drawn), ``GAIN`` (by which a split lowers weight times impurity), ``LOWER,
        UPPER`` (of values), ``IMPURITY, VALUE`` (of numbers), ``STEP`` (of targets, in nodes that were searched).
    sums : ndarray of int64, shape (n_nodes, n_channels)
    """
    kernel = _grow_kernel()
    return kernel(
        columns, facts, points, senses, rows, a, b, value, np.uint64(key), np.array(ints, np.int64),
        np.array(floats, np.float64), np.zeros(2, np.int64) if took is None else took,
    )  # fmt: skip


@functools.cache
def _grow_kernel():
    signature = types.Tuple((matrix(i8), matrix(f8), matrix(i8)))(
        matrix(u1, read=True), vector(i8, read=True), matrix(f8, read=True), vector(i8, read=True), vector(u4),
        vector(i8), vector(i8), vector(f8, read=True), u8, vector(i8), vector(f8), vector(i8),
    )  # fmt: skip
    return build(_grow, signature, rounds_as_written=True)


@register_jitable
def _longer_ints(array):
    out = np.zeros((2 * array.shape[0], array.shape[1]), np.int64)
    out[: array.shape[0]] = array
    return out


@register_jitable
def _longer_floats(array):
    out = np.zeros((2 * array.shape[0], array.shape[1]), np.float64)
    out[: array.shape[0]] = array
    return out


# Nodes ----------------------------------------------------------------------------------------------------------------


@register_jitable
def _weight_of(sums, ints, floats):
    if ints[splits.CRITERION] >= splits.SQUARED:
        return sums[1] * floats[splits.B_STEP]
    w = 0.0
    for q in range(sums.size):
        w += sums[q] * floats[splits.A_STEP]
    return w


@register_jitable
def _loss(sums, ints, floats):
    """Return weight times impurity of a node, but for what no split changes."""
    criterion, a_step, w = ints[splits.CRITERION], floats[splits.A_STEP], _weight_of(sums, ints, floats)
    if criterion >= splits.SQUARED:
        s = sums[0] * a_step
        return -s * s / w if criterion == splits.SQUARED else -splits.x_log_y(s, s / w)
    loss = 0.0
    for q in range(sums.size):
        x = sums[q] * a_step
        loss -= x * x / w if criterion == splits.GINI else splits.x_log_y(x, x / w) / np.log(2.0)
    return loss


@register_jitable
def _side_value(sums, ints, floats):
    """Return what a node says of the constrained: the mean, or the share of the second class."""
    channel = 0 if ints[splits.CRITERION] >= splits.SQUARED else 1
    return sums[channel] * floats[splits.A_STEP] / _weight_of(sums, ints, floats)


@register_jitable
def _is_pure(rows, value, sums, start, stop, ints):
    if ints[splits.CRITERION] < splits.SQUARED:
        n = 0
        for q in range(sums.size):
            n += sums[q] != 0
        return n <= 1
    for j in range(start + 1, stop):
        if value[rows[j]] != value[rows[start]]:
            return False
    return True


@register_jitable
def _is_leaf(node, sums, rows, value, ints, floats):
    n = node[splits.STOP] - node[splits.START]
    if ints[splits.MAX_DEPTH] >= 0 and node[splits.DEPTH] >= ints[splits.MAX_DEPTH]:
        return True
    if n < max(ints[splits.LEAST_SPLIT], 2 * ints[splits.LEAST_LEAF]):
        return True
    if _weight_of(sums, ints, floats) < 2 * floats[splits.LEAST_WEIGHT]:
        return True
    return _is_pure(rows, value, sums, node[splits.START], node[splits.STOP], ints)


@register_jitable
def _add_words(words, value, start, stop, ints, floats, sums):
    rows, a, b = words
    if ints[splits.CRITERION] < splits.SQUARED:
        for j in range(start, stop):
            sums[b[j]] += a[j]
    else:
        for j in range(start, stop):
            sums[0] += splits.rounded(value[np.uint64(rows[j])], b[j], ints, floats)
            sums[1] += b[j]


@register_jitable
def _fit_step(words, value, start, stop, ints, floats):
    """Return the step of a node's targets: the least power of two of which no sum overflows."""
    rows, _, b = words
    most = w = 0.0
    for j in range(start, stop):
        most = max(most, abs(value[np.uint64(rows[j])]))
        w += b[j]
    if ints[splits.IS_WHOLE] == 0:
        w *= floats[splits.B_STEP]
    exponent = np.int64(np.ceil(np.log2(most))) + np.int64(np.ceil(np.log2(w))) - np.int64(_SUM_BITS)
    return 2.0 ** np.float64(max(exponent, np.int64(-1000)))


@register_jitable
def _take_sums(i, words, value, nodes, facts, totals, ints, floats):
    """Add up the words of a node: of numbers in steps of its own."""
    start, stop = nodes[i, splits.START], nodes[i, splits.STOP]
    if ints[splits.CRITERION] >= splits.SQUARED:
        floats[splits.A_STEP] = _fit_step(words, value, start, stop, ints, floats)
    facts[i, splits.STEP] = floats[splits.A_STEP]
    totals[i] = 0
    _add_words(words, value, start, stop, ints, floats, totals[i])


@register_jitable
def _divide(column, words, spare, node, n_missing_left):
    """Move the rows of a node that go left to the front, in their order; return where the others begin."""
    rows, a, b = words
    more_rows, more_a, more_b = spare
    bin, l, r = node[splits.BIN], node[splits.START], 0
    for j in range(node[splits.START], node[splits.STOP]):
        row, x, y = rows[j], a[j], b[j]
        c = np.int64(column[np.uint64(row)])
        goes_left = np.int64(n_missing_left if c == splits.MISSING else c <= bin)
        # Both are written, one of them counts: no branch to guess.
        rows[np.uint64(l)], a[np.uint64(l)], b[np.uint64(l)] = row, x, y
        more_rows[np.uint64(r)], more_a[np.uint64(r)], more_b[np.uint64(r)] = row, x, y
        l += goes_left
        r += 1 - goes_left
    for j in range(r):
        rows[l + j], a[l + j], b[l + j] = more_rows[j], more_a[j], more_b[j]
    return l


@register_jitable
def _describe(nodes, facts, totals, rows, b, value, ints, floats):
    """Write mean and impurity of all nodes, of leaves in the order of their rows."""
    for i in range(len(nodes) - 1, -1, -1):  # children stand behind their parents
        if nodes[i, splits.FEATURE] >= 0:
            l, r = nodes[i, splits.LEFT], nodes[i, splits.LEFT] + 1
            wl, wr = totals[l, 1] * floats[splits.B_STEP], totals[r, 1] * floats[splits.B_STEP]
            facts[i, splits.VALUE] = (wl * facts[l, splits.VALUE] + wr * facts[r, splits.VALUE]) / (wl + wr)
            rest = wl * facts[l, splits.IMPURITY] + wr * facts[r, splits.IMPURITY] + facts[i, splits.GAIN]
            facts[i, splits.IMPURITY] = rest / (wl + wr)
            continue
        total = w = rest = 0.0
        for j in range(nodes[i, splits.START], nodes[i, splits.STOP]):
            w += b[j]
            total += b[j] * value[rows[j]]
        mean = total / w
        for j in range(nodes[i, splits.START], nodes[i, splits.STOP]):
            y = value[rows[j]]
            if ints[splits.CRITERION] == splits.SQUARED:
                rest += b[j] * ((y - mean) * (y - mean))
            else:
                rest += b[j] * splits.x_log_y(y, y / mean)
        facts[i, splits.VALUE], facts[i, splits.IMPURITY] = mean, rest / w


# Trees ----------------------------------------------------------------------------------------------------------------


@register_jitable
def _scratch(p, k, n_tried):
    """Return what `search` works in."""
    group = min(max(_GROUP_BYTES // (splits.N_BINS * k * 8), 1), n_tried)
    n = splits.N_BINS
    taken = (np.zeros(n, np.int64), np.zeros((k, n), np.int64), np.zeros(n, np.int64), np.zeros(k, np.int64))
    rated = (np.zeros(n), np.zeros(n), np.zeros(n))
    return (
        np.arange(p), np.zeros(group, np.int64), np.zeros(p, np.int64), np.zeros((group, n * k), np.int64),
        np.zeros((group, n), np.int64), np.zeros((group, 4), np.uint64), np.zeros(4, np.int64), np.zeros(1), taken,
        rated, np.zeros(splits.BLOCK, np.int64),
    )  # fmt: skip


@register_jitable
def _settle(i, columns, words, value, spare, nodes, facts, totals, lefts, whole, ints, floats, scratch):
    """Divide the rows of a node as was found; return whether it becomes no leaf."""
    found = scratch[6]
    nodes[i, splits.BIN], nodes[i, splits.NEXT], nodes[i, splits.MISSING_LEFT] = found[1], found[2], found[3]
    middle = _divide(columns[found[0]], words, spare, nodes[i], found[3])
    lefts[i] = 0
    _add_words(words, value, nodes[i, splits.START], middle, ints, floats, lefts[i])
    right = totals[i] - lefts[i]
    gain = _loss(totals[i], ints, floats) - _loss(lefts[i], ints, floats) - _loss(right, ints, floats)
    if gain / whole + _EPSILON < floats[splits.LEAST_DECREASE]:
        return False
    if found[3] < 0:  # the side that most rows go to, where no row has told: scikit-learn's
        nodes[i, splits.MISSING_LEFT] = middle - nodes[i, splits.START] > nodes[i, splits.STOP] - middle
    nodes[i, splits.MIDDLE], facts[i, splits.GAIN], facts[i, splits.THRESHOLD] = middle, gain, scratch[7][0]
    nodes[i, splits.LEFT] = found[0]  # kept here until there are children
    return True


@register_jitable
def _add_children(i, l, nodes, facts, totals, lefts, keys, senses, ints, floats):
    """Make nodes l and l + 1 the children of a node."""
    r, f = l + 1, nodes[i, splits.LEFT]
    nodes[i, splits.FEATURE], nodes[i, splits.LEFT] = f, l
    totals[l], totals[r] = lefts[i], totals[i] - lefts[i]
    for side in range(2):
        child, salt = l + side, np.uint64(0xA0761D6478BD642F) + np.uint64(side)
        nodes[child, splits.FEATURE], nodes[child, splits.DEPTH] = -1, nodes[i, splits.DEPTH] + 1
        facts[child, splits.LOWER], facts[child, splits.UPPER] = facts[i, splits.LOWER], facts[i, splits.UPPER]
        keys[child, 0] = np.int64(mix(np.uint64(keys[i, 0]) + salt))
    nodes[l, splits.START], nodes[l, splits.STOP] = nodes[i, splits.START], nodes[i, splits.MIDDLE]
    nodes[r, splits.START], nodes[r, splits.STOP] = nodes[i, splits.MIDDLE], nodes[i, splits.STOP]
    sense = senses[f] if senses.size else 0
    if sense != 0:
        floats[splits.A_STEP] = facts[i, splits.STEP]  # the one that these sums are in
        between = (_side_value(totals[l], ints, floats) + _side_value(totals[r], ints, floats)) / 2
        facts[l if sense > 0 else r, splits.UPPER] = between
        facts[r if sense > 0 else l, splits.LOWER] = between


@register_jitable
def _take_best(ready, n_ready, facts):
    """Take the node that gains most, of equal ones the first, out of a list."""
    at = 0
    for s in range(1, n_ready):
        if facts[ready[s, 0], splits.GAIN] > facts[ready[at, 0], splits.GAIN]:
            at = s
    best = ready[at, 0]
    for s in range(at + 1, n_ready):
        ready[s - 1, 0] = ready[s, 0]
    return best


def _grow(columns, n_bins, points, senses, rows, a, b, value, key, ints, floats, took):
    m, k, max_leaves = rows.size, ints[splits.CHANNELS], ints[splits.MAX_LEAVES]
    scratch = _scratch(columns.shape[0], k, ints[splits.MAX_FEATURES])
    words, spare = (rows, a, b), (np.zeros(m, np.uint32), np.zeros(m, np.int64), np.zeros(m, np.int64))
    nodes, facts, keys = np.zeros((64, 9), np.int64), np.zeros((64, 7)), np.zeros((64, 1), np.int64)
    totals, lefts = np.zeros((64, k), np.int64), np.zeros((64, k), np.int64)
    todo, ready = np.zeros((64, 1), np.int64), np.zeros((64, 1), np.int64)
    nodes[0, splits.FEATURE], nodes[0, splits.STOP], keys[0, 0] = -1, m, np.int64(key)
    facts[0, splits.LOWER], facts[0, splits.UPPER] = -np.inf, np.inf
    floats = floats.copy()
    _take_sums(0, words, value, nodes, facts, totals, ints, floats)
    whole = _weight_of(totals[0], ints, floats)
    floats[splits.LEAST_WEIGHT] *= whole
    n_nodes, n_leaves, n_todo, n_ready = 1, 1, 1, 0
    while True:
        i = -1
        if n_todo > 0:
            # Depth first: what waits to be searched stays little.
            n_todo, i = n_todo - 1, todo[n_todo - 1, 0]
            if _is_leaf(nodes[i], totals[i], rows, value, ints, floats):
                continue
            bounds, before = (facts[i, splits.LOWER], facts[i, splits.UPPER]), ticks()
            _take_sums(i, words, value, nodes, facts, totals, ints, floats)
            splits.search(
                columns, n_bins, points, senses, words, value, nodes[i], totals[i], np.uint64(keys[i, 0]), bounds, ints,
                floats, scratch,
            )  # fmt: skip
            now = ticks()
            took[0] += now - before
            is_divided = scratch[6][0] >= 0 and _settle(
                i, columns, words, value, spare, nodes, facts, totals, lefts, whole, ints, floats, scratch
            )
            took[1] += ticks() - now
            if not is_divided:
                continue
            if max_leaves >= 0:
                if n_ready == ready.shape[0]:
                    ready = _longer_ints(ready)
                ready[n_ready, 0] = i
                n_ready += 1
                continue
        elif n_ready > 0 and n_leaves < max_leaves:
            i = _take_best(ready, n_ready, facts)
            n_ready -= 1
        else:
            break
        if n_nodes + 2 > nodes.shape[0]:
            nodes, facts, keys = _longer_ints(nodes), _longer_floats(facts), _longer_ints(keys)
            totals, lefts = _longer_ints(totals), _longer_ints(lefts)
        _add_children(i, n_nodes, nodes, facts, totals, lefts, keys, senses, ints, floats)
        if n_todo + 2 > todo.shape[0]:
            todo = _longer_ints(todo)
        todo[n_todo, 0], todo[n_todo + 1, 0] = n_nodes + 1, n_nodes
        n_nodes, n_leaves, n_todo = n_nodes + 2, n_leaves + 1, n_todo + 2
    nodes, facts, totals = nodes[:n_nodes].copy(), facts[:n_nodes].copy(), totals[:n_nodes].copy()
    if ints[splits.CRITERION] >= splits.SQUARED:
        _describe(nodes, facts, totals, rows, b, value, ints, floats)
    return nodes, facts, totals
