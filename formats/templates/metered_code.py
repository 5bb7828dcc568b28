"""Code of templates that pays for its work (see `budget`).

jinja2 compiles a template to Python. This generator writes the same program, in which loops and macros count their
steps, and in which whatever makes a text or a container asks the environment (see `sandbox`) instead of doing it.
Nothing is computed at compile time, where nothing would bound it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import jinja2.compiler
import jinja2.nodes as nodes


class MeteredCodeGenerator(jinja2.compiler.CodeGenerator):
    """Writes `environment.add(a, b)` for `a + b`, and so on.

    `{% for m in messages %}{{ m.role + ': ' }}{% endfor %}` becomes, in short:

        for l_1_m in messages:
            environment.tick()
            yield environment.text(environment.add(environment.getattr(l_1_m, 'role'), ': '))
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._counted: set[int] = set()
        """`id` of each list of nodes that is the body of a loop or macro."""

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Any) -> None:
        """Write a block; the body of a loop or macro begins with a step."""
        if id(nodes) in self._counted:
            self.writeline("environment.tick()")
        super().blockvisit(nodes, frame)

    def visit_For(self, node: nodes.For, frame: Any) -> None:  # noqa: N802 - jinja2's name, as all below
        """Write a loop that counts its iterations."""
        self._counted.add(id(node.body))
        super().visit_For(node, frame)

    def macro_body(self, node: Any, frame: Any) -> Any:
        """Write a macro that counts its calls."""
        self._counted.add(id(node.body))
        return super().macro_body(node, frame)

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier, frame: Any) -> None:  # noqa: N802
        """Refuse `{% autoescape %}`: no chat template writes HTML."""
        self.fail("{% autoescape %} is not for chat templates", node.lineno)

    def visit_EvalContextModifier(self, node: nodes.EvalContextModifier, frame: Any) -> None:  # noqa: N802
        """Refuse what turns escaping on."""
        self.fail("escaping is not for chat templates", node.lineno)

    def _output_child_to_const(self, node: nodes.Expr, frame: Any, finalize: Any) -> str:
        """Compute nothing at compile time."""
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)

    def _output_child_pre(self, node: nodes.Expr, frame: Any, finalize: Any) -> None:
        self.write("environment.text(")

    def visit_Add(self, node: nodes.BinExpr, frame: Any) -> None:  # noqa: N802
        """Write a sum of any number of values as one call."""
        values: list[nodes.Expr] = [node.right]
        left = node.left
        while isinstance(left, nodes.Add):
            values.append(left.right)
            left = left.left
        self._call("add", [left, *reversed(values)], frame)

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:  # noqa: N802
        """Write `a ~ b`."""
        self._call("tilde", node.nodes, frame)

    def visit_List(self, node: nodes.List, frame: Any) -> None:  # noqa: N802
        """Write a list, which is paid for."""
        self.write("environment.made(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Any) -> None:  # noqa: N802
        """Write a tuple, which is paid for; one that is assigned to is none."""
        if node.ctx != "load":
            super().visit_Tuple(node, frame)
            return
        self.write("environment.made(")
        super().visit_Tuple(node, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Any) -> None:  # noqa: N802
        """Write a dict, which is paid for; its keys are weighed before they are hashed."""
        self.write("environment.made({")
        for item in node.items:
            self._weighed(item.key, frame)
            self.write(": ")
            self.visit(item.value, frame)
            self.write(", ")
        self.write("})")

    def visit_Getitem(self, node: nodes.Getitem, frame: Any) -> None:  # noqa: N802
        """Write a look-up; a slice is a copy and is paid for."""
        if not isinstance(node.arg, nodes.Slice):
            self.write("environment.getitem(")
            self.visit(node.node, frame)
            self.write(", ")
            self._weighed(node.arg, frame)
            self.write(")")
            return
        self.write("environment.made(")
        super().visit_Getitem(node, frame)
        self.write(")")

    def visit_Compare(self, node: nodes.Compare, frame: Any) -> None:  # noqa: N802
        """Write a comparison; containers are weighed before they are compared."""
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        light = all(_is_light(left) or _is_light(right) for left, right in pairwise(sides))
        self.write("(")
        self._side(node.expr, frame, light)
        for operand in node.ops:
            self.write(f" {jinja2.compiler.operators[operand.op]} ")
            self._side(operand.expr, frame, light)
        self.write(")")

    def _side(self, node: nodes.Expr, frame: Any, light: bool) -> None:
        if isinstance(node, (nodes.List, nodes.Tuple)) and _is_light(node):
            # Constants, which Python keeps as one tuple for all calls; a tuple compares equal to no list, though.
            self.write("(")
            if isinstance(node, nodes.List):
                super().visit_List(node, frame)
            else:
                super().visit_Tuple(node, frame)
            self.write(")")
        elif light:
            self.visit(node, frame)
        else:
            self._weighed(node, frame)

    def _weighed(self, node: nodes.Expr, frame: Any) -> None:
        if _is_light(node):
            self.visit(node, frame)
        else:
            self._call("weighed", [node], frame)

    def _call(self, function: str, values: Iterable[nodes.Expr], frame: Any) -> None:
        self.write(f"environment.{function}(")
        for value in values:
            self.visit(value, frame)
            self.write(", ")
        self.write(")")


def _is_light(node: nodes.Expr) -> bool:
    """Return whether a value is a constant, or a list of constants."""
    if isinstance(node, (nodes.List, nodes.Tuple)):
        return all(isinstance(item, nodes.Const) for item in node.items)
    return isinstance(node, nodes.Const)
