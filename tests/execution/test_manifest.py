"""An altered manifest is found, or says the same as before; manifests of earlier versions are read."""

import json

import pytest
import torch

import curvscope as cs
from curvscope.errors import CurvscopeError, DamagedData, RunConflict, RunNotFound
from curvscope.store import MANIFEST, Run
from curvscope.store._manifest import parse_manifest, read_manifest, write_manifest

SMALL = {
    "kind": "eigs",
    "options": {"k": 3, "tol": 1e-05, "name": "Ü", "which": None},
    "created": "noon",
    "command": [],
    "versions": {},
}


def meaning(folder, content):
    """What a manifest of these bytes says, or None if it is refused by name."""
    try:
        return parse_manifest(content, folder / MANIFEST)
    except (DamagedData, RunNotFound):
        return None


def test_every_flipped_bit_is_found_or_changes_no_meaning(tmp_path):
    write_manifest(tmp_path, SMALL)
    content, expected = (tmp_path / MANIFEST).read_bytes(), read_manifest(tmp_path)
    assert expected == {**SMALL, "format": "curvscope run 2"}
    harmless = []
    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            found = meaning(tmp_path, bytes(changed))
            assert found in (None, expected), (place, bit, bytes(changed))
            if found == expected:
                harmless.append(chr(content[place]))
    assert set(harmless) <= set(" \necd")  # white space, 1E-05, and the hexadecimal digits of an escaped letter
    for end in range(len(content)):
        assert meaning(tmp_path, content[:end]) is None


@pytest.mark.parametrize("replaced", [0, 9, 32, 34, 44, 48, 57, 92, 125, 255])
def test_every_replaced_byte_is_found_or_changes_no_meaning(tmp_path, replaced):
    write_manifest(tmp_path, SMALL)
    content, expected = (tmp_path / MANIFEST).read_bytes(), read_manifest(tmp_path)
    for place in range(len(content)):
        changed = content[:place] + bytes([replaced]) + content[place + 1 :]
        assert meaning(tmp_path, changed) in (None, expected)
        shorter = content[:place] + content[place + 1 :]
        assert meaning(tmp_path, shorter) in (None, expected)


@pytest.mark.parametrize("lost", [["checksum"], ["checksum", "format"], ["options"], ["kind"]])
def test_lost_entries_are_found(tmp_path, lost):
    write_manifest(tmp_path, SMALL)
    content = json.loads((tmp_path / MANIFEST).read_text())
    for name in lost:
        del content[name]
    assert meaning(tmp_path, json.dumps(content).encode()) is None


def test_keys_that_are_numbers_and_nan_are_read_back(tmp_path):
    written = SMALL | {"plan": {10: float("inf"), 9: (1, 2), 1: float("nan")}}
    write_manifest(tmp_path, written)
    assert json.dumps(read_manifest(tmp_path)["plan"]) == '{"10": Infinity, "9": [1, 2], "1": NaN}'


def test_an_altered_option_is_refused_by_name_and_the_original_resumes(tmp_path):
    A, options = torch.diag(torch.linspace(1, 60, 60)), {"method": "krylov", "progress": False}
    first = cs.eigsh(A, 3, run=tmp_path, **options)
    original = (tmp_path / MANIFEST).read_text()
    (tmp_path / MANIFEST).write_text(original.replace('"seed": 0', '"seed": 1'))
    for use in (lambda: Run.open(tmp_path), lambda: cs.eigsh(A, 3, run=tmp_path, seed=1, **options)):
        with pytest.raises(DamagedData, match=r"manifest\.json does not match its checksum, it was altered: put the original"):
            use()
    (tmp_path / MANIFEST).write_text(original)
    assert torch.equal(cs.eigsh(A, 3, run=tmp_path, **options).eigenvalues, first.eigenvalues)


def test_runs_of_earlier_versions_are_read_resumed_and_get_a_checksum(tmp_path):
    A, options = torch.diag(torch.linspace(1, 60, 60)), {"method": "krylov", "progress": False}
    first = cs.eigsh(A, 3, run=tmp_path, **options)
    old = {**Run.open(tmp_path).manifest, "format": "curvscope run 1"}
    (tmp_path / MANIFEST).write_text(json.dumps(old, indent=1))
    assert Run.open(tmp_path).manifest == old
    assert torch.equal(cs.open(tmp_path).eigenvalues, first.eigenvalues)
    with pytest.raises(RunConflict, match="seed"):
        cs.eigsh(A, 3, run=tmp_path, seed=1, **options)
    assert torch.equal(cs.eigsh(A, 3, run=tmp_path, **options).eigenvalues, first.eigenvalues)
    cs.eigsh(A, 4, run=tmp_path, **options)
    (tmp_path / MANIFEST).write_text((tmp_path / MANIFEST).read_text().replace('"k": 4', '"k": 5'))
    with pytest.raises(CurvscopeError, match="checksum"):
        Run.open(tmp_path)
