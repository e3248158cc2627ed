"""What a command measures and what is chosen of it: by the argument and by options, recorded, and built again the same."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

import curvscope as cs
from curvscope.errors import InvalidArgument, RunConflict, TargetNotFound
from curvscope.store import Run

MODULE = """
import torch
from torch import nn
import curvscope as cs

def make(width=4, scale=1.0, layers=None, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))
    x = scale * torch.randn(12, 3)
    return model, nn.CrossEntropyLoss(), [(x, torch.arange(12) % 2)]

def operator():
    return cs.hessian(*make())
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The user's module: its name, and itself once a command has imported it."""
    name = f"sources_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def values_of(made, matrix=cs.hessian, params=None):
    """Eigenvalues by magnitude of the dense float64 matrix."""
    operator = matrix(*made, dtype=torch.float64, params=params)
    values = torch.linalg.eigvalsh(operator @ torch.eye(operator.shape[0], dtype=torch.float64))
    return values[values.abs().argsort(descending=True)]


def found(curvscope, *words):
    told = curvscope("eigs", *words, "-k", 3, "-o", "run", "--json")
    assert told.status == 0, (told.output, told.error)
    return torch.tensor(json.loads(told.output)["eigenvalues"], dtype=torch.float64)


def close(values, expected):
    torch.testing.assert_close(values, expected[: len(values)], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", ["{}:make", "{}", "{}.py", "./{}.py:make"])
def test_the_argument_names_the_function_in_every_form(curvscope, module, form):
    values = found(curvscope, form.format(module))
    close(values, values_of(sys.modules[module].make()))
    assert Run.open("run").manifest["options"]["target"] == form.format(module)


def test_a_problem_and_a_run_are_named_by_the_argument_too(curvscope, module, tmp_path):
    assert "pass one of them" in str(curvscope("eigs", f"{module}:make", "--target", f"{module}:make").error)
    assert curvscope("eigs", "mnist16", "-k", 1, "--step", 1, "-o", "known").status == 0
    assert Run.open("known").manifest["options"]["problem"] == "mnist16"
    refused = curvscope("eigs", "known", "-k", 2)
    assert "known is a run: for more of its pairs repeat the command" in str(refused.error)
    for command in ("density", "trace", "diagonal", "overlap"):
        assert "nosuch is no run" in str(curvscope(command, "nosuch").error)
    assert "there is no module, file or problem 'nosuch'" in str(curvscope("eigs", "nosuch").error)
    assert "name what is measured" in str(curvscope("eigs").error)


def test_without_out_and_k_ten_pairs_go_into_a_new_folder(curvscope, module, tmp_path):
    assert curvscope("eigs", module).status == 0
    assert curvscope("eigs", module, "-k", 2).status == 0
    assert cs.open(tmp_path / "curvscope-eigs").k == 10
    assert cs.open(tmp_path / "curvscope-eigs-2").k == 2


def test_overwrite_replaces_a_run_and_nothing_else(curvscope, module, tmp_path):
    found(curvscope, module)
    refused = curvscope("eigs", module, "-k", 3, "--matrix", "ggn", "-o", "run")
    assert isinstance(refused.error, RunConflict)
    assert isinstance(curvscope("eigs", f"{module}:nothing", "-o", "run", "--overwrite").error, TargetNotFound)
    close(cs.open(tmp_path / "run").eigenvalues, values_of(sys.modules[module].make()))  # still there
    close(found(curvscope, module, "--matrix", "ggn", "--overwrite"), values_of(sys.modules[module].make(), cs.ggn))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").touch()
    assert curvscope("eigs", module, "-o", "thesis", "--force").status == 2
    assert (tmp_path / "thesis" / "text").exists()


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (("--arg", "width=7"), {"width": 7}),
        (("--arg", "scale=2e0", "--arg", "width=5"), {"scale": 2.0, "width": 5}),
        (("--arg", "layers=[1, 2]", "--arg", "seed=3"), {"layers": [1, 2], "seed": 3}),
        (("--config", "c.yaml"), {"width": 6, "scale": 0.5, "layers": {"deep": 6}}),
        (
            ("--config", "c.yaml", "--arg", "width=3", "--arg", "layers.deep=1"),
            {"width": 3, "scale": 0.5, "layers": {"deep": 1}},
        ),
    ],
)
def test_arguments_reach_the_function_and_the_run(curvscope, module, tmp_path, words, arguments):
    (tmp_path / "c.yaml").write_text("width: 6\nscale: 0.5\nlayers:\n  deep: ${width}\n")
    values = found(curvscope, module, *words)
    close(values, values_of(sys.modules[module].make(**arguments)))
    assert Run.open("run").manifest["options"]["arguments"] == arguments
    assert curvscope("certify", "run").status == 0  # builds the same operator
    other = curvscope("eigs", module, "-k", 3, "-o", "run", "--arg", "width=9")
    assert "arguments.width is" in str(other.error)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--arg", "width"), "--arg 'width': write name=value"),
        (("--arg", "=3"), "write name=value"),
        (("--arg", "height=3"), "it takes (width=4, scale=1.0, layers=None, seed=0), called with (height=3)"),
        (("--config", "nowhere.yaml"), "--config nowhere.yaml: cannot be read"),
        (("--config", "list.yaml"), "expected lines such as 'width: 8'"),
        (("--config", "broken.yaml"), "--config broken.yaml: cannot be read"),
        (("--config", "loose.yaml"), "--config loose.yaml: "),
        (("--step", 3), "--step is for a --problem"),
        (("--split", "test"), "--split is for a --problem"),
        (("--data", "d"), "--data is for a --problem"),
        (("--matrix", "fisher"), "for fisher write empirical_fisher or monte_carlo_fisher"),
        (("--dtype", "fp8"), "--precision 'fp8': choose one of float64"),
        (("--device", "gpu"), "--device 'gpu': choose one of cpu"),
        (("--params", "fc9.*"), "fc9"),
        (("--checkpoint", "nowhere.pt"), "--checkpoint nowhere.pt: there is no such file"),
    ],
)
def test_what_cannot_be_is_refused_by_name(curvscope, module, tmp_path, words, message):
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    (tmp_path / "loose.yaml").write_text("width: ${height}\n")
    refused = curvscope("eigs", module, "-o", "run", *words)
    assert refused.status == 2
    assert message in str(refused.error)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "params"),
    [
        (("--params", "0.*"), "0.*"),
        (("--params", "2.weight,0.bias"), ["0.bias", "2.weight"]),
        (("--params", "2.bias", "--params", "0.weight"), ["0.weight", "2.bias"]),
        (("--params", "2"), "2.*"),
    ],
)
def test_params_choose_the_block(curvscope, module, words, params):
    values = found(curvscope, module, *words)
    close(values, values_of(sys.modules[module].make(), params=params))
    assert curvscope("certify", "run").status == 0
    assert json.loads(curvscope("trace", "run", "--method", "exact", "--json").output)["trace"]["value"] == pytest.approx(
        float(values_of(sys.modules[module].make(), params=params).sum()), abs=1e-5
    )


