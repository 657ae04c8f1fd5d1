"""A parameter server on the workers of a Dask cluster: the node and the clients of one worker, and what carries them.

Messages between workers travel over the workers' own connections. Those to the control, which stands beside the driver,
are events of the scheduler; it answers by calls on workers.
"""

import functools
import logging
import pickle
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from daskdml.comm.parameter_server import CONTROL, Control, Failed, HasLeft, Node, Patience
from daskdml.runtime.spmd.dask_comm import Line, post_of
from daskdml.runtime.spmd.program import GroupChanged
from daskdml.runtime.tables.network import RETRY_SECONDS, Inbox, service_of
from daskdml.runtime.tables.session import see_off, take_part
from daskdml.utils.portable import Parcel, pack, unpack

OPENING_SECONDS = 30.0
_log = logging.getLogger("daskdml.tables")
TOPIC = "daskdml-tables-"
SHORT = 1 << 14  # bytes of messages that the event loop of a worker may deal with itself


class Host:
    """What a worker has of the parameter server of one run.

    Parameters
    ----------
    post : daskdml.runtime.spmd.dask_comm.Post
    run : str
    layout : daskdml.runtime.tables.spec.Layout
    service : daskdml.runtime.tables.network.Service

    Attributes
    ----------
    node : Node
    clients : dict of str to Client or Newcomer
    changed : threading.Condition
        Held by whoever looks at clients.
    bytes_sent, bytes_received : int
        To and from other workers, of the node and of clients.
    """

    def __init__(self, post, run, layout, service):
        self.worker, self.run, self.layout, self.service = post.worker, run, layout, service
        self.name, self.clients, self.changed = _address_of(post.worker.address), {}, threading.Condition()
        self._post, self._now = post, ("", 0)
        self.node = Node(self.name, layout.store, make_empty=layout.empty_store, **service.of_nodes)
        self._inbox, self._client = Inbox(_hand(self._on)), Inbox(self._tell)
        self._lines, self._pool, self._lock = {}, ThreadPoolExecutor(2, "daskdml-tables"), threading.Lock()
        self.bytes_sent = self.bytes_received = self._n_long = 0
        self.failure, self.is_closed = None, False

    def _on(self, message):
        """Give the node a message; all are told what it cannot do, for they would wait for that.

        By a rank of this worker, and by the control, for there may be none.
        """
        try:
            return self.node.on(message)
        except Exception as error:
            self.failure = error
            self.worker.log_event(TOPIC + self.run, pack([(CONTROL, Failed(self._what_failed))]).header)
            raise

    @property
    def _what_failed(self):
        return f"Shards of tables could not be held by the worker {self.worker.address}: {self.failure}"

    def check(self):
        """Raise what the node could not do.

        Raises
        ------
        RuntimeError
        """
        if self.failure is not None:
            raise RuntimeError(self._what_failed) from self.failure

    def tables(self, wire, name, comm):
        """Return the `Tables` of a rank that begins; see `take_part`."""
        self.check()
        name = f"{name} at {self.worker.address}"
        self._now = name, wire.generation
        return take_part(_HostWire(self, wire), name, comm, self.layout, self.service)

    def see_off(self, names):
        """Let clients leave whose worker has no rank in the next group; returns when all have."""
        with suppress(GroupChanged):  # the run is over
            see_off(_HostWire(self, _NoRank(self)), names)

    def wake(self):
        """Let a rank that waits see whether its group is over."""
        with self.changed:
            self.changed.notify_all()

    def close(self):
        """Let go of everything."""
        self.is_closed = True
        self.wake()
        for line in self._lines.values():
            line.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def take(self, bundle, n_bytes=0):
        """Take in messages that have come to this worker; called by its event loop, which carries out short ones.

        A thread for each would wait for its turn twice: reading 50 numbers took 2.3 ms instead of 1.2 on idle cores.
        """
        self.bytes_received += n_bytes
        is_short = n_bytes < SHORT and not self._n_long
        away, touched = {}, set()
        for to, message in bundle:  # here and now: two threads of the pool would change their order
            self._put(away, touched, to, message)
        if is_short:
            return self._work_or_end(away, touched)
        self._n_long += 1  # short ones behind it wait with it
        with suppress(RuntimeError):  # the run is over
            self._pool.submit(self._work_or_end, away, touched).add_done_callback(self._long_is_over)
        return None

    def _long_is_over(self, _):
        self.worker.loop.add_callback(self._count_long_down)

    def _count_long_down(self):
        self._n_long -= 1

    def _work_or_end(self, away, touched):
        try:
            self._work(away, touched)
        except Exception:
            # Lost in a thread of the pool it would leave ranks waiting: a group that ends for no cause is an error.
            _log.exception("messages of tables could not be carried out on %s", self.worker.address)
            self._end()

    def carry(self, messages):
        """Carry messages, and what follows from them."""
        away, touched = {}, set()
        for to, message in messages:
            self._put(away, touched, to, message)
        self._work(away, touched)

    def _put(self, away, touched, to, message):
        """Put a message into its inbox here, or to those that go away."""
        if to == CONTROL or not to.endswith(f" at {self.worker.address}"):
            away.setdefault(to if to == CONTROL else to.rsplit(" at ", 1)[1], []).append((to, message))
            return
        inbox = self._inbox if to == self.name else self._client
        inbox.put((to, message))
        touched.add(inbox)

    def _work(self, away, touched):
        put = functools.partial(self._put, away, touched)
        # Sent before the inbox is let go of, or two threads could change the order of what a node says.
        while touched:
            touched.pop().work(put, lambda: self._send(away))
        self._send(away)

    def _end(self):
        """End the group that the rank of this worker is in."""
        self._post.end(self.run, self._now[1])

    def _send(self, away):
        for place in list(away):
            bundle = away.pop(place)
            if place == CONTROL:
                self.worker.log_event(TOPIC + self.run, pack(bundle).header)
                continue
            with self._lock:
                if place not in self._lines or self._lines[place].is_broken:
                    self._lines[place] = Line(self.worker, self.run, place)
                self.bytes_sent += self._lines[place].put(bundle)

    def _tell(self, addressed, post):
        to, message = addressed
        with self.changed:
            client = self.clients.get(to)
            if client is None:
                return
            try:
                for answer in client.on(message):
                    post(*answer)
            except HasLeft:  # this worker was held to be dead, and lives
                if to == self._now[0]:
                    self._end()
            self.changed.notify_all()


