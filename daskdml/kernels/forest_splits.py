"""The best split of a node of a forest's tree, from the histograms of its own rows.

See `daskdml.kernels.forest` for what rows and histograms hold. Bins without rows are left out before splits are
compared, so that a node costs what its rows do, not what bins there are: such trees have many nodes of few rows.
"""

import numpy as np
from numba.extending import register_jitable

from daskdml.kernels.growing import mix

N_BINS = 256
MISSING = 255
GINI, ENTROPY, SQUARED, POISSON = range(4)
# Of ``ints``, of ``floats``, and of the columns of ``nodes`` and ``facts`` that `grow` returns.
CRITERION, CHANNELS, MAX_FEATURES, MAX_DEPTH, LEAST_SPLIT, LEAST_LEAF, MAX_LEAVES = range(7)
IS_RANDOM, COUNTS, IS_WHOLE = range(7, 10)
A_STEP, B_STEP, LEAST_WEIGHT, LEAST_DECREASE = range(4)
FEATURE, BIN, NEXT, MISSING_LEFT, LEFT, START, STOP, DEPTH, MIDDLE = range(9)
THRESHOLD, GAIN, LOWER, UPPER, IMPURITY, VALUE, STEP = range(7)
_FEW = 512  # rows of a node up to which its bins are told by a bit each
BLOCK = 2048  # rows whose words stay in the cache while features take turns
_EPSILON = np.finfo(np.float64).eps  # scikit-learn's, of impurities


@register_jitable
def rounded(y, b, ints, floats):
    """Return weight times target as an integer, in steps of the node; of a whole weight exactly as of so many rows."""
    if ints[IS_WHOLE]:
        return np.int64(np.rint(y / floats[A_STEP])) * b
    return np.int64(np.rint(y * (b * floats[B_STEP]) / floats[A_STEP]))


@register_jitable
def _add_up(columns, drawn, n, words, value, start, stop, ints, floats, sums, counts, used, block):
    """Add the rows of a node to the histograms of n features."""
    rows, a, b = words
    few, counted, k = stop - start <= _FEW, ints[COUNTS] != 0, np.uint64(ints[CHANNELS])
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        if ints[CRITERION] >= SQUARED:
            for j in range(np.uint64(first), np.uint64(last)):
                block[j - np.uint64(first)] = rounded(value[np.uint64(rows[j])], b[j], ints, floats)
        for g in range(n):
            column, h = columns[drawn[g]], sums[g]
            if ints[CRITERION] < SQUARED:
                for j in range(np.uint64(first), np.uint64(last)):
                    h[np.uint64(column[np.uint64(rows[j])]) * k + np.uint64(b[j])] += a[j]
            else:
                for j in range(np.uint64(first), np.uint64(last)):
                    o = np.uint64(column[np.uint64(rows[j])]) * np.uint64(2)
                    h[o] += block[j - np.uint64(first)]
                    h[o + np.uint64(1)] += b[j]
            if counted:
                c = counts[g]
                for j in range(np.uint64(first), np.uint64(last)):
                    c[np.uint64(column[np.uint64(rows[j])])] += 1
            if few:
                for j in range(np.uint64(first), np.uint64(last)):
                    bin = np.uint64(column[np.uint64(rows[j])])
                    used[g, bin >> np.uint64(6)] |= np.uint64(1) << (bin & np.uint64(63))


