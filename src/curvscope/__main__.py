"""``python -m curvscope``: the command line."""

from curvscope.cli.main import run

if __name__ == "__main__":
    run()
