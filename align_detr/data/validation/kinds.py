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
        "save the photo turned and without the tag and export the annotations anew, as correcting the size alone can "
        "leave boxes wrong",
    ),
    "image-turned": Kind(
        "note",
        "images",
        "is turned or mirrored by its EXIF tag (orientation {orientation}), and is trained on as it is shown",
        "see in a few photos that the boxes were drawn on the upright photo",
    ),
    "image-16-bit": Kind(
        "note",
        "images",
        "has 16-bit grey levels up to {highest}, and is trained on with white at 65535",
        "set white_level of the mappers (4095 for 12 bits) if that is too dark",
    ),
    "image-white-unknown": Kind(
        "error",
        "images",
        "has grey levels of unknown range (mode {mode} of Pillow)",
        "set white_level of the mappers, or write 8-bit copies",
    ),
    # whole splits
    "object-none": Kind(
        "error", "annotations", "has no object to train on", "check that its annotations belong to its images"
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
