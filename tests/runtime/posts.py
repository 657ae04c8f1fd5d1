"""Posts of workers that are nothing but a listener."""

import asyncio
import contextlib
import time
from types import SimpleNamespace

from distributed.comm import listen
from tornado.ioloop import IOLoop

from daskdml.runtime.spmd.dask_comm import Post


@contextlib.asynccontextmanager
async def worker(memory_limit=None):
    """The post of a worker that is nothing but a listener."""
    found = SimpleNamespace(memory_manager=SimpleNamespace(memory_limit=memory_limit), connection_args={})
    found.loop, post = IOLoop.current(), Post(found)

    async def handle(comm):
        opening = await comm.read()
        del opening["op"], opening["reply"]
        await post.take_in(comm, **opening)

    listener = await listen("tcp://127.0.0.1:0", handle)
    found.address = listener.contact_address
    try:
        yield post
    finally:
        listener.stop()


async def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
