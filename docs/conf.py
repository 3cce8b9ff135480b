"""Sphinx configuration of the site that `make site` builds (docs/site.py puts its sources together)."""

project = "Archetypal SAEs for language models"
author = "the archsae authors"
copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath", "linkify", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the committed notebooks are executed already
nb_merge_streams = True
exclude_patterns = ["_build", "_static/vendor/README.md"]
suppress_warnings = ["myst.header", "myst.xref_missing", "mystnb.unknown_mime_type"]
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_search_summary = False  # it would fetch pages, which a browser forbids from file://
html_extra_path: list[str] = []
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "use_download_button": True,
    "navbar_persistent": [],  # else an empty bar at the top, whose hidden menu button takes the clicks of the one below
}
mathjax_path = "vendor/mathjax-tex-svg.js"
autodoc_typehints = "none"  # shapes stand in the docstrings; jaxtyping's types are long
autodoc_member_order = "bysource"
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True
