"""Code of templates that are traced: where an operator would not ask a traced text, the environment is asked."""

from __future__ import annotations

from typing import Any

import jinja2.nodes as nodes

from sft_shards.formats.templates.metered_code import MeteredCodeGenerator


class TracingCodeGenerator(MeteredCodeGenerator):
    """Compiles `a in b` so that it is noticed when a text of a message is looked up in another text."""

    def visit_Compare(self, node: nodes.Compare, frame: Any) -> None:  # noqa: N802 - jinja2's name
        """Write `environment.looked_up(a, b) in b`, as it were; other comparisons as they are."""
        if not any(operand.op in ("in", "notin") for operand in node.ops):
            super().visit_Compare(node, frame)
            return
        if len(node.ops) > 1:
            self.fail("comparisons of several values that look one up are not traced", node.lineno)
        self.write("(not " if node.ops[0].op == "notin" else "(")
        self._call("contains", [node.ops[0].expr, node.expr], frame)
        self.write(")")

    def visit_Getitem(self, node: nodes.Getitem, frame: Any) -> None:  # noqa: N802
        """Write `environment.sliced(a, b, c, None)` for `a[b:c]`."""
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        bounds = (node.arg.start, node.arg.stop, node.arg.step)
        self._call("sliced", [node.node, *(bound or nodes.Const(None) for bound in bounds)], frame)

    def visit_If(self, node: nodes.If, frame: Any) -> None:  # noqa: N802
        """Write `place = environment.held(place)` for `{% if place < 0 %}{% set place = 0 %}{% endif %}`."""
        place = node.test.expr if isinstance(node.test, nodes.Compare) else None
        if not isinstance(place, nodes.Name) or repr(node) != repr(_held(place.name)):
            super().visit_If(node, frame)
            return
        self.push_assign_tracking()
        self.newline(node)
        self.visit(nodes.Name(place.name, "store"), frame)
        self.write(" = ")
        self._call("held", [place], frame)
        self.pop_assign_tracking(frame)


def _held(name: str) -> nodes.If:
    """Return the statement that sets a number to 0 if it is below."""
    zero = nodes.Const(0)
    test = nodes.Compare(nodes.Name(name, "load"), [nodes.Operand("lt", zero)])
    return nodes.If(test, [nodes.Assign(nodes.Name(name, "store"), zero)], [], [])
