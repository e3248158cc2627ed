"""``curvscope probes``: how many probes an error estimate needs, or how sure one with so many is."""

from __future__ import annotations

from typing import Annotated

import typer

from curvscope.cli._names import AsJson
from curvscope.cli._output import print_json, terminal


def command(
    confidence: Annotated[
        float, typer.Option("--confidence", help="Probability with which the estimate shall be right.")
    ] = 0.95,
    error: Annotated[float, typer.Option("--error", help="Relative error allowed, of the squared Frobenius norm.")] = 0.5,
    probes: Annotated[int | None, typer.Option("--probes", help="Ask the other way round: how sure are this many?")] = None,
    complex_: Annotated[bool, typer.Option("--complex", help="For complex operators.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how many Gaussian probes `posterior_error` needs; they do not depend on the number of parameters."""
    from curvscope.certificates import failure_probabilities, probes_needed

    count = probes_needed(confidence, error, is_complex=complex_) if probes is None else probes
    low, high = failure_probabilities(count, error, is_complex=complex_)
    facts = {
        "probes": count,
        "relative_error": error,
        "confidence": max(0.0, 1 - low - high),
        "too_small": low,
        "too_large": high,
    }
    if as_json:
        print_json(facts)
        return
    smallest, largest = max(0.0, 1 - error) ** 0.5, (1 + error) ** 0.5
    terminal().print(
        f"{count} probes: the estimated norm lies within {smallest:.2f} to {largest:.2f} times the true one with at least "
        f"{100 * facts['confidence']:.3g} % confidence\n(too small with probability at most {low:.2g}, too large {high:.2g}; "
        "for errors of rank one, less for all others).",
        highlight=False,
        soft_wrap=True,
    )
