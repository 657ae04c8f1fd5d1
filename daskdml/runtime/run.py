"""What a fit sees of its rows: passes over blocks, wherever the blocks are."""

import copy
import math
import operator
import time

import numpy as np

from daskdml.data import count_blocks
from daskdml.kernels.device import module_of
from daskdml.utils.config import get_config
from daskdml.utils.fold import Fold
from daskdml.utils.memory import bytes_of_row
from daskdml.utils.portable import pack
from daskdml.utils.random import row_hash

from .checkpoint import Checkpoint, combine_digests, rows_digest
from .journal import Journal
from .replacing import ReplaceRows
from .room import HasRoom
from .shelf import Shelf

PILOT_STREAM = 1
FOLLOWED_SECONDS = 2.0


class Run(HasRoom):
    """The rows of one fit, placed; made by `daskdml.runtime.open`.

    Attributes
    ----------
    n_features : int
    dtype : numpy dtype or None
        Of the blocks' X.
    layout : {"dense", "csr", "frame"}
    rows_per_block : int
    n_threads : int
        Threads of this process.
    mode : {"pinned", "mmap", "stream"}
        How blocks wait between passes.
    where : str
        Where it runs and why: ``"4 workers, 48 blocks, 3.1 GB, pinned"``, ``"in this process: 40 MB"``.
    n_workers : int
        Worker processes; 1 in process.
    runtime : {"threads", "tasks"}
        What carries out its passes.
    threads_per_worker : int
    by_columns : bool
        Whether the columns of a row lie apart: what needs products of all pairs of them cannot be had then.
    rows_read : int
        Rows of X read so far, those of the pilot included.
    timings : dict of str to float
        Seconds: "place" (making the blocks ready), "compile" (`warm`), "compute" (inside ``fn``, per parallel slot),
        "reduce" (inside ``combine``, per parallel slot), "wait" (the rest of the passes).
    journal : Journal or None
        Where results of passes are written down, and passes of a fit that begins again are answered from.
    bytes_moved : int
        Bytes of functions, partial results and pilot rows that went between processes.

    Notes
    -----
    ``fn`` takes one `daskdml.data.Block`, must be picklable and must not change it. When ``passes="one"`` and chunk
    lengths are unknown, the pass that discovers them has blocks with ``start = None``.
    """

    runtime = "threads"
    by_columns = False
    server = None  # the `Server` of what ranks may add up at their own pace
    panels = None  # slices of the columns that ranks hold apart
    journal = None

    def __init__(self, data, *, mode, n_workers, n_chunks, lengths, parent=None):
        self.n_features = data.n_features
        self.dtype = data.dtype
        self.layout = data.layout
        self.n_chunks = n_chunks
        self.mode = mode
        self.n_workers = n_workers
        self.where = ""
        self.rows_read = 0
        self.bytes_moved = 0
        self.timings = dict.fromkeys(("place", "compile", "compute", "reduce", "wait"), 0.0)
        self.rows_per_block = data.rows_per_block
        self._parent = parent
        self._lengths = None
        if lengths is not None:
            self._set_lengths(lengths)

    @property
    def lengths(self):
        """Rows per chunk, a tuple of int. Costs one more read of X if the chunks stream and were never read."""
        if self._lengths is None:
            self._set_lengths(self._map_chunks(_length, [()] * self.n_chunks))
            if self.mode == "stream":
                self._count(sum(self._lengths))
        return self._lengths

    @property
    def n_samples(self):
        """Number of rows."""
        return sum(self.lengths)

    @property
    def n_blocks(self):
        """Number of row blocks."""
        return self._first_blocks[-1] if self.lengths else 0

    @property
    def n_ranks(self):
        """Ranks that a program which shares threads begins with."""
        return self.n_workers

    @property
    def threads_per_worker(self):
        """Threads of each process that computes blocks."""
        return self.n_threads

    @property
    def passes(self):
        """Passes over X so far: rows read / number of rows."""
        return self.rows_read / self.n_samples

    @property
    def busy_seconds(self):
        """Seconds of passes so far in which blocks were computed and results added, per parallel slot."""
        return self.timings["compute"] + self.timings["reduce"]

    def map_reduce(self, fn, combine=operator.add, *, reads_x=True):
        """Fold ``fn(block)`` over all blocks along a fixed binary tree over the block index.

        Parameters
        ----------
        fn : callable of one Block
        combine : callable of two results, default operator.add
            Must not change its arguments.
        reads_x : bool, default True
            False if ``fn`` looks at targets and weights only: nothing is counted then, unless chunks stream.

        Returns
        -------
        object
            The same bits for any number of threads or workers.
        """
        if self._lengths is None and self._one_pass:
            return self._fold_unnumbered(fn, combine)
        self._check_rows()
        return self._recorded(fn, lambda: self._fold(fn, combine), reads_x)

    def map(self, fn, *, reads_x=True):
        """Return ``fn(block)`` of every block, as a list in block order."""
        if self._lengths is None and self._one_pass:
            return self._map_unnumbered(fn)
        self._check_rows()
        return self._recorded(fn, lambda: self._map_blocks(fn), reads_x)

    def _recorded(self, fn, compute, reads_x):
        """Make a pass, or take its result from the journal, and account for it."""

        def make():
            start, before = time.perf_counter(), self.busy_seconds
            result = compute()
            self._finish_pass(start, before, reads_x)
            return result

        return make() if self.journal is None else self.journal(fn, lambda: self._count_pass(reads_x), make)

    def transform_targets(self, fn):
        """Replace the targets y by ``fn(y)``, chunk by chunk, for all later passes.

        A worker that loses its chunks computes ``fn`` again, from the same y.
        """
        raise NotImplementedError

    def replace_rows(self, fn, n_columns, dtype, n_stored=None, *, mode="pinned"):
        """Replace X by ``fn(X)`` for all later passes; the rows of X are let go.

        Parameters
        ----------
        fn : callable
            Picklable; of the X of some rows to an ndarray of shape (n, n_columns), or CSR of that shape. A worker that
            loses its chunks computes it again.
        n_columns : int
        dtype : numpy dtype
        n_stored : float, optional
            Values that a row stores in the mean, where ``fn`` returns CSR matrices.
        mode : {"pinned", "mmap"}, default "pinned"
            Whether the new rows stay in memory or are files, of which pages are read when they are needed.

        Raises
        ------
        ValueError
            If the new rows are to stay in memory and do not fit; see `check_room` and `mode_of`.
        OSError
            If they are to be files and the disk is full.

        Notes
        -----
        One pass over X. Where chunks stream, each is let go before the next is read.
        """
        dtype, layout = np.dtype(dtype), "dense" if n_stored is None else "csr"
        if mode == "pinned":
            self.check_room(bytes_of_row(n_columns, dtype, n_stored))
        start, before = time.perf_counter(), self.busy_seconds
        self._replace_rows(ReplaceRows(fn, n_columns, dtype, self.rows_per_block, layout, to_files=mode == "mmap"))
        self._finish_pass(start, before, True)
        self.dtype, self.layout, self.mode = dtype, layout, mode

    def warm(self, fn):
        """Call ``fn()`` once in every process that computes blocks, to compile kernels; seconds go to "compile"."""
        raise NotImplementedError

    def pilot(self, n_rows, seed):
        """Draw rows into this process and return a `Run` over them.

        The rows are cut into ``n_rows`` buckets of equal size and one row is drawn from each by a hash of the seed and
        the bucket: the draw does not depend on chunks or workers.

        Parameters
        ----------
        n_rows : int
            At least the number of rows returns all of them.
        seed : int

        Returns
        -------
        Run
            In process, on one chunk. Rows it reads also count in this run.

        Notes
        -----
        Reads ``n_rows`` rows of X, or all of them if chunks stream.
        """
        self._check_rows()
        rows = pilot_rows(self.n_samples, n_rows, seed)
        edges = np.searchsorted(rows, self._first_rows)
        args = [
            (rows[a:b] - first,) if b > a else None for a, b, first in zip(edges[:-1], edges[1:], self._first_rows)
        ]
        parts = [part for part in self._map_chunks(_take, args) if part is not None]
        self._count(self.n_samples if self.mode == "stream" else len(rows))
        return self._in_process(concatenate_chunks(parts))

    def locate_nonfinite(self):
        """Raise ValueError naming the first row of X that holds NaN or infinity; return None if there is none."""
        found = self.map_reduce(_first_nonfinite, _first)
        if found is not None:
            row, block, what = found
            raise ValueError(f"Input X contains {what}. First in row {row} (block {block}).")

    def iterate(self, body, n_passes, what="", server=None):
        """Return ``body(run)``, which makes many passes: here, or on every rank that holds some of the rows.

        With the option ``checkpoint`` the results of its passes are written to a file now and then; with ``resume`` a
        body that begins again is told them.

        Parameters
        ----------
        body : callable of a Run
            Picklable; a function of what its passes return, and of nothing else of the rows.
        n_passes : float
            That it is expected to make: few are not worth the start of ranks.
        what : str
            What body computes, for the fingerprint of checkpoints.
        server : daskdml.runtime.spmd.apart.Server, optional
            Has body make passes on ranks wherever there can be some, where it may call `apart`.

        Returns
        -------
        object
        """
        options = get_config()
        if options["checkpoint"] is None:
            return self._iterate(body, n_passes, (), None, server)
        checkpoint = Checkpoint.of_fit(options["checkpoint"], fingerprint_of(self, what))
        _, entries = (options["resume"] and checkpoint.read()) or (0, ())
        result = self._iterate(body, n_passes, entries, checkpoint.write_or_warn, server)
        checkpoint.remove_or_warn()
        return result

    def apart(self, work):
        """Return ``work(ledger)``, which ranks do at their own pace, and what they `Told` of it.

        Parameters
        ----------
        work : callable of a daskdml.runtime.spmd.apart.Ledger
            Must return the same on all ranks.
        """
        raise NotImplementedError

    def _iterate(self, body, n_passes, entries, on_saved, server):
        """Return ``body(self)``, some of whose passes are known; ``on_saved`` is called with (number, entries)."""
        if entries or on_saved is not None:
            self.journal = Journal(entries, on_saved and _now_and_then(on_saved, get_config()["checkpoint_every"]))
        try:
            return body(self)
        finally:
            self.journal = None

    def _take_over(self, answer):
        """Take over the accounts of the ranks that a body ran on; return what it returned."""
        self.rows_read, self.bytes_moved = answer.rows_read, answer.bytes_moved
        self.timings.update(answer.timings)
        return answer.value

    def run_program(self, program, step=0, state=None, **options):
        """Run a `daskdml.runtime.spmd.Program` on the rows; return its last state.

        Parameters
        ----------
        program : Program
        step : int, default 0
            Steps that are finished.
        state : object, optional
            After them.
        **options
            ``save_every`` seconds, ``on_saved`` to be called with (step, state), ``topology``, ``shelf`` for parts of
            the state that ranks keep.

        Raises
        ------
        ValueError
            If the rows are read again in every pass: a rank holds its rows from step to step.
        """
        raise ValueError(
            'A program needs its rows in memory or as files from step to step, but memory="stream" reads them again in '
            'every pass; use config_context(memory="mmap"), or more memory.'
        )

    def run_saved(self, program, what, follow=None):
        """Run a program as `run_program` does, with the options ``checkpoint``, ``checkpoint_every`` and ``resume``.

        Parameters
        ----------
        program : Program
        what : str
            What it computes, for the fingerprint of checkpoints.
        follow : callable of (step, state), optional
            Is told now and then how far it is.

        Returns
        -------
        object
            The last state.
        """
        options = get_config()
        if options["checkpoint"] is None:
            every = min(options["checkpoint_every"], math.inf if follow is None else FOLLOWED_SECONDS)
            return self.run_program(program, save_every=every, on_saved=follow)
        checkpoint = Checkpoint.of_fit(options["checkpoint"], fingerprint_of(self, what))
        if program.tables(self.meta) and not program.holds_tables:
            return self._run_saving_tables(program, checkpoint, options, follow)
        saved = checkpoint.read() if options["resume"] else None
        begin, shelf = (saved[0], program.resume(saved[1])) if saved else (0, program.init(self.meta)), None
        if program.keeps_parts:
            shelf = self._shelf_of(checkpoint, options)
            begin = program.begin_on(shelf, *begin)
        pack(begin[1])  # what cannot be written is better known now than in the middle

        def write(step, state):
            checkpoint.write_or_warn(step, state)
            if follow is not None:
                follow(step, state)

        saving = {"save_every": options["checkpoint_every"], "on_saved": write}
        if shelf is not None:
            saving["shelf"] = shelf
        state = self.run_program(program, *begin, **saving)
        if shelf is not None:  # first: a finished state without its parts would be of no use
            shelf.clear_or_warn()
        checkpoint.remove_or_warn()
        return state

    def _run_saving_tables(self, program, checkpoint, options, follow):
        """Run a program whose state is nothing without its tables: ranks write both, when all have met."""
        from .spmd.program import Program
        from .tables.saving import begin_on

        if program.keeps_parts:
            raise ValueError(
                f"{type(program).__qualname__} keeps parts of its state beside tables, and a checkpoint holds one of "
                "the two: leave out the option checkpoint, or put what the parts hold into tables."
            )
        # A copy, for the caller may run the program elsewhere.
        shelf, original, program = self._shelf_of(checkpoint, options), program, copy.copy(program)
        saving, step, state = begin_on(shelf, options["checkpoint_every"], program.tables(self.meta))
        object.__setattr__(program, "_saving", saving)
        if type(program).take is not Program.take:  # parts of the result are for the caller's own
            object.__setattr__(program, "take", original.take)
        begin = (0, program.init(self.meta)) if step is None else (step, program.resume(state))
        pack(begin[1])
        every = min(options["checkpoint_every"], math.inf if follow is None else FOLLOWED_SECONDS)
        state = self.run_program(program, *begin, save_every=every, on_saved=follow)
        shelf.clear_or_warn()
        return state

    @staticmethod
    def _shelf_of(checkpoint, options):
        """Return a shelf beside a checkpoint, that all workers are to see; an empty one if nothing is resumed."""
        shelf = Shelf(f"{checkpoint.absolute_url}.parts", is_shared=True)
        if not options["resume"]:
            shelf.clear()
        shelf.put(Shelf.SEEN, 2**62, True)
        return shelf

    def close(self):
        """Let go of everything placed for this run."""

    def _replace_rows(self, replace):
        """Replace every chunk by ``replace(chunk)``, a `ReplaceRows`."""
        raise NotImplementedError

    # What a runtime supplies -----------------------------------------------------------------------------------------

    _one_pass = False

    def _fold(self, fn, combine):
        """Return the fold of ``fn(block)``."""
        raise NotImplementedError

    def _map_blocks(self, fn):
        """Return the list of ``fn(block)``."""
        raise NotImplementedError

    def _map_chunks(self, fn, args):
        """Return ``fn(chunk, *args[i])`` for every chunk, None where ``args[i]`` is None."""
        raise NotImplementedError

    # Shared by all runtimes ------------------------------------------------------------------------------------------

    def _set_lengths(self, lengths):
        self._lengths = tuple(int(n) for n in lengths)
        blocks = [count_blocks(n, self.rows_per_block) for n in self._lengths]
        self._first_blocks = [0, *np.cumsum(blocks, dtype=np.int64).tolist()]
        self._first_rows = [0, *np.cumsum(self._lengths, dtype=np.int64).tolist()]

    def _position(self, i):
        """Return what ``Chunk.blocks`` needs to number the blocks of chunk ``i``."""
        return self._first_blocks[i], self._first_rows[i], self.rows_per_block

    @property
    def meta(self):
        """What every rank of a program knows of all rows."""
        from .spmd.program import Meta

        self._check_rows()
        return Meta(self.n_samples, self.n_features, self.n_blocks)

    def _check_rows(self):
        if self.n_samples == 0:
            raise ValueError(
                f"Found array with 0 sample(s) (shape=(0, {self.n_features})) while a minimum of 1 is required."
            )

    def _count(self, n_rows):
        """Count rows of X read, here and in the run this one is the pilot of."""
        self.rows_read += n_rows
        if self._parent is not None:
            self._parent._count(n_rows)

    def _finish_pass(self, start, busy_before, reads_x):
        self._count_pass(reads_x)
        idle = time.perf_counter() - start - (self.busy_seconds - busy_before)
        self.timings["wait"] += max(0.0, idle)

    def _count_pass(self, reads_x):
        if reads_x or self.mode == "stream":
            self._count(self.n_samples)

    def _map_unnumbered(self, fn):
        """Map over blocks in the one pass that also finds out how many rows the chunks have."""
        start, before = time.perf_counter(), self.busy_seconds
        found = self._map_chunks(unnumbered, [(fn, self.rows_per_block)] * self.n_chunks)
        self._set_lengths([n for n, _ in found])
        self._finish_pass(start, before, True)
        self._check_rows()
        return [value for _, values in found for value in values]

    def _fold_unnumbered(self, fn, combine):
        values = self._map_unnumbered(fn)
        fold = Fold(len(values), combine)
        for index, value in enumerate(values):
            fold.add(index, value)
        return fold.result()

    def _in_process(self, chunk):
        """Return the run over a pilot drawn from this one."""
        from .local import LocalRun

        run = LocalRun(self, chunks=[chunk], n_threads=self.n_threads, parent=self)
        run.where = f"in this process: pilot of {len(chunk):,} rows"
        return run