class _HostWire:
    """What the `Tables` of a rank on a cluster send by and wait on."""

    def __init__(self, host, wire):
        self.host, self.wire, self.clients, self._patience = host, wire, host.clients, {}

    @property
    def node(self):
        """The node of the worker."""
        return self.host.node

    @property
    def moved(self):
        """Bytes that the worker has sent to others and received from them."""
        return self.host.bytes_sent, self.host.bytes_received

    def act(self, call, *args):
        """Send what a call of the client returns."""
        self.wire.step_out()
        away, touched = {}, set()
        with self.host.changed:  # which the worker's event loop may ask for: shards of this worker do their work later
            for to, message in call(*args):
                self.host._put(away, touched, to, message)
            self.host._send(away)
        self.host._work(away, touched)
        self.wire.step_in()

    def wait(self, condition):
        """Wait until something is so, or raise `GroupChanged`."""
        while not self.wire.wait_until(self.host.changed, condition, RETRY_SECONDS):
            self.host.check()
            for name, client in list(self.clients.items()):
                if self._patience.setdefault(name, Patience()).is_over(client, time.monotonic()):
                    self.act(client.retry)


class _NoRank:
    """What `_HostWire` asks a rank's wire for, on a worker that has no rank."""

    def __init__(self, host):
        self._host = host

    def step_out(self):
        """Do nothing: no rank computes here."""

    step_in = step_out

    def wait_until(self, changed, condition, seconds):
        """Tell whether something is so within some seconds, or raise `GroupChanged` when the run is over."""
        with changed:
            is_so = changed.wait_for(lambda: self._host.is_closed or condition(), seconds)
        if self._host.is_closed:
            raise GroupChanged
        return is_so


def host_of(wire):
    """Return the host of a rank's run, None if it has no tables; waits for a worker that has just come to open it."""
    until = time.monotonic() + OPENING_SECONDS
    while wire.run not in wire.post.hosts and time.monotonic() < until:
        wire.check()
        time.sleep(0.01)
    return wire.post.hosts.get(wire.run)


def open_tables(run, spec, dask_worker):
    """Let a worker hold its share of the tables of a run."""
    post = post_of(dask_worker)
    if run not in post.hosts:
        post.hosts[run] = Host(post, run, *pickle.loads(spec))


def close_tables(run, dask_worker):
    """Let go of the tables of a run."""
    host = post_of(dask_worker).hosts.pop(run, None)
    if host is not None:
        host.close()


def take_messages(run, header, dask_worker):
    """Take in messages of the control."""
    host = post_of(dask_worker).hosts.get(run)
    if host is not None:
        host.take(unpack(Parcel(header, ())))


