"""What a command measures: a run's operator, a problem's, or that of the user's own function, and what is chosen of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from curvscope.cli._names import (
    Arguments,
    Checkpoint,
    ConfigFile,
    DataFolder,
    Device,
    Matrix,
    Named,
    NamedOrRun,
    Params,
    Precision,
    ProblemName,
    Split,
    Step,
    TargetName,
)
from curvscope.errors import InvalidArgument

MISSING = (
    "name what is measured: MODULE:FUNCTION or FILE.py:FUNCTION (a function of yours that returns (model, loss, data)), or a "
    "problem, which `curvscope info` lists"
)
OF_A_PROBLEM = " is for a --problem: your --target function decides by itself"
HUGGING_FACE = "hf:"


@dataclass
class Training:
    """Options that name a function of the user's or a problem, by the argument or by an option.

    Raises:
        InvalidArgument: nothing or several things are named, or an option does not apply to what is named.
    """

    named: Named = None
    target: TargetName = None
    arguments: Arguments = None
    config: ConfigFile = None
    problem: ProblemName = None
    data: DataFolder = None
    run: Path | None = field(default=None, init=False)
    given: dict[str, Any] = field(default_factory=dict, init=False)
    """Arguments of the user's function."""

    HAS_RUNS: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.named is not None:
            self._place(self.named)
        named = [name for name in ("run", "problem", "target") if getattr(self, name) is not None]
        if not named:
            raise InvalidArgument(("name a RUN, or " if self.HAS_RUNS else "") + MISSING)
        if len(named) > 1:
            raise InvalidArgument(f"pass one of {'RUN, ' * self.HAS_RUNS}--problem NAME and --target MODULE:FUNCTION")
        if self.target is not None:
            self._refuse(("data",), OF_A_PROBLEM)
        if self.problem is not None:
            self._refuse(("arguments", "config"), " is for a function of yours, a problem has none: leave the option out")
        if self.target is not None and (self.arguments is not None or self.config is not None):
            from curvscope.cli._arguments import arguments_of

            self.given = arguments_of(self.config, self.arguments or ())

    def _place(self, word: str) -> None:
        """Say what a word names: a run's folder, a problem, or a function of the user's.

        Raises:
            InvalidArgument: none of them.
        """
        kind = self._kind(word)
        if getattr(self, kind) is not None:
            raise InvalidArgument(f"{word} and --{kind} {getattr(self, kind)}: pass one of them")
        setattr(self, kind, Path(word) if kind == "run" else word)

    def _kind(self, word: str) -> str:
        if word.startswith(HUGGING_FACE):
            return "problem"
        if ":" in word or word.endswith(".py"):
            return "target"
        folder = Path(word)
        if (folder / "manifest.json").exists():
            if not self.HAS_RUNS:
                raise InvalidArgument(
                    f"{word} is a run: for more of its pairs repeat the command that made it, with another -k; {MISSING}"
                )
            return "run"
        from curvscope.problems import names

        if word in names():
            return "problem"
        if _is_module(word, installed=not self.HAS_RUNS):
            return "target"
        if self.HAS_RUNS:
            return "run"  # which says what is missing there
        raise InvalidArgument(f"there is no module, file or problem {word!r}; {MISSING}")

    def _refuse(self, names: tuple[str, ...], why: str) -> None:
        for name in names:
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise InvalidArgument(f"{FLAGS.get(name, f'--{name}')}{why}")


@dataclass
class Source(Training):
    """Options that say what is measured; those that do not apply are refused by name, before any work."""

    step: Step = 0
    split: Split = "train"
    matrix: Matrix = "hessian"
    params: Params = None
    precision: Precision = None
    device: Device = None
    checkpoint: Checkpoint = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.run is not None:
            self._refuse(_DESCRIBING, ": a RUN has its own operator, leave the option out, or the RUN")
        elif self.target is not None:
            self._refuse(("split", "step"), OF_A_PROBLEM)
        elif self.checkpoint is not None and self.step:
            raise InvalidArgument("--step and --checkpoint: pass one of them, the checkpoint has the weights")
        self._check_values()

    def _check_values(self) -> None:
        from curvscope.runs import MATRICES, Choices

        if self.matrix not in MATRICES:
            raise InvalidArgument(f"--matrix {self.matrix!r}: choose one of {', '.join(MATRICES)}{_meant(self.matrix)}")
        if self.params is not None:
            globs = [part.strip() for given in self.params for part in given.split(",")]
            self.params = [glob for glob in globs if glob]
        try:
            Choices.of(self.options())
        except InvalidArgument as error:  # it begins with the name of the choice
            raise InvalidArgument(f"--{error}") from error
        if self.checkpoint is not None and not self.checkpoint.is_file():
            raise InvalidArgument(f"--checkpoint {self.checkpoint}: there is no such file")

    def options(self) -> dict[str, Any]:
        """Return what a run records of its source; options that were not there in earlier versions only where given."""
        recorded: dict[str, Any] = {
            "problem": self.problem,
            "target": self.target,
            "data": None if self.data is None else str(self.data),
            "step": self.step,
            "split": self.split,
            "matrix": self.matrix,
        }
        later = {
            "precision": self.precision,
            "arguments": self.given or None,
            "params": self.params,
            "device": self.device,
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
        }
        return recorded | {name: value for name, value in later.items() if value is not None}


@dataclass
class SourceOrRun(Source):
    """As :class:`Source`; also the operator of a run."""

    named: NamedOrRun = None

    HAS_RUNS: ClassVar[bool] = True


FLAGS = {"arguments": "--arg"}
"""Names of options that differ from those of the fields."""
_DESCRIBING = ("arguments", "config", "data", "step", "split", "matrix", "params", "precision", "checkpoint")


def _is_module(word: str, *, installed: bool) -> bool:
    """Return whether there is a module of this name, in the current folder or, if wanted, installed; nothing is imported."""
    top = word.partition(".")[0]
    if not top.isidentifier():
        return False
    here = Path(f"{top}.py").is_file() or (Path(top) / "__init__.py").is_file() or ("." in word and Path(top).is_dir())
    try:
        return here or (installed and find_spec(top) is not None)
    except (ImportError, ValueError):
        return False


def _meant(matrix: str) -> str:
    other = {"fisher": "empirical_fisher or monte_carlo_fisher", "gauss_newton": "ggn", "gn": "ggn", "ef": "empirical_fisher"}
    return f"; for {matrix} write {other[matrix]}" if matrix in other else ""
