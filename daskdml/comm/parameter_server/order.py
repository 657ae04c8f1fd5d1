"""In which order the head of a shard took pushes in and answered pulls, and the same order once more."""

from collections import deque

PUSH, PULL = 0, 1


class Order:
    """What a head has done; where there is a script, that and nothing before its turn.

    Parameters
    ----------
    script : iterable of (int, int, int), optional
        What is to be done: `PUSH` or `PULL`, the number of the client, and its sequence or request. After the last one
        anything may be.

    Attributes
    ----------
    done : list of (int, int, int)
    """

    def __init__(self, script=()):
        self.done, self._script, self._early, self._answered = [], deque(script), {}, {}

    def deal(self, replica, kind, message):
        """Hand a push or a pull to a replica in its turn, and those that have waited for it; return what follows."""
        messages = []
        while message is not None:
            entry = self._entry(kind, message)
            if self._script and self._script[0] != entry and not self._is_known(replica, *entry, message):
                self._early[entry] = message
                return messages
            version = replica.version
            found = replica.on_push(message) if kind == PUSH else replica.on_pull(message)
            if replica.version > version and kind == PUSH:
                self._note(entry)
            for _, answer in found:
                if type(answer).__name__ == "Value" and answer.request > self._answered.get(answer.client, 0):
                    self._answered[answer.client] = answer.request
                    self._note((PULL, number_of(answer.client), answer.request))
            messages += found
            kind, message = self._next()
        return messages

    def waits_for(self, client):
        """Tell whether the script has something yet to be done by a client."""
        return any(number == number_of(client) for _, number, _ in self._script)

    def forget_script(self):
        """Go on as it comes: whoever the script is about may be gone, and asks again if not."""
        self._script.clear()
        self._early.clear()

    @staticmethod
    def _entry(kind, message):
        if kind == PUSH:
            return PUSH, number_of(message.operation.client), message.operation.sequence
        return PULL, number_of(message.client), message.request

    def _is_known(self, replica, kind, _, number, message):
        """Tell whether this was done before: the answer was lost."""
        if kind == PUSH:
            return number <= replica.seen.get(message.operation.client, 0)
        return number <= self._answered.get(message.client, 0)

    def _note(self, entry):
        self.done.append(entry)
        if self._script and self._script[0] == entry:
            self._script.popleft()

    def _next(self):
        """Return the kind and the message whose turn it is, if it is there."""
        message = self._early.pop(self._script[0], None) if self._script else None
        return (None, None) if message is None else (self._script[0][0], message)


def number_of(client):
    """Return the number of a client that is called "rank 3 ..."."""
    return int(client.split()[1])
