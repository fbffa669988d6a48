"""Configuration of the documentation site: ``sphinx-build -W docs build/docs``."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

import sparsity_report  # noqa: E402 - after the path of our extensions

# Kernels of executed pages and of the gallery reach no network and draw no bars.
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", COLUMNS="100")

project = "sparsity-report"
author = "The sparsity-report developers"
release = version = sparsity_report.__version__
language = "en"
smartquotes = False  # quotes in types and options are code

extensions = [
    "accessible_pages",
    "api_members",
    "generated_pages",
    "markdown_signatures",
    "mathml",
    "myst_nb",
    "numpydoc",
    "package_wings",
    "pattern_search",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "sphinx_llm.txt",
]
exclude_patterns = [
    "_build",
    "**/.ipynb_checkpoints",
    "gallery/scripts",
    "hub",
    "tools",
]
show_warning_types = True
nitpicky = True  # a name that no page describes is not referred to

# Pages are Markdown. Formulas stand between dollars.
myst_enable_extensions = [
    "attrs_block",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
    "substitution",
]
myst_heading_anchors = 3
html_math_renderer = "mathml"

# Tutorials run at each build and fail it.
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS.parent / "build" / "executed")
nb_execution_raise_on_error = True
nb_execution_in_temp = True  # pages write files
nb_execution_timeout = 300
nb_merge_streams = True
# A widget's HTML works without a kernel and a network; its state would ask a CDN for scripts.
nb_mime_priority_overrides = [("*", "text/html", 0)]
nb_ipywidgets_js = {}
nb_render_markdown_format = "myst"  # tables, too

templates_path = ["_templates"]
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False

# Scripts of the gallery run at each build and fail it.
sphinx_gallery_conf = {
    "examples_dirs": "gallery/scripts",
    "gallery_dirs": "gallery",
    "image_scrapers": ("gallery_pictures",),
    "abort_on_example_error": True,
    "capture_repr": (),
    "copyfile_regex": "",
    "download_all_examples": False,
    "min_reported_time": 600,
    "notebook_extensions": set(),
    "remove_config_comments": True,
    "reset_modules": (),
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
    "write_computation_times": False,
}

copybutton_exclude = ".linenos, .gp, .go"
llms_txt_full_build = True
llms_txt_build_parallel = False  # reuses what this build has read and executed

html_theme = "pydata_sphinx_theme"
html_title = "sparsity-report"
html_static_path = ["_static"]
html_extra_path = ["../sparsity_report/schemas"]  # at the addresses that their $id names
html_css_files = ["site.css", "gallery.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_sidebars = {"index": []}
html_theme_options = {
    "logo": {"text": "sparsity-report"},
    "header_links_before_dropdown": 5,
    "icon_links": [],
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "search_bar_text": "Search this site",
}
project_copyright = f"{author}, Apache-2.0"
