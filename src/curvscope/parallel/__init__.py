"""Tasks on other processes: pools, Dask clusters, batch jobs, and who may reach them."""

from curvscope.parallel._clusters import BATCH_SYSTEMS
from curvscope.parallel._credentials import Credentials
from curvscope.parallel._shares import evenly
from curvscope.parallel._workers import Task, Workers, as_workers

__all__ = [
    "BATCH_SYSTEMS",
    "Credentials",
    "Task",
    "Workers",
    "as_workers",
    "evenly",
]
