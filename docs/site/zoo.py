"""The model zoo: a page from the configs, the published figures, the measured sizes and the fixtures of the tests."""

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from pages import ROOT, write

from align_detr import model_zoo
from align_detr.checkpoint.releases import releases
from align_detr.cli.zoo import epochs_of
from align_detr.published import PUBLISHED_AP

# folder of configs -> (name, paper or papers, tests that compare it with recorded numbers)
FAMILIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "detr": ("DETR", "Carion et al., ECCV 2020", ("test_detr", "test_criterion", "test_matching")),
    "conditional_detr": ("Conditional-DETR", "Meng et al., ICCV 2021", ("test_conditional_detr", "test_criterion")),
    "dab_detr": ("DAB-DETR", "Liu et al., ICLR 2022", ("test_dab_detr", "test_criterion")),
    "dn_detr": ("DN-DETR", "Li et al., CVPR 2022", ("test_dn_detr", "test_denoising", "test_criterion")),
    "group_detr": ("Group-DETR", "Chen et al., ICCV 2023", ("test_group_detr", "test_criterion")),
    "deformable_detr": (
        "Deformable-DETR",
        "Zhu et al., ICLR 2021",
        ("test_deformable_detr", "test_deformable_attention", "test_encoder_proposals"),
    ),
    "dab_deformable_detr": ("DAB-Deformable-DETR", "Liu et al., ICLR 2022", ("test_deformable_detr",)),
    "dn_deformable_detr": ("DN-Deformable-DETR", "Li et al., CVPR 2022", ("test_denoising",)),
    "h_deformable_detr": ("H-Deformable-DETR", "Jia et al., CVPR 2023", ("test_deformable_detr", "test_criterion")),
    "dino": ("DINO", "Zhang et al., ICLR 2023", ("test_dino", "test_denoising", "test_criterion")),
    "align_detr": ("Align-DETR", "Cai et al., arXiv:2304.07527, 2023", ("test_ia_bce", "test_criterion", "test_dino")),
    "relation_detr": ("DINO with Relation-DETR's bias", "Hou et al., 2024", ("test_dino",)),
    "ddq_detr": ("DINO with DDQ's distinct queries", "Zhang et al., 2023", ("test_dino",)),
    "dac_detr": ("DINO with DAC-DETR's second pass", "Hu et al., 2023", ("test_dino",)),
    "mr_detr": ("DINO with Mr.DETR's routes", "Zhang et al., 2025", ("test_dino",)),
    "deim": ("DINO with DEIM's dense data", "Huang et al., 2025", ("test_dino",)),
    "AnchorDETR": ("Anchor-DETR", "Wang et al., AAAI 2022", ("projects/anchor_detr/test_golden",)),
    "SMCA": ("SMCA", "Gao et al., ICCV 2021", ("projects/smca/test_golden",)),
    "TSP": (
        "TSP-FCOS and TSP-RCNN",
        "Sun et al., ICCV 2021",
        ("test_tsp_fcos", "test_tsp_fcos_losses", "test_tsp_rcnn", "test_tsp_rcnn_losses", "test_tsp_rcnn_optimizer"),
    ),
    "FasterRCNN": ("Faster R-CNN", "Ren et al., 2015; the recipe of the DETR and TSP papers", ()),
    "DETRSegmentation": ("DETR with masks", "Carion et al., ECCV 2020, section 4.4", ()),
    "ablations": ("Ablations", "tables 4 to 8 of Align-DETR; see [ablations](docs/ablations.md)", ("test_ia_bce",)),
    "quickstart": ("Quickstarts", "none: small detectors for small data, on the CPU", ()),
}
# minutes of one core: 1,200 iterations of 0.22 to 0.25 s, times the ratio of "What the ideas cost"
ABLATIONS = {
    **dict.fromkeys(("ia_bce", "focal", "qfl", "vfl", "align", "mixed", "high_order", "giou_focal"), 5),
    **dict(distinct=5, dense=5, distinct_dense=5, relation=7, distinct_relation=7, dac=7, mr=8),
}
# config -> time of its training on a CPU, by the sections of benchmarks/RESULTS.md on demos, DAB-DETR, TSP and masks
TRAINED = {
    "quickstart/demo.py": "6.0 minutes on 2 cores",
    "quickstart/digits.py": "5.7 minutes on 2 cores",
    "quickstart/digits_dense.py": "38 minutes of a slow core that other work shared",
    "quickstart/digits_dab_detr.py": "7 minutes of one core",
    "quickstart/digits_align_dab_detr.py": "7 minutes of one core",
    "quickstart/digits_detr.py": "7 minutes of one core",
    "quickstart/bccd_align_dino.py": "9.5 minutes of one core",
    "quickstart/your_data.py": "by your data",
    **{f"ablations/digits_{name}.py": f"{minutes} minutes of one core" for name, minutes in ABLATIONS.items()},
    "TSP/tsp_fcos_digits.py": "4.5 minutes for 2,000 of 5,000 iterations",
    "TSP/detr_digits_distilled.py": "5 minutes of one core for 2,400 iterations",
    "DETRSegmentation/digits_panoptic.py": "16 minutes of one core",
}
SIZES, ADDS = (Path(__file__).with_name(f"{name}.json") for name in ("sizes", "multiply_adds"))
# part of a config's name -> backbone, beside R50 and R101
BACKBONES = {
    "swin_tiny": "Swin-T",
    "swin_large": "Swin-L",
    "convnext_tiny": "ConvNeXt-T",
    "vit_base": "ViT-B",
    "digits": "small ResNet",
}
# families whose recorded numbers are those of the detector that they extend
RELATED = ("relation_detr", "ddq_detr", "dac_detr", "mr_detr", "deim", "ablations")


