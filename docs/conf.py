"""Settings of the site: `python -m sphinx -W --keep-going docs build/site`. docs/adr/0040-site.md has the reasons.

The tutorials are executed only with `-D nb_execution_mode=cache`, which takes minutes.
"""

import os
import pathlib
import sys

os.environ["TQDM_DISABLE"] = "1"  # in the tutorials: a line that moves would become a hundred that do not
sys.path.insert(0, str(pathlib.Path(__file__).parent / "_extensions"))

import gan_jax

project = "gan_jax"
author = "the gan_jax authors"
version = release = gan_jax.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "api",
    "pages",
]
exclude_patterns = ["examples", "_extensions"]

html_theme = "furo"
html_title = "gan_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "source_repository": "https://github.com/gan-jax/gan-jax/",
    "source_branch": "main",
    "source_directory": "docs/",
}
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

nb_execution_mode = "off"
nb_execution_in_temp = True
nb_execution_timeout = 1800
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"

autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_custom_sections = ["References", "Returns", "Yields"]
napoleon_use_ivar = False
napoleon_attr_annotations = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