def see_off_here(run, names, dask_worker):
    """Let clients of a worker leave; in a thread, for what they pushed may have to be sent again."""
    host = post_of(dask_worker).hosts.get(run)
    if host is not None:
        threading.Thread(target=host.see_off, args=(names,), daemon=True).start()


class TablesOfRun:
    """The control of a run's tables, in the client's process.

    Parameters
    ----------
    client : distributed.Client
    run : str
    tables : dict of str to DenseTable or SparseTable
    program : Program
    addresses : iterable of str
        Workers that hold shards from the start.
    pickled : callable
        Makes bytes of what workers are sent.
    on_event : callable of a list of (to, message)
        Is given messages to the control, by Dask's thread.
    """

    def __init__(self, client, run, tables, program, addresses, pickled, on_event):
        self.client, self.run = client, run
        service, addresses = service_of(program), sorted(addresses)
        layout = service.layout(tables, len(addresses))
        self._spec, self._callers, self._clients = pickled((layout, service)), {}, {}
        self._reminded_at = time.monotonic()
        client.subscribe_topic(TOPIC + run, lambda event: on_event(unpack(Parcel(event[1], ()))))
        if layout.saved is not None:  # also those that will have no rank to say so
            client.run(layout.saved.check_seen, workers=addresses)
        client.run(open_tables, run, self._spec, workers=addresses)
        self.control = Control(layout.n_shards, map(_address_of, addresses), service.replicas)
        self.carry(self.control.begin())

    def on(self, bundle):
        """Take in messages to the control.

        Raises
        ------
        NodeFailed
        """
        for _, message in bundle:
            if type(message).__name__ == "Enter":
                if _address_of(message.client.rsplit(" at ", 1)[1]) not in self.control.nodes:
                    continue  # from a worker that is held to be gone: nobody would ever tell that it has left
                self._clients.setdefault(message.client.rsplit(" at ", 1)[1], set()).add(message.client)
            self.carry(self.control.on(message))

    def remind(self):
        """Send again, now and then, what has had no answer: a node that is behind drops what it cannot place yet."""
        now = time.monotonic()
        if now - self._reminded_at > RETRY_SECONDS:
            self._reminded_at = now
            if not self.control.is_settled:
                self.carry(self.control.remind())

    def joined(self, address):
        """Let a worker that has come hold its share."""
        self._call(address, open_tables, self._spec)
        self.carry(self.control.joined(_address_of(address)))

    def begin_group(self, addresses):
        """Let clients of earlier groups leave whose workers have no rank in this one: all would wait for their clocks.

        Those of workers that have one leave when it begins.
        """
        for address in sorted(self._clients.keys() - set(addresses)):
            self._call(address, see_off_here, sorted(self._clients[address]))

    def lost(self, address):
        """Go on without a worker; its clients are waited for no more.

        Raises
        ------
        ShardsLost
        """
        messages = self.control.lost(_address_of(address))
        for name in sorted(self._clients.pop(address, ())):
            messages += self.control.enrol("leave", name)
        if address in self._callers:
            self._callers.pop(address).put(None)
        self.carry(messages)

    def carry(self, messages):
        """Send messages of the control: those to one worker together, in their order."""
        by_place = {}
        for to, message in messages:
            by_place.setdefault(to.rsplit(" at ", 1)[1], []).append((to, message))
        for address, bundle in by_place.items():
            self._call(address, take_messages, pack(bundle).header)

    def _call(self, address, function, argument):
        """Call a function on a worker, after what it was called for before; one that is stopped holds up no other."""
        if address not in self._callers:
            self._callers[address] = calls = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(address, calls), daemon=True).start()
        self._callers[address].put((function, argument))

    def _work(self, address, calls):
        while (call := calls.get()) is not None:
            function, argument = call
            with suppress(Exception):  # a worker that has died
                self.client.run(function, self.run, argument, workers=[address], on_error="ignore")

    def close(self, addresses):
        """Let go of the tables on all workers that are there."""
        for calls in self._callers.values():
            calls.put(None)
        with suppress(Exception):
            self.client.unsubscribe_topic(TOPIC + self.run)
        with suppress(Exception):
            self.client.run(close_tables, self.run, workers=sorted(addresses), on_error="ignore")


def _address_of(address):
    return f"node at {address}"


def _hand(on):
    """Return what an inbox does with addressed messages for a node."""

    def take(addressed, post):
        for answer in on(addressed[1]):
            post(*answer)

    return take
