"""Conformance suites: what every operator, test matrix, tall matrix and eigensolver must do, each check a function that raises.

To enrol a new one, add a line to the list that a test is parametrised by::

    @pytest.mark.parametrize("check", cs_testing.OPERATOR_CHECKS, ids=lambda check: check.__name__)
    @pytest.mark.parametrize("operator", [my_operator, another])
    def test_conformance(operator, check):
        check(operator)

or run all checks at once: ``check_operator(my_operator)``. A failed check raises AssertionError and says what was violated.

``check_second_derivatives(model, loss, batch)`` compares second derivatives of one network with differences instead, and
returns what it found.
"""

from curvscope.testing._derivatives import SecondDerivatives, check_second_derivatives
from curvscope.testing._operators import OPERATOR_CHECKS, check_operator
from curvscope.testing._sketches import TEST_MATRIX_CHECKS, check_test_matrix
from curvscope.testing._solvers import SOLVER_CHECKS, check_solver
from curvscope.testing._tall import TALL_CHECKS, check_tall

__all__ = [
    "OPERATOR_CHECKS",
    "SOLVER_CHECKS",
    "TALL_CHECKS",
    "TEST_MATRIX_CHECKS",
    "SecondDerivatives",
    "check_operator",
    "check_second_derivatives",
    "check_solver",
    "check_tall",
    "check_test_matrix",
]
