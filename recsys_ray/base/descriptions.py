"""What the settings of a section say of themselves: the docstring below each field.

pydantic can collect these when a class is made, and looks through every loaded module for it: that took half the time
of an import. Here they are read when somebody asks.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache

from pydantic import BaseModel


@cache
def descriptions(section: type[BaseModel]) -> dict[str, str]:
    """By field, the string that stands below it, in the class or in one that it inherits from."""
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        if not issubclass(kind, BaseModel) or kind is BaseModel or kind.__module__.startswith("pydantic"):
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        except (OSError, TypeError):  # made by a function, with the fields of the class it inherits from
            continue
        assert isinstance(tree, ast.ClassDef)
        for field, said in zip(tree.body, tree.body[1:], strict=False):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
                found[field.target.id] = inspect.cleandoc(str(said.value.value))
    return {name: text for name, text in found.items() if name in section.model_fields}
