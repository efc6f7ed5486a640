"""The directive `.. api:: MODULE`: a table of the module's public names, and the docstring of each.

The docstrings are Google style with Markdown's single backticks, and their equations are plain text. Sphinx reads
reStructuredText, in which `|x|`, `D*` and `x_` mean something else. So their prose is escaped first.
"""

import ast
import importlib
import inspect
import itertools
import re
import sys
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.nodes import nested_parse_with_titles

from gan_jax.losses import GANLoss

SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|References|Example|Examples):$")
RULE = re.compile(r"\|(-+\|)+")  # the line below the head of a table in Markdown
LABEL = re.compile(r"^ +\*{0,2}[\w.]+( \([^)]*\))?:(?= |$)")  # the name at the start of a line of Args
# As sections of prose: Napoleon would take the words before a colon in them for a type.
PROSE = ["References", "Returns", "Yields"]
NAPOLEON = Config(napoleon_use_ivar=False, napoleon_custom_sections=PROSE)


def escaped(line: str, inside: bool = False) -> tuple[str, bool]:
    """Returns a line of prose as reStructuredText: code in double backticks, and every other mark as it is.

    Args:
      line: line of a docstring.
      inside: whether the line begins inside of code, which the line before has begun.

    Returns:
      The line, and whether it ends inside of code.
    """
    label = None if inside else LABEL.match(line)
    begin = label.end() if label else 0
    found = [line[:begin]]
    for number, part in enumerate(line[begin:].split("`")):
        if number:
            found.append("``")
            inside = not inside
        prose = re.sub(r"([\\*|]|(?<=\w)_(?!\w))", r"\\\1", part)
        plural = number and not inside and part[:1].isalnum()  # as in `Array`s
        found.append(part if inside else f"\\ {prose}" if plural else prose)
    return "".join(found), inside


def tables(lines: list[str]) -> list[str]:
    """Replaces tables in Markdown by those of reStructuredText."""
    found = []
    for is_table, group in itertools.groupby(lines, lambda line: line.lstrip().startswith("| ")):
        rows = list(group)
        if not is_table:
            found += rows
            continue
        blank = rows[0][: len(rows[0]) - len(rows[0].lstrip())]
        found += [f"{blank}.. list-table::", f"{blank}   :header-rows: 1", f"{blank}   :widths: auto", ""]
        for row in rows:
            cells = [cell.strip() for cell in row.strip()[1:-1].split(" | ")]
            found += [f"{blank}   {'  ' if index else '* '}- {escaped(cell)[0]}" for index, cell in enumerate(cells)]
        found.append("")
    return found


def rewrite(lines: list[str]) -> list[str]:
    """Returns a docstring's lines as reStructuredText; doctests, literal blocks and names of sections stay."""
    found, literal, indent, inside = [], False, 0, False
    for line in tables([line for line in lines if not RULE.fullmatch(line.strip())]):
        own = len(line) - len(line.lstrip())
        if line.strip() and literal and own <= indent:
            literal = False
        if line.lstrip().startswith(">>> "):
            literal, indent = True, own - 1
        elif not line.strip() and literal and indent == own - 1:
            literal = False
        text, inside = (line, False) if literal or SECTION.fullmatch(line.strip()) else escaped(line, inside)
        found.append(text)
        if line.rstrip().endswith("::"):
            literal, indent = True, own
    return found


def rewrite_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Does so before Napoleon reads the docstring."""
    del app, what, name, obj, options
    lines[:] = rewrite(lines)


def shorten_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Leaves out what every Linen module has, the packages of names, and the addresses of defaults."""
    del app, what, name, obj, options
    signature = signature and re.sub(r"(, |(?<=\())parent: ~?flax\.linen.*\)$", ")", signature)
    patterns = {
        r"~(?:\w+\.)+(?=\w)|jax\.jaxlib\._jax\.|jaxlib\._jax\.": "",
        r"<class '(?:\w+\.)*(\w+)'>": r"\1",
        r"<(?:compiled_)?function (\w+)(?:\.(?:<locals>|\w+))*(?: at \w+)?>": r"\1",
    }
    for pattern, short in patterns.items():
        signature, returns = (text and re.sub(pattern, short, text) for text in (signature, returns))
    return signature, returns


