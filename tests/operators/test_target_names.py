"""Forms in which a function of the user's is named, and what is told when it fails."""

import sys

import pytest
import torch

import curvscope as cs
from curvscope.errors import InvalidArgument, TargetNotFound
from curvscope.operators.remote import call_target, load_function, load_target

ONE = "import torch\ndef only():\n    return torch.diag(torch.tensor([3.0, 2.0, 1.0]))\n"
SEVERAL = """
import torch
from torch import nn
def other():
    return 1
def make(scale=1.0, *, size=2):
    return scale * torch.eye(size)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of a name that no other test has; its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    made = []

    def write(text, folder="."):
        name = f"names_{abs(hash(str(tmp_path)))}_{len(made)}"
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.py").write_text(text)
        made.append(name)
        return name

    yield write
    for name in made:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("form", ["{}:only", "./{}.py:only", "{}.py:only", "{}", "./{}.py"])
def test_every_form_names_the_same_function(module, form):
    name = module(ONE)
    operator = load_target(form.format(name))
    torch.testing.assert_close(operator @ torch.eye(3), torch.diag(torch.tensor([3.0, 2.0, 1.0])))


def test_a_file_in_another_folder_finds_the_modules_beside_it(module, tmp_path):
    helper = module("VALUE = 7.0\n", folder="deep")
    name = module(f"import torch\nfrom {helper} import VALUE\ndef make():\n    return VALUE * torch.eye(2)\n", folder="deep")
    for form in (f"deep/{name}.py", f"{tmp_path}/deep/{name}.py:make"):
        assert float((load_target(form) @ torch.ones(2))[0]) == 7.0


def test_make_is_meant_where_a_module_has_several_functions(module):
    name = module(SEVERAL)
    assert load_function(name).__name__ == "make"
    assert call_target(name, {"scale": 2.0, "size": 3}).trace() == 6.0
    two = module("def first():\n    pass\ndef second():\n    pass\n")
    with pytest.raises(TargetNotFound, match=f"name the function, as in {two}:first; {two} defines first, second"):
        load_function(two)
    with pytest.raises(TargetNotFound, match="has no function 'mak'; it defines other, make"):
        load_function(f"{name}:mak")
    imported = module("from torch import eye\nimport torch\n")
    with pytest.raises(TargetNotFound, match="defines none"):
        load_function(imported)


@pytest.mark.parametrize("form", ["", ":make", "experiment:", "./experiment.py:"])
def test_forms_that_name_nothing(form):
    with pytest.raises(TargetNotFound, match=r"write MODULE:FUNCTION or FILE\.py:FUNCTION"):
        load_function(form)


def test_files_that_cannot_be_imported(module, tmp_path):
    with pytest.raises(TargetNotFound, match=r"there is no file .*nowhere\.py"):
        load_function("nowhere.py:make")
    (tmp_path / "a-b.py").write_text(ONE)
    with pytest.raises(TargetNotFound, match="'a-b' cannot be a module's name"):
        load_function("a-b.py:only")
    (tmp_path / "json.py").write_text(ONE)
    with pytest.raises(TargetNotFound, match="another module is called 'json'"):
        load_function("json.py:only")
    script = module("import sys\nsys.exit(3)\n")
    with pytest.raises(TargetNotFound, match=f"ended the program at .*{script}.py, line 2"):
        load_function(script)


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("def make():\n    return {}['lr']\n", 2, "KeyError: 'lr'"),
        ("import torch\n\ndef make():\n    w = torch.ones(2, 3)\n    return w @ w\n", 5, "RuntimeError: .*shapes"),
        ("def make():\n    return helper()\ndef helper():\n    assert False\n", 4, "AssertionError$"),
        ("def make(:\n    pass\n", 1, "SyntaxError"),
        ("import torch\nimport no_such_package\n", 2, "No module named 'no_such_package'"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
    ],
)
def test_a_failure_of_the_users_code_comes_with_its_file_and_line(module, tmp_path, text, line, told):
    name = module(text)
    with pytest.raises(TargetNotFound, match=rf" at {tmp_path}/{name}\.py, line {line}: .*{told}"):
        call_target(f"{name}:make")


def test_arguments_that_do_not_fit_are_told_with_the_signature(module):
    name = module(SEVERAL)
    with pytest.raises(TargetNotFound, match=r"it takes \(scale=1.0, \*, size=2\), called with \(width=3\): .*'width'"):
        call_target(name, {"width": 3})
    inner = module("def make():\n    return sorted()\n")  # a TypeError of its own, in its own line
    with pytest.raises(TargetNotFound, match="line 2: TypeError"):
        call_target(inner)
    pair = module("def make():\n    return 1, 2\n")
    with pytest.raises(InvalidArgument, match=r"returned 2 things, expected \(model, loss, data\)"):
        call_target(pair)


def test_workers_build_what_a_file_makes(module, tmp_path, monkeypatch):
    name = module(ONE)
    recipe = cs.Recipe(f"{name}.py")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # the recipe remembers its folder
    assert recipe.build().shape == (3, 3)