@register_jitable
def _take(h, c, used, few, n_bins, ints, taken):
    """Take the bins that have rows out of a histogram, which is zeros afterwards.

    Returns
    -------
    int, int
        How many bins, and how many rows miss the value (0 or 1 where nobody counts).
    """
    kept, left, count, missing = taken
    counted, k, n = ints[COUNTS] != 0, ints[CHANNELS], 0
    for word in range(4):
        bits = used[word] if few else np.uint64(0xFFFFFFFFFFFFFFFF)
        used[word] = 0
        for bin in range(64 * word, min(64 * (word + 1), n_bins) if bits != 0 else 0):
            if not (bits >> np.uint64(bin - 64 * word)) & np.uint64(1):
                continue
            total = np.int64(0)
            for q in range(k):
                total |= h[bin * k + q]
            if total == 0:
                continue
            for q in range(k):
                left[q, n] = h[bin * k + q]
                h[bin * k + q] = 0
            if counted:
                count[n] = c[bin]
                c[bin] = 0
            kept[n] = bin
            n += 1
    total = np.int64(0)
    for q in range(k):
        missing[q] = h[MISSING * k + q]
        total |= missing[q]
        h[MISSING * k + q] = 0
    n_missing = np.int64(total != 0)
    if counted:
        n_missing = c[MISSING]
        c[MISSING] = 0
    # From sums of bins to sums up to them.
    for q in range(k):
        for i in range(1, n):
            left[q, i] += left[q, i - 1]
    if counted:
        for i in range(1, n):
            count[i] += count[i - 1]
    return n, n_missing


@register_jitable
def x_log_y(x, y):
    return x * np.log(y) if x > 0 else 0.0


@register_jitable
def _rate(left, totals, n, criterion, a_step, b_step, rated):
    """Write for each place what a split there is worth, and the weight that goes left; return the weight of all."""
    score, weight, other = rated
    if criterion >= SQUARED:
        S, W = totals[0] * a_step, totals[1] * b_step
        for i in range(n):
            weight[i] = left[1, i] * b_step
        if criterion == SQUARED:
            for i in range(n):
                s = left[0, i] * a_step
                score[i] = s * s / weight[i]
                other[i] = (S - s) * (S - s) / (W - weight[i])
            for i in range(n):
                score[i] += other[i]
        else:
            for i in range(n):
                s = left[0, i] * a_step
                if s <= _EPSILON or S - s <= _EPSILON:
                    score[i] = -np.inf  # scikit-learn's: no side may predict 0
                else:
                    score[i] = s * np.log(s / weight[i]) + (S - s) * np.log((S - s) / (W - weight[i]))
        return W
    W = 0.0
    for i in range(n):
        weight[i] = score[i] = other[i] = 0.0
    for q in range(totals.size):
        T, part = totals[q] * a_step, left[q]
        W += T
        for i in range(n):
            weight[i] += part[i] * a_step
        if criterion == GINI:
            for i in range(n):
                x = part[i] * a_step
                score[i] += x * x
                other[i] += (T - x) * (T - x)
        else:
            for i in range(n):
                x = part[i] * a_step
                score[i] += x_log_y(x, x)
                other[i] += x_log_y(T - x, T - x)
    if criterion == GINI:
        for i in range(n):
            score[i] = score[i] / weight[i] + other[i] / (W - weight[i])
    else:
        for i in range(n):
            score[i] += other[i] - weight[i] * np.log(weight[i]) - x_log_y(W - weight[i], W - weight[i])
    return W


@register_jitable
def _compare(f, n_places, n_kept, missing_left, n_rows, totals, bounds, ints, floats, taken, rated, best, found):
    """Rate n places of one feature, and keep the best one if it beats what was found before."""
    kept, left, count, _ = taken
    score, weight, _ = rated
    sense, lower, upper = bounds
    a_step, counted, least = floats[A_STEP], ints[COUNTS] != 0, floats[LEAST_WEIGHT]
    W = _rate(left, totals, n_places, ints[CRITERION], a_step, floats[B_STEP], rated)
    channel = 0 if ints[CRITERION] >= SQUARED else 1
    for i in range(n_places):
        if not score[i] > best:
            continue
        if counted and (count[i] < ints[LEAST_LEAF] or n_rows - count[i] < ints[LEAST_LEAF]):
            continue
        if weight[i] < least or W - weight[i] < least:
            continue
        if sense != 0:  # splits of other features may leave the bounds: values are clipped, as scikit-learn's
            l = left[channel, i] * a_step / weight[i]
            r = (totals[channel] - left[channel, i]) * a_step / (W - weight[i])
            if min(l, r) < lower or max(l, r) > upper or (l - r) * sense > 0:
                continue
        best = score[i]
        found[0], found[1], found[3] = f, kept[i], missing_left
        found[2] = kept[i + 1] if i + 1 < n_kept else -1
    return best