def skip_fields(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out fields that the docstring of the class describes: those of named tuples, and dtypes of networks."""
    del app, name, skip, options
    field = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return True if field or (what == "class" and inspect.isclass(obj)) else None


def public(module: ModuleType) -> list[str]:
    """Returns the public names of a module: `__all__`, or what it defines itself without an underscore."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not name.startswith("_")]
    body = ast.parse(inspect.getsource(module)).body
    defined = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    targets = [node.targets[0] for node in body if isinstance(node, ast.Assign)]
    assigned = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
    return [name for name in [*assigned, *defined] if not name.startswith("_")]


def constant(value: Any) -> bool:
    """Whether a value is data or a type alias: it has no docstring of its own."""
    if isinstance(value, GANLoss) or inspect.ismodule(value):
        return False
    defined = inspect.isroutine(value) or inspect.isclass(value)
    return not defined or not value.__module__.startswith("gan_jax")


def summary(module: str, name: str, value: Any) -> str:
    """Returns the first sentence of a docstring; for a constant without one, its expression."""
    text, told = assignment(module, name) if constant(value) else ("", inspect.getdoc(value))
    if not told:
        return f"``{text}``" if text else ""
    paragraph = told.split("\n\n")[0].replace("\n", " ")
    return escaped(re.split(r"(?<=[.])\s+(?=[A-Z`])", paragraph)[0].rstrip(":"))[0]


def assignment(module: str, name: str) -> tuple[str, str]:
    """Returns the expression that a constant is assigned in a package, shortened, and the docstring below it."""
    for path, loaded in sorted(sys.modules.items()):
        if f"{path}.".startswith(f"{module}."):
            source = inspect.getsource(loaded)
            body = ast.parse(source).body
            for node, after in itertools.pairwise([*body, ast.Pass()]):
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                if isinstance(node, ast.Assign | ast.AnnAssign) and getattr(targets[0], "id", "") == name:
                    text = " ".join((ast.get_source_segment(source, node.value) or "").split())
                    told = getattr(getattr(after, "value", None), "value", "")
                    return text if len(text) <= 200 else f"{text[:200]}...", told if isinstance(told, str) else ""
    return "", ""


def elsewhere(module: str, name: str, value: Any) -> str:
    """Returns the path of a name in the package that defines it, if that is another public package."""
    home = ".".join(getattr(value, "__module__", "").split(".")[:2])
    other = home.startswith("gan_jax.") and home != ".".join(module.split(".")[:2])
    return f"{home}.{name}" if other and name in getattr(sys.modules[home], "__all__", ()) else ""


def entry(module: str, name: str, value: Any) -> list[str]:
    """Returns the reStructuredText that documents one name."""
    path = f"{module}.{name}"
    if same := elsewhere(module, name, value):
        kind = "class" if inspect.isclass(value) else "function"
        return [f".. py:{kind}:: {name}", "", f"   The same as :py:obj:`{same}`.", ""]
    if constant(value):
        text, told = assignment(module, name)
        shown = [f"   :value: {text}"] if text else []
        return [f".. py:data:: {name}", *shown, "", *(f"   {line}" for line in rewrite(told.split("\n"))), ""]
    if inspect.isclass(value):
        return [f".. autoclass:: {path}", "   :members:", ""]
    if inspect.isroutine(value):
        return [f".. autofunction:: {path}", ""]
    told = rewrite(inspect.cleandoc(value.__doc__).split("\n"))
    body = GoogleDocstring(told, NAPOLEON, what="data").lines()
    return [f".. py:data:: {name}", "   :type: GANLoss", "", *(f"   {line}" for line in body), ""]


class Api(Directive):
    """`.. api:: MODULE`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Returns the table and the entries as nodes."""
        module = importlib.import_module(self.arguments[0])
        names = {name: getattr(module, name) for name in public(module)}
        names = {name: value for name, value in names.items() if not inspect.ismodule(value)}
        told = rewrite((inspect.getdoc(module) or "").split("\n"))
        table = [".. list-table::", "   :widths: auto", ""]
        for name, value in names.items():
            table += [
                f"   * - :py:obj:`{name} <{module.__name__}.{name}>`",
                f"     - {summary(module.__name__, name, value)}",
            ]
        lines = [f".. py:module:: {module.__name__}", "", *told, "", *(table if names else []), ""]
        for name, value in names.items():
            lines += entry(module.__name__, name, value)
        section = nodes.section()
        section.document = self.state.document
        nested_parse_with_titles(self.state, StringList(lines, source=f"the docstrings of {module.__name__}"), section)
        return section.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directive and the rewriting of docstrings."""
    app.add_directive("api", Api)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", rewrite_docstring, priority=100)
    return {"parallel_read_safe": True}
