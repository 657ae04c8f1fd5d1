"""One BLAS thread while fits run: threads take blocks, and sums inside BLAS must not depend on its thread count."""

import contextlib
import os
import sys
import threading

_lock = threading.Lock()
_users = 0
_limiter = None
_controller = None
_n_modules = 0


@contextlib.contextmanager
def one_blas_thread():
    """Limit BLAS to one thread inside a ``with`` block.

    Notes
    -----
    The limit belongs to the whole process, so entries of concurrent fits are counted: the first one sets the limit, the
    last one to leave restores what was there. About 15 microseconds once the libraries are known.

    Examples
    --------
    >>> with one_blas_thread():
    ...     pass
    """
    global _users, _limiter
    with _lock:
        if _users == 0:
            _limiter = _get_controller().limit(limits=1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limiter.restore_original_limits()
                _limiter = None


def _get_controller():
    """Return what controls the loaded BLAS libraries; looking for them costs 1.5 ms, so only after new imports."""
    global _controller, _n_modules
    if _controller is None or _n_modules != len(sys.modules):
        from threadpoolctl import ThreadpoolController

        _controller = ThreadpoolController()
        _n_modules = len(sys.modules)
    return _controller


def _forget_lock():
    """Replace the lock after fork: another thread of the parent may have held it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)
