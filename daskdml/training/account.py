"""What a superstep took: seconds, rounds and bytes of one rank."""

from daskdml.training.state import EpochTrace


class Account:
    """Counts from superstep to superstep; bytes by what they were sent for.

    Parameters
    ----------
    comm : Comm
    """

    def __init__(self, comm):
        self._comm, self._moved = comm, {}
        self._at = self._counted()
        self._settle()

    def _settle(self):
        comm = self._comm
        self._started, self._rounds = comm.clock(), comm.rounds
        (self._sent, self._received), self._spent = self._counted(), dict(comm.seconds)

    def _counted(self):
        """Return the bytes that were sent and received so far, those of tables among them."""
        comm = self._comm
        sent, received = (0, 0) if comm.tables is None else comm.tables.moved
        return comm.bytes_sent + sent, comm.bytes_received + received

    def begin(self):
        """Begin a superstep; what was sent since the last one was closed was for saving."""
        self.assign("saving")

    def assign(self, what):
        """Count the bytes since the last time to what they were for."""
        sent, received = self._counted()
        before = self._moved.get(what, (0, 0))
        self._moved[what] = before[0] + sent - self._at[0], before[1] + received - self._at[1]
        self._at = sent, received

    def close(self, state, phases):
        """Return a state with what the superstep took.

        Parameters
        ----------
        state : TrainingState or SequentialState
        phases : dict of str to float
            Seconds that the rank has counted itself.
        """
        comm, seconds = self._comm, dict(state.seconds or {})
        taken = {**phases, "all": comm.clock() - self._started}
        if comm.size > 1:
            for phase, before in self._spent.items():
                taken[phase] = taken.get(phase, 0.0) + comm.seconds[phase] - before
        for phase, n in taken.items():
            seconds[phase] = seconds.get(phase, 0.0) + n
        moved = dict(state.moved or {})
        for what, (sent, received) in self._moved.items():
            before = moved.get(what, (0, 0))
            moved[what] = before[0] + sent, before[1] + received
        self._moved = {}
        sent, received = self._counted()
        state = state._replace(
            seconds=seconds, moved=moved, n_rounds=state.n_rounds + comm.rounds - self._rounds,
            bytes_sent=state.bytes_sent + sent - self._sent,
            bytes_received=state.bytes_received + received - self._received, n_ranks=comm.size,
            n_steps=state.n_steps + 1,
        )  # fmt: skip
        self._settle()
        if state.batch:
            return state
        found = EpochTrace(seconds, state.n_rounds, state.bytes_sent, state.bytes_received)
        return state._replace(trace=(*state.trace, found))
