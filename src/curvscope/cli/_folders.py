"""Folders and files that commands write to."""

from __future__ import annotations

from pathlib import Path

from curvscope.errors import RunConflict


def free_folder(name: str) -> Path:
    """Return a folder of this name, numbered when earlier ones are there."""
    folder, number = Path(name), 1
    while folder.exists():
        number += 1
        folder = Path(f"{name}-{number}")
    return folder


def check_file(file: Path, kinds: tuple[str, ...]) -> None:
    """Check that a file can be written: of one of these kinds, new, and in a folder that can be made.

    Raises:
        RunConflict: it cannot.
    """
    from curvscope.store import check_can_be_made

    if file.suffix.lower() not in kinds:
        raise RunConflict(f"--out {file}: name a file that ends with one of {', '.join(kinds)}")
    if file.exists():
        raise RunConflict(f"--out {file}: it exists, choose another file, or remove it first")
    check_can_be_made(file.parent)


def check_removable(folder: Path, kind: str) -> bool:
    """Return whether ``--overwrite`` has a run to remove; the caller removes it when nothing else can be wrong.

    Raises:
        RunConflict: another kind of run is there, or a process works on it. RunNotFound: something that is no run.
    """
    from curvscope.store import MANIFEST, Run

    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    run = Run.open(folder)
    if run.manifest["kind"] != kind:
        raise RunConflict(f"--overwrite: {folder / MANIFEST} is of a run of {run.manifest['kind']!r}, not of {kind!r}")
    if run.in_use:
        raise RunConflict(f"--overwrite: another process works on {folder} now")
    return True
