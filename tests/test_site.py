"""The site: every page is reachable, every public name is in the reference, and it builds strictly, offline."""

import html.parser
import importlib
import json
import re
import types
import urllib.parse

import pytest

import gan_jax
from tests.processes import ROOT, start_module

pytestmark = pytest.mark.xdist_group("site")  # one process builds it, once
DOCS = ROOT / "docs"
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def listed(page):
    """Returns the pages in the lists of contents of a page, as paths."""
    found = set()
    for body in TOCTREE.findall(page.read_text(encoding="utf-8")):
        for entry in (line for line in body.splitlines() if line and not line.startswith(":")):
            pages = page.parent.glob(f"{entry}.md") if "*" in entry else ()
            exact = {page.parent / f"{entry}.{kind}" for kind in ("md", "rst")}
            found |= {path for path in {*pages, *exact} if path.exists()}
    return found - {page}


def test_every_page_is_in_the_navigation():
    """Strict mode refuses others; this says so sooner."""
    reached, new = set(), {DOCS / "index.md"}
    while new:
        reached |= new
        new = set().union(*(listed(page) for page in new if page.suffix == ".md")) - reached
    pages = {path for kind in ("md", "rst") for path in DOCS.rglob(f"*.{kind}")}
    lost = sorted(str(path.relative_to(ROOT)) for path in pages - reached)
    assert not lost, f"add a line to a list of docs/index.md for {', '.join(lost)}"


def packages():
    """Returns every public module: the packages of `gan_jax.__all__`, and modules in the `__all__` of those."""
    found = {}
    for name in gan_jax.__all__:
        value = getattr(gan_jax, name)
        if isinstance(value, types.ModuleType):
            found[value.__name__] = value
            inner = (getattr(value, name) for name in getattr(value, "__all__", ()))
            found |= {module.__name__: module for module in inner if isinstance(module, types.ModuleType)}
    return found


def public_names():
    """Returns the path of every public name."""
    names = {"gan_jax.sweep.space.LogUniform"}  # of a module that configs import, and no `__all__` lists
    for path, module in packages().items():
        own = {name for name, value in vars(module).items() if getattr(value, "__module__", None) == path}
        names |= {f"{path}.{name}" for name in getattr(module, "__all__", own) if not name.startswith("_")}
    return names


def test_every_package_has_a_page_of_reference():
    for path in packages():
        page = DOCS / "api" / f"{path.removeprefix('gan_jax.')}.rst"
        assert page.exists() and f".. api:: {path}\n" in page.read_text(), f"write {page.relative_to(ROOT)}"


class Links(html.parser.HTMLParser):
    """The ids of a page, and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.targets.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("furo", reason="the site needs the extra docs")
    out = tmp_path_factory.mktemp("site")
    # The column beside a page of reference repeats the page's names; without it the build takes a quarter less.
    options = ("-W", "--keep-going", "-q", "-D", "toc_object_entries=0")
    code, printed = start_module("sphinx", *options, str(DOCS), str(out / "html")).finish()
    assert code == 0, printed
    return out / "html"


@pytest.mark.slow
def test_links_and_anchors_lead_somewhere(site):
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 50
    for path, page in pages.items():
        for target in page.targets:
            scheme, host, file, _, anchor = urllib.parse.urlsplit(target)
            if scheme or host:
                continue
            found = (path.parent / urllib.parse.unquote(file)).resolve() if file else path
            assert found.exists(), f"{path.relative_to(site)} links to {target}"
            known = pages[found].ids if found in pages else {anchor}
            assert not anchor or urllib.parse.unquote(anchor) in known, f"{path.relative_to(site)} links to {target}"


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site):
    inventory = importlib.import_module("sphinx.util.inventory").InventoryFile
    with (site / "objects.inv").open("rb") as file:
        found = inventory.load(file, "", lambda base, path: base + path)
    told = {name for kind, names in found.items() if kind.startswith("py:") for name in names}
    missing = sorted(public_names() - told)
    assert not missing


@pytest.mark.slow
def test_nothing_is_fetched_to_show_a_page(site):
    """Scripts and styles come with the site; pictures of other places are Colab's badges."""
    loads = re.compile(r'<(?:script|link|img)[^>]*?(?:src|href)="(https?://[^"]+)"')
    for path in site.rglob("*.html"):
        for address in loads.findall(path.read_text(encoding="utf-8")):
            assert "colab-badge" in address, (path.name, address)


@pytest.mark.slow
def test_the_tutorials_are_notebooks_too(site):
    names = {path.stem for path in (DOCS / "tutorials").glob("*.md")}
    assert {path.stem for path in (site / "notebooks").glob("*.ipynb")} == names
    for name in names:
        notebook = json.loads((site / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        assert notebook["cells"][0]["source"][0].startswith("%pip install")
        assert f"gh-pages/notebooks/{name}.ipynb" in (DOCS / "tutorials" / f"{name}.md").read_text(encoding="utf-8")
