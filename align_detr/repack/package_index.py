"""One source archive from the package index that pip is set up to use.

pip itself cannot: it builds a source archive's metadata before it hands the file over, and that fails for detectron2's.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from align_detr.errors import EnvironmentProblem


def parse_pip_config(listing: str) -> dict[str, str]:
    """Read what `pip config list` prints into {option: value}, as `pip install` would see it.

    Sections override each other in pip's order: [global], then [install], then environment variables.
    """
    values: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        key, separator, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if separator and section in values:
            values[section][option.lower().replace("_", "-")] = str(ast.literal_eval(value))
    return {**values["global"], **values["install"], **values[":env:"]}


def pip_config() -> dict[str, str]:
    """Return the settings of this interpreter's pip; raise EnvironmentProblem where there is no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise EnvironmentProblem(
            f"pip does not run under {sys.executable} ({_last_line(result.stderr)}): install it with "
            "`python -m ensurepip`."
        )
    return parse_pip_config(result.stdout)


def make_finder(config: dict[str, str]) -> Any:
    """Return an `unearth.PackageFinder` that looks where `pip install` with the settings `config` would look."""
    try:
        from unearth import PackageFinder
    except ImportError as error:
        raise EnvironmentProblem(
            "The package unearth, which fetches detectron2's source archive, is not installed: run "
            "`pip install -r requirements.txt` first, or pass --archive FILE."
        ) from error

    finder = PackageFinder(trusted_hosts=config.get("trusted-host", "").split())
    if config.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        finder.sources.clear()
    else:
        if config.get("index-url"):
            finder.sources.clear()  # unearth starts with the public index
            finder.add_index_url(config["index-url"])
        for url in config.get("extra-index-url", "").split():
            finder.add_index_url(url)
    for location in config.get("find-links", "").split():
        if "://" in location or Path(location).exists():  # like pip, which passes over a folder that is not there
            finder.add_find_links(location)
    return finder


def fetch_source_archive(requirement: str) -> bytes:
    """Return the source archive that satisfies `requirement` (``name==version``), read from the package index.

    Raise EnvironmentProblem when it cannot be found or read.
    """
    config = pip_config()
    if config.get("cert"):
        os.environ.setdefault("SSL_CERT_FILE", config["cert"])
    finder = make_finder(config)
    finder.no_binary = {requirement.partition("==")[0]}
    remedy = "check pip's index settings and the network, or pass a local copy with --archive FILE."
    try:
        match = finder.find_best_match(requirement).best
        if match is None:
            raise EnvironmentProblem(f"The package index has no source archive for {requirement}: {remedy}")
        with TemporaryDirectory() as folder:
            return Path(finder.download(match.link, folder)).read_bytes()
    except EnvironmentProblem:
        raise
    except Exception as error:  # the finder lets through whatever its HTTP client raises
        reason = _last_line(str(error)) or type(error).__name__
        raise EnvironmentProblem(f"{requirement} could not be fetched ({reason}): {remedy}") from error


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
