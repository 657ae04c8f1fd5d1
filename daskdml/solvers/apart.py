"""Newton steps from gradients that ranks have taken at different points, each at its own pace.

Of rank r let w_r be the share of all rows' weight, f_r its rows' part of the smooth objective and z_r where it has
evaluated that last. With a Hessian H and a point theta_0 that all ranks have from a sample, what they push adds up to

    a = sum_r a_r,   a_r = f_r'(z_r) - w_r H (z_r - theta_0)

and every rank goes on from ``argmin a @ (x - theta_0) + 1/2 (x - theta_0) @ H (x - theta_0) + kinks(x)``: where all z_r
are one point that is a Newton step from there. There is no rate that delays would have to be small for: with a_r a rank
replaces all that it has said before, and errs by as much as its own curvature is not w_r H.
"""

import numpy as np


def minimize_apart(solver, shares, theta, gradient, model, n_rounds):
    """Go towards a minimum, with one evaluation of this rank's rows after the other, while others do likewise.

    Parameters
    ----------
    solver : object with ``minimum(model, gradient, theta, near)`` and ``product(model, direction)``
        Such as `Newton` and `ProxNewton`.
    shares : object
        ``weight`` is w_r, and ``evaluate(theta)`` returns (f_r's loss, f_r's gradient); ``begin(a)`` makes a first sum
        known where there is none, and returns the one that all ranks begin with; ``push(change, becomes_ready)`` adds
        to it; ``read()`` returns (the sum, whether all ranks are ready); ``leave()`` says that this rank pushes no
        more; ``add_up(own)`` waits for all, and returns the sum of what they give.
    theta : ndarray of shape (n_params,)
        theta_0, the same on all ranks.
    gradient : ndarray of shape (n_params,)
        About that of the smooth objective at theta_0.
    model : object
        The solver's, of H.
    n_rounds : int
        Evaluations after which a rank is ready; it goes on until all are.

    Returns
    -------
    theta : ndarray of shape (n_params,)
        The same on all ranks.
    first : ndarray of shape (n_params,)
        Where they began.
    loss : float
        The mean loss there.

    Notes
    -----
    A pass over a rank's rows for each of its rounds, which sends and reads n_params numbers; ranks meet at both ends.
    S. Soori et al., "DAve-QN: a distributed averaged quasi-Newton method with local superlinear convergence rate",
    2020, with one Hessian for all ranks; K. Mishchenko et al., "A delay-tolerant proximal-gradient algorithm for
    distributed learning", 2018, for penalties with kinks.
    """
    weight, total = shares.weight, shares.begin(gradient)
    first = point = solver.minimum(model, total, theta, theta)
    own, losses, are_ready = weight * total, [], False
    while not are_ready:
        loss, slope = shares.evaluate(point)
        losses.append(loss)
        said, own = own, slope - weight * solver.product(model, point - theta)
        shares.push(own - said, len(losses) == n_rounds)
        total, are_ready = shares.read()
        if np.isfinite(total).all():  # else it goes on until others have seen it too, who may wait for its pushes
            point = solver.minimum(model, total, theta, point)
    shares.leave()
    # What all have said last, exactly: a codec on the way leaves something out.
    *total, loss = shares.add_up(np.append(own, losses[0]))
    point = solver.minimum(model, np.array(total), theta, theta) if np.isfinite(total).all() else first
    return point, first, float(loss)
