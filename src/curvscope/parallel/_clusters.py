"""Dask clusters: a scheduler that runs already, or jobs of a batch system. Dask is imported when asked for."""

from __future__ import annotations

import ipaddress
import logging
import os
import queue
import shlex
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import SplitResult, urlsplit

from curvscope.errors import InvalidArgument, MissingExtra
from curvscope.parallel._credentials import Credentials

log = logging.getLogger(__name__)

BATCH_SYSTEMS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
PATIENCE = 10.0
"""Seconds to wait for a scheduler."""
LONGEST_GREETING = 1 << 20
"""Bytes; that of distributed 2026.1 has some hundred. Other protocols give numbers of 19 digits."""
DEFAULT_PORT = 8786
"""Of Dask's scheduler."""
SECONDS_TO_SUBMIT = 60.0
"""Seconds that a batch system may take to accept a job."""
PRIVATE_SCRATCH = (
    # Dask keeps scratch files in a folder of a fixed name in /tmp, and looks for modules there: another user may have made it.
    'export DASK_TEMPORARY_DIRECTORY="$(mktemp -d)"',
    "trap 'rm -rf \"$DASK_TEMPORARY_DIRECTORY\"' EXIT",
    "export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'",
)
"""Lines of a job script, for a POSIX shell."""
Closing = Callable[[], None]


def scheduler(address: str) -> tuple[Any, Closing]:
    """Return a client of the scheduler at an address, and what ends the connection (not the scheduler).

    Dask's own configuration says how to connect: certificates for ``tls://``, and whether encryption is required.
    """
    distributed = _imported("distributed")
    try:
        if is_open_to_others(address):
            log.warning(
                "%s is not encrypted: whoever reaches that port can run code as the owner of the scheduler and its workers; "
                "use a tls:// address",
                address,
            )
        _check_encryption(address)
        _check_listens(address)
        client = distributed.Client(address, timeout=PATIENCE, direct_to_workers=True)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise InvalidArgument(
            f"no Dask scheduler answers at {address!r} ({error or type(error).__name__}): pass the address that "
            "`dask scheduler` prints, such as tls://10.0.0.1:8786; "
            "tls:// needs certificates in Dask's configuration (distributed.comm.tls)"
        ) from error
    return client, client.close


def is_open_to_others(address: str) -> bool:
    """Return whether an address is unencrypted and not of this machine alone.

    >>> [is_open_to_others(a) for a in ("tcp://10.0.0.1:8786", "10.0.0.1:8786", "tls://10.0.0.1:8786", "tcp://127.0.0.1:1")]
    [True, True, False, False]
    """
    parts = _parts(address)
    if parts.scheme in ("tls", "wss", "inproc"):
        return False
    host = parts.hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _parts(address: str) -> SplitResult:
    return urlsplit(address if "://" in address else f"tcp://{address}")


def _check_encryption(address: str) -> None:
    """Raise ValueError where Dask's configuration demands encryption of an address that has none; nobody is called."""
    demanded = _imported("dask").config.get("distributed.comm.require-encryption", None)
    if demanded and _parts(address).scheme not in ("tls", "wss"):
        raise ValueError("encryption required by Dask's configuration, distributed.comm.require-encryption")


def _check_listens(address: str) -> None:
    """Raise OSError at once where nobody listens, or somebody else: Dask would try again in silence, or wait for ever.

    A scheduler greets who connects by tcp://, with the length of its greeting first.
    """
    parts = _parts(address)
    if parts.scheme not in ("tcp", "tls") or not parts.hostname:
        return
    with socket.create_connection((parts.hostname, parts.port or DEFAULT_PORT), timeout=PATIENCE) as connection:
        if parts.scheme == "tcp":
            greeting = connection.recv(8, socket.MSG_WAITALL)
            if len(greeting) < 8 or int.from_bytes(greeting, "little") > LONGEST_GREETING:
                raise OSError("what listens there is no Dask scheduler")