def pilot_rows(n_samples, n_rows, seed):
    """Return ascending row ids, one drawn from each of ``n_rows`` equal buckets; all rows if there are no more.

    Examples
    --------
    >>> rows = pilot_rows(1000, 10, seed=0)
    >>> bool((rows // 100 == range(10)).all())
    True
    """
    if n_rows >= n_samples:
        return np.arange(n_samples)
    stride = n_samples // n_rows
    buckets = np.arange(n_rows)
    return buckets * stride + (row_hash(seed, PILOT_STREAM, buckets) % np.uint64(stride)).astype(np.int64)


def fingerprint_of(run, what):
    """Return what a checkpoint of ``what`` on these rows must agree with; hashes all rows, in one pass."""
    shape = f"{run.n_samples:,} rows, {run.n_features} features, {run.dtype}, {run.layout}"
    digest = run.map_reduce(rows_digest, combine_digests).hex()
    return {"kind": what, "shape": shape, "number of blocks": str(run.n_blocks), "hash of all rows": digest}


def _now_and_then(on_saved, seconds):
    """Return the function of journal entries that calls ``on_saved`` at most once in so many seconds."""
    last = time.monotonic()

    def on_entry(entries):
        nonlocal last
        if time.monotonic() - last >= seconds:
            on_saved(len(entries), entries)
            last = time.monotonic()

    return on_entry


