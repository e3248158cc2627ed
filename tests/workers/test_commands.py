"""The options that hire workers, as a person types them."""

import importlib
import json
from pathlib import Path

import pytest
import worker_targets as targets
from typer.testing import CliRunner

import curvscope as cs
from curvscope.cli.main import app
from curvscope.errors import CurvscopeError, InvalidArgument

from .conftest import Immediate

planning = importlib.import_module("curvscope.solvers.planning._plan")  # the package has a function of that name
TARGET = ("--target", "worker_targets:spectrum")


@pytest.fixture
def eigs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=0):
        done = CliRunner().invoke(app, ["eigs", *(str(argument) for argument in arguments), "--out", "run"])
        if isinstance(done.exception, CurvscopeError):
            raise done.exception
        assert done.exit_code == status, done.output
        return done.output

    return run


def hired(monkeypatch):
    monkeypatch.setattr(cs.Workers, "processes", lambda count: cs.Workers(Immediate(), count=count))


def test_workers_on_this_machine(eigs, monkeypatch, tmp_path):
    hired(monkeypatch)
    found = json.loads(eigs("-k", 4, "--method", "krylov", *TARGET, "--workers", 3, "--json"))
    alone = cs.eigsh(targets.spectrum(), 4, method="krylov", block_size=3, progress=False)  # one column for each worker
    assert found["eigenvalues"] == pytest.approx(alone.eigenvalues.tolist(), rel=1e-10)
    session = json.loads((tmp_path / "run" / "manifest.json").read_text())["sessions"][-1]
    assert session["workers"]["workers"] == 3


def test_a_run_goes_on_with_the_workers_of_a_scheduler(eigs, dask_workers):
    address = dask_workers._engine.client.scheduler.address
    eigs("-k", 4, "--method", "krylov", "--max-products", 12, "--tol", 1e-6, *TARGET, status=1)
    eigs("-k", 4, "--method", "krylov", "--max-products", 200, "--tol", 1e-6, *TARGET, "--scheduler", address)
    sessions = json.loads(Path("run/manifest.json").read_text())["sessions"]
    assert [session.get("workers", {}).get("engine") for session in sessions] == [None, "dask.distributed"]


def test_workers_read_a_problems_parameters_from_the_run(eigs, monkeypatch, tmp_path):
    hired(monkeypatch)
    problem = ("-k", 2, "--problem", "mnist16", "--step", 1, "--method", "krylov", "--max-products", 6, "--tol", 0)
    eigs(*problem, "--workers", 2, status=1)
    eigs(*problem, "--workers", 2, status=1)
    assert (tmp_path / "run" / "parameters.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--workers", 2, "--scheduler", "tcp://a:1"), "--workers and --scheduler: pass one"),
        (("--workers", 0), "--workers 0"),
        (("--cluster", "slurm"), "go together"),
        (("--jobs", 3), "go together"),
        (("--cluster", "cloud", "--jobs", 3), "choose one of slurm, pbs, sge, lsf"),
        (("--cluster-config", "jobs.yaml"), "is for --cluster"),
        (("--cluster", "pbs", "--jobs", 1, "--cluster-config", "missing.yaml"), "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything(eigs, tmp_path, options, message):
    with pytest.raises(InvalidArgument, match=message):
        eigs("-k", 4, *TARGET, *options)
    assert not (tmp_path / "run").exists()


def test_settings_of_a_cluster_come_from_a_file(eigs, monkeypatch, tmp_path):
    asked = {}

    def cluster(kind, *, jobs, settings):
        asked.update(kind=kind, jobs=jobs, settings=settings)
        return cs.Workers(Immediate(), count=jobs)

    monkeypatch.setattr(cs.Workers, "cluster", cluster)
    (tmp_path / "jobs.yaml").write_text("cores: 16\nmemory: 64GB\nworker-extra-args: [--death-timeout, '60']\n")
    eigs("-k", 2, *TARGET, "--cluster", "slurm", "--jobs", 15, "--cluster-config", "jobs.yaml")
    extra = {"cores": 16, "memory": "64GB", "worker_extra_args": ["--death-timeout", "60"]}
    assert asked == {"kind": "slurm", "jobs": 15, "settings": extra}


def test_a_file_with_something_else(eigs, tmp_path):
    (tmp_path / "jobs.yaml").write_text("- cores\n")
    with pytest.raises(InvalidArgument, match="got list"):
        eigs("-k", 2, *TARGET, "--cluster", "slurm", "--jobs", 15, "--cluster-config", "jobs.yaml")


def test_a_plan_with_workers(monkeypatch):
    """Products of 10 ms each: as many times faster as a block has parts, the rounding up counted."""
    monkeypatch.setattr(planning.Timing, "at", lambda timing, width: (0.01, 0))
    monkeypatch.setattr(planning.Timing, "wire_seconds", lambda timing: 0.001)
    H = cs.problems.spectrum("power", 3000)
    sizes = {"method": "krylov", "block_size": 6, "tol": 0, "max_products": 60}
    alone, four = (cs.plan(H, 20, **sizes, workers=count) for count in (1, 4))
    assert alone["krylov"].stages["products"] == pytest.approx(0.01 * (60 + 20))
    assert four["krylov"].stages["products"] == pytest.approx(0.01 * (60 / 3 + 20 / 4))
    assert four["krylov"].stages["wire"] == pytest.approx(0.001 * (60 + 20))
    assert "4 workers" in str(four)
    assert cs.Plan.from_dict(four.to_dict()) == four
    assert cs.plan(H, 20, method="krylov", workers=3)["krylov"].block_size % 3 == 0
    with pytest.raises(InvalidArgument, match="workers=0"):
        cs.plan(H, 20, workers=0)


def test_data_in_shards(eigs, monkeypatch):
    hired(monkeypatch)
    found = json.loads(eigs("-k", 3, "--target", "worker_targets:shard", "--shards", 3, "--workers", 2, "--json"))
    assert found["eigenvalues"] == pytest.approx(cs.eigsh(targets.shard(), 3, progress=False).eigenvalues.tolist(), rel=1e-8)
    with pytest.raises(InvalidArgument, match="--shards is for --target"):
        eigs("-k", 3, "--target", "worker_targets:shard", "--shards", 3)