def test_dtype_device_and_every_matrix_are_honoured(curvscope, module, tmp_path):
    for matrix in ("ggn", "empirical_fisher", "gradient_second_moment"):
        values = found(curvscope, module, "--matrix", matrix, "--dtype", "float64", "--device", "cpu", "--overwrite")
        expected = values_of(sys.modules[module].make(), getattr(cs, matrix))
        torch.testing.assert_close(values, expected[:3], rtol=1e-9, atol=1e-12)
    options = Run.open("run").manifest["options"]
    assert (options["precision"], options["device"]) == ("float64", "cpu")
    assert curvscope("certify", "run").status == 0
    again = ("eigs", module, "--matrix", "gradient_second_moment", "--dtype", "float64", "-k", 3, "-o", "run")
    assert curvscope(*again).status == 0  # the device may be another one
    whole = json.loads(curvscope("trace", "run", "--device", "cpu", "--method", "exact", "--json").output)
    assert whole["trace"]["value"] == pytest.approx(float(expected.sum()))


def weights(module_made, factor):
    return {name: factor * value for name, value in module_made[0].state_dict().items()}


@pytest.mark.parametrize("form", ["plain.pt", "nested.pt", "parallel.pth", "plain.safetensors"])
def test_a_checkpoint_gives_the_weights(curvscope, module, tmp_path, form):
    found(curvscope, module)
    made = sys.modules[module].make()
    state = weights(made, 2.0)
    if form == "plain.safetensors":
        save_file(state, tmp_path / form)
    else:
        content = {"nested.pt": {"model_state_dict": state, "epoch": 3}, "plain.pt": state}
        torch.save(content.get(form, {f"module.{name}": value for name, value in state.items()}), tmp_path / form)
    values = found(curvscope, module, "--checkpoint", form, "--overwrite")
    made[0].load_state_dict(state)
    close(values, values_of(made))
    assert curvscope("certify", "run").status == 0
    torch.save(weights(made, 3.0), tmp_path / "plain.pt")
    if form == "plain.pt":  # other weights in that file by now
        assert "was made with another operator" in str(curvscope("certify", "run").error)


