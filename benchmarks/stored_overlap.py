"""Overlap of every k from stored eigenvectors: time, memory and bytes read, for D = 11.7 million and k = 1500.

``python benchmarks/stored_overlap.py --folder DIR [--size D] [--k K]``. The vectors would fill D x K x 4 bytes (70 GB); only
their rows at the K largest parameters are read, so only the file pages with those rows are written, the rest are holes: 150 MB
on disk. Tiles are 65,536 rows x 64 columns of float32, row after row. Files are dropped from the page cache before the timed
part.
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
from curvscope.tall import TallMatrix

TILE = (65536, 64)


class Tiled(TallMatrix):
    """A D x K float32 matrix in one raw file a tile; rows are read by their pages alone."""

    def __init__(self, folder: Path, rows: int, columns: int) -> None:
        self.folder, self.shape = folder, (rows, columns)
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def rows(self, index: torch.Tensor | slice) -> torch.Tensor:
        """The rows at ``index``."""
        found = torch.empty(len(index), self.shape[1])
        home = index // TILE[0]
        for tile_row in home.unique().tolist():
            here = (home == tile_row).nonzero().flatten()
            inside = (index[here] - tile_row * TILE[0]).numpy()
            for column in range(0, self.shape[1], TILE[1]):
                tile = np.memmap(self.folder / f"{tile_row}.{column // TILE[1]}", np.float32, "r", shape=TILE)
                found[here, column : column + TILE[1]] = torch.from_numpy(tile[inside, : self.shape[1] - column])
        return found


Tiled.__abstractmethods__ = frozenset()  # nothing but rows is read, and nothing is written


def make(folder: Path, size: int, k: int) -> None:
    """Parameters, and the tiles with random numbers in the rows of the k largest."""
    generator = np.random.default_rng(0)
    theta = generator.standard_normal(size, dtype=np.float32)
    np.save(folder / "theta.npy", theta)
    order = np.sort(np.argpartition(-np.abs(theta), k)[:k])
    block = generator.standard_normal((k, k), dtype=np.float32) / np.sqrt(size, dtype=np.float32)
    for tile_row in range(-(-size // TILE[0])):
        here = order // TILE[0] == tile_row
        for column in range(0, k, TILE[1]):
            with (folder / f"{tile_row}.{column // TILE[1]}").open("wb") as file:
                file.truncate(TILE[0] * TILE[1] * 4)
                for place, row in zip(order[here] - tile_row * TILE[0], block[here], strict=True):
                    file.seek(int(place) * TILE[1] * 4)
                    file.write(np.pad(row[column : column + TILE[1]], (0, max(0, column + TILE[1] - k))).tobytes())
    os.sync()
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(folder: Path, size: int, k: int) -> dict[str, float]:
    """In this process: the ranking, then the curve; the peak includes torch itself."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    ranking = cs.masks.by_magnitude(torch.from_numpy(np.load(folder / "theta.npy")))
    ranked = time.perf_counter()
    curve = cs.overlap(Tiled(folder, size, k), ranking, check=False)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "ranking_s": ranked - start,
        "overlap_s": done - ranked,
        "total_s": done - start,
        "peak_mib": peak / 1024,
        "peak_over_imports_mib": (peak - before) / 1024,
        "ratio_at_k": float(curve.ratio[-1]),
    }


def main() -> None:
    """Make the files, measure in a fresh process, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--size", type=int, default=11_700_000)
    parser.add_argument("--k", type=int, default=1500)
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.timed:
        print(json.dumps(timed(options.folder, options.size, options.k)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        make(Path(folder), options.size, options.k)
        command = [sys.executable, __file__, "--timed", "--folder", folder, "--size", str(options.size), "--k", str(options.k)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    versions = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
    print(json.dumps({"D": options.size, "k": options.k, **found, **versions}, indent=1))


if __name__ == "__main__":
    main()
