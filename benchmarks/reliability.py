"""What runs withstand: kills, power failures, strangers' files, processes beside each other, wrong arguments; counted.

    python benchmarks/reliability.py                   # everything, about an hour on one core
    python benchmarks/reliability.py power beside      # these harnesses, the others as they were measured last
    python benchmarks/reliability.py --seconds 300     # each harness as far as it comes in five minutes
    python benchmarks/reliability.py --small           # as many cases as the default tests have

Runs the harnesses of tests/reliability, writes benchmarks/results/reliability.json, and from it the table of
docs/reliability.md.
The last line says what fell; exit status 1 if anything did. Needs Linux: sessions are forked, killed, and looked at in /proc.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benchmarks" / "results" / "reliability.json", ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- table: written by benchmarks/reliability.py -->\n", "<!-- end of the table -->\n"


def harnesses() -> list[str]:
    """Names of the modules of tests/reliability that yield cases."""
    files = sorted((ROOT / "tests" / "reliability").glob("*.py"))
    return [file.stem for file in files if "\ndef cases(" in file.read_text(encoding="utf-8")]


def measured(name: str, *, whole: bool, seconds: float) -> dict[str, Any]:
    """Run one harness, for so many seconds at most; what it is about, how many cases it tried, and which of them fell."""
    module = importlib.import_module(f"tests.reliability.{name}")
    begun, tried, fell = time.perf_counter(), 0, []
    for case in module.cases(whole=whole):
        tried += 1
        if not case[1]:
            fell.append(case[0])
            print(f"FELL {name}: {case[0]}", flush=True)
        if time.perf_counter() - begun > seconds:
            break
    about = (module.__doc__ or name).strip().splitlines()[0]
    return {
        "about": about,
        "tried": tried,
        "fell": fell,
        "seconds": round(time.perf_counter() - begun),
        "whole": whole,
        "when": time.strftime("%Y-%m-%d"),
        "versions": {"curvscope": version("curvscope"), "torch": torch.__version__, "python": platform.python_version()},
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """The table of the page."""
    rows = ["| harness | what is done | tried | held | fell | seconds |", "| --- | --- | --- | --- | --- | --- |"]
    rows += [
        f"| `{name}` | {kind['about']} | {kind['tried']} | {kind['tried'] - len(kind['fell'])} | {len(kind['fell'])} | "
        f"{kind['seconds']} |"
        for name, kind in sorted(found.items())
    ]
    small = [name for name, kind in sorted(found.items()) if not kind["whole"]]
    note = f"\nSmall numbers of cases, as in the default tests: {', '.join(small)}.\n" if small else ""
    return "\n".join(rows) + "\n" + note


def main() -> None:
    """Run the harnesses that were asked for, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of harnesses: {', '.join(harnesses())}; default: all")
    parser.add_argument("--small", action="store_true", help="as many cases as the default tests")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop each harness after so many")
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    torch.set_num_threads(1)
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in asked.names or harnesses():
        found[name] = measured(name, whole=not asked.small, seconds=asked.seconds)
        print(f"{name}: tried {found[name]['tried']}, fell {len(found[name]['fell'])}, {found[name]['seconds']} s", flush=True)
        RESULT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + table(found) + END + rest.split(END)[1], encoding="utf-8")
    fell = sum(len(found[name]["fell"]) for name in asked.names or harnesses())
    print(f"fell: {fell}")
    sys.exit(bool(fell))


if __name__ == "__main__":
    main()
