"""Walks syntax trees, faster than `ast.walk`. Standard library alone, as `code_scan` has it."""

from __future__ import annotations

import ast
from typing import Any

_BARE = (ast.Load, ast.Store, ast.Del)


def nodes_of(tree: ast.AST) -> list[ast.AST]:
    """All nodes in source order, without those that say nothing: most of the time goes in here."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        children: list[ast.AST] = []
        for field in node._fields:
            child: Any = getattr(node, field, None)
            if child.__class__ is list:
                children += [one for one in child if isinstance(one, ast.AST)]
            elif isinstance(child, ast.AST) and child.__class__ not in _BARE:
                children.append(child)
        children.reverse()
        waiting += children
    return found
