"""The table of the projects. It imports nothing, so setup.py can read it before anything is installed."""

# Package name -> folder under projects/. "tsp": "TSP" means that `align_detr.projects.tsp` is projects/TSP/tsp and that
# the configs "TSP/..." are in projects/TSP/configs.
PROJECTS: dict[str, str] = {
    "anchor_detr": "AnchorDETR",
    "detr_segmentation": "DETRSegmentation",
    "faster_rcnn": "FasterRCNN",
    "smca": "SMCA",
    "tsp": "TSP",
}
