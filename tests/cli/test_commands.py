"""The commands as a person runs them: what they print, write and refuse, and with which exit status."""

import errno
import json
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

import curvscope as cs
from curvscope.cli._output import print_json
from curvscope.cli.main import app
from curvscope.errors import InvalidArgument, RunConflict, RunNotFound, TargetNotFound
from curvscope.report import _figures as figures
from curvscope.store import Run
from curvscope.tall import OnDisk

TARGET = """
import torch
from torch import nn

def pair():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    return model, nn.CrossEntropyLoss(), [(torch.randn(20, 5), torch.arange(20) % 3)]

def matrix():
    return torch.diag(torch.tensor([4.0, -3.0, 2.0, 1.0]))

def slow_decay():
    return torch.diag(torch.linspace(1, 2, 3000))

def broken():
    raise KeyError("weights.pt")

def nothing():
    return 3

def two():
    return 1, 2

def nan_parameter():
    model, loss, data = pair()
    with torch.no_grad():
        model[0].weight[1, 2] = float("nan")
    return model, loss, data

def nan_loss():
    model, loss, data = pair()
    x, y = data[0]
    return model, loss, [(x, y), (x.clone().fill_(float("inf")), y)]

def empty():
    model, loss, _ = pair()
    return model, loss, []
"""


@pytest.fixture
def target(tmp_path, monkeypatch):
    name = f"experiment_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(TARGET)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda function: f"{name}:{function}"


