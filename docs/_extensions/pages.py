"""Pages that read well on GitHub and on the site: links out of docs/, and notebooks that Colab opens.

Links from a page to files that are not pages, such as tests and examples, lead to the repository. Each tutorial is
also written as `notebooks/NAME.ipynb` below the site, with a first cell that installs the package.
"""

import os
import pathlib
import posixpath
import re
from typing import Any

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook
from myst_parser.config.main import MdParserConfig
from sphinx.application import Sphinx

REPOSITORY = "https://github.com/gan-jax/gan-jax"
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")
INSTALL = f"%pip install -q git+{REPOSITORY}"
MORE = {"losses_in_your_project": " equinox", "plan_for_a_slice": " libtpu"}  # packages that only these need


def link_out(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replaces links to files that the site does not have by links to the repository."""
    top = pathlib.Path(app.srcdir).parent

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(docname), match[1]))
        on_site = target.startswith("docs/") and not target.startswith("docs/examples")
        if on_site or not (top / target).exists():  # what does not exist is left for Sphinx to report
            return match[1]
        return f"{REPOSITORY}/{'tree' if (top / target).is_dir() else 'blob'}/main/{target}"

    source[0] = LINK.sub(link, source[0])


def write_notebooks(app: Sphinx, exception: Exception | None) -> None:
    """Writes the tutorials as notebooks below the site."""
    if exception is not None or app.builder.format != "html":
        return
    folder = pathlib.Path(app.outdir) / "notebooks"
    folder.mkdir(exist_ok=True)
    for page in sorted((pathlib.Path(app.srcdir) / "tutorials").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if "{code-cell}" not in text:
            continue
        notebook = read_myst_markdown_notebook(text, MdParserConfig(), add_source_map=False)
        notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        notebook.cells.insert(0, nbformat.v4.new_code_cell(INSTALL + MORE.get(page.stem, "")))
        for number, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{number}"
        nbformat.write(notebook, os.fspath(folder / f"{page.stem}.ipynb"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects both."""
    app.connect("source-read", link_out)
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True}
