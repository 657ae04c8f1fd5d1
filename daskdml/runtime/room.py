"""Whether new rows have room, in memory or as files, before any of them is made."""

import warnings

from daskdml.utils.config import get_config

from .memory import SCRATCH_MARGIN, format_bytes

MOST_HERE, MOST_THERE = 0.9, 0.7  # of what may be held: Dask pauses a worker at 0.8


class HasRoom:
    """Mixin of runs, which know how many rows there are and what processes may hold.

    Attributes
    ----------
    most_pinned : float
        Share of what may be held beyond which new rows are files.
    """

    most_pinned = MOST_HERE

    def mode_of(self, row_bytes, rest_bytes, file_bytes, beside=0):
        """Choose how new rows are kept: in memory, or as files where they have no room.

        Parameters
        ----------
        row_bytes : int
            That each row takes in memory, with all that belongs to it.
        rest_bytes : int
            That it takes still where the rows are files.
        file_bytes : int
            That it takes there.
        beside : int, default 0
            Bytes that are needed however many rows there are.

        Returns
        -------
        {"pinned", "mmap"}
            As ``config_context(memory=...)`` asks; files only where there is room for them. Else in memory up to
            ``most_pinned`` of what may be held, and beyond where there is no room for files.

        Raises
        ------
        ValueError
            If neither has room.
        """
        asked = get_config()["memory"]
        is_plenty = asked != "mmap" and self.has_room(row_bytes, beside, self.most_pinned)
        free = None if asked == "pinned" or is_plenty else self._free_scratch()
        if free is None:
            self.check_room(row_bytes, beside)
            return "pinned"
        needed = self.n_samples * file_bytes * SCRATCH_MARGIN
        if needed <= free:
            self.check_room(rest_bytes, beside, share=self.most_pinned)
            return "mmap"
        if self.has_room(row_bytes, beside):
            if asked == "mmap":
                warnings.warn(
                    f"New rows stay in memory: {format_bytes(free)} of scratch space are free for files "
                    f"(none where it lies in memory itself), {format_bytes(needed)} are needed.",
                    RuntimeWarning, stacklevel=2,
                )  # fmt: skip
            return "pinned"
        raise ValueError(
            f"{self.n_samples:,} rows of {self.n_features:,} features need {format_bytes(needed)} of scratch space, or "
            f"{format_bytes(self.n_samples * row_bytes + beside)} of memory, but {format_bytes(free)} are free there "
            f"(none counts where the folder itself lies in memory) and {self._room(False)[1]} may hold "
            f"{format_bytes(self._room(False)[0])}; make room, name another folder with scratch_dir or Dask's "
            f"local_directory, or {self._room(False)[2]}."
        )

    def check_room(self, row_bytes, beside=0, on_each=False, share=1.0):
        """Refuse rows that no memory can hold, before any of them is made.

        Parameters
        ----------
        row_bytes : int
            That each row will take, with all that belongs to it.
        beside : int, default 0
            Bytes that are needed however many rows there are.
        on_each : bool, default False
            Whether each worker must hold all rows.
        share : float, default 1.0
            Of what may be held.

        Raises
        ------
        ValueError
        """
        limit, holder, advice = self._room(on_each)
        if not self.has_room(row_bytes, beside, share, on_each):
            n_bytes = self.n_samples * row_bytes + beside
            raise ValueError(
                f"{self.n_samples:,} rows of {self.n_features:,} features need {format_bytes(n_bytes)} of memory here, "
                f"{row_bytes:,} bytes each and {format_bytes(beside)} beside them, but "
                f"{holder} may hold {format_bytes(share * limit)}; leave out features or rows, or {advice}."
            )

    def has_room(self, row_bytes, beside=0, share=1.0, on_each=False):
        """Tell whether rows fit into a share of the memory; see `check_room`."""
        return self.n_samples * row_bytes + beside <= share * self._room(on_each)[0]

    def _room(self, on_each):
        """Return the bytes that may still be held, on each or on all workers, by whom, and how to have more."""
        raise NotImplementedError

    def _free_scratch(self):
        """Return the bytes that files of new rows may take; None where they can be none."""
        raise NotImplementedError
