"""Power failures: what was not synchronised to the device is gone.

``os.fsync`` of a file makes its content durable, that of a folder its entries. Two devices are simulated: a strict one, which
keeps nothing else, and one that wrote the entries of all folders at once, but no content that was not asked for: renamed files
are empty there, as on file systems that delay allocation.
"""

import os
import random
import tempfile
from pathlib import Path

import torch

from curvscope.measurement import InRun

from . import solves

DEVICES = ("strict", "entries first")


class Device:
    """What the device holds, by inode; files and folders stay open, so that no inode number is used twice."""

    def __init__(self):
        self.contents, self.entries, self.opened = {}, {}, []

    def synchronised(self, descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        number = os.fstat(descriptor).st_ino
        if number not in self.contents and number not in self.entries:
            self.opened.append(os.dup(descriptor))
        if path.is_dir():
            self.entries[number] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self.contents[number] = path.read_bytes()

    def after_failure(self, folder, target, kind):
        """Write the tree that the device holds to ``target``."""
        if kind == "strict":
            self._write(folder.stat().st_ino, target, _inodes(folder))
        else:
            self._write_entries(folder, target)

    def _write(self, number, target, folders):
        target.mkdir(exist_ok=True)
        for name, inode in self.entries.get(number, {}).items():
            if inode in self.contents:
                (target / name).write_bytes(self.contents[inode])
            elif inode in self.entries or inode in folders:
                self._write(inode, target / name, folders)
            else:
                (target / name).write_bytes(b"")

    def _write_entries(self, source, target):
        target.mkdir(exist_ok=True)
        for entry in os.scandir(source):
            if entry.is_dir():
                self._write_entries(entry.path, target / entry.name)
            else:
                (target / entry.name).write_bytes(self.contents.get(entry.inode(), b""))


def _inodes(folder):
    return {path.stat().st_ino for path in folder.rglob("*") if path.is_dir()}


def fails_at(fatal, method, parent, after, saved, kind):
    """Solve in ``parent / run`` until the fatal-th synchronisation or rename; then leave what the device holds in ``after``."""
    device, count = Device(), 0
    originals = {"fsync": os.fsync, "replace": Path.replace, "rename": Path.rename, "save": InRun.save_state}

    def event():
        nonlocal count
        count += 1
        if count == fatal:
            os.fsync = originals["fsync"]
            device.after_failure(parent, after, kind)
            os._exit(9)

    def fsync(descriptor):
        event()
        device.synchronised(descriptor)

    def counted(original):
        def put(path, target):
            event()
            return original(path, target)

        return put

    def save_state(self, basis, facts, tensors):
        originals["save"](self, basis, facts, tensors)
        saved.write_text(str(facts["spent"]["products"]))

    os.fsync, Path.replace, Path.rename = fsync, counted(originals["replace"]), counted(originals["rename"])
    InRun.save_state = save_state
    solves.solve(method, parent / "run")
    return count


def cases(whole=False):
    """Yield (what was tried, whether it held); ``whole``: 52 failures instead of 4."""
    for seed in (1, 2) if whole else (0,):
        yield from failures(13 if whole else 2, seed)


def failures(tries, seed):
    """Yield (what was tried, whether the run went on, lost at most its last state, and ended with the same numbers)."""
    generator = random.Random(seed)
    for method in ("krylov", "seigh"):
        with tempfile.TemporaryDirectory() as place:
            place = Path(place)
            (place / "whole").mkdir()
            code, events = solves.in_a_fork(
                lambda place=place, method=method: fails_at(0, method, place / "whole", None, place / "saved", "strict"),
                place / "report",
            )
            assert code == 0, events
            expected = solves.solve(method, None)[1]
            for number in range(tries):
                kind, fatal = DEVICES[number % 2], generator.randint(1, events)
                yield f"{method}, {kind}, failure at event {fatal}", _goes_on(method, kind, fatal, expected)


def _goes_on(method, kind, fatal, expected):
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        (place / "before").mkdir()
        (place / "after").mkdir()
        saved = place / "saved"
        solves.in_a_fork(lambda: fails_at(fatal, method, place / "before", place / "after", saved, kind), place / "report")
        spent = int(saved.read_text()) if saved.exists() else 0

        def go_on():
            A, found = solves.solve(method, place / "after" / "run")
            return A.products, found.eigenvalues.tolist(), expected.cost.products + expected.cost.certificate_products

        code, found = solves.in_a_fork(go_on, place / "report2")
        if code:
            return False
        products, values, total = found
        same = torch.allclose(torch.tensor(values, dtype=torch.float64), expected.eigenvalues, rtol=1e-6)
        return same and products <= total - spent
