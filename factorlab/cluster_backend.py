"""joblib's view of a cluster: each call is a future, and one whose worker died comes back as lost.

joblib's own backends for the two are not used. That for Dask waits for ever on a task whose workers
died (joblib 1.6, `DaskDistributedBackend._collect` tells nobody of an error); that for Ray gives no
result before all tasks have ended and does not replace a worker that died. Both libraries say by
themselves which task was lost, so their futures are handed to `joblib.Parallel` here.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from joblib.parallel import ParallelBackendBase


class ClusterLost(Exception):
    """The connection to the cluster ended; what had not ended by then is unknown."""


class WorkerLost(Exception):
    """One task did not come back, because its worker died."""


class ClusterBackend(ParallelBackendBase):
    """Hands each call of a `joblib.Parallel` to a cluster as a future.

    The first argument of a call is its name; a call is to return its name and an outcome, and
    (name, ("lost", reason)) stands for one that did not return.

    Parameters
    ----------
    send : callable
        (function, *arguments) to a future with ``add_done_callback``.
    result : callable
        Ended future to the call's result; raises `ClusterLost` where the cluster is gone, and whatever
        else where this one call was lost.
    cancel : callable
        Takes a future that is no longer wanted.
    slots : int
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(
        self,
        send: Callable[..., Any],
        result: Callable[[Any], Any],
        cancel: Callable[[Any], Any],
        slots: int,
    ) -> None:
        super().__init__()
        self._send, self._result, self._cancel, self._slots = send, result, cancel, slots
        self._open: dict[Any, str] = {}
        # Callbacks of both libraries come from threads that must not wait for the cluster.
        self._ending = ThreadPoolExecutor(1, thread_name_prefix="factorlab-cluster")

    def effective_n_jobs(self, n_jobs: int) -> int:
        return max(2, self._slots)  # of one, joblib would run the tasks in this process

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Any, callback: Callable[[Any], Any] | None = None) -> Any:
        [(function, arguments, _)] = func.items
        try:
            future = self._send(function, *arguments)
        except Exception as error:  # may be in a thread of joblib's, where nobody would see it
            future = Future()
            future.set_exception(ClusterLost(f"a task cannot be sent to the cluster ({short(error)})"))
        self._open[future] = arguments[0]
        future.add_done_callback(lambda ended: self._hand_over(ended, callback))
        return future

    def _hand_over(self, future: Any, callback: Callable[[Any], Any] | None) -> None:
        with suppress(RuntimeError):  # closed: nobody waits for it
            self._ending.submit(self._end, future, callback)

    def _end(self, future: Any, callback: Callable[[Any], Any] | None) -> None:
        name = self._open.pop(future, None)
        if callback is not None and name is not None:
            callback((name, future))

    def retrieve_result_callback(self, out: Any) -> list[Any]:
        name, future = out
        try:
            return [self._result(future)]
        except ClusterLost:
            raise
        except Exception as error:
            return [(name, ("lost", str(error) if isinstance(error, WorkerLost) else short(error)))]

    def abort_everything(self, ensure_ready: bool = True) -> None:
        for future in list(self._open):
            self._cancel(future)
        self._open.clear()

    def close(self) -> None:
        self._ending.shutdown(wait=False, cancel_futures=True)


def short(error: BaseException) -> str:
    """The kind of an error and the beginning of what it says, in one line."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