def _length(chunk):
    return len(chunk)


def _take(chunk, rows):
    return chunk.take(rows)


def unnumbered(chunk, fn, rows_per_block):
    """Return (rows, list of ``fn(block)``) of a chunk whose place among the rows is not known yet."""
    return len(chunk), [fn(block._replace(start=None)) for block in chunk.blocks(0, 0, rows_per_block)]


def concatenate_chunks(chunks):
    """Put chunks on top of each other, as one."""
    if len(chunks) == 1:
        return chunks[0]
    parts = zip(*[(chunk.X, chunk.y, chunk.weight) for chunk in chunks])
    return type(chunks[0])(*map(_stack, parts))


def _stack(parts):
    """Put arrays, CSR matrices, tuples of panels or data frames on top of each other."""
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, tuple):
        return tuple(map(_stack, zip(*parts)))
    if isinstance(first, np.ndarray) or module_of(first) is not np:
        return module_of(first).concatenate(parts)
    if hasattr(first, "indptr"):
        from scipy import sparse

        return sparse.vstack(parts, format="csr")
    from dask.dataframe.dispatch import concat

    return concat(list(parts))


def _first_nonfinite(block):
    """Return (row, block, what) of the first non-finite value in a block, or None."""
    panels = block.X if isinstance(block.X, tuple) else (block.X,)
    found = [bad for panel in panels if (bad := _first_bad_row(panel)) is not None]
    if not found:
        return None
    row, what = min(found)
    return block.start + row, block.index, what


def _first_bad_row(X):
    values = X.data if hasattr(X, "indptr") else X
    bad = ~np.isfinite(values)
    if not bad.any():
        return None
    if hasattr(X, "indptr"):
        k = int(bad.argmax())
        row, value = int(np.searchsorted(X.indptr, k, side="right")) - 1, values[k]
    else:
        row = int(bad.any(axis=1).argmax())
        value = values[row, int(bad[row].argmax())]
    what = "NaN" if np.isnan(value) else f"infinity or a value too large for {X.dtype!r}"
    return row, what


def _first(left, right):
    return right if left is None else left
