"""The files around the code: citation, workflows, issue forms, and what they refer to."""

import re

import pytest

import gan_jax
from tests.processes import ROOT

yaml = pytest.importorskip("yaml")


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert cited["version"] == gan_jax.__version__ and f'version = "{cited["version"]}"' in project
    assert cited["license"] in project and cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cited)


def test_workflows_call_what_is_there():
    ci, publish = (
        yaml.safe_load((ROOT / ".github/workflows" / f"{name}.yml").read_text()) for name in ("ci", "publish")
    )
    assert {"run": ".ci/run"} in ci["jobs"]["ci"]["steps"] and (ROOT / ".ci/run").stat().st_mode & 0o100
    assert publish["jobs"]["publish"]["permissions"] == {"id-token": "write"}  # trusted publishing, without a password
    for workflow in (ci, publish):
        assert workflow["permissions"] == {"contents": "read"}
        assert "secrets." not in str(workflow)


def test_issue_forms_are_forms():
    forms = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert len(forms) >= 3
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= set(form), path
        for part in form["body"]:
            assert part["type"] in ("textarea", "input", "dropdown", "markdown") and part["attributes"]["label"], path


def test_what_the_files_link_to_exists():
    for name in ("CONTRIBUTING.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text()):
            assert target.startswith("https://") or (ROOT / target).exists(), (name, target)