def test_version_as_installed():
    run = subprocess.run(
        [sys.executable, "-m", "curvscope", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == f"curvscope {cs.__version__}\n"


def test_errors_reach_the_person_without_a_traceback(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "curvscope", "eigs", "-k", "3", "--problem", "minst", "--out", tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr == f"error: there is no problem 'minst': choose one of {', '.join(cs.problems.names())}, or hf:NAME\n"
    assert not (tmp_path / "run").exists()


def test_brackets_in_names_and_messages_are_no_markup(curvscope, tmp_path):
    (tmp_path / "bracketed.py").write_text(
        "import torch\ndef matrix():\n    return torch.eye(4)\ndef broken():\n    raise OSError('no [data] in [/data/x]')\n"
    )
    made = curvscope("eigs", "-k", 1, "--target", "bracketed:matrix", "--out", "run [a]")
    assert "certify run [a];" in made.output
    broken = [sys.executable, "-m", "curvscope", "eigs", "-k", "1", "--target", "bracketed:broken", "--out", "other"]
    run = subprocess.run(broken, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 2
    place = f"{tmp_path}/bracketed.py, line 5"
    assert run.stderr == f"error: target 'bracketed:broken': calling it failed at {place}: OSError: no [data] in [/data/x]\n"
    (tmp_path / "file").touch()
    assert "file is a file" in str(curvscope("eigs", "-k", 1, "--target", "bracketed:matrix", "--out", "file/run").error)


def test_the_way_of_a_run(curvscope, target, tmp_path):
    made = curvscope("eigs", "-k", 6, "--target", target("pair"), "--out", "run")
    assert made.status == 0
    assert "converged" in made.output
    solution = cs.open(tmp_path / "run")
    model, loss, data = sys.modules[target("pair").split(":")[0]].pair()
    dense = torch.linalg.eigvalsh(cs.hessian(model, loss, data, dtype=torch.float64) @ torch.eye(39, dtype=torch.float64))
    expected = dense[dense.abs().argsort(descending=True)[:6]]
    torch.testing.assert_close(solution.eigenvalues, expected, rtol=1e-4, atol=1e-6)

    shown = curvscope("overlap", "run", "--json")
    curve = cs.overlap(solution, cs.masks.by_magnitude(model))
    assert json.loads(shown.output)["overlap"] == pytest.approx(curve.value.tolist())
    assert "ratio" in curvscope("overlap", "run").output
    values = {}
    for mask in ("layerwise", "random", "best"):
        values[mask] = json.loads(curvscope("overlap", "run", "--mask", mask, "--json").output)["overlap"]
        assert (tmp_path / "run" / f"overlap-{mask}.json").exists()
    assert values["best"] == pytest.approx(cs.best_overlap(solution).value.tolist())
    assert values["layerwise"] == pytest.approx(cs.overlap(solution, cs.masks.layerwise_magnitude(model)).value.tolist())
    assert all(b >= v for b, v in zip(values["best"], curve.value.tolist(), strict=True))
    assert "pass one of RUN, --problem NAME" in str(curvscope("overlap", "run", "--problem", "mnist16").error)
    for asked in (("-k", 3), ("--probes", 4), ("--plan",)):
        dropped = curvscope("overlap", "run", *asked)
        assert dropped.status == 2
        assert "a RUN has its eigenvectors" in str(dropped.error)
    refused = curvscope("overlap", "run", "--mask", "smallest")
    assert refused.status == 2
    assert "choose one of magnitude, layerwise, random, best" in str(refused.error)

    assert curvscope("report", "run").status == 0
    html = (tmp_path / "run" / "report.html").read_text()
    assert html.count("<svg ") == 3
    info = json.loads(curvscope("info", "run", "--json").output)
    assert info["pairs"] == 6
    assert "report.html" in info["files"]

    # what the page says of the other eigenvalues is what was proven
    assert "the method looks for the largest" in html
    assert curvscope("certify", "run").status == 0
    certified = cs.open(tmp_path / "run")
    assert curvscope("report", "run").status == 0
    html = (tmp_path / "run" / "report.html").read_text()
    assert f"Grey: the others, {figures.others(certified)};" in html
    assert "`" not in html.split("</style>")[1].split("<script>")[0]


def test_json_of_eigs(curvscope, target):
    result = json.loads(curvscope("eigs", "-k", 2, "--target", target("matrix"), "--out", "run", "--json").output)
    assert result["eigenvalues"] == pytest.approx([4, -3])
    assert result["status"] == "converged"
    # an operator without a model has no parameters to make a mask of, and its report does without
    assert curvscope("report", "run").status == 0
    overlap = curvscope("overlap", "run")
    assert overlap.status == 2
    assert "was not built from a model" in str(overlap.error)


def test_unconverged_pairs_are_kept_and_exit_with_1(curvscope, target, tmp_path):
    made = curvscope(
        "eigs",
        "-k",
        20,
        "--method",
        "krylov",
        "--tol",
        "1e-6",
        "--max-products",
        40,
        "--target",
        target("slow_decay"),
        "--out",
        "run",
    )
    assert made.status == 1
    assert "raise --max-products" in made.output
    assert cs.open(tmp_path / "run").k == 20


def test_problem_at_a_step(curvscope, tmp_path):
    made = curvscope("eigs", "-k", 3, "--problem", "mnist16", "--step", 2, "--split", "test", "--matrix", "ggn", "--out", "run")
    assert made.status == 0
    solution = cs.open(tmp_path / "run")
    assert solution.provenance["operator"] == "GeneralizedGaussNewton"
    problem = cs.problems.get("mnist16")
    model, recorder = problem.model(), cs.Recorder(problem.model(), [2])
    from curvscope.training import train

    train(problem, model, cs.Recorder(model, [2]))
    assert recorder.recorded == []
    G = cs.ggn(model, problem.criterion, problem.curvature_batches("test"))
    assert G.fingerprint == solution.provenance["fingerprint"]


def test_certify_confirms_a_run_and_sharpens_its_overlap(curvscope, tmp_path):
    curvscope("eigs", "-k", 12, "--problem", "mnist16", "--step", 3, "--out", "run")
    before = cs.open(tmp_path / "run")
    made = curvscope("certify", "run", "--json")
    assert made.status == 0
    answer = json.loads(made.output)
    assert answer["failed"] == []
    assert 0 < answer["complete"] <= 12
    after = cs.open(tmp_path / "run")
    assert after.certificate.complete == answer["complete"]
    assert torch.equal(after.eigenvalues, before.eigenvalues)
    assert bool((after.intervals[:, 1] - after.intervals[:, 0] <= 3 * before.residual_norms + 1e-6).all())
    curve = json.loads(curvscope("overlap", "run", "--json").output)
    assert all(low <= value <= up for low, value, up in zip(curve["lower"], curve["overlap"], curve["upper"], strict=True))
    assert "certified" in curvscope("overlap", "run").output


def test_products_in_another_precision(curvscope, tmp_path):
    coarse = ("-k", 2, "--method", "krylov", "--tol", 0.1, "--problem", "mnist16", "--precision", "bfloat16", "--out", "run")
    assert curvscope("eigs", *coarse).status == 0
    made = cs.open(tmp_path / "run" / "solution")
    assert made.provenance["products"]["arithmetic"] == "bfloat16"
    certified = json.loads(curvscope("certify", "run", "--json").output)  # builds the same operator
    exact = cs.problems.get("mnist16")
    H = cs.hessian(exact.model(), exact.criterion, exact.curvature_batches())
    first = cs.eigsh(H, 1, method="krylov", progress=False).eigenvalues[0]
    low, high = certified["intervals"][0]
    assert low <= float(first) <= high
    changed = curvscope("eigs", *(each for each in coarse if each not in ("--precision", "bfloat16")))
    assert "precision" in str(changed.error)
    page = curvscope("report", "run")
    assert page.status == 0
    assert "bfloat16" in (tmp_path / "run" / "report.html").read_text()


def test_certify_finds_a_false_claim(curvscope, target, tmp_path):
    curvscope("eigs", "-k", 3, "--target", target("matrix"), "--out", "run")
    assert curvscope("certify", "run").status == 0
    stored = OnDisk(tmp_path / "run" / "solution" / "eigenvectors.zarr")
    vectors = stored.to_tensor()
    vectors[:, :2] = vectors[:, :2] @ torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=vectors.dtype)
    for panel in stored.panels():
        stored.write_rows(panel, vectors[panel])
    made = curvscope("certify", "run")
    assert made.status == 1
    assert "pair 1: residual 4.2e+00, claimed" in made.output


def test_certify_refuses_another_operator(curvscope, target, tmp_path, monkeypatch):
    curvscope("eigs", "-k", 3, "--target", target("matrix"), "--out", "run")
    module = sys.modules[target("matrix").split(":")[0]]
    monkeypatch.setattr(module, "matrix", module.slow_decay)
    made = curvscope("certify", "run")
    assert isinstance(made.error, RunConflict)
    assert "another operator" in str(made.error)


def test_info_of_the_installation_and_of_a_problem(curvscope):
    assert json.loads(curvscope("info", "--json").output)["problems"] == ", ".join(cs.problems.names())
    assert json.loads(curvscope("info", "--problem", "mnist16", "--json").output)["D"] == 7030
    assert "7030" in curvscope("info", "--problem", "mnist16").output


def test_overlap_without_a_run(curvscope, target):
    planned = curvscope("overlap", "--target", target("pair"), "-k", 5, "--probes", 4, "--steps", 10, "--plan")
    assert "80 products, 4 at a time" in planned.output
    made = curvscope("overlap", "--target", target("pair"), "-k", 5, "--probes", 4, "--steps", 39, "--json")
    found = json.loads(made.output)
    assert (len(found["overlap"]), len(found["stderr"]), found["products"]) == (5, 5, 2 * 4 * 39)
    curvscope("eigs", "--target", target("pair"), "-k", 12, "--out", "run")
    shown = curvscope("overlap", "--target", target("pair"), "-k", 5, "--probes", 4, "--eigenvalues", "run")
    assert "half the" in shown.output
    assert "400 products" in shown.output
    for wrong in (
        ("-k", 5),
        ("run", "--target", target("pair")),
        ("--target", target("pair")),
        ("--target", target("matrix"), "-k", 2),
    ):
        assert isinstance(curvscope("overlap", *wrong).error, InvalidArgument)


def test_info_checks_the_initial_parameters_of_a_problem(curvscope, tmp_path):
    places = cs.masks.by_magnitude(cs.problems.get("mnist16").model()).order[:5].tolist()
    log = {"D": 7030, "steps": {"0": {"top5_abs_params_index_set": places}}}
    (tmp_path / "log.json").write_text(json.dumps(log))
    made = curvscope("info", "--problem", "mnist16", "--reference", "log.json", "--json")
    facts = json.loads(made.output)
    assert made.status == 0
    assert facts["initial parameters"] == facts["published initial parameters"] == "the k largest are where they should be"
    assert facts["published largest places"].startswith("5 of 5 in ")
    log["steps"]["0"]["top5_abs_params_index_set"] = [0, 1, 2, 3, 4]
    (tmp_path / "log.json").write_text(json.dumps(log))
    made = curvscope("info", "--problem", "mnist16", "--reference", "log.json")
    assert made.status == 1
    assert "DIFFERENT" in made.output
    assert isinstance(curvscope("info", "--reference", "log.json").error, InvalidArgument)


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("missing", TargetNotFound, "has no function 'missing'"),
        ("broken", TargetNotFound, r"calling it failed at .*, line 17: KeyError: 'weights.pt'"),
        ("two", InvalidArgument, r"returned 2 things, expected \(model, loss, data\)"),
        ("nothing", TypeError, "cannot make an operator of a int"),
        ("nan_parameter", ArithmeticError, "parameter '0.weight' has 1 of 20 entries that are NaN"),
        ("nan_loss", ArithmeticError, "the loss of batch 2 is nan"),
        ("empty", InvalidArgument, "data yielded no batch"),
    ],
)
def test_targets_that_cannot_be_measured(curvscope, target, tmp_path, function, kind, message):
    made = curvscope("eigs", "-k", 2, "--target", target(function), "--out", "run")
    assert made.status == 2
    assert isinstance(made.error, kind)
    with pytest.raises(kind, match=message):
        raise made.error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("--target", "no_such_module:f"), TargetNotFound, "there is no module 'no_such_module'"),
        (("--target", "nonsense"), TargetNotFound, "write MODULE:FUNCTION"),
        (("--target", "here/exp.py:make"), TargetNotFound, "there is no file .*here/exp.py"),
        ((), InvalidArgument, "name what is measured: MODULE:FUNCTION"),
        (("--problem", "mnist16", "--matrix", "fisher"), InvalidArgument, "--matrix 'fisher'"),
        (("--problem", "mnist16", "--precision", "half"), InvalidArgument, "precision 'half': choose one of float64"),
        (("--target", "a:b", "--precision", "half"), InvalidArgument, "precision 'half': choose one of float64"),
        (("--problem", "mnist16", "--split", "val"), InvalidArgument, "--split 'val'"),
        (("--problem", "mnist16", "--which", "XX"), InvalidArgument, "--which 'XX'"),
        (("--problem", "mnist16", "--step", "-1"), InvalidArgument, "at least one step, 0 or later"),
        (("--problem", "mnist16", "-k", "0"), InvalidArgument, "-k 0: choose an integer from 1 to D = 7030"),
        (("--problem", "mnist16", "-k", "7031"), InvalidArgument, "-k 7031"),
    ],
)
def test_requests_that_cannot_work(curvscope, tmp_path, arguments, kind, message):
    made = curvscope("eigs", "-k", 2, *arguments, "--out", "run")
    assert made.status == 2
    with pytest.raises(kind, match=message):
        raise made.error
    assert not (tmp_path / "run").exists()


