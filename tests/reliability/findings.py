"""What harnesses of calls share: a call is refused by name, gives something, or falls."""

import warnings

from curvscope.errors import CurvscopeError


def outcome(call, passed_on=lambda error: False):
    """(result, None), (None, None) for a refusal by name or an error that is passed on, else (None, what came in words)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(), None
    except CurvscopeError:
        return None, None
    except Exception as error:  # noqa: BLE001 -- anything else is what is looked for
        return None, None if passed_on(error) else f"{type(error).__name__}: {str(error)[:150]}"


def as_cases(findings):
    """(name, held) for each (name, None or what came)."""
    for name, found in findings:
        yield name, found is None


def fallen(findings):
    """What fell, in words."""
    return [f"{name}: {found}" for name, found in findings if found is not None]
