"""The best split of each leaf, from the histograms of its rows.

A split of sums (G, H) into left and right, with ``value(G, H) = -G / (H + l2)`` clipped to the node's bounds, gains::

    gain = G value - (G_left value_left + G_right value_right)

which is scikit-learn's and XGBoost's (Chen and Guestrin 2016, equation 7, but for the factor 1/2). Of equal gains the
lowest feature wins, then missing values to the right; there the lowest bin, to the left the highest, as scikit-learn.
"""

import functools

import numpy as np
from numba.extending import register_jitable

from daskdml.kernels.compile import build, f8, i8, matrix, types, vector

N_BINS = 256
MISSING = 255
#: scikit-learn's: a category of fewer rows never goes left, and is shrunk by as much hessian before it is ranked.
MIN_CATEGORY_SUPPORT = 10.0
_EPSILON = 1e-15  # scikit-learn's: no division by zero
u1, i1 = types.uint8, types.int8


def settle(parts, children, sums, bins):
    """Add up the histograms of children from all threads, and take them from their parents'.

    Parameters
    ----------
    parts : ndarray of int64, shape (n_threads, m, 3, n_bins)
        Zeros again afterwards.
    children : ndarray of int64, shape (m, 3)
        Places in ``sums``: of the child that was added up, of the other one, of their parent, which may be the same;
        -1 for no histogram, and for no parent.
    sums : ndarray of int64, shape (n_places, 3, n_bins)
    bins : tuple (start, stop)
        Those to work on.
    """
    _settle_kernel()(parts, children, sums, *bins)


@functools.cache
def _settle_kernel():
    return build(_settle, types.void(types.Array(i8, 4, "C"), matrix(i8), types.Array(i8, 3, "C"), i8, i8))


def _settle(parts, children, sums, start, stop):
    for s in range(children.shape[0]):
        own, other, parent = children[s, 0], children[s, 1], children[s, 2]
        if own < 0:
            continue
        for plane in range(3):
            total = sums[own, plane]
            for b in range(start, stop):
                total[b] = parts[0, s, plane, b]
                parts[0, s, plane, b] = 0
            for t in range(1, parts.shape[0]):
                for b in range(start, stop):
                    total[b] += parts[t, s, plane, b]
                    parts[t, s, plane, b] = 0
        if other >= 0:
            _take_from(sums, own, other, parent, start, stop)


def take_sums(parts, which, out):
    """Add up histograms of all threads, as what travels: modulo 2**32 where that is enough.

    Parameters
    ----------
    parts : ndarray of int64, shape (n_threads, m, 3, n_bins)
        Zeros again afterwards.
    which : ndarray of int64, shape (k,)
        Places among the m.
    out : ndarray of uint32 or int64, shape (k, 3, n_bins)
    """
    _take_sums_kernel(out.dtype)(parts, which, out)


@functools.cache
def _take_sums_kernel(dtype):
    out = types.uint32 if dtype == np.uint32 else i8
    return build(_take_sums, types.void(types.Array(i8, 4, "C"), vector(i8), types.Array(out, 3, "C")))


def _take_sums(parts, which, out):
    for s in range(which.size):
        for plane in range(3):
            to = out[s, plane]
            for b in range(to.size):
                total = parts[0, which[s], plane, b]
                parts[0, which[s], plane, b] = 0
                for t in range(1, parts.shape[0]):
                    total += parts[t, which[s], plane, b]
                    parts[t, which[s], plane, b] = 0
                to[b] = total


def settle_sums(travelled, children, sums, bins):
    """Take up histograms that have travelled, and take them from those of their parents.

    Parameters
    ----------
    travelled : ndarray of uint32 or int64, shape (k, 3, n_bins)
        Of the children that were added up, in their order; see `take_sums`.
    children, sums, bins : see `settle`
    """
    _settle_sums_kernel(travelled.dtype)(travelled, children, sums, *bins)


@functools.cache
def _settle_sums_kernel(dtype):
    given = types.Array(types.uint32 if dtype == np.uint32 else i8, 3, "C", readonly=True)
    signature = types.void(given, matrix(i8), types.Array(i8, 3, "C"), i8, i8)
    return build(_settle_narrow if dtype == np.uint32 else _settle_wide, signature)


