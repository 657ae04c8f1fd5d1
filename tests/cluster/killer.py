"""Kills worker processes when a fit has come somewhere."""

import os
import signal
import threading
import time


class Killer:
    """Kills workers when a fit has come somewhere, which no clock tells: fits take a second or twenty.

    Parameters
    ----------
    pids : list of int
        The last one dies first.
    step : int
        The first death comes as soon as `follow` is told that the fit has come so far.
    later : list of float
        Seconds after the first death at which others come.
    again : list of float
        Seconds after `regrouped` is told that those left have begun anew at which others come.
    """

    def __init__(self, pids, step, later=(), again=()):
        self.pids, self.step, self.later, self.again = list(pids), step, list(later), list(again)
        self.n_deaths, self.timers, self.killed = 1 + len(self.later) + len(self.again), [], []

    def kill(self):
        os.kill(self.pids.pop(), signal.SIGKILL)
        self.killed.append(time.monotonic())

    def follow(self, step):
        if not self.killed and step >= self.step:
            self.kill()
            self._kill_in(self.later)

    def regrouped(self):
        if self.killed:
            self._kill_in(self.again)

    def end(self):
        """Check that all deaths came before the fit's end, which is now."""
        ended = time.monotonic()
        for timer in self.timers:
            timer.cancel()
        assert len(self.killed) == self.n_deaths and max(self.killed) < ended, "the fit ended before its workers did"

    def _kill_in(self, seconds):
        new = [threading.Timer(one, self.kill) for one in seconds]
        seconds.clear()
        for timer in new:
            timer.start()
        self.timers += new
