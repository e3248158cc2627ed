"""Copies of an operator: whole in this process, by its recipe in another one."""

from __future__ import annotations

import copy
from typing import Any, Self

from curvscope.errors import InvalidType


class Copies:
    """Copying and pickling of an operator, which holds the user's model, loss and data, and traced programs.

    A pickle holds the :class:`curvscope.Recipe` alone; ``copy.deepcopy`` copies everything.
    """

    recipe: Any

    def __copy__(self) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = object.__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the recipe.

        Raises:
            InvalidType: there is none.
        """
        if self.recipe is None:
            raise InvalidType(
                f"a {type(self).__name__} holds your model, loss and data, which are not pickled: save model.state_dict() "
                "and build it again, or build it by cs.Recipe('module:function').build(), which can be pickled; "
                "solution.save(path) keeps eigenpairs"
            )
        return type(self.recipe).build, (self.recipe,)
