"""Orthonormalisation of tall matrices in memory, beside torch.linalg.qr.

``python benchmarks/tall.py [--columns 500 1000] [--conditions 1e2 1e6 1e7 deficient] [--methods ours qr]``

W = G M, single precision, D = 895,210, G Gaussian, M of the given condition number; "deficient": rank n/2. Each case runs in a
process of its own: wall and CPU seconds, ||Q'Q - I||_2 and the residual ||W - QR||_F / ||W||_F (of 50,000 rows) in double
precision, and the peak of resident memory above what W takes. Ours overwrites W (``into=W``), as the memory of qr's Q would
hold a copy. Rows of earlier runs are kept, so that cases can be run one by one. Writes tall.json and tall.md.
"""

import argparse
import ctypes
import json
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from curvscope.tall import InMemory, orthogonality, orthonormalize
from machine import cpu

ROWS = 895_210
KEY = ("columns", "condition", "method", "threads")


def small(columns: int, condition: str) -> Tensor:
    """M, (n, n) float64, with logarithmically spaced singular values, or half of them zero."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=torch.float64)).Q for _ in range(2))
    if condition == "deficient":
        sizes = (torch.arange(columns) < columns // 2).double()
    else:
        sizes = torch.logspace(0, -torch.log10(torch.tensor(float(condition))).item(), columns, dtype=torch.float64)
    return (left * sizes) @ right.T


def tall(rows: int, columns: int, condition: str) -> InMemory:
    """W, with contiguous columns."""
    matrix = InMemory.empty(rows, columns, torch.float32, torch.device("cpu"))
    matrix.tensor.T.normal_(generator=torch.Generator().manual_seed(1))
    matrix.rotate(small(columns, condition))
    return matrix


def memory(name: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def one(method: str, rows: int, columns: int, condition: str) -> dict:
    """One case, in this process."""
    matrix = tall(rows, columns, condition)
    sample = matrix.tensor[:50_000].clone()
    orthonormalize(InMemory(torch.randn(2000, columns)))  # the libraries start their threads
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed counts again when it is used again
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    if method == "qr":
        basis, coefficients = torch.linalg.qr(matrix.tensor)
    else:
        # all n directions are asked for where the rank is full: by default those below 2 u ||W||_F count as noise
        found = orthonormalize(matrix, into=matrix, noise=None if condition == "deficient" else 0.0)
        basis, coefficients = found.basis.to_tensor(), found.coefficients
    seconds = {"seconds": time.perf_counter() - wall, "CPU seconds": time.process_time() - cpu}
    extra = memory("VmHWM") - before
    del matrix
    rest = sample.double() - basis[: len(sample)].double() @ coefficients.double()
    return {
        "columns": columns,
        "condition": condition,
        "method": method,
        "threads": torch.get_num_threads(),
        **seconds,
        "rank": basis.shape[1],
        "||Q'Q - I||": orthogonality(InMemory(basis), spectral=True),
        "residual": float(rest.norm() / sample.double().norm()),
        "extra memory": extra / (4 * rows * columns),
    }


def written(rows: list[dict], out: Path) -> None:
    """tall.json and tall.md, with the times of each case over those of qr."""
    peers = [row for row in rows if row["method"] == "qr"]
    for row in rows:
        same = [peer for peer in peers if (peer["columns"], peer["threads"]) == (row["columns"], row["threads"])]
        same.sort(key=lambda peer: peer["condition"] != row["condition"])
        qr = same[0] if same else None
        for name in ("seconds", "CPU seconds"):
            row[f"{name} / qr"] = row[name] / qr[name] if qr else None
    rows.sort(key=lambda row: [str(row[name]) for name in KEY])
    facts = {"cpu": cpu(), "python": platform.python_version(), **{name: version(name) for name in ("curvscope", "torch")}}
    (out / "tall.json").write_text(json.dumps({"environment": facts, "D": ROWS, "rows": rows}, indent=1) + "\n")
    heads = list(rows[0])
    text = [f"D = {ROWS:,}, float32; " + "; ".join(f"{name} {value}" for name, value in facts.items()), ""]
    text += [
        "Extra memory in parts of W. Ratios are to qr of the same case, else of the same n: its time does not depend on W.",
        "",
    ]
    text += ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    text += ["| " + " | ".join(f"{v:.2g}" if isinstance(v, float) else str(v) for v in row.values()) + " |" for row in rows]
    (out / "tall.md").write_text("\n".join(text) + "\n")


def main() -> None:
    """Run the cases asked for and add them to what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--columns", type=int, nargs="+", default=[500, 1000])
    parser.add_argument("--conditions", nargs="+", default=["1e2", "1e6", "1e7", "deficient"])
    parser.add_argument("--methods", nargs="+", default=["ours", "qr"], choices=["ours", "qr"])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--here", action="store_true", help="one case, in this process")
    given = parser.parse_args()
    if given.here:
        print(json.dumps(one(given.methods[0], given.rows, given.columns[0], given.conditions[0])))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    stored = given.out / "tall.json"
    found = {tuple(r[name] for name in KEY): r for r in (json.loads(stored.read_text())["rows"] if stored.exists() else [])}
    for columns in given.columns:
        for condition in given.conditions:
            for method in given.methods:
                case = ["--columns", str(columns), "--conditions", condition, "--methods", method, "--rows", str(given.rows)]
                done = subprocess.run([sys.executable, __file__, "--here", *case], capture_output=True, text=True, check=True)
                row = json.loads(done.stdout.splitlines()[-1])
                found[tuple(row[name] for name in KEY)] = row
                print(row, flush=True)
                written(list(found.values()), given.out)


if __name__ == "__main__":
    main()