def write_zoo(source: Path) -> None:
    """Write zoo.md into the folder `source`."""
    write(source / "zoo.md", zoo_page())


def zoo_page() -> str:
    """Return the page: one section and one table per family."""
    unknown = {name.partition("/")[0] for name in model_zoo.names()} - set(FAMILIES)
    if unknown:
        raise SystemExit(f"docs/site/zoo.py has no row for the configs in {', '.join(sorted(unknown))}: add one.")
    parts = [
        "# Model zoo",
        "Made from the configs. **AP is the one that was published for COCO val2017 and was not run by us**; an empty "
        "cell means that none is published. Parameters are those of the config's network with its number of classes "
        "(80 in most; the measurements count 91), in millions. Published weights, with AP50 and AP75: "
        "[models](docs/models.md).",
        "Multiply-adds are in 10^9 per image. Those without a size are means over the sizes of COCO's photos, beside "
        "the published ones in [measurements](benchmarks/RESULTS.md#size-and-cost-of-the-detectors); those with a size "
        "(height x width) were counted at that size alone, and those in italics by PyTorch's counter, which leaves out "
        "norms (below 2 %); masks are not counted. The time of training is that of a CPU, from the same page; "
        "configs for COCO were not trained by us.",
        "Every config is built at tiny size, trained for a step and evaluated by the tests (`tests/test_contract.py`). "
        "What is compared with numbers recorded from the reference implementations stands under each family; manifests "
        "are the lists of names and shapes of published weights.",
        "Train any of them, and evaluate published weights, by name:",
        "```bash\nalign-detr train --config-file dino/dino_r50_4scale_12ep.py --num-gpus 8\n"
        "align-detr train --config-file detr/detr_r50_500ep.py --eval-only "
        "train.init_checkpoint=detr-r50-e632da11.pth\n```",
    ]
    return "\n\n".join([*parts, *map(section, FAMILIES)]) + "\n"


def section(family: str) -> str:
    """Return a family's heading, proof and table."""
    title, paper, tests = FAMILIES[family]
    names = [name for name in model_zoo.names() if name.partition("/")[0] == family]
    fixtures = ", ".join(f"`{path}`" for path in map(test_file, tests)) or "none"
    fixtures += ", of the detector that it extends" if family in RELATED else ""
    project = ROOT / "projects" / family / "README.md"
    lines = [f"## {title}", f"Paper: {paper}. Recorded numbers: {fixtures}."]
    if project.is_file():
        lines[1] += f" Our reading: [{title}](projects/{family}/README.md)."
    titles = ("config", "backbone", "epochs", "parameters", "multiply-adds", "training", "AP", "source, proof")
    head = f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}"
    return "\n\n".join([*lines, "\n".join([head, *(row(name) for name in names)])])