def _settle_narrow(travelled, children, sums, start, stop):
    k = 0
    for s in range(children.shape[0]):
        own, other, parent = children[s, 0], children[s, 1], children[s, 2]
        if own < 0:
            continue
        gradient, hessian, count = sums[own, 0], sums[own, 1], sums[own, 2]
        for b in range(start, stop):
            gradient[b] = np.int32(travelled[k, 0, b])  # the only one with a sign
        for b in range(start, stop):
            hessian[b] = travelled[k, 1, b]
        for b in range(start, stop):
            count[b] = travelled[k, 2, b]
        k += 1
        if other >= 0:
            _take_from(sums, own, other, parent, start, stop)


def _settle_wide(travelled, children, sums, start, stop):
    k = 0
    for s in range(children.shape[0]):
        own, other, parent = children[s, 0], children[s, 1], children[s, 2]
        if own < 0:
            continue
        for plane in range(3):
            for b in range(start, stop):
                sums[own, plane, b] = travelled[k, plane, b]
        k += 1
        if other >= 0:
            _take_from(sums, own, other, parent, start, stop)


@register_jitable
def _take_from(sums, own, other, parent, start, stop):
    for plane in range(3):
        total, rest, whole = sums[own, plane], sums[other, plane], sums[parent, plane]
        for b in range(start, stop):
            rest[b] = whole[b] - total[b]


def find_splits(sums, places, features, facts, totals, states, allowed, limits, gains, found, left_bins):
    """Find the best split of each of some leaves among some features.

    Parameters
    ----------
    sums : ndarray of int64, shape (n_places, 3, n_bins)
        Of all features behind each other.
    places : ndarray of int64, shape (m,)
        Of the leaves in ``sums``.
    features : tuple (start, stop)
    facts : ndarray of int64, shape (p, 5)
        Bins without the missing one; whether values are missing; whether bins are categories; sense of a monotonic
        constraint (-1, 0, 1); place of the first bin, behind the last of which is that of missing values.
    totals : ndarray of int64, shape (m, 3)
        Gradient, hessian, count of the leaf.
    states : ndarray of float64, shape (m, 3)
        Value of the leaf, lower and upper bound of those of its children.
    allowed : ndarray of uint8, shape (m, p) or (0, 0)
        Which features a leaf may be split by; all for the latter.
    limits : ndarray of float64, shape (5,)
        Gradient and hessian of one step of the integers, l2, least count and least hessian of a child.
    gains : ndarray of float64, shape (m,)
        Written to: 0 for none.
    found : ndarray of int64, shape (m, 6)
        Written to: feature, bin, whether missing values go left, gradient, hessian and count of the left child. The
        bin is -1 for categories.
    left_bins : ndarray of uint8, shape (m, 256)
        Written to for categories: which go left.
    """
    _find_splits_kernel()(sums, places, *features, facts, totals, states, allowed, limits, gains, found, left_bins)


@functools.cache
def _find_splits_kernel():
    signature = types.void(
        types.Array(i8, 3, "C"), vector(i8), i8, i8, matrix(i8), matrix(i8), matrix(f8), matrix(u1), vector(f8),
        vector(f8), matrix(i8), matrix(u1),
    )  # fmt: skip
    return build(_find_splits, signature)


@register_jitable
def _value(G, H, lower, upper):
    return min(max(-G / H, lower), upper)


@register_jitable
def _scan(g, h, c, n, back, feature, sense, node, limits, missing_left, best, gain_of, more, out, s):
    """Try n places to divide, given what goes left at each; return the best gain."""
    G, H, C, lower, upper, loss = node
    l2, least, least_h = limits[2] + _EPSILON, limits[3], limits[4]
    g_step, h_step = limits[0], limits[1]
    bounded = lower > -np.inf or upper < np.inf
    if bounded or sense != 0:
        for b in range(n):
            left = _value(g[b] * g_step, h[b] * h_step + l2, lower, upper)
            right = _value((G - g[b]) * g_step, (H - h[b]) * h_step + l2, lower, upper)
            gain_of[b], more[b] = -left * (g[b] * g_step), -right * ((G - g[b]) * g_step)
            if (left - right) * sense > 0:
                gain_of[b] = -np.inf
    else:
        for b in range(n):  # becomes vector code
            G_left, G_right = g[b] * g_step, (G - g[b]) * g_step
            gain_of[b] = G_left * G_left / (h[b] * h_step + l2)
            more[b] = G_right * G_right / ((H - h[b]) * h_step + l2)
    # Loops of their own, or the compiler might add in another order: halves that are exchanged must gain the same to
    # the last bit, for the tie rule.
    for b in range(n):
        gain_of[b] += more[b]
    for k in range(n):
        b = n - 1 - k if back else k
        gain = loss + gain_of[b]
        if not gain > best:
            continue
        if c[b] < least or C - c[b] < least or h[b] * h_step < least_h or (H - h[b]) * h_step < least_h:
            continue
        best = gain
        out[s, 0], out[s, 1], out[s, 2] = feature, b, missing_left
        out[s, 3], out[s, 4], out[s, 5] = np.int64(g[b]), np.int64(h[b]), np.int64(c[b])
    return best


