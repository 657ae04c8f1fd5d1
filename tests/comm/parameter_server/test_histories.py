"""A parameter server loses nothing, doubles nothing, and always comes to an end."""

import pytest

from daskdml.comm.parameter_server import Client, Control, ShardsLost
from daskdml.comm.parameter_server.messages import Enrolled, Enter
from daskdml.comm.parameter_server.replica import Replica

from .histories import Faults, History

KINDS = {
    "no fault": (Faults(), {}),
    "one crash": (Faults(crashes=1), {}),
    "three crashes": (Faults(crashes=3), {"n_nodes": 7}),
    "three crashes, two backups": (Faults(crashes=3), {"n_nodes": 7, "replicas": 2}),
    "three faults, half of them zombies": (Faults(crashes=3, zombies=0.5), {"n_nodes": 7}),
    "crashes and joins": (Faults(crashes=2, joins=2, zombies=0.3), {"n_nodes": 5, "replicas": 2}),
    "joins": (Faults(joins=3), {"n_nodes": 2, "n_shards": 8}),
    "clients come and go": (Faults(crashes=1, client_deaths=1, client_joins=2), {}),
    "in step": (Faults(crashes=2, zombies=0.5, client_deaths=1), {"staleness": 0, "is_collective": True, "n_nodes": 6}),
    "each its own way": (Faults(crashes=2, joins=1, zombies=0.5), {"staleness": None, "n_nodes": 6}),
}


@pytest.mark.parametrize("n_histories", [20, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost(kind, n_histories):
    faults, options = KINDS[kind]
    n_in_transfer, leads = 0, set()
    for seed in range(n_histories):
        history = History(seed, faults, reads_near=seed % 2 == 1, **options).run()
        assert history.violations == [], seed
        assert history.is_complete, seed
        n_in_transfer, leads = n_in_transfer + history.n_in_transfer, leads | set(history.leads)
    staleness = options.get("staleness", 2)
    if staleness is not None:
        assert max(leads) == staleness  # never more, and as much as is allowed
    if faults.crashes > 1 and n_histories > 100:
        assert n_in_transfer > 10


def test_the_last_node_of_a_chain_is_missed_in_words():
    control = Control(4, ["a", "b"], 1)
    control.lost("a")
    with pytest.raises(ShardsLost, match="4 of the shards.*replicas = 2"):
        control.lost("b")


class AcksEarly(Replica):
    """Acknowledges before its backup has it."""

    def _take(self, operation):
        return [*super()._take(operation), *(self._acknowledge(operation) if self.is_head else [])]


class Doubles(Replica):
    """Applies a push as often as it comes."""

    def on_push(self, message):
        operation = message.operation
        is_known = operation.sequence <= self.seen.get(operation.client, 0)
        if is_known and message.epoch == self.epoch and self.is_head and operation.client in self.clocks:
            return self._take(operation)
        return super().on_push(message)


class ForgetsSequences(Replica):
    """Hands over what was pushed, and not which pushes that were."""

    def restore(self, state):
        super().restore({**state, "seen": dict.fromkeys(state["seen"], 0)})


class ForgetsAnEarlySequence(Replica):
    """Hands over sequences that are one too low."""

    def restore(self, state):
        super().restore({**state, "seen": {name: max(n - 1, 0) for name, n in state["seen"].items()}})


class HasNoFence(Replica):
    """Takes messages of any epoch."""

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("on_") and name != "on_recruit":
            return lambda message: found(message._replace(epoch=self.epoch))
        return found


class LosesAClock(Replica):
    """Forgets that a client has completed its third clock."""

    def _apply(self, operation):
        super()._apply(operation)
        if operation.kind == "push" and operation.clock == 3:
            self.clocks[operation.client] = 2


class AnswersAtOnce(Replica):
    """Lets no reader wait."""

    def _answer(self, pulls):
        return super()._answer([pull._replace(least_clock=-1, sequence=0) for pull in pulls])


class ForgetsWhoAsks(Replica):
    """Does not look whether it has what its reader has pushed."""

    def _answer(self, pulls):
        return super()._answer([pull._replace(sequence=0) for pull in pulls])


class CountsAhead(Replica):
    """Hands over clocks that are not completed."""

    def restore(self, state):
        super().restore({**state, "clocks": {name: n + 1 for name, n in state["clocks"].items()}})


class WelcomesEarly(Replica):
    """Tells of a recruit that has not got everything."""

    def _welcome(self):
        self._recruit_has = max(self._recruit_has, self.version) if self._recruit_has >= 0 else self._recruit_has
        return super()._welcome()


class ReadsByVersionAlone(Client):
    """Takes a version for the same whoever has counted it."""

    def _pulls(self, shards):
        known = self.held
        self.held = {at: held._replace(epoch=self.directory.epochs[at[0]]) for at, held in known.items()}
        try:
            return super()._pulls(shards)
        finally:
            self.held = known


MOST_STEPS = 100_000  # four times as many as the longest history of the protocol as it is
MUTANTS = {
    AcksEarly: ("lost", "three crashes"), Doubles: ("doubled", "no fault"), ForgetsSequences: ("", "crashes and joins"),
    ForgetsAnEarlySequence: ("", "crashes and joins"), HasNoFence: ("", "three faults, half of them zombies"),
    AnswersAtOnce: ("too old", "one crash"), ForgetsWhoAsks: ("not read its own", "one crash"),
    LosesAClock: ("stuck", "in step"), CountsAhead: ("too old", "crashes and joins"),
    WelcomesEarly: ("lost", "crashes and joins"), ReadsByVersionAlone: ("keeps other", "each its own way"),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant, monkeypatch):
    what, kind = MUTANTS[mutant]
    faults, options = KINDS[kind]  # "" is any violation, or a history that does not end
    if issubclass(mutant, Replica):
        monkeypatch.setattr("daskdml.comm.parameter_server.node.Replica", mutant)
    else:
        options = {**options, "client": mutant}
    found = set()
    for seed in range(300):
        history = History(seed, faults, reads_near=seed % 2 == 1, **options).run(most=MOST_STEPS)
        found.update(text.split(" of ")[0] for text in history.violations)
        found |= set() if history.is_complete else {"stuck"}
        if any(what in text for text in found):
            return
    pytest.fail(f"{mutant.__name__} was not caught, found {found}")


def test_who_asks_to_enter_again_is_asked_for_again():
    """What a node that was behind has dropped would not come of itself, and others would wait for it for ever."""
    control = Control(3, ["a", "b"], 1)
    asked = control.on(Enter("c"))
    assert [type(message).__name__ for _, message in asked] == ["Enrol"] * 3
    control.on(Enrolled(1, "enter", "c", 0))
    again = control.on(Enter("c"))
    assert [message.shard for _, message in again] == [0, 2] and control.on(Enter("d")) != []


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_updates_that_came_between_are_bounded(staleness):
    """(P - 1) (2 s + 1), and with room to be late some are."""
    found = []
    for seed in range(40):
        history = History(seed, Faults(), staleness=staleness, n_clocks=20, reads_near=seed % 2 == 1).run()
        found += [n for client in history.finished for n in client.stalenesses]
    assert min(found) == 0
    assert max(found) <= 2 * (2 * staleness + 1) and max(found) > (1 if staleness else -1)