def cluster(kind: str, jobs: int, settings: dict[str, Any]) -> tuple[Any, Closing, int | None]:
    """Return a client of so many batch jobs, what ends them, and the threads of a worker where the settings tell.

    Scheduler and workers accept only who has the credentials of this call: those in Dask's configuration
    (``distributed.comm.tls``) or in ``settings["security"]``, else temporary ones, see :class:`.Credentials`.
    """
    if kind not in BATCH_SYSTEMS:
        raise InvalidArgument(f"cluster {kind!r}: choose one of {', '.join(BATCH_SYSTEMS)}")
    distributed = _imported("distributed")
    made = getattr(_imported("dask_jobqueue", "dask-jobqueue"), BATCH_SYSTEMS[kind])
    _check_submits(kind, made.job_cls)
    settings.setdefault("processes", 1)
    # One product at a time: the threads are PyTorch's, not Dask's.
    extra = [*settings.get("worker_extra_args", []), "--nthreads", "1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    settings["worker_extra_args"] = extra
    settings["job_script_prologue"] = [*PRIVATE_SCRATCH, *(settings.get("job_script_prologue") or _prologue_of(kind))]
    security, remove = _security(kind, settings)
    scratch = Path(tempfile.mkdtemp(prefix="curvscope-"))
    outcomes: queue.Queue[Exception | None] = queue.Queue()
    asked = None

    def close() -> None:
        """End the jobs, and remove keys and scratch files."""
        try:
            if asked is not None:
                asked.close()
        finally:
            remove()
            shutil.rmtree(scratch, ignore_errors=True)

    try:
        with _private_scheduler(settings, scratch):
            asked = made(**settings, security=security, job_cls=_private_job(made.job_cls, scratch, outcomes))
        if not settings["scheduler_options"].get("dashboard"):
            asked.loop.add_callback(asked.scheduler.http_server.stop)  # Dask serves pages even without a dashboard
        asked.scale(jobs=jobs)
        _await_submission(kind, jobs, outcomes)
        client = distributed.Client(asked, direct_to_workers=True)
    except (TypeError, ValueError, OSError) as error:
        close()
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"the settings for {kind} do not work ({error}): see dask-jobqueue's {made.__name__}") from error
    except BaseException:
        close()
        raise

    def close_all() -> None:
        """Close the client, then the jobs."""
        try:
            client.close()
        finally:
            close()

    threads = settings["cores"] // settings["processes"] if "cores" in settings else None
    return client, close_all, threads


def _check_submits(kind: str, job: Any) -> None:
    command = shlex.split(job.submit_command)[0]
    if shutil.which(command) is None:
        raise InvalidArgument(
            f"{kind} is not on this machine: there is no command {command!r}. Start from a login node of the cluster, or "
            f"choose another batch system ({', '.join(BATCH_SYSTEMS)})"
        )


def _security(kind: str, settings: dict[str, Any]) -> tuple[Any, Closing]:
    """Return the user's own credentials where there are some, else temporary ones, and what removes those."""
    from dask import config
    from distributed import Security

    if str(settings.get("protocol") or "tls://").rstrip(":/") != "tls":
        raise InvalidArgument(f"protocol {settings['protocol']!r}: batch jobs are reached by tls:// only; leave it out")
    settings["protocol"] = "tls://"
    given = settings.pop("security", None)
    if isinstance(given, Security):
        return given, _nothing
    if config.get("distributed.comm.tls.ca-file", None):
        return Security(require_encryption=True), _nothing
    shared = settings.pop("shared_temp_directory", None) or config.get(f"jobqueue.{kind}.shared-temp-directory", None)
    made = Credentials(shared)
    return made.security(), made.remove


@contextmanager
def _private_scheduler(settings: dict[str, Any], scratch: Path) -> Iterator[None]:
    """Inside, a scheduler starts without web pages, and with its scratch files in a folder of its own."""
    from dask import config

    options = settings.setdefault("scheduler_options", {})
    options.setdefault("dashboard", False)
    options.setdefault("dashboard_address", "127.0.0.1:0")
    private: dict[str, Any] = {"temporary-directory": str(scratch)}
    if not options["dashboard"]:
        private["distributed.scheduler.http.routes"] = []
    with config.set(private):
        yield


def _private_job(job: Any, scratch: Path, outcomes: queue.Queue[Exception | None]) -> Any:
    """Return a kind of job whose script lies in ``scratch`` and which reports how its submission ended."""

    class PrivateJob(job):
        @contextmanager
        def job_file(self) -> Iterator[str]:
            """Write the script where nobody else can exchange it before the batch system reads it."""
            descriptor, name = tempfile.mkstemp(suffix=".sh", dir=scratch)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(self.job_script())
            yield name

        async def start(self) -> None:
            """Submit the job."""
            try:
                await super().start()
            except Exception as error:  # noqa: BLE001 -- Dask would log it and wait for ever; the caller raises it
                outcomes.put(error)
            else:
                outcomes.put(None)

    PrivateJob.__name__ = job.__name__
    return PrivateJob


def _await_submission(kind: str, jobs: int, outcomes: queue.Queue[Exception | None]) -> None:
    for _ in range(jobs):
        try:
            error = outcomes.get(timeout=SECONDS_TO_SUBMIT)
        except queue.Empty:
            raise InvalidArgument(f"{kind} did not accept a job within {SECONDS_TO_SUBMIT:.0f} s: look at its queue") from None
        if error is not None:
            said = str(error).partition("stderr:")[2].strip() or str(error)
            raise InvalidArgument(f"{kind} refused a job ({said}): change the settings and run again") from error


def _prologue_of(kind: str) -> list[str]:
    from dask import config

    return list(config.get(f"jobqueue.{kind}.job-script-prologue", None) or [])


def _nothing() -> None:
    """Remove nothing: the credentials are the user's."""


def _imported(module: str, name: str = "Dask") -> ModuleType:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{name} is not installed: pip install 'curvscope[dask]'; on one machine Workers.processes(n) does without"
        ) from error