def test_the_same_command_goes_on_and_another_is_refused(curvscope, target, tmp_path):
    command = ("eigs", "-k", 2, "--target", target("matrix"), "--out", "run")
    first = curvscope(*command, "--json").output
    assert curvscope(*command, "--json").output == first
    more = json.loads(curvscope(*command[:2], 3, *command[3:], "--json").output)
    assert more["eigenvalues"] == [4.0, -3.0, 2.0]
    before = (tmp_path / "run" / "manifest.json").read_text()
    made = curvscope(*command, "--seed", 1)
    assert isinstance(made.error, RunConflict)
    assert "seed is 0 in the run and 1 here" in str(made.error)
    made = curvscope("demo", "--out", "run")
    assert isinstance(made.error, RunConflict)
    assert "holds another run" in str(made.error)
    assert (tmp_path / "run" / "manifest.json").read_text() == before


def test_info_tells_how_far_a_run_is(curvscope, target, tmp_path):
    curvscope("eigs", "-k", 2, "--target", target("matrix"), "--out", "run")
    info = json.loads(curvscope("info", "run", "--json").output)
    assert info["state"] == "finished"
    assert info["  columns"].startswith("4 of 4 products")
    assert curvscope("eigs", "-k", 3, "--which", "LA", "--target", target("matrix"), "--out", "run").status == 2
    run = Run.open(tmp_path / "run")
    run.manifest["sessions"].append(run.manifest["sessions"][-1] | {"ended": {"at": "noon", "how": "Interrupted: stopped"}})
    run.save()  # a larger k was asked for, and stopped
    assert "an earlier session finished" in json.loads(curvscope("info", "run", "--json").output)["state"]
    (tmp_path / "run" / "solution" / "solution.json").unlink()
    run.manifest["sessions"][-1]["ended"] = None
    run.save()
    assert "run the same command again to resume" in json.loads(curvscope("info", "run", "--json").output)["state"]


