"""Overlap of every k from stored eigenvectors: time, memory and bytes read, for D = 11.7 million and k = 1500.

``python benchmarks/stored_overlap.py [--folder DIR] [--size D] [--k K] [--out FOLDER]``. The store is ours: tiles, slabs and
checksums. The vectors would fill D x K x 4 bytes (70 GB); the overlap reads the rows of the K largest parameters only, so only
the slabs with these rows are written and the rest of the files are holes. Files are dropped from the page cache before the
timed part, which runs in a process of its own.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import curvscope as cs
from curvscope.store import Tiles, checksum
from curvscope.tall import OnDisk

RESULTS = Path(__file__).parent / "results"


def make(folder: Path, size: int, k: int) -> int:
    """Parameters, and a store with random numbers in the slabs that hold the k largest; the bytes of these slabs."""
    generator = np.random.default_rng(0)
    theta = generator.standard_normal(size, dtype=np.float32)
    np.save(folder / "theta.npy", theta)
    wanted = np.argpartition(-np.abs(theta), k)[:k]
    tiles = OnDisk.create(folder / "vectors", size, k, torch.float32).tiles
    slabs = np.unique(wanted // tiles.slab)
    per_tile, written = tiles.tile[0] // tiles.slab, 0
    for row in np.unique(slabs // per_tile):
        for column in range(-(-k // tiles.tile[1])):
            written += fill(tiles, int(row), column, slabs[slabs // per_tile == row] % per_tile, generator)
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return written


def fill(tiles: Tiles, row: int, column: int, slabs: np.ndarray, generator: np.random.Generator) -> int:
    """Write some slabs of a tile, holes between them."""
    path = tiles.file(row, column)
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = tiles.slab * tiles.tile[1]
    with path.open("wb") as file:
        file.truncate(tiles.file_bytes)
        for slab in slabs:
            content = (
                generator.standard_normal(entries, dtype=np.float32) / np.sqrt(tiles.shape[0], dtype=np.float32)
            ).tobytes()
            file.seek(int(slab) * (len(content) + len(checksum(b""))))
            file.write(content + checksum(content))
    return 4 * entries * len(slabs)


def timed(folder: Path) -> dict[str, float]:
    """In this process: the ranking, then the curve; the peak includes torch itself."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    ranking = cs.masks.by_magnitude(torch.from_numpy(np.load(folder / "theta.npy")))
    ranked = time.perf_counter()
    curve = cs.overlap(OnDisk(folder / "vectors"), ranking, check=False)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "ranking_s": round(ranked - start, 2),
        "overlap_s": round(done - ranked, 2),
        "total_s": round(done - start, 2),
        "peak_mib": peak // 1024,
        "peak_over_imports_mib": (peak - before) // 1024,
        "ratio_to_chance_at_k": round(float(curve.ratio[-1]), 3),
    }


def main() -> None:
    """Make the files, measure in a fresh process, write and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where the files go, 1 GB; default: a temporary place")
    parser.add_argument("--size", type=int, default=11_689_512)
    parser.add_argument("--k", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.timed:
        print(json.dumps(timed(options.folder)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        written = make(Path(folder), options.size, options.k)
        command = [sys.executable, __file__, "--timed", "--folder", folder]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    facts = {"D": options.size, "k": options.k, "slabs_mib": written >> 20, **found}
    facts |= {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
    (options.out / "stored-overlap.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
