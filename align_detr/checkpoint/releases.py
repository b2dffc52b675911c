"""Published weights that `align_detr.checkpoint.conversion` reads: data only. This library ships and downloads none.

What was read in the repositories' lists of models stands here, and nothing else: an address leads to the file where the
list has it, otherwise to the list. `docs/models.md` has the same table.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ReleasedFile:
    """A file of published weights: the config that it fits, and where to get it.

    `ap` is its published AP on COCO val2017, `size` the published size in MB, `sha256` the published beginning of the
    file's hash, in its name; each None where nothing is published. `file` is its name, "" where the list does not say
    it. `converter` is the module that knows its names.
    """

    name: str
    config: str
    source: str
    ap: float | None
    url: str
    file: str
    converter: str
    size: int | None = None
    sha256: str | None = None


def releases() -> tuple[ReleasedFile, ...]:
    """Return all releases, by family."""
    return _RELEASES


def _rows(source: str, page: str, base: str, table: str) -> list[ReleasedFile]:
    """Return the releases of a table: name, config, AP, converter and the end of the address after `base`; `-` stands
    for an AP that was not read, and for an address that only `page` leads to.
    """
    found = []
    for line in table.strip().splitlines():
        name, config, ap, converter, end = line.split()
        url = page if end == "-" else base + end
        file = url.rpartition("/")[2] if url.endswith(".pth") else ""
        of_core = "." not in converter
        module = f"align_detr.checkpoint.{converter}" if of_core else f"align_detr.projects.{converter}"
        found.append(ReleasedFile(name, f"{config}.py", source, None if ap == "-" else float(ap), url, file, module))
    return found


def _detr(name: str, config: str, ap: float, sha256: str, size: int) -> ReleasedFile:
    """Return a file of DETR's authors, whose name ends in the hash."""
    file = f"{name}-{sha256}.pth"
    url = f"https://dl.fbaipublicfiles.com/detr/{file}"
    return ReleasedFile(name, f"detr/{config}.py", "DETR", ap, url, file, "align_detr.checkpoint.detr", size, sha256)


def _panoptic_detr(name: str, config: str, ap: float, sha256: str, size: int) -> ReleasedFile:
    """Return a file of DETR's authors with masks; the AP is that of its boxes."""
    boxes = _detr(name, config, ap, sha256, size)
    converter = "align_detr.projects.detr_segmentation.checkpoint"
    return replace(boxes, config=f"DETRSegmentation/{config}.py", converter=converter)


_GITHUB = "https://github.com/"
_DRIVE = "https://drive.google.com/file/d/"
_DETREX = _GITHUB + "IDEA-Research/detrex-storage/releases/download/"
# the beginning of the names of H-Deformable-DETR's files, of both repositories
_HYBRID = (
    "r50_hybrid_branch_lambda1_group6_t1500_dp0_mqs_lft_deformable_detr_plus_iterative_bbox_refinement_plus_plus_"
    "two_stage_"
)

