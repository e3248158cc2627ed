"""Numbers of the page "Notes on the paper", from the published values that are packaged: ``python docs/paper_notes.py``."""

from collections.abc import Callable

from curvscope.studies.engine import published

MNIST_SIZE = 7030
QUOTED_K = (1, 5, 10, 50, 100)


def largest_ratios() -> dict[str, float]:
    """Largest overlap over chance of 3c3d by k range, over all steps and splits."""
    paper = published("cifar10")
    found: dict[str, float] = {}
    for own in paper["steps"].values():
        for split in ("train", "test"):
            for k, value in zip(paper["k"], own[split]["overlap"], strict=True):
                name = "k <= 5" if k <= 5 else "k = 7 to 30" if k <= 30 else "k >= 50"
                found[name] = max(found.get(name, 0.0), value * paper["D"] / k)
    return found


def ratios_at_100() -> dict[str, float]:
    """Overlap over chance at k = 100 of the packaged problems' last steps, test Hessian."""
    paper, small = published("cifar10"), published("mnist16")["steps"]["1000"]["test"]
    at = paper["k"].index(100)
    return {
        "mnist16, step 1000": small["overlap"][99] * MNIST_SIZE / 100,
        "3c3d, step 8000": paper["steps"]["8000"]["test"]["overlap"][at] * paper["D"] / 100,
    }


def off_by_one() -> dict[str, float]:
    """Return what figure 4 (left) shows, frob_(k+1) / k, over the overlap, at step 100 of mnist16."""
    overlap = published("mnist16")["steps"]["100"]["train"]["overlap"]
    return {f"k = {k}": overlap[k] * (k + 1) / k / overlap[k - 1] for k in QUOTED_K}


def small_k() -> dict[str, float]:
    """Overlap over chance of mnist16 at step 1000, train Hessian."""
    overlap = published("mnist16")["steps"]["1000"]["train"]["overlap"]
    return {f"k = {k}": overlap[k - 1] * MNIST_SIZE / k for k in (*QUOTED_K, 350)}


def sketch_error() -> dict[str, float]:
    """Sketched over exact overlap of mnist16, smallest and largest over k = 10 to 350, by step."""
    found = {}
    for step, own in published("mnist16")["steps"].items():
        pairs = list(zip(own["train"]["sketched_overlap"], own["train"]["overlap"], strict=False))[9:350]
        ratios = [sketched / exact for sketched, exact in pairs]
        found |= {f"step {step}, smallest": min(ratios), f"step {step}, largest": max(ratios)}
    return found


NOTES: dict[str, Callable[[], dict[str, float]]] = {
    "largest ratios": largest_ratios,
    "ratios at k = 100": ratios_at_100,
    "off by one": off_by_one,
    "small k": small_k,
    "sketch": sketch_error,
}

if __name__ == "__main__":
    for title, compute in NOTES.items():
        print(title)  # noqa: T201 -- what it is for
        for name, value in compute().items():
            print(f"  {name}: {value:.4g}")  # noqa: T201
