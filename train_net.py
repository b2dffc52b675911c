#!/usr/bin/env python
"""Train or evaluate a detector: see `python train_net.py --help`."""

import sys

from align_detr.cli.train import main

if __name__ == "__main__":
    sys.exit(main(prog="train_net.py"))
