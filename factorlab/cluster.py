"""Clusters: a Dask or Ray address to a connection that `factorlab.batch` runs tasks on."""

from __future__ import annotations

import functools
import logging
import socket
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from factorlab.cluster_backend import ClusterBackend, ClusterLost, WorkerLost, short
from factorlab.errors import InputError
from factorlab.worker import facts

PORTS = {"dask": 8786, "ray": 10001}
"""Default ports of a Dask scheduler and of Ray's server for clients."""

TIMEOUT = 10.0
"""Seconds to wait for a scheduler, and for its first worker."""

RAY_TIMEOUT = 60.0
"""Seconds to wait for a first worker process of Ray, which starts them when asked."""


class Address(NamedTuple):
    """A cluster's address in its parts."""

    kind: str
    host: str
    port: int


class Cluster(NamedTuple):
    """A connection.

    Attributes
    ----------
    backend : ClusterBackend
        For `joblib.parallel_config`, with a batch size of 1.
    share : callable
        Sends an object to the cluster once; what it gives back may stand for it as an argument.
    slots : int
        Tasks that run at once.
    notes : tuple of str
    """

    backend: ClusterBackend
    share: Callable[[Any], Any]
    slots: int
    notes: tuple[str, ...] = ()


def parse_address(url: str) -> Address:
    """Kind, host and port of ``dask://host:port`` or ``ray://host:port``.

    Raises
    ------
    InputError
        Another scheme, no host, or a port that is no number.
    """
    form = "give dask://host:port or ray://host:port"
    parts = urlsplit(url)
    if parts.scheme not in PORTS:
        raise InputError(f"cluster '{url}' is of no known kind; {form}")
    try:
        port = parts.port
    except ValueError:
        raise InputError(f"cluster '{url}' has a port that is no number below 65536; {form}") from None
    if not parts.hostname or parts.path.strip("/"):
        raise InputError(f"cluster '{url}' is no address; {form}")
    return Address(parts.scheme, parts.hostname, port if port is not None else PORTS[parts.scheme])


@contextmanager
def connect(url: str) -> Iterator[Cluster]:
    """A connection for the time of the block.

    Parameters
    ----------
    url : str
        ``dask://host:port`` of a scheduler, or ``ray://host:port`` of Ray's server for clients.

    Raises
    ------
    InputError
        Wrong address, missing library, nothing that answers within seconds, no workers, workers
        without this version of factorlab or with another Python.
    """
    address = parse_address(url)
    _check_installed(address)
    _check_answers(url, address)
    with (_dask if address.kind == "dask" else _ray)(url, address) as cluster:
        yield cluster


def check_facts(url: str, found: set[tuple[str, str]]) -> None:
    """Refuse workers that have another Python or another factorlab."""
    here = facts()
    for python, version in sorted(found - {here}):
        raise InputError(
            f"a worker of {url} has Python {python} with factorlab {version}, here it is Python {here[0]} "
            f"with factorlab {here[1]}; install the same on all"
        )


def _check_installed(address: Address) -> None:
    try:
        if address.kind == "dask":
            import distributed  # noqa: F401
        else:
            import ray  # noqa: F401
    except ImportError as error:
        extra = {"dask": "cluster", "ray": "ray"}[address.kind]
        raise InputError(
            f"{address.kind}:// needs {address.kind.capitalize()}, which is not installed ({error}): "
            f"pip install 'factorlab[{extra}]'"
        ) from None


def _check_answers(url: str, address: Address) -> None:
    try:
        with socket.create_connection((address.host, address.port), timeout=TIMEOUT) as line:
            if address.kind == "dask":  # a scheduler speaks first; its client would wait for ever
                line.recv(1)
    except OSError as error:
        raise InputError(
            f"no cluster answers at {url} ({error.strerror or error}); check the address, or start it first"
        ) from None


def _same(value: Any) -> Any:
    return value


