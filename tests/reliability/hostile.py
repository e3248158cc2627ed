"""Runs that somebody made to do harm: nothing outside of them is touched, nothing waits, and each is refused in words."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import curvscope as cs
from curvscope.cli.main import app
from curvscope.measurement import _storage as storage
from curvscope.store import Records, sealed
from curvscope.store._manifest import read_manifest

from . import solves

LONG = "a" * 100_000
ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def state(**facts):
    """Change the record of the Krylov state; its checksum is right."""

    def change(run, outside):
        found = Records(run / "records").read("state")
        Records(run / "records").write("state", {**found.facts, **facts}, found.tensors)

    return change


def kept(**facts):
    def change(run, outside):
        found = Records(run / "records").read("kept")
        Records(run / "records").write("kept", {**found.facts, **facts}, found.tensors)

    return change


def manifest(change_it):
    def change(run, outside):
        content = read_manifest(run)
        change_it(content)
        (run / "manifest.json").write_text(json.dumps(sealed(content)))  # with a right checksum

    return change


def table(change_it):
    """Change the table of the solution, with a right checksum."""

    def change(run, outside):
        content = json.loads((run / "solution" / "solution.json").read_text())
        for name in ("format", "checksum"):
            content.pop(name, None)
        change_it(content)
        storage.rewrite_table(run / "solution", storage.EIGEN, content)

    return change


def zarr(**facts):
    def change(run, outside):
        for file in (run / "solution" / "eigenvectors.zarr" / "zarr.json", *run.glob("basis/*/zarr.json")):
            file.write_text(json.dumps(json.loads(file.read_text()) | facts))

    return change


def link(name, to):
    """Put a link to something of the user's in the place of a file or folder of the run."""

    def change(run, outside):
        place = run / name
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(outside / to)

    return change


def pipe(name):
    def change(run, outside):
        place = next(iter(sorted(run.glob(name))))
        place.unlink()
        os.mkfifo(place)

    return change


def text(name, content):
    return lambda run, outside: (run / name).write_text(content)


def hard_link(run, outside):
    (run / "lock").unlink(missing_ok=True)
    os.link(outside / "thesis.txt", run / "lock")


DEEP = "[" * 100_000 + "]" * 100_000
HARMS = {
    "basis is a path to a neighbour": state(basis="../../outside"),
    "basis is the run itself": state(basis="../../run"),
    "basis is an absolute path": state(basis="/tmp"),
    "basis has 100,000 letters": state(basis=LONG),
    "basis is a number": state(basis=7),
    "basis is nothing": state(basis=None),
    "basis is a dot": state(basis="."),
    "more columns than there are": state(filled=10**15),
    "columns below zero": state(filled=-5),
    "kept vectors are a path": kept(vectors=["../../outside/x"]),
    "kept vectors are a number": kept(vectors=[3]),
    "lock is a link": link("lock", "thesis.txt"),
    "lock is a hard link": hard_link,
    "lock is a pipe": pipe("lock"),
    "basis is a link to a folder": link("basis", "photos"),
    "records is a link to a folder": link("records", "photos"),
    "measured is a link to a folder": link("measured", "photos"),
    "solution is a link to a folder": link("solution", "photos"),
    "found is a link to a folder": link("found", "photos"),
    "certified is a link to a folder": link("certified", "photos"),
    "figures is a link to a folder": link("figures", "photos"),
    "a figure is a link": link("figures/the-spectrum.png", "thesis.txt"),
    "the report is a link": link("report.html", "thesis.txt"),
    "an overlap is a link": link("overlap-magnitude.json", "thesis.txt"),
    "the parameters are a link": link("parameters.safetensors", "thesis.txt"),
    "the manifest is a link": link("manifest.json", "thesis.txt"),
    "a tile is a link": link("solution/eigenvectors.zarr/c/0/0", "thesis.txt"),
    "the manifest is a pipe": pipe("manifest.json"),
    "the table is a pipe": pipe("solution/solution.json"),
    "a tile is a pipe": pipe("solution/eigenvectors.zarr/c/0/0"),
    "the parameters are a pipe": pipe("parameters.safetensors"),
    "a record is a pipe": pipe("records/*.record"),
    "the manifest is deep": text("manifest.json", DEEP),
    "the table is deep": text("solution/solution.json", DEEP),
    "the density is deep": text("density.json", DEEP),
    "the density is something else": text("density.json", '{"grid": "x"}'),
    "the parameters claim 10^15 bytes": text("parameters.safetensors", "\x00\x80\x1c\x02\x7d\x8d\x03\x00{}"),
    "options of the manifest are a list": manifest(lambda m: m.update(options=[1])),
    "sessions of the manifest are texts": manifest(lambda m: m.update(sessions=["x"])),
    "stages of the manifest are texts": manifest(lambda m: m.update(stages={"x": {"seconds": "y", "total": "z"}})),
    "the plan is something else": manifest(lambda m: m.update(plan={"x": 1})),
    "the solve is something else": manifest(lambda m: m.update(solve={"method": ["x"]}, operator={})),
    "the command has escape sequences": manifest(lambda m: m.update(command=[ESCAPE])),
    "an option has escape sequences": manifest(lambda m: m["options"].update(name=ESCAPE)),
    "an option has 100,000 letters": manifest(lambda m: m["options"].update({LONG: LONG})),
    "the problem has 100,000 letters": manifest(lambda m: m["options"].update(problem=LONG)),
    "the format has escape sequences": manifest(lambda m: m.update(format=ESCAPE)),
    "the status has escape sequences": table(lambda t: t.update(status={"code": ESCAPE, "text": ESCAPE})),
    "eigenvalues are texts": table(lambda t: t.update(eigenvalues=["x"] * 4)),
    "eigenvalues are too few": table(lambda t: t.update(eigenvalues=[1.0])),
    "the order is unknown": table(lambda t: t.update(order="XX")),
    "the order is a list": table(lambda t: t.update(order=["LM"])),
    "the order of triplets": table(lambda t: t.update(order="singular")),
    "the provenance is a text": table(lambda t: t.update(provenance="x")),
    "the provenance has texts for facts": table(lambda t: t.update(provenance=dict.fromkeys(t["provenance"], "x"))),
    "the provenance is empty": table(lambda t: t.update(provenance={})),
    "the diagnostics are a list": table(lambda t: t.update(diagnostics=[1])),
    "the diagnostics are texts": table(lambda t: t.update(diagnostics=dict.fromkeys(t["diagnostics"], "x"))),
    "the cost is of texts": table(lambda t: t.update(cost=dict.fromkeys(t["cost"], "x"))),
    "the cost is 10^400": table(lambda t: t.update(cost=dict.fromkeys(t["cost"], 10**400))),
    "the certificate is a text": table(lambda t: t.update(certificate="x")),
    "the certificate is of texts": table(lambda t: t.update(certificate={"tail": {"bound": "x"}, "noise": {}})),
    "residuals are below zero": table(lambda t: t.update(residual_norms=[-1.0] * 4)),
    "residuals are no numbers": table(lambda t: t.update(residual_norms=[float("nan")] * 4)),
    "eigenvalues are not ordered": table(lambda t: t.update(eigenvalues=sorted(t["eigenvalues"]))),
    "eigenvalues are nested": table(lambda t: t.update(eigenvalues=[[1.0]] * 4)),
    "the status is a list": table(lambda t: t.update(status=[1])),
    "the status has 100,000 letters": table(lambda t: t.update(status={"code": "converged", "text": LONG})),
    "the cost is missing": table(lambda t: t.pop("cost")),
    "the cost is a list": table(lambda t: t.update(cost=[1])),
    "parameters have 100,000 letters": table(lambda t: t.update(parameters={LONG: [10**15]})),
    "parameters are missing": table(lambda t: t.update(parameters={"x": [51]})),
    "10^15 rows": zarr(shape=[10**15, 4]),
    "rows below zero": zarr(shape=[-3, 4]),
    "no rows": zarr(shape=[0, 4]),
    "objects for numbers": zarr(data_type="object"),
    "a shape of texts": zarr(shape=["x", "y"]),
    "no description": zarr(shape=None),
}