def test_export_to_other_programs(curvscope, target, tmp_path):
    import h5py
    import numpy as np
    from safetensors.torch import load_file

    curvscope("eigs", "-k", 6, "--target", target("pair"), "--out", "run")
    solution = cs.open(tmp_path / "run")
    vectors, values = solution.eigenvectors.to_tensor(), solution.eigenvalues
    for kind in ("hdf5", "safetensors", "npz"):
        assert curvscope("export", "run", "--format", kind).status == 0
    with h5py.File(tmp_path / "run" / "eigenpairs.h5") as file:
        assert np.array_equal(file["eigenvectors"][:], vectors.numpy())
        assert list(json.loads(file.attrs["curvscope"])["parameters"]) == list(solution.parameters.names)
    tensors = load_file(tmp_path / "run" / "eigenpairs.safetensors")
    assert torch.equal(tensors["eigenvectors"], vectors)
    assert torch.equal(tensors["eigenvalues"], values)
    arrays = np.load(tmp_path / "run" / "eigenpairs.npz")
    assert np.array_equal(arrays["eigenvectors"], vectors.numpy())
    assert json.loads(arrays["curvscope"].tobytes())["order"] == "LM"
    assert isinstance(curvscope("export", "run", "--format", "npz").error, RunConflict)
    assert "choose one of hdf5" in str(curvscope("export", "run", "--format", "mat").error)


