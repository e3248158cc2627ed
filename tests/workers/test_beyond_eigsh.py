"""What else takes an executor: triplets, certificates, adaptive sketches, error estimates, densities: equal to serial."""

import json

import pytest
import torch
import worker_targets as targets
from hypothesis import given, settings, strategies as st
from typer.testing import CliRunner

import curvscope as cs
from curvscope.cli.main import app
from curvscope.errors import InvalidArgument
from curvscope.tall import gram

from .conftest import Immediate
from .test_products import same

QUIET = {"progress": False}
LANCZOS = {"num_probes": 3, "num_steps": 12, "method": "lanczos"}


class Counting(Immediate):
    done = 0

    def submit(self, function, *arguments):
        self.done += 1
        return super().submit(function, *arguments)


def workers(count):
    return cs.Workers(Counting(), count=count)


def rectangle(*, wide):
    return cs.Recipe(targets.rectangle, turned=wide).build()


@pytest.fixture(scope="module")
def serial():
    H = cs.Recipe(targets.spectrum).build()
    solution = cs.eigsh(H, 5, method="krylov", block_size=2, **QUIET)
    triplets = {wide: cs.svds(rectangle(wide=wide), 3, block_size=4, **QUIET) for wide in (False, True)}
    grown = {width: cs.adaptive_seigh(H, target=0.3, block_size=width, **QUIET) for width in (1, 7, 32)}
    spectrum = cs.density(H, **LANCZOS, deflate=solution, **QUIET)
    return solution, cs.certify(H, solution, **QUIET), triplets, grown, cs.posterior_error(H, solution, **QUIET), spectrum


@settings(max_examples=8, deadline=None)
@given(count=st.integers(1, 6), width=st.sampled_from([1, 7, 32]), wide=st.booleans())
def test_equal_to_serial_results_for_any_number_of_workers(serial, count, width, wide):
    solution, certified, triplets, grown, error, spectrum = serial
    H, executor = cs.Recipe(targets.spectrum).build(), workers(count)
    again = cs.certify(H, solution, executor=executor, **QUIET)
    scale = float(solution.eigenvalues.abs().max())
    assert torch.allclose(again.residual_norms, certified.residual_norms, rtol=1e-6, atol=1e-12 * scale)
    assert again.certificate.tail.bound == pytest.approx(certified.certificate.tail.bound, rel=1e-9)
    assert again.certificate.complete == certified.certificate.complete
    assert again.cost.certificate_products == certified.cost.certificate_products
    found, expected = cs.svds(rectangle(wide=wide), 3, block_size=4, executor=executor, **QUIET), triplets[wide]
    assert torch.allclose(found.S, expected.S, rtol=1e-12)
    for side in ("U", "V"):
        overlaps = gram(getattr(found, side), getattr(expected, side)).diagonal()
        assert float((overlaps - 1).abs().max()) <= 1e-9
    assert found.cost.products == expected.cost.products
    same(cs.adaptive_seigh(H, target=0.3, block_size=width, executor=executor, **QUIET), grown[width], 1e-10)
    estimate = cs.posterior_error(H, solution, block_size=width, executor=executor, **QUIET)
    assert estimate.error == pytest.approx(error.error, rel=1e-10)
    assert estimate.norm == pytest.approx(error.norm, rel=1e-10)
    again = cs.density(H, **LANCZOS, deflate=solution, executor=executor, **QUIET)
    assert torch.allclose(again.nodes, spectrum.nodes, atol=1e-9 * scale)
    assert again.products == spectrum.products
    assert executor._engine.executor.done > 0


