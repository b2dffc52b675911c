"""Texts that the helps of several subcommands share."""

DATA_HELP = (
    "folder of a data set in COCO's, Pascal VOC's or YOLO's layout (recognised from the files, also as Roboflow and "
    "labelling tools write them) or in shards, or its COCO JSON file or data.yaml"
)
LAYOUTS = ("coco", "voc", "yolo", "shards")
LAYOUT_HELP = "layout of a folder that holds several"
SEED_HELP = "seed of the validation split (default: 0)"
EXIT_CODES = (
    "Exit status: 0; 2 after one printed sentence on something that you can correct; 75 after Ctrl-C, SIGTERM or "
    "SIGUSR1, when a checkpoint is saved and --resume goes on; 130 after Ctrl-C that ended it at once."
)