class Harmful:
    def __reduce__(self):
        return eval, ("open('executed', 'w').close()",)


def test_checkpoints_of_other_models_and_of_strangers(curvscope, module, tmp_path):
    state = weights((torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)),), 1.0)
    cases = {
        "shape": (state | {"0.weight": torch.zeros(5, 3)}, "0.weight has shape (5, 3) in the file and (4, 3) in the model"),
        "missing": ({name: state[name] for name in list(state)[1:]}, "0.weight is missing"),
        "more": (state | {"3.weight": torch.zeros(1)}, "3.weight is not of this model"),
        "number": (3, "expected tensors by name"),
        "harmful": ({"0.weight": Harmful()}, "holds Python objects beside tensors, which reading would execute"),
    }
    for name, (content, message) in cases.items():
        torch.save(content, tmp_path / f"{name}.pt")
        refused = curvscope("eigs", module, "-o", "run", "--checkpoint", f"{name}.pt")
        assert isinstance(refused.error, InvalidArgument)
        assert message in str(refused.error)
    (tmp_path / "text.safetensors").write_text("hello")
    assert "cannot be read" in str(curvscope("eigs", module, "--checkpoint", "text.safetensors").error)
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "run").exists()


def test_a_problem_with_chosen_parameters_is_built_again(curvscope, tmp_path):
    problem = cs.problems.get("mnist16")
    model = problem.model()
    save_file({name: value.clone() for name, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    last = list(dict(model.named_parameters()))[-1]
    for words in (("--step", 2), ("--checkpoint", "w.safetensors")):
        told = curvscope("eigs", "mnist16", "--params", last, *words, "-k", 2, "-o", "run", "--overwrite")
        assert told.status == 0, told.error
        assert curvscope("certify", "run").status == 0
    expected = values_of((model, problem.criterion, problem.curvature_batches()), params=last)
    torch.testing.assert_close(cs.open(tmp_path / "run").eigenvalues, expected[:2], rtol=1e-4, atol=0)
    assert "pass one of them" in str(curvscope("eigs", "mnist16", "--step", 2, "--checkpoint", "w.safetensors").error)
    assert "--arg is for a function of yours" in str(curvscope("eigs", "mnist16", "--arg", "width=2").error)


@pytest.mark.parametrize("choice", [("--params", "0.*"), ("--device", "cpu"), ("--checkpoint", "w.pt"), ("--dtype", "float64")])
def test_a_function_that_returns_an_operator_has_decided(curvscope, module, tmp_path, choice):
    torch.save({}, tmp_path / "w.pt")
    refused = curvscope("trace", f"{module}:operator", *choice)
    assert isinstance(refused.error, InvalidArgument)
    name = choice[0].replace("dtype", "precision")
    assert f"{name} " in str(refused.error)
    assert "return (model, loss, data)" in str(refused.error)


@pytest.mark.parametrize(
    "choice", [("--params", "0.*"), ("--checkpoint", "w.pt"), ("--arg", "width=2"), ("--config", "c.yaml")]
)
def test_a_run_has_its_own_operator(curvscope, module, choice):
    found(curvscope, module)
    refused = curvscope("density", "run", *choice)
    assert f"{choice[0]}: a RUN has its own operator" in str(refused.error)
