"""Options that say who computes the products, and the workers that these open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curvscope.errors import InvalidArgument, MissingExtra

if TYPE_CHECKING:
    from curvscope.parallel import Workers

PANEL = "Who computes the products"
CLUSTERS = "slurm, pbs, sge, lsf"
WorkerCount = Annotated[
    int | None,
    typer.Option("--workers", rich_help_panel=PANEL, help="Processes on this machine that compute the products, one a GPU."),
]
SchedulerAddress = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        rich_help_panel=PANEL,
        help="A Dask scheduler whose workers compute the products, such as tls://host:8786.",
    ),
]
BatchSystem = Annotated[
    str | None,
    typer.Option("--cluster", rich_help_panel=PANEL, help=f"Workers as batch jobs, with --jobs: {CLUSTERS}."),
]
JobCount = Annotated[int | None, typer.Option("--jobs", rich_help_panel=PANEL, help="How many batch jobs.")]
ClusterConfig = Annotated[
    Path | None,
    typer.Option(
        "--cluster-config",
        rich_help_panel=PANEL,
        help="YAML file with dask-jobqueue's settings for a job: cores, memory, queue, ...",
    ),
]


@dataclass(frozen=True)
class WorkerOptions:
    """Options of the command line that name who computes; contradicting ones are refused.

    Raises:
        InvalidArgument: more than one kind of workers, jobs without a cluster or the other way round, an unreadable file.
    """

    workers: WorkerCount = None
    scheduler: SchedulerAddress = None
    cluster: BatchSystem = None
    jobs: JobCount = None
    cluster_config: ClusterConfig = None

    def __post_init__(self) -> None:
        given = [name for name in ("workers", "scheduler", "cluster") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InvalidArgument(f"--{given[0]} and --{given[1]}: pass one of them")
        if (self.cluster is None) != (self.jobs is None):
            raise InvalidArgument("--cluster and --jobs go together: --cluster slurm --jobs 15")
        if self.cluster_config is not None and self.cluster is None:
            raise InvalidArgument("--cluster-config is for --cluster: leave it out, or say which batch system")
        if self.workers is not None and self.workers < 1:
            raise InvalidArgument(f"--workers {self.workers}: choose at least 1")
        if self.jobs is not None and self.jobs < 1:
            raise InvalidArgument(f"--jobs {self.jobs}: choose at least 1")
        if self.cluster is not None and self.cluster not in CLUSTERS.split(", "):
            raise InvalidArgument(f"--cluster {self.cluster!r}: choose one of {CLUSTERS}")
        if self.cluster_config is not None:
            settings_in(self.cluster_config)

    @property
    def is_local(self) -> bool:
        """True if this process computes alone."""
        return self.workers is None and self.scheduler is None and self.cluster is None

    def check_source(self, problem: str | None) -> None:
        """Raise InvalidArgument for workers with a problem that is in no run: they could not build its operator."""
        if not self.is_local and problem is not None:
            raise InvalidArgument("workers build a --target or the operator of a RUN: make one with `curvscope eigs --problem`")

    @contextmanager
    def executor(self) -> Iterator[Workers | None]:
        """The workers, let go of at the end; None if nobody was asked for."""
        from curvscope.parallel import Workers
        from curvscope.runs import is_built_in_all

        if is_built_in_all() and not self.is_local:
            raise InvalidArgument("--workers, --scheduler, --cluster: torchrun has started the processes that compute already")
        if self.workers is not None:
            made = Workers.processes(self.workers)
        elif self.scheduler is not None:
            made = Workers.scheduler(self.scheduler)
        elif self.cluster is not None and self.jobs is not None:
            settings = None if self.cluster_config is None else settings_in(self.cluster_config)
            kind: Any = self.cluster  # one of CLUSTERS
            made = Workers.cluster(kind, jobs=self.jobs, settings=settings)
        else:
            yield None
            return
        with made:
            yield made


def settings_in(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InvalidArgument: there is no such file, or something else in it. MissingExtra: Dask, which brings YAML, is missing.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("--cluster-config needs PyYAML: pip install 'curvscope[dask]'") from error
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidArgument(f"--cluster-config {file}: cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise InvalidArgument(f"--cluster-config {file}: expected lines such as 'cores: 16', got {type(found).__name__}")
    return {str(name).replace("-", "_"): value for name, value in found.items()}
