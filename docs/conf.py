"""Sphinx's settings; the pages that it reads are put together by `docs/pages.py`."""

from automix_transfer import __version__

project, author, release = "automix_transfer", "the authors of automix_transfer", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

html_theme = "furo"
html_title = f"automix_transfer {release}"
html_copy_source = False
html_show_copyright = False
html_static_path: list[str] = []
html_theme_options = {"navigation_with_keys": True}

exclude_patterns = ["files"]  # copies of what pages link to

highlight_language = "none"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

# Docstrings say `name` for code, as Markdown does.
default_role = "code"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False
# Types of other packages and internal ones have no page here; every other reference has to lead somewhere.
nitpick_ignore_regex = [("py:.*", ".*")]