def test_export_without_h5py_says_what_to_install(curvscope, target, monkeypatch):
    monkeypatch.setattr("curvscope.solvers.results._export.find_spec", lambda name: None)
    curvscope("eigs", "-k", 1, "--target", target("matrix"), "--out", "run")
    assert "curvscope[hdf5]" in str(curvscope("export", "run", "--format", "hdf5").error)


def test_plan_shows_the_methods_and_refuses_what_cannot_fit(curvscope, target, tmp_path):
    made = curvscope("plan", "-k", 2, "--target", target("pair"))
    assert "choice: exact" in made.output
    plan = json.loads(curvscope("plan", "-k", 2, "--target", target("pair"), "--json").output)
    assert {method["method"] for method in plan["methods"]} >= {"krylov", "seigh", "exact"}
    assert curvscope("plan", "-k", 2, "--target", target("pair"), "--memory", "1MB").status == 1
    curvscope("eigs", "-k", 2, "--target", target("pair"), "--out", "run", "--plan")
    curvscope("report", "run")
    assert "Plan and fact" in (tmp_path / "run" / "report.html").read_text()
    told = json.loads(curvscope("plan", "-k", 2, "--target", target("pair"), "--spectrum", "run", "--json").output)
    wide, narrow = (next(m for m in made["methods"] if m["method"] == "krylov")["products"] for made in (plan, told))
    assert narrow[2] / narrow[0] < wide[2] / wide[0]
    assert narrow[2] < wide[2]
    assert "'8GiB'" in str(curvscope("plan", "-k", 2, "--target", target("pair"), "--memory", "much").error)