_RELEASES = (
    _detr("detr-r50", "detr_r50_500ep", 42.0, "e632da11", 159),
    _detr("detr-r50-dc5", "detr_r50_dc5_500ep", 43.3, "f0fb7ef5", 159),
    _detr("detr-r101", "detr_r101_500ep", 43.5, "2c7b67e5", 232),
    _detr("detr-r101-dc5", "detr_r101_dc5_500ep", 44.9, "a2e86def", 232),
    _panoptic_detr("detr-r50-panoptic", "detr_r50_panoptic_25ep", 38.7, "b423a359", 165),
    _panoptic_detr("detr-r50-dc5-panoptic", "detr_r50_dc5_panoptic_25ep", 40.2, "ac925135", 165),
    _panoptic_detr("detr-r101-panoptic", "detr_r101_panoptic_25ep", 40.1, "0fa498b3", 237),
    *_rows(
        "Conditional-DETR",
        _GITHUB + "Atten4Vis/ConditionalDETR#model-zoo",
        "",
        """
        conditional-detr-r50       conditional_detr/conditional_detr_r50_official       41.0  conditional  -
        conditional-detr-r50-dc5   conditional_detr/conditional_detr_r50_dc5_official   43.7  conditional  -
        conditional-detr-r101      conditional_detr/conditional_detr_r101_official      42.8  conditional  -
        conditional-detr-r101-dc5  conditional_detr/conditional_detr_r101_dc5_official  45.0  conditional  -
        """,
    ),
    *_rows(
        "DAB-DETR",
        _GITHUB + "IDEA-Research/DAB-DETR#model-zoo",
        "",
        """
        dab-detr-r50            dab_detr/dab_detr_r50_50ep            -  conditional  -
        dab-detr-r50-3patterns  dab_detr/dab_detr_r50_3patterns_50ep  -  conditional  -
        dab-detr-r50-dc5        dab_detr/dab_detr_r50_dc5_50ep        -  conditional  -
        dab-detr-r101           dab_detr/dab_detr_r101_50ep           -  conditional  -
        dab-detr-r101-dc5       dab_detr/dab_detr_r101_dc5_50ep       -  conditional  -
        """,
    ),
    *_rows(
        "DN-DETR",
        _GITHUB + "IDEA-Research/DN-DETR#model-zoo",
        "https://drive.google.com/drive/folders/",
        """
        dn-detr-r50      dn_detr/dn_detr_r50_50ep      44.4  conditional  1kuwScU8PhN61qQOl5bbiPhKAYbzDHsWs
        dn-detr-r50-dc5  dn_detr/dn_detr_r50_dc5_50ep  46.3  conditional  1jr8BdDdMu8esABXdU3lNY7fpWVxAJtWa
        """,
    ),
    *_rows(
        "Deformable-DETR",
        _GITHUB + "fundamentalvision/Deformable-DETR#main-results",
        _DRIVE,
        """
        deformable-detr-r50-single-scale      deformable_detr/deformable_detr_r50_single_scale_50ep      39.4  deformable  1WEjQ9_FgfI5sw5OZZ4ix-OKk-IJ_-SDU
        deformable-detr-r50-dc5-single-scale  deformable_detr/deformable_detr_r50_dc5_single_scale_50ep  41.5  deformable  1m_TgMjzH7D44fbA-c_jiBZ-xf-odxGdk
        deformable-detr-r50                   deformable_detr/deformable_detr_r50_50ep                   44.5  deformable  1nDWZWHuRwtwGden77NLM9JoWe-YisJnA
        deformable-detr-r50-refine            deformable_detr/deformable_detr_r50_refine_50ep            46.2  deformable  1JYKyRYzUH7uo9eVfDaVCiaIGZb5YTCuI
        deformable-detr-r50-two-stage         deformable_detr/deformable_detr_r50_two_stage_50ep         46.9  deformable  15I03A7hNTpwuLNdfuEmW9_taZMNVssEp
        """,  # noqa: E501
    ),
    *_rows(
        "H-Deformable-DETR",
        _GITHUB + "HDETR/H-Deformable-DETR/blob/master/MODEL_ZOO.md",
        _GITHUB + "HDETR/H-Deformable-DETR/releases/download/v0.1/" + _HYBRID,
        """
        h-deformable-detr-r50       h_deformable_detr/h_deformable_detr_r50_12ep  48.7  deformable  12eps.pth
        h-deformable-detr-r50-36ep  h_deformable_detr/h_deformable_detr_r50_36ep  50.0  deformable  36eps.pth
        """,
    ),
    *_rows(
        "DINO",
        _GITHUB + "IDEA-Research/DINO#model-zoo",
        "",
        """
        dino-r50-4scale       dino/dino_r50_4scale_official  49.0  dino  -
        dino-r50-4scale-24ep  dino/dino_r50_4scale_official  50.4  dino  -
        dino-r50-4scale-36ep  dino/dino_r50_4scale_official  50.9  dino  -
        """,
    ),
    *_rows(
        "Align-DETR",
        _GITHUB + "FelixCaae/AlignDETR#model-zoo",
        _DRIVE,
        """
        align-dino-r50-4scale       align_detr/align_dino_r50_4scale_k2_12ep  50.3  dino  12xSxD_Z9KI8bejSlO1td1XcZ-Ns00rTi
        align-dino-r50-4scale-24ep  align_detr/align_dino_r50_4scale_k2_24ep  51.4  dino  1zQYe78fDdCmK3nwbAWYLvGCdQCFsTqoX
        """,  # noqa: E501
    ),
    *_rows(
        "Anchor-DETR",
        _GITHUB + "megvii-research/AnchorDETR#model",
        _DRIVE,
        """
        anchor-detr-r50       AnchorDETR/anchor_detr_r50_50ep       42.1  anchor_detr.checkpoint  1ktLJyw4PGdaXkOn61W537Z67WHcttXDs
        anchor-detr-r50-dc5   AnchorDETR/anchor_detr_r50_dc5_50ep   44.3  anchor_detr.checkpoint  1lJZWdIlHj6KKmAdU28Y01tTyO0hc6Jxs
        anchor-detr-r101      AnchorDETR/anchor_detr_r101_50ep      43.5  anchor_detr.checkpoint  1eBLYzlKWwSF_RRcfjgRXqIplRKetsvtg
        anchor-detr-r101-dc5  AnchorDETR/anchor_detr_r101_dc5_50ep  45.1  anchor_detr.checkpoint  1irmZPSALME4Nht3_qhM9WLExDyO9Sj-J
        """,  # noqa: E501
    ),
    *_rows(
        "detrex",
        _GITHUB + "IDEA-Research/detrex/blob/main/docs/source/tutorials/Model_Zoo.md",
        _DETREX,
        """
        detrex-conditional-detr-r50               conditional_detr/conditional_detr_r50_50ep               41.6  detrex      v0.1.0/conditional_detr_r50_50ep.pth
        detrex-dab-detr-r50                       dab_detr/dab_detr_r50_50ep                               43.3  detrex      v0.1.0/dab_detr_r50_50ep.pth
        detrex-dab-detr-r101                      dab_detr/dab_detr_r101_50ep                              44.0  detrex      v0.1.0/dab_detr_r101_50ep.pth
        detrex-dn-detr-r50                        dn_detr/dn_detr_r50_50ep                                 44.7  detrex      v0.1.0/dn_detr_r50_50ep.pth
        detrex-deformable-detr-r50-refine         deformable_detr/deformable_detr_r50_refine_50ep          47.0  deformable  v0.1.1/deformable_detr_with_box_refinement_50ep_new.pth
        detrex-deformable-detr-r50-two-stage      deformable_detr/deformable_detr_r50_two_stage_50ep       48.2  deformable  v0.1.1/deformable_detr_r50_two_stage_50ep_new.pth
        detrex-dab-deformable-detr-r50            dab_deformable_detr/dab_deformable_detr_r50_50ep         49.0  deformable  v0.2.0/dab_deformable_detr_r50_50ep_49AP.pth
        detrex-dab-deformable-detr-r50-two-stage  dab_deformable_detr/dab_deformable_detr_r50_two_stage_50ep  49.7  deformable  v0.2.0/dab_deformable_detr_r50_two_stage_49_7AP.pth
        detrex-dino-r50-4scale                    dino/dino_r50_4scale_12ep                                49.2  dino        v0.2.0/dino_r50_4scale_12ep_49_2AP.pth
        detrex-dino-r50-4scale-ema                dino/dino_r50_4scale_12ep                                49.4  dino        v0.3.0/dino_r50_4scale_12ep_with_ema.pth
        detrex-dino-r50-4scale-300dn              dino/dino_r50_4scale_12ep                                49.5  dino        v0.2.0/dino_r50_4scale_12ep_300dn.pth
        detrex-dino-r50-4scale-24ep               dino/dino_r50_4scale_24ep                                50.6  dino        v0.1.1/dino_r50_4scale_24ep.pth
        detrex-dino-r50-5scale                    dino/dino_r50_5scale_12ep                                49.6  dino        v0.2.1/dino_r50_5scale_12ep.pth
        detrex-dino-r101-4scale                   dino/dino_r101_4scale_12ep                               50.0  dino        v0.1.1/dino_r101_4scale_12ep.pth
        """,  # noqa: E501
    ),
    *_rows(
        "detrex",
        _GITHUB + "IDEA-Research/detrex/blob/main/docs/source/tutorials/Model_Zoo.md",
        _DETREX + "v0.2.0/" + _HYBRID,
        """
        detrex-h-deformable-detr-r50       h_deformable_detr/h_deformable_detr_r50_12ep  48.9  deformable  12eps.pth
        detrex-h-deformable-detr-r50-36ep  h_deformable_detr/h_deformable_detr_r50_36ep  50.3  deformable  36eps.pth
        """,
    ),
)
