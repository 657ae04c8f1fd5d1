"""A program with a table that tests on threads, on simulated and on real workers share."""

from daskdml import DenseTable, Program


class Descent(Program):
    """Gradient descent on squared errors, of rows that each rank takes a step along."""

    n_steps = 200

    shards = 12  # more than the table has room for: those that hold nothing have clocks too

    def __init__(self, consistency=None):
        self.consistency = consistency

    def tables(self, meta):
        return {"w": DenseTable(meta.n_features, "float64")}

    def init(self, meta):
        return 0, None

    def step(self, state, blocks, comm):
        w = comm.tables["w"]
        here = w.get()
        for block in blocks:
            w.add(-0.5 * block.X.T @ (block.X @ here - block.y) / comm.meta.n_samples)
        comm.tables.push()
        if state[0] + 1 < self.n_steps:
            return state[0] + 1, None
        comm.barrier()
        return self.n_steps, w.get()

    def done(self, state):
        return state[0] == self.n_steps
