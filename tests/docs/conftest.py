"""The modules that build the site and draw the figures are found by their names."""

import sys

from support.paths import PROJECT

sys.path += [str(PROJECT / "docs" / "site"), str(PROJECT / "docs" / "figures")]
