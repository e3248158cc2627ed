"""The manifest of a run: a JSON file that people can read, with a checksum over its content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curvscope.errors import DamagedData, RunNotFound
from curvscope.store._files import write_text
from curvscope.store._seals import CHECKSUM, digest_of, sealed
from curvscope.store._untrusted import check_folder, printable, read_plain, shown

MANIFEST = "manifest.json"
FORMAT, WITHOUT_CHECKSUM = "curvscope run 2", "curvscope run 1"
"""Formats: the present one always has a checksum, so a manifest that lost it is found; the earlier one may have none."""
RESTORE = "put the original back, or begin again in another directory"
NEEDED = {"kind": str, "options": dict, "created": str, "command": list, "versions": dict}
"""Sections of every manifest."""
OPTIONAL = {"id": str, "sessions": list, "stages": dict, "solve": dict, "operator": dict, "decisions": dict, "plan": dict}


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a run with a checksum; it is on the device when this returns.

    The checksum is over the values as they are read back: numbers that are keys become texts in JSON.
    """
    content = json.loads(json.dumps({**manifest, "format": FORMAT}))
    write_text(folder / MANIFEST, json.dumps(sealed(content), indent=1))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of the run in a folder.

    Raises:
        RunNotFound: there is none, it is no JSON, or of another format. DamagedData: it was altered, or the folder holds links,
            or files that are none.
    """
    try:
        check_folder(folder)
        content = read_plain(folder / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):
        name = printable(str(folder))
        raise RunNotFound(f"{name} is no run (it has no {MANIFEST}): pass a directory written with --out") from None
    return parse_manifest(content, folder / MANIFEST)


def parse_manifest(content: bytes, file: Path) -> dict[str, Any]:
    """Return the manifest that the bytes of a file hold; raises as :func:`read_manifest`."""
    try:
        manifest = dict(json.loads(content.decode("utf-8")))
    except (ValueError, TypeError, RecursionError) as error:  # no JSON, no text, no object, or one without end
        raise RunNotFound(f"{file} is not readable JSON ({shown(str(error))}): {RESTORE}") from error
    if manifest.get("format") not in (FORMAT, WITHOUT_CHECKSUM):
        raise RunNotFound(
            f"{file.parent} has format {shown(manifest.get('format'))}, this version reads {FORMAT!r}: compute it again, "
            "elsewhere"
        )
    if (CHECKSUM in manifest or manifest["format"] == FORMAT) and manifest.pop(CHECKSUM, "") != _digest(manifest):
        raise DamagedData(f"{file} does not match its checksum, it was altered: {RESTORE}")
    if missing := [name for name in NEEDED if name not in manifest]:
        raise RunNotFound(f"{file} has no {', '.join(missing)}: {RESTORE}")
    if wrong := _wrongly_typed(manifest):
        raise RunNotFound(f"{file} has another {wrong} than we write: {RESTORE}")
    return manifest


def _digest(manifest: dict[str, Any]) -> str | None:
    """Return the checksum of a manifest, or None if it is nested so deeply that it cannot be one of ours."""
    try:
        return digest_of(manifest)
    except RecursionError:
        return None


def _wrongly_typed(manifest: dict[str, Any]) -> str | None:
    """Return the first section of a manifest that is of another type than we write."""
    for name, kind in (NEEDED | OPTIONAL).items():
        if name in manifest and not isinstance(manifest[name], kind):
            return name
    for name in ("sessions", "stages"):
        entries = manifest.get(name, {})
        if not all(isinstance(entry, dict) for entry in (entries.values() if isinstance(entries, dict) else entries)):
            return name
    return None if all(isinstance(word, str) for word in manifest["command"]) else "command"