@register_jitable
def _try_all(f, n, n_missing, n_rows, totals, bounds, ints, floats, taken, rated, best, found):
    """Try all places of one feature: first with missing values to the right, then to the left."""
    best = _compare(
        f, n if n_missing else n - 1, n, 0 if n_missing else -1, n_rows, totals, bounds, ints, floats, taken, rated,
        best, found,
    )  # fmt: skip
    if n_missing:
        _, left, count, missing = taken
        for q in range(totals.size):
            for i in range(n):
                left[q, i] += missing[q]
        for i in range(n):
            count[i] += n_missing
        best = _compare(f, n - 1, n, 1, n_rows, totals, bounds, ints, floats, taken, rated, best, found)
    return best


@register_jitable
def _try_one(f, n, n_missing, n_rows, totals, bounds, ints, floats, taken, rated, best, found, points, key, threshold):
    """Try one threshold of a feature, drawn evenly between the least and the largest value of the node."""
    kept, left, count, missing = taken
    low, high = points[kept[0]], points[kept[n - 1]]
    z = mix(key + np.uint64(f + 1) * np.uint64(0x9E3779B97F4A7C15))
    t = low + np.float64(np.int64(z >> np.uint64(11))) * 2.0**-53 * (high - low)
    if not t < high:
        t = low
    at = 0
    while at + 2 < n and points[kept[at + 1]] <= t:
        at += 1
    side = np.int64(-1)
    if n_missing != 0:
        side = np.int64(z & np.uint64(1)) if n > 1 else np.int64(0)
    kept[0] = kept[at]
    if n > 1:
        kept[1] = kept[at + 1]
    for q in range(totals.size):
        left[q, 0] = left[q, at] + (missing[q] if side == 1 else 0)
    count[0] = count[at] + (n_missing if side == 1 else 0)
    before = best
    best = _compare(f, 1, min(n, 2), side, n_rows, totals, bounds, ints, floats, taken, rated, best, found)
    if best > before:
        threshold[0] = t if n > 1 else np.nan
    return best


@register_jitable
def search(columns, n_bins, points, senses, words, value, node, totals, key, bounds, ints, floats, scratch):
    """Find the best split of a node; ``found`` and ``threshold`` say which, -1 if there is none."""
    order, drawn, swapped, sums, counts, used, found, threshold, taken, rated, block = scratch
    start, stop = node[START], node[STOP]
    few, p, n_tried, is_random = stop - start <= _FEW, columns.shape[0], ints[MAX_FEATURES], ints[IS_RANDOM] != 0
    best, i, is_varied = -np.inf, 0, False
    found[0], threshold[0] = -1, np.nan
    # As scikit-learn's: more than max_features where all of those have one value only.
    while i < p and (i < n_tried or not is_varied):
        g = min(drawn.size, n_tried - i) if i < n_tried else 1
        for e in range(g):
            at = i + e
            if n_tried < p:
                z = mix(key + np.uint64(at + 1) * np.uint64(0xD1B54A32D192ED03))
                swapped[at] = at + np.int64((z >> np.uint64(11)) % np.uint64(p - at))
                order[at], order[swapped[at]] = order[swapped[at]], order[at]
            drawn[e] = order[at]
        _add_up(columns, drawn, g, words, value, start, stop, ints, floats, sums, counts, used, block)
        for e in range(g):
            f = drawn[e]
            n, n_missing = _take(sums[e], counts[e], used[e], few, n_bins[f], ints, taken)
            if n < 1 or (n < 2 and n_missing == 0):
                continue
            is_varied = True
            own = (senses[f] if senses.size else 0, bounds[0], bounds[1])
            if is_random:
                best = _try_one(
                    f, n, n_missing, stop - start, totals, own, ints, floats, taken, rated, best, found, points[f],
                    key, threshold,
                )  # fmt: skip
            else:
                best = _try_all(
                    f, n, n_missing, stop - start, totals, own, ints, floats, taken, rated, best, found
                )
        i += g
    if n_tried < p:
        for at in range(i - 1, -1, -1):
            order[at], order[swapped[at]] = order[swapped[at]], order[at]
