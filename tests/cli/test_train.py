"""``curvscope train``: a problem is trained, recorded and resumed."""

import json


def test_the_command_trains_and_resumes(curvscope, tmp_path):
    first = json.loads(curvscope("train", "mnist16", "-o", tmp_path / "new", "--steps", 2, "--json").output)
    again = json.loads(curvscope("train", "--problem", "mnist16", "-o", tmp_path / "new", "--steps", 2, "--json").output)
    assert first == again
    assert first["file"].endswith("step_000002.safetensors")
    assert "name one problem" in str(curvscope("train").error)
    assert "--out is missing" in str(curvscope("train", "mnist16").error)
