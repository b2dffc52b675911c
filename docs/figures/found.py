"""Draw what the demo's detector finds in held-out photos: the picture at the top of the README.

    python docs/figures/found.py [--weights output/demo/weights.pth] [--out docs/figures/found.jpg]

The photos are the first of the data set that the demo evaluates on, in its order: none is chosen.
"""

from collections.abc import Sequence
from pathlib import Path

from figure_files import add_weights, options
from PIL import Image

from align_detr import Detector, model_zoo
from align_detr.cli.demo import CONFIGS
from align_detr.data import load_dataset

PHOTOS, HEIGHT, GAP = 3, 270, 8  # pixels


def side_by_side(pictures: Sequence[Image.Image], height: int = HEIGHT, gap: int = GAP) -> Image.Image:
    """Return the pictures in a row on white, each of this height in pixels."""
    row = [picture.resize((round(picture.width * height / picture.height), height)) for picture in pictures]
    whole = Image.new("RGB", (sum(x.width for x in row) + gap * (len(row) - 1), height), "white")
    left = 0
    for picture in row:
        whole.paste(picture, (left, 0))
        left += picture.width + gap
    return whole


def draw(detector: Detector, photos: Sequence[str | Path]) -> Image.Image:
    """Return the photos in a row, with the detections from a score of 0.3 on."""
    return side_by_side([detector.predict(photo).draw(threshold=0.3) for photo in photos])


def main() -> None:
    """Write the picture."""
    parser = options(__doc__, "found.jpg")
    add_weights(parser)
    args = parser.parse_args()
    records = load_dataset(model_zoo.get_config(CONFIGS["bccd"]).dataloader.test.dataset)
    draw(Detector(weights=args.weights, device="cpu"), [x["file_name"] for x in records[:PHOTOS]]).save(
        args.out, quality=85, optimize=True
    )


if __name__ == "__main__":
    main()