@pytest.mark.parametrize("method", ["krylov", "xtrace", "hutch++", "hutchinson"])
@pytest.mark.parametrize("count", [1, 3])
def test_traces_diagonals_and_norms_are_those_of_one_process(serial, method, count):
    H, executor = cs.Recipe(targets.spectrum).build(), workers(count)
    options = {"method": method, "max_products": 30, **QUIET}
    alone, together = cs.trace(H, **options), cs.trace(H, **options, executor=executor)
    assert together.value == pytest.approx(alone.value, rel=1e-9)
    assert together.stderr == pytest.approx(alone.stderr, rel=1e-6)
    assert together.products == alone.products
    assert executor._engine.executor.done >= count
    same = cs.diagonal(H, **options, executor=executor).value
    assert torch.allclose(same, cs.diagonal(H, **options).value, rtol=1e-8, atol=1e-10)
    norm = cs.frobenius_norm(H, max_products=20, deflate=serial[0], executor=executor, **QUIET)
    assert norm.value == pytest.approx(cs.frobenius_norm(H, max_products=20, deflate=serial[0], **QUIET).value, rel=1e-10)


def test_blocks_of_triplets_leave_no_worker_idle():
    assert cs.svds(rectangle(wide=True), 3, executor=workers(3), **QUIET).provenance["options"]["block_size"] == 3


@pytest.mark.slow  # half a minute; test_processes.py has real ones, too
def test_real_processes(dask_workers):
    H = cs.Recipe(targets.spectrum).build()
    solution = cs.eigsh(H, 3, **QUIET)
    found = cs.posterior_error(H, solution, num_probes=4, executor=dask_workers, **QUIET)
    assert found.error == pytest.approx(cs.posterior_error(H, solution, num_probes=4, **QUIET).error, rel=1e-10)


def test_an_operator_that_cannot_be_built_elsewhere_is_refused_before_any_product():
    A = cs.as_operator(torch.eye(40))
    solution = cs.eigsh(A, 2, **QUIET)
    for work in (
        lambda: cs.svds(A, 2, executor=workers(2)),
        lambda: cs.certify(A, solution, executor=workers(2)),
        lambda: cs.adaptive_seigh(A, executor=workers(2)),
        lambda: cs.posterior_error(A, solution, executor=workers(2)),
        lambda: cs.density(A, executor=workers(2)),
        lambda: cs.trace(A, max_products=20, executor=workers(2)),
        lambda: cs.frobenius_norm(A, executor=workers(2)),
    ):
        with pytest.raises(InvalidArgument, match=r"cs\.Recipe"):
            work()


def test_a_run_is_certified_and_its_density_measured_by_workers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hired = []
    monkeypatch.setattr(cs.Workers, "processes", lambda count: hired.append(workers(count)) or hired[-1])

    def typed(*arguments):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert done.exit_code == 0, done.output
        return done.output

    typed("eigs", "-k", 4, "--method", "krylov", "--target", "worker_targets:spectrum", "--out", "run")
    alone = json.loads(typed("certify", "run", "--json"))
    found = json.loads(typed("certify", "run", "--workers", 2, "--json"))
    assert hired[0]._engine.executor.done > 20
    assert found["complete"] == alone["complete"]
    assert found["tail_norm"] == pytest.approx(alone["tail_norm"], rel=1e-9)
    lanczos = ("--probes", 2, "--steps", 8, "--method", "lanczos", "--json")
    alone = json.loads(typed("density", "run", *lanczos))
    found = json.loads(typed("density", "run", *lanczos, "--workers", 2))
    assert found["range"] == pytest.approx(alone["range"], rel=1e-9)
    assert hired[1]._engine.executor.done >= 8
    hutchinson = ("--method", "hutchinson", "--max-products", 20, "--norms", "--json")
    alone = json.loads(typed("trace", "run", *hutchinson))
    found = json.loads(typed("trace", "run", *hutchinson, "--workers", 2))
    for name in ("trace", "frobenius_norm"):
        assert found[name]["value"] == pytest.approx(alone[name]["value"], rel=1e-9)
    assert hired[2]._engine.executor.done >= 2
    refused = CliRunner().invoke(app, ["trace", "--problem", "mnist16", "--workers", "2"])
    assert "workers build a --target or the operator of a RUN" in str(refused.exception)
