"""The modules that build the site are found by their names."""

import sys

from support.paths import PROJECT

sys.path.append(str(PROJECT / "docs" / "site"))
