"""Sphinx's settings. `build.py` lays the pages out and calls Sphinx; nothing is fetched."""

import os

from align_detr import __version__

project = "Align-DETR for detectron2"
author = "the contributors of Align-DETR for detectron2"
version = release = __version__
root_doc = "index"
extensions = ["myst_parser"]
smartquotes = False  # options such as --data and quoted errors stay as they are typed
source_suffix = {".md": "markdown"}
# GitHub's anchors; five deep, as the changelog has them
myst_heading_anchors = 5
myst_enable_extensions = ["colon_fence"]
# ref.python: two classes may have an attribute of one name, and a signature's type of that name finds both.
suppress_warnings = ["ref.python"]
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"Align-DETR {__version__}"
html_static_path = [os.path.join(os.path.dirname(__file__), "static")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
