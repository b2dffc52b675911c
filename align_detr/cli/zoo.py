"""`align-detr zoo`: the configs by name, with published figures, and where weights are published."""

import argparse
import fnmatch
import re
from collections.abc import Iterable, Sequence

from align_detr import model_zoo
from align_detr.checkpoint.releases import releases
from align_detr.errors import ConfigError
from align_detr.published import PUBLISHED_AP
from align_detr.shipped import SHIPPED


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="align-detr zoo",
        description="List the configs, with the AP on COCO val2017 that was published for them (none was measured "
        "here), and the weights that can be read.",
        epilog="Examples: align-detr zoo; align-detr zoo dino; align-detr zoo 'align_detr/*_12ep.py'.",
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", metavar="PATTERN", help="part of a config's name, or a pattern with * and ?"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, without torch, and return 0; raise ConfigError for a pattern that no config matches."""
    pattern = build_parser().parse_args(argv).pattern
    names = [name for name in model_zoo.names() if matches(name, pattern)]
    if not names:
        raise ConfigError(
            f"No config's name matches {pattern}: use a part of one, such as dino, or a pattern, such as '*_12ep.py'."
        )
    rows = [(name, epochs_of(name), f"{PUBLISHED_AP[name]:.1f}" if name in PUBLISHED_AP else "") for name in names]
    print(table(("config", "epochs", "published AP"), rows))
    print(f"\nWith the package: the weights of {', '.join(SHIPPED)} alone, as in Detector('digits').")
    weights = [release for release in releases() if matches(release.config, pattern) or matches(release.name, pattern)]
    if weights:
        found = [
            (x.name, x.config, "" if x.ap is None else f"{x.ap:.1f}", f"{x.size} MB" if x.size else "", x.url)
            for x in weights
        ]
        print(
            "Published elsewhere and read as they are, with Detector(CONFIG, weights=FILE); fetch the file yourself:\n"
        )
        print(table(("weights", "config", "published AP", "size", "where"), found))
    return 0


def matches(name: str, pattern: str) -> bool:
    """Return whether a name has the pattern: as a whole if it has a wildcard, else somewhere."""
    pattern = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return fnmatch.fnmatch(name.lower(), pattern.lower())


def epochs_of(name: str) -> str:
    """Return the number of epochs in a config's name, "" without one."""
    found = re.search(r"_(\d+)ep\b", name)
    return found.group(1) if found else ""


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return lines with columns of one width each."""
    lines = [titles, *rows]
    widths = [max(len(row[k]) for row in lines) for k in range(len(titles))]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in lines)