def looked_at(run):
    """Everything that one does with a run, each with what it says on the terminal."""
    H = solves.network()

    def typed(*words):
        from typer.testing import CliRunner

        result = CliRunner().invoke(app, [*words[:1], str(run), *words[1:]])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return {
        "open": lambda: str(cs.open(run)),
        "more pairs": lambda: str(cs.eigsh(H, 5, method="krylov", run=run, progress=False)),
        "info": lambda: typed("info"),
        "overlap": lambda: typed("overlap"),
        "report": lambda: typed("report"),
        "export": lambda: typed("export", "--format", "npz"),
        "certify": lambda: typed("certify"),
    }


def digest(folder):
    """Of all names and contents below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        total.update(str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b""))
    return total.hexdigest()


def cases(whole=False):
    """Yield (which harm, whether it held); some of them unless ``whole``."""
    for name, held, _ in harms(tuple(HARMS)[:: 1 if whole else 20]):
        yield name, held


def harms(names):
    """Yield (which harm, whether nothing outside changed, nothing waited, and every refusal was in words, what went wrong)."""
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        base = place / "base"
        cs.eigsh(solves.network(), 4, method="krylov", run=base, progress=False)
        for number, name in enumerate(names):
            home = place / str(number)
            outside = home / "outside"
            (outside / "photos").mkdir(parents=True)
            (outside / "photos" / "a.jpg").write_text("x")
            (outside / "thesis.txt").write_text("my thesis")
            shutil.copytree(base, home / "run")
            HARMS[name](home / "run", outside)
            code, found = solves.in_a_fork(lambda home=home, outside=outside: _harm(home / "run", outside), home / "report")
            yield name, code == 0 and found == [], found


def _harm(run, outside):
    """What went wrong, in words, of everything that one does with this run."""
    wrong, before = [], digest(outside)
    for name, look in looked_at(run).items():
        said = ""
        signal.alarm(60)
        try:
            with contextlib.redirect_stderr(io.StringIO()) as errors:
                said = look()
            said += errors.getvalue()
        except cs.CurvscopeError as error:
            if len(str(error)) > 2000:
                wrong.append(f"{name}: a message of {len(str(error))} characters")
        except Exception as error:  # noqa: BLE001 -- that is what is counted
            wrong.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
        if "\x1b" in said or "\x07" in said:
            wrong.append(f"{name}: an escape sequence reached the terminal")
    if digest(outside) != before:
        wrong.append("something outside of the run changed")
    return wrong
