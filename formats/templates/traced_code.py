"""Code of templates that are traced: where an operator would not ask a traced text, the environment is asked."""

from __future__ import annotations

from typing import Any

import jinja2.nodes as nodes

from sft_shards.formats.templates.metered_code import MeteredCodeGenerator

PASSED_OVER = "passed_over"
"""The filter that gives what a loop goes through which does nothing for each character of a text."""


class TracingCodeGenerator(MeteredCodeGenerator):
    """Compiles `a in b` so that it is noticed when a text of a message is looked up in another text."""

    def visit_Template(self, node: nodes.Template, frame: Any = None) -> None:  # noqa: N802
        """Write a template whose loops look for parts of contents, and may meet a text instead."""
        for loop in list(node.find_all(nodes.For)):
            if _does_nothing_for_characters(loop):
                loop.iter = nodes.Filter(loop.iter, PASSED_OVER, [], [], None, None)
        super().visit_Template(node, frame)

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


def _does_nothing_for_characters(loop: nodes.For) -> bool:
    """Return whether a loop through a text, if it is one, does nothing.

    Vision templates go through the parts of a content, and of a text through its characters:
    `{% for part in message.content %}{% if part.type == 'image' %}…{% endif %}{% endfor %}`.
    """
    if not isinstance(loop.target, nodes.Name) or loop.test or loop.else_:
        return False
    name = loop.target.name
    return all(
        isinstance(one, nodes.If) and not one.else_ and all(_fails(each.test, name) for each in (one, *one.elif_))
        for one in loop.body
    )


def _fails(test: nodes.Node, name: str) -> bool:
    """Return whether a test is false where a name is a character."""
    if isinstance(test, nodes.And):
        return _fails(test.left, name)
    if isinstance(test, nodes.Or):
        return _fails(test.left, name) and _fails(test.right, name)
    if not isinstance(test, nodes.Compare) or len(test.ops) > 1:
        return False
    left, operator, right = test.expr, test.ops[0].op, test.ops[0].expr
    if operator == "in":  # a word in a character
        return isinstance(left, nodes.Const) and type(left.value) is str and len(left.value) > 1 and _is(right, name)
    if isinstance(left, nodes.Getattr):
        attribute = left.attr
    elif isinstance(left, nodes.Getitem) and isinstance(left.arg, nodes.Const) and type(left.arg.value) is str:
        attribute = left.arg.value
    else:
        return False
    return operator == "eq" and isinstance(right, nodes.Const) and _is(left.node, name) and not hasattr(str, attribute)


def _is(node: nodes.Expr, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name