def test_file(name: str) -> str:
    """Return the path of a file of FAMILIES: in tests/golden, unless it names another folder of tests."""
    return f"tests/{name}.py" if "/" in name else f"tests/golden/{name}.py"


def row(name: str) -> str:
    """Return the table's row of a config."""
    parameters, adds = sizes()[name], multiply_adds().get(name) or counted_adds(name)
    ap = f"{PUBLISHED_AP[name]:.1f}" if name in PUBLISHED_AP else ""
    proof = [source_of(name)] if ap else []
    proof += [f"manifest `{x}`" for x in manifests().get(name, ())]
    if any(release.config == name for release in releases()):
        proof.append("published weights are read")
    training = TRAINED.get(name, "not run by us")
    cells = [f"`{name}`", backbone_of(name), epochs_of(name), f"{parameters:.1f}", adds, training, ap]
    return f"| {' | '.join([*cells, '; '.join(proof)])} |"


def source_of(name: str) -> str:
    """Return where a published AP stands: the paper's or the repository's, with the remark of docs/models.md."""
    remark = remarks().get(name, "")
    source = "repository" if "repository" in remark or "released" in remark else "paper"
    return f"{source} ({remark})" if remark else source


def backbone_of(name: str) -> str:
    """Return the backbone in a config's name, or the one that its docstring states."""
    found = re.search(r"_(r50|r101)(_dc5)?", name)
    if found:
        return f"R{found[1][1:]}{'-DC5' if found[2] else ''}"
    for part, backbone in BACKBONES.items():
        if part in name:
            return backbone
    text = (ast.get_docstring(ast.parse(model_zoo.config_path(name).read_text())) or "") + name
    return "EfficientNet-Lite0" if "fficient" in text else "MobileNetV2"


@cache
def sizes() -> dict[str, float]:
    """Return the parameters of each config's network, in millions (`python docs/site/sizes.py` writes them)."""
    return json.loads(SIZES.read_text())


@cache
def counts() -> dict[str, tuple[float, str]]:
    """Return each config's multiply-adds and the image's size (`python docs/site/sizes.py` writes them)."""
    return {name: (adds, size) for name, (adds, size) in json.loads(ADDS.read_text()).items()}


def counted_adds(name: str) -> str:
    """Return the multiply-adds of a config's network, in italics, with the image's size."""
    adds, size = counts()[name]
    return f"*{adds:.0f}* ({size})" if adds >= 10 else f"*{adds:.2g}* ({size})"


@cache
def multiply_adds() -> dict[str, str]:
    """Return the multiply-adds that benchmarks/RESULTS.md has, with the image's size where it was one."""
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    rows = re.findall(r"^\| (\S+\.py)(?: (\(\d+x\d+\)))? \|[^|]*\|[^|]*\| (\d+) \|", text, re.MULTILINE)
    return {name: f"{adds} {size}".strip() for name, size, adds in rows}


@cache
def remarks() -> dict[str, str]:
    """Return the last column of the table of docs/models.md."""
    text = (ROOT / "docs" / "models.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| \d+ \|[^|]*\|[^|]*\|[^|]*\| ([^|]*) \|$", text, re.MULTILINE)
    return {name: remark.strip() for name, remark in rows if remark.strip()}


@cache
def manifests() -> dict[str, list[str]]:
    """Return config -> manifests, the table ROWS of tests/golden/test_manifests.py."""
    tree = ast.parse((ROOT / "tests" / "golden" / "test_manifests.py").read_text())
    values: dict[str, Any] = {ast.unparse(x.targets[0]): x.value for x in tree.body if isinstance(x, ast.Assign)}
    found: dict[str, list[str]] = {}
    for key, value in zip(values["ROWS"].keys, values["ROWS"].values, strict=True):
        config = values.get(ast.unparse(value.args[0]), value.args[0])  # a constant's name, or the text itself
        found.setdefault(ast.literal_eval(config), []).append(key.value)
    return found
