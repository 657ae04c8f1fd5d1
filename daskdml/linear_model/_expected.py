"""How many passes the fits of linear models are expected to take."""

import math

# Newton steps to rounding on few rows, where each costs a Hessian of all of them (measured: 6 and 7).
NEWTON_PASSES = 7
# Passes of conjugate gradients: of all Newton steps together, of a least squares fit (measured: 30 on 50,000 columns of
# a CSR table, 35 and 108 on 5,000).
NEWTON_PRODUCTS, GRAM_PRODUCTS = 33, 100
# A pilot with fewer rows a parameter does not last: a Hessian of all rows takes its place after some passes (measured:
# with 6 rows 7 passes, that Hessian included; with 20 rows 7 without one).
LASTING_ROWS, RENEWED_PASSES = 10, 6
# Steps on the pilot, each a gradient; with a penalty that has kinks (measured: 4; 8 and 9).
PILOT_STEPS, PILOT_STEPS_KINKED = 4, 9
# Times the passes of a smooth penalty that one with kinks takes, whose duality gap is wider (measured: 7 and 10 for 4).
KINKED = 2
# Seconds of solving q equations, times q^3: Cholesky and its checks; the singular values as well.
SOLVE, SOLVE_SINGULAR = 5e-11, 1e-10
# Seconds of a step beside its pass: the proposal and the record; coordinate descent as well (measured on 50 columns).
STEP, STEP_KINKED = 3e-4, 2e-3
# Bytes a second at which rows of the pilot are gathered.
GATHER = 3e9


def polishing_passes(tol, n_params, n_pilot, smooth=True):
    """Return the passes over all rows that follow a solution on a pilot.

    Each shrinks the gap by about n_params / n_pilot (see `daskdml.solvers.newton`), until it is ``tol**2``; a pilot too
    small for that is replaced by a Hessian of all rows, which is a pass more.

    Parameters
    ----------
    tol : float
    n_params, n_pilot : int
    smooth : bool, default True
        Whether the penalty has a gradient everywhere.

    Returns
    -------
    int

    Examples
    --------
    >>> polishing_passes(1e-4, 51, 20_000), polishing_passes(1e-4, 1_001, 20_000), polishing_passes(1e-2, 51, 20_000)
    (4, 7, 2)
    """
    if not lasts(n_params, n_pilot):
        passes = RENEWED_PASSES
    else:
        passes = math.ceil(math.log(min(max(tol**2, 1e-16), 0.5)) / math.log(n_params / n_pilot))
    return max(1, passes) * (1 if smooth else KINKED)


def lasts(n_params, n_pilot):
    """Tell whether a pilot's Hessian is expected to do for the whole fit."""
    return n_pilot >= LASTING_ROWS * n_params


def step_seconds(smooth):
    """Return the seconds of a step beside its pass."""
    return STEP if smooth else STEP_KINKED