def test_runs_that_are_not_there(curvscope):
    for command in ("overlap", "certify", "report", "info"):
        made = curvscope(command, "nowhere")
        assert isinstance(made.error, RunNotFound)
        assert "nowhere is no run" in str(made.error)


def test_shells_can_complete_commands_and_options():
    def completed(words):
        asked = {"_CURVSCOPE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return CliRunner().invoke(app, [], env=asked, prog_name="curvscope").output.split()

    assert completed("curvscope e") == ["eigs", "export"]
    assert completed("curvscope eigs --ma") == ["--matrix", "--max-products"]


def test_json_has_stdout_for_itself(curvscope, tmp_path):
    (tmp_path / "chatty.py").write_text(
        "import os, torch\n"
        "def zero():\n"
        "    print('Files already downloaded and verified')\n"
        "    os.write(1, b'from a library in C, or a worker')\n"
        "    return torch.zeros(3, 3)\n"
    )
    made = subprocess.run(
        [sys.executable, "-m", "curvscope", "eigs", "-k", "2", "--target", "chatty:zero", "--out", "run", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(made.stdout)["eigenvalues"] == [0, 0], made.stderr
    assert "already downloaded" in made.stderr
    assert "library in C" in made.stderr


def test_json_has_no_numbers_that_json_does_not_know(capsys):
    print_json({"bound": float("inf"), "list": [(1.0, float("nan")), "NaN"]})
    assert json.loads(capsys.readouterr().out) == {"bound": None, "list": [[1.0, None], "NaN"]}


@pytest.mark.parametrize("name", ["solution/solution.json", "density.json", "parameters.safetensors"])
def test_damaged_files_of_a_run_are_named(curvscope, target, tmp_path, name):
    assert curvscope("eigs", "-k", 2, "--target", target("pair"), "--out", "run").status == 0
    assert curvscope("density", "run").status == 0
    file = tmp_path / "run" / name
    file.write_bytes(file.read_bytes()[:100])
    told = curvscope("report", "run")
    assert told.status == 2
    assert f"{name.rsplit('/')[-1]} is damaged" in str(told.error)


def test_runs_that_were_made_in_python(curvscope, tmp_path):
    model = torch.nn.Linear(2, 2)
    H = cs.hessian(model, torch.nn.MSELoss(), [(torch.ones(3, 2), torch.zeros(3, 2))])
    cs.eigsh(H, k=2, which="SA", run=tmp_path / "pairs")
    cs.ssvd(H, num_outer=2, run=tmp_path / "triplets")
    for command in ("certify", "density", "trace"):
        told = curvscope(command, "pairs")
        assert told.status == 2
        assert "was made in Python" in str(told.error)
    assert json.loads(curvscope("info", "triplets", "--json").output)["singular triplets"] == 2
    assert curvscope("report", "pairs").status == 0
    page = (tmp_path / "pairs" / "report.html").read_text()
    assert "smallest (most negative) first" in page
    assert "top-k eigenspace" not in page


def test_a_full_disk_is_named_by_every_command(curvscope, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "figures/the-spectrum.png")

    monkeypatch.setattr("curvscope.report.save_figures", full)
    cs.eigsh(torch.eye(3), k=1, run=tmp_path / "run")
    assert "no room on the disk for figures/the-spectrum.png" in str(curvscope("report", "run").error)
