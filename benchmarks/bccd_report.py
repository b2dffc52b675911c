"""The report on DINO against Align-DINO on blood cells: `make report`.

    python benchmarks/bccd_report.py [--seed 1] [--jobs 2] [--out output/report/bccd.html]

The runs of bccd.py with this seed are trained if they are missing (about 15 minutes on 2 quiet cores).
"""

import argparse

import alignment
import bccd
import studies
from detectron2.data import DatasetCatalog, MetadataCatalog
from omegaconf import OmegaConf

import align_detr.data  # noqa: F401  registers the blood cells
from align_detr.cli import report
from align_detr.evaluation import RESULTS_FILE


def main() -> None:
    """Make the missing runs and write the page, its JSON and its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--out", default=str(studies.ROOT / "output" / "report" / "bccd.html"), metavar="FILE")
    args = parser.parse_args()
    studies.main(bccd.STUDY, ["--seeds", str(args.seed), "--jobs", str(args.jobs)])
    folders = [bccd.STUDY.folder(variant, args.seed) for variant in bccd.STUDY.variants]
    dataset = OmegaConf.load(folders[0] / "config.yaml").dataloader.test.dataset
    DatasetCatalog.get(dataset)  # writes the annotation file of the photos that no other split shares
    data = MetadataCatalog.get(dataset)
    results = [str(folder / "inference" / RESULTS_FILE) for folder in folders]
    page = ["--gt", data.json_file, "--images", data.image_root, "--out", args.out, "--json", f"{args.out[:-5]}.json"]
    layers = [next(iter(alignment.evaluate_run(bccd.STUDY, v, args.seed).values())).parent for v in bccd.STUDY.variants]
    names = ["--names", *(variant.name for variant in bccd.STUDY.variants)]
    page += ["--metrics", *(str(folder / "metrics.json") for folder in folders), "--layers", *map(str, layers)]
    report.main([*results, *names, *page])


if __name__ == "__main__":
    main()
