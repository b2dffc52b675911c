"""Names of splits in the names of files and folders."""

import re
from pathlib import Path

SPLITS = ("train", "val", "test")
_WORDS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "minival", "dev", "eval"),
    "test": ("test", "testing"),
}
SPLIT_OF_WORD = {word: split for split, words in _WORDS.items() for word in words}


def split_in_name(name: str) -> str | None:
    """Return the split that a name states as a word of its own ("instances_val2017" -> "val"), or None."""
    words = re.findall(r"[a-z]+", name.lower())
    stated = {SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD}
    return stated.pop() if len(stated) == 1 else None


def split_of(path: Path, root: Path) -> str | None:
    """Return the split that the file's name states, else the nearest of its folders below `root`; None without one."""
    folders = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
    for name in (path.stem, *reversed(folders)):
        split = split_in_name(name)
        if split is not None:
            return split
    return None
