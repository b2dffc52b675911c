"""The kinds of problems that show only in the image files, across splits or beside a model: one table."""

from align_detr.data.kinds import KINDS, Kind

_OR_REMOVE = "or remove the image from the annotations"

VALIDATION_KINDS = {
    # image files
    "image-missing": Kind("error", "images", "has no image file {path}", f"complete the image folder, {_OR_REMOVE}"),
    "image-unreadable": Kind(
        "error", "images", "has an image file that cannot be read ({path}; {reason})", f"replace the file, {_OR_REMOVE}"
    ),
    "image-large": Kind(
        "error",
        "images",
        "has more pixels than Pillow reads by default ({path})",
        "write a smaller copy, or set PIL.Image.MAX_IMAGE_PIXELS = None in the config file",
    ),
    "image-other-size": Kind(
        "error",
        "images",
        "has {size} pixels, but its annotations say {stated}",
        "restore the photo that was labelled, or correct width and height if the boxes fit",
    ),
    "image-orientation": Kind(
        "error",
        "images",
        "is turned by its EXIF tag (orientation {orientation}), but its annotations state the stored size {stated}",
        "remove the tag from the photo if the boxes count stored pixels, or exchange width and height if they were "
        "drawn on the upright photo",
    ),
    "image-turned": Kind(
        "note",
        "images",
        "is turned or mirrored by its EXIF tag (orientation {orientation}), and is trained on as it is shown",
        "see in a few photos that the boxes were drawn on the upright photo",
    ),
    "image-depth": Kind(
        "note",
        "images",
        "has more than 8 bits per pixel (mode {mode} of Pillow)",
        "see that training makes the grey levels that you expect, or write 8-bit copies",
    ),
    # across splits
    "photo-in-two-splits": Kind(
        "error",
        "images",
        "is the same photo as {other} of the split {split}, so that its AP says too much",
        "remove it from one of the two",
    ),
    "photo-twice": Kind(
        "note", "images", "is the same photo as {other}", "merge their boxes and remove one, if that was not meant"
    ),
    "classes-differ": Kind(
        "error",
        "categories",
        "has other classes than {split} ({difference})",
        "give both the same categories with the same ids",
    ),
    "classes-by-name": Kind(
        "note",
        "categories",
        "has other classes than {split} ({difference})",
        "training from the folder numbers them by name: nothing to do, if these are the classes that were meant",
    ),
    # beside a model
    "objects-beyond-queries": Kind(
        "note",
        "images",
        "has {count} objects, more than {queries} queries can find",
        "raise model.queries.num_queries, model.postprocess.num_detections and dataloader.evaluator.max_detections",
    ),
}
assert not KINDS.keys() & VALIDATION_KINDS.keys()
