"""Make the packaged 16 x 16 MNIST from the full set: ``python benchmarks/make_mnist16.py --data DIR``.

Deterministic: the same input gives the same arrays, which the test of the packaged data pins by a hash.
"""

import argparse
from pathlib import Path

import numpy as np

from curvscope.problems import PACKAGED, full, lowest_of_each_class

TRAIN_PER_CLASS, TEST_PER_CLASS = 1_000, 200


def main() -> None:
    """Write the archive into the package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="directory with MNIST/raw")
    digits = full(parser.parse_args().data)
    train = lowest_of_each_class(digits.train_labels, TRAIN_PER_CLASS)
    test = lowest_of_each_class(digits.test_labels, TEST_PER_CLASS)
    target = Path(__file__).parents[1] / "src" / "curvscope" / "problems" / "data" / PACKAGED
    np.savez_compressed(
        target,
        train_images=digits.train_images[train].numpy(),
        train_labels=digits.train_labels[train].numpy().astype(np.uint8),
        test_images=digits.test_images[test].numpy(),
        test_labels=digits.test_labels[test].numpy().astype(np.uint8),
    )
    print(f"{target.name}: {target.stat().st_size / 2**20:.2f} MiB, {len(train)} + {len(test)} images")


if __name__ == "__main__":
    main()
