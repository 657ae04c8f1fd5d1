"""The results of a fit's passes, in their order: a fit that begins again is told them instead of computing them.

A fit is a function of what its passes return, and of nothing else of the rows: replaying them brings it to where it
was, to the bit, in another process too. So fits survive deaths and go on from checkpoints without a line of their own.
"""


class Journal:
    """Answers passes from what is written down, and writes down the others.

    Parameters
    ----------
    entries : sequence of (str, object)
        What passes were, and what they returned.
    on_entry : callable of a tuple of entries, optional
        Told of every pass that was computed.
    """

    def __init__(self, entries=(), on_entry=None):
        self.entries, self.on_entry = tuple(entries), on_entry
        self._at = 0

    def __call__(self, fn, replay, compute):
        """Return the result of the next pass.

        Parameters
        ----------
        fn : callable
            Of one block; its name tells passes apart.
        replay : callable of no arguments
            Accounts for a pass that need not be made again.
        compute : callable of no arguments
            Makes the pass.

        Raises
        ------
        ValueError
            If another pass is written down here.
        """
        name = _name(fn)
        if self._at < len(self.entries):
            known, value = self.entries[self._at]
            if known != name:
                raise ValueError(
                    f"The checkpoint was written by another version of this fit: pass {self._at + 1} was {known}, now "
                    f"it is {name}; fit with resume=False."
                )
            self._at += 1
            replay()
            return value
        value = compute()
        self.entries += ((name, value),)
        self._at += 1
        if self.on_entry is not None:
            self.on_entry(self.entries)
        return value


def _name(fn):
    fn = getattr(fn, "func", fn)
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__