@contextmanager
def _dask(url: str, address: Address) -> Iterator[Cluster]:
    from distributed import Client
    from distributed.scheduler import KilledWorker

    with ExitStack() as stack:
        for name in [n for n in logging.root.manager.loggerDict if n.split(".")[0] == "distributed"]:
            log = logging.getLogger(name)
            stack.callback(log.setLevel, log.level)
            log.setLevel(logging.CRITICAL)  # what goes wrong is told once, below
        try:
            client = Client(f"tcp://{address.host}:{address.port}", timeout=TIMEOUT, set_as_default=False)
        except Exception as error:  # OSError, TimeoutError, ImportError of a version that does not match
            raise InputError(f"what answers at {url} is no Dask scheduler ({short(error)})") from None
        stack.callback(client.close, timeout=2)
        notes = _check_dask_workers(url, client)

        def result(future: Any) -> Any:
            try:
                return future.result()
            except CancelledError:
                raise ClusterLost(f"the scheduler at {url} is gone") from None
            except KilledWorker:
                raise WorkerLost("every worker that Dask gave it to died") from None

        slots = sum(client.nthreads().values())
        backend = ClusterBackend(
            lambda function, *arguments: client.submit(function, *arguments, pure=False),
            result,
            lambda future: future.cancel(),
            slots,
        )
        stack.callback(backend.close)

        def share(value: Any) -> Any:
            # A task's result, not scattered data: those are gone when the worker that has them dies.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a large graph
                return client.submit(_same, value, pure=False)

        yield Cluster(backend, share, slots, notes)


def _check_dask_workers(url: str, client: Any) -> tuple[str, ...]:
    """Wait for a worker, see that all can run factorlab; what to know of them."""
    try:
        client.wait_for_workers(1, timeout=TIMEOUT)
    except Exception:
        raise InputError(f"the scheduler at {url} has no workers; start some with: dask worker") from None
    try:
        found = set(client.run(facts).values())
    except Exception as error:
        raise InputError(
            f"the workers of {url} cannot run factorlab ({short(error)}); install the same version there"
        ) from None
    check_facts(url, found)
    threads = max(client.nthreads().values())
    if threads > 1:
        return (
            f"A worker process of {url} has {threads} threads; fits run one at a time in each process: start "
            "workers with --nthreads 1.",
        )
    return ()


@contextmanager
def _ray(url: str, address: Address) -> Iterator[Cluster]:
    import ray

    if ray.is_initialized():
        raise InputError(f"this process has a connection to Ray already; end it before connecting to {url}")
    with ExitStack() as stack:
        _init_ray(url, address)
        stack.callback(ray.shutdown)
        try:
            asked = ray.remote(num_cpus=0, max_retries=0)(facts).remote()
            found = ray.get(asked, timeout=RAY_TIMEOUT)
        except Exception as error:
            raise InputError(
                f"the workers of {url} cannot run factorlab ({short(error)}); install the same version there"
            ) from None
        check_facts(url, {found})
        slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
        references: dict[Any, Any] = {}
        remote = functools.cache(ray.remote(num_cpus=1, max_retries=0))

        def send(function: Callable[..., Any], *arguments: Any) -> Any:
            reference = remote(function).remote(*arguments)
            future = reference.future()
            references[future] = reference
            return future

        def result(future: Any) -> Any:
            references.pop(future, None)
            try:
                return future.result()
            except (ConnectionError, CancelledError):
                raise ClusterLost(f"the Ray server at {url} is gone") from None
            except ray.exceptions.WorkerCrashedError:
                raise WorkerLost("its worker process died") from None

        def cancel(future: Any) -> None:
            if future in references:
                ray.cancel(references.pop(future), force=True)

        backend = ClusterBackend(send, result, cancel, slots)
        stack.callback(backend.close)
        yield Cluster(backend, ray.put, slots)


def _init_ray(url: str, address: Address) -> None:
    """Connect; twice, as on a busy machine the server that Ray starts for a client may come too late."""
    import ray

    for last in (False, True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(
                    address=f"ray://{address.host}:{address.port}",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            return
        except Exception as error:
            ray.shutdown()
            if last or not isinstance(error, ConnectionAbortedError):
                raise InputError(
                    f"what answers at {url} is no Ray server for clients, or one in trouble ({short(error)})"
                ) from None