def _find_splits(
    sums, places, start, stop, facts, totals, states, allowed, limits, gains, found, left_bins
):
    g, h, c = np.zeros(N_BINS), np.zeros(N_BINS), np.zeros(N_BINS)
    gain_of, more = np.zeros(N_BINS), np.zeros(N_BINS)
    order, rank = np.zeros(N_BINS, np.int64), np.zeros(N_BINS)
    for s in range(places.size):
        G, H, C = np.float64(totals[s, 0]), np.float64(totals[s, 1]), np.float64(totals[s, 2])
        node = (G, H, C, states[s, 1], states[s, 2], states[s, 0] * G * limits[0])
        best = 0.0
        sums_g, sums_h, sums_c = sums[places[s], 0], sums[places[s], 1], sums[places[s], 2]
        for f in range(start, stop):
            if allowed.size and not allowed[s, f]:
                continue
            n_bins, has_missing, sense = facts[f, 0], facts[f, 1], facts[f, 3]
            first = facts[f, 4]
            if facts[f, 2]:
                before = best
                best = _find_categories(
                    sums_g[first:], sums_h[first:], sums_c[first:], n_bins, has_missing, f, sense, node, limits, best,
                    g, h, c, gain_of, more, order, rank, found, left_bins, s,
                )  # fmt: skip
                if best > before and not has_missing:
                    found[s, 2] = 2 * found[s, 5] > totals[s, 2]
                continue
            a = b = n = np.int64(0)
            for k in range(n_bins):
                a += sums_g[first + k]
                b += sums_h[first + k]
                n += sums_c[first + k]
                g[k], h[k], c[k] = a, b, n
            before = best
            last = n_bins - 1 + has_missing
            best = _scan(g, h, c, last, False, f, sense, node, limits, 0, best, gain_of, more, found, s)
            if has_missing:
                missing = first + n_bins
                for k in range(n_bins - 1):
                    g[k] += sums_g[missing]
                    h[k] += sums_h[missing]
                    c[k] += sums_c[missing]
                best = _scan(g, h, c, n_bins - 1, True, f, sense, node, limits, 1, best, gain_of, more, found, s)
            elif best > before:
                found[s, 2] = 2 * found[s, 5] > totals[s, 2]  # where most go, as nothing else is known
        gains[s] = best


@register_jitable
def _find_categories(
    sums_g, sums_h, sums_c, n_bins, has_missing, f, sense, node, limits, best, g, h, c, gain_of, more, order, rank,
    found, left_bins, s,
):  # fmt: skip
    """Divide categories in the order of their mean gradient (Fisher 1958); return the best gain."""
    H, C = node[1], node[2]
    g_step, h_step = limits[0], limits[1]
    m = 0
    for b in range(n_bins + has_missing):
        # Rows, where all have the same hessian.
        if H > 0 and sums_h[b] * (C / H) >= MIN_CATEGORY_SUPPORT:
            r = sums_g[b] * g_step / (sums_h[b] * h_step + MIN_CATEGORY_SUPPORT)
            at = m
            while at > 0 and rank[at - 1] > r:
                rank[at], order[at] = rank[at - 1], order[at - 1]
                at -= 1
            rank[at], order[at] = r, b
            m += 1
    if m < 2:
        return best
    for turned in range(2):
        n = (m + 1) // 2 - turned
        a = b = count = np.int64(0)
        for k in range(n):
            bin = order[m - 1 - k if turned else k]
            a += sums_g[bin]
            b += sums_h[bin]
            count += sums_c[bin]
            g[k], h[k], c[k] = a, b, count
        before = best
        best = _scan(g, h, c, n, False, f, sense, node, limits, 0, best, gain_of, more, found, s)
        if best > before:
            for k in range(N_BINS):
                left_bins[s, k] = 0
            for k in range(found[s, 1] + 1):
                bin = order[m - 1 - k if turned else k]
                left_bins[s, MISSING if bin == n_bins else bin] = 1
            found[s, 1] = -1
            found[s, 2] = left_bins[s, MISSING]
    return best
