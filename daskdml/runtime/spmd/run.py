"""`daskdml.run`: a user's own loop, on threads, on a cluster, or on workers that exist in virtual time only."""

from daskdml.data import Partitioned, whole_rows
from daskdml.runtime.checkpoint import digest_of
from daskdml.runtime.opening import open
from daskdml.runtime.spmd.program import Program
from daskdml.utils.config import get_config


def run(program, X, y=None, sample_weight=None, *, cluster=None):
    """Run a program of supersteps on the rows of X until it is done; return its last state.

    Every rank holds some blocks of rows, calls ``program.step`` on them, and ``comm.allreduce`` adds up what the ranks
    found. A worker that dies costs the step that it was in; who is left goes on from the last finished one.

    Parameters
    ----------
    program : Program
        With ``init``, ``step`` and ``done``; its class must be importable on the workers or picklable by cloudpickle.
    X, y, sample_weight : any input
        NumPy, pandas, SciPy sparse or Dask collections; y and weights may be left out.
    cluster : daskdml.testing.SimulatedCluster, optional
        Runs it there. By default the ranks are one long task on each worker of the current `distributed.Client` if X is
        a Dask collection, and else threads of this process; ``config_context(runtime="spmd" or "threads")`` decides.

    Returns
    -------
    object
        The last state.

    Raises
    ------
    Exception
        What the program raised, on whichever rank, at once and as it was.
    TypeError
        If ``program`` is none, such as a class instead of an instance.
    ValueError
        If the options ask for a runtime that cannot be had here.

    Notes
    -----
    ``config_context(checkpoint=url, checkpoint_every=30, resume=True)`` writes the state to a file in a folder, and
    goes on from it if it is of the same rows and of a program with the same `Program.fingerprint`; one pass hashes the
    rows. Shards of tables are written by the workers, which must see the folder. Memory: the rows, and a state per
    rank. What a step sends, its calls say.

    Examples
    --------
    >>> import numpy as np
    >>> import daskdml
    >>> class Descent(daskdml.Program):
    ...     def init(self, meta):
    ...         return 0, np.zeros(meta.n_features)
    ...     def step(self, state, blocks, comm):
    ...         k, w = state
    ...         gradient = sum(b.X.T @ (b.X @ w - b.y) for b in blocks)
    ...         return k + 1, w - comm.allreduce(gradient) / comm.meta.n_samples
    ...     def done(self, state):
    ...         return state[0] == 50
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> k, w = daskdml.run(Descent(), X, X @ [1.0, 2.0])
    >>> w.round(6)
    array([1., 2.])
    """
    if not isinstance(program, Program):
        raise TypeError(f"run takes an instance of a subclass of daskdml.Program, got {program!r}.")
    options = get_config()
    if cluster is not None:
        if options["checkpoint"] is not None:
            raise ValueError("A simulated cluster writes no checkpoints of programs; leave out one of the two.")
        return cluster.run(program, X, y, sample_weight)
    if options["runtime"] == "tasks":
        raise ValueError(
            'A program runs as ranks, config_context(runtime="spmd"), or on threads of this process, "threads"; '
            'runtime="tasks" has neither.'
        )
    data = Partitioned.from_any(whole_rows(X), y, sample_weight)
    with open(data) as place:
        what = "" if options["checkpoint"] is None else f"{type(program).__qualname__}({_digest(program)})"
        return place.run_saved(program, what)


def _digest(program):
    try:
        return digest_of(program.fingerprint())
    except TypeError as error:
        raise TypeError(
            f"A checkpoint must know whether it belongs to this {type(program).__qualname__}, but cannot compare all "
            f"of its attributes: {error} Or write its method fingerprint(), which returns what tells two of them apart."
        ) from error
