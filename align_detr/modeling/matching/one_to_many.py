"""Assignment of several queries to each object by the quality of each query, without competition among objects."""

from collections.abc import Collection, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from align_detr.checks import check_count, check_share
from align_detr.modeling.matching.costs import Cost, PairCost
from align_detr.modeling.matching.limits import FORBIDDEN
from align_detr.modeling.matching.pairs import Pairs

KEY = "model.decoder.routes: assigner"


class BlendedCost(PairCost):
    """Minus share u + (1 - share) s, of the IoU u and the sigmoid probability s of the target's class (DAC-DETR, Hu et
    al. 2023; share 0.7 there). `eps` as in `align_detr.layers.boxes.box_iou`.
    """

    softmax = False

    def __init__(self, *, weight: float, share: float = 0.7, eps: float = 0.0) -> None:
        super().__init__(weight=weight)
        self.share = check_share(share, "share of BlendedCost")
        self.eps = self._check("eps", eps, least=0)

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Return the cost of each pair, (r, n, Q), in [-1, 0]."""
        overlap = pairs.iou(self.eps).mul_(-self.share)
        return overlap.sub_(pairs.of_class(torch.sigmoid), alpha=1 - self.share)


class OneToManyAssigner(nn.Module):
    """Assigner of up to `most` queries to each object of an image, by the quality m = 0.7 u + 0.3 s of IoU and class
    probability (DAC-DETR, Hu et al. 2023, whose defaults these are; Mr.DETR takes the same).

    A query belongs to the object for which its m is largest, and counts as positive if that is at least `threshold`.
    The best query of each object is positive in any case, for the object to which it belongs: an object whose best
    query prefers another one may have none. Of the positives of an object the best `most` remain; of equal ones those
    of lower index.

    So it is in the released code but for three things: that draws 75 of an image's positives at random where there are
    more; in place of an object's positives it takes as many of the best queries for it, whatever object these belong
    to, so that a query may be trained for two objects; and u is the IoU of the query's box in the one-to-one pass
    there, beside s of the pass without self-attention, where both are of the latter here.
    """

    def __init__(self, *, threshold: float = 0.4, most: int = 6, share: float = 0.7) -> None:
        super().__init__()
        self.threshold = check_share(threshold, f"{KEY}.threshold")
        self.most = check_count(most, f"{KEY}.most")
        self.costs = cast("Sequence[Cost]", nn.ModuleList([BlendedCost(weight=1.0, share=share)]))

    def assign_all(self, cost: np.ndarray, counts: Sequence[int], skipped: Collection[int] = ()) -> np.ndarray:
        """Return the pairs in every row and image but those `skipped`, (4, M): row, image, query and target.

        `cost` (R, N, Q), the sum of `costs`, holds the N targets of all images, `counts` of each, concatenated.
        """
        pairs, start = [np.zeros((4, 0), np.int64)], 0
        for image, count in enumerate(counts):
            if count and image not in skipped:
                row, query, target = self.assign(cost[:, start : start + count])
                pairs.append(np.stack([row, np.full_like(row, image), query, target]))
            start += count
        found = np.concatenate(pairs, axis=1)
        return found[:, np.lexsort((found[2], found[1], found[0]))]

    def assign(self, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return row, query and target of the pairs of one image, (M,) each: cost (R, n, Q), FORBIDDEN for a pair that
        may not be.
        """
        owner, least = cost.argmin(1), cost.min(1)  # (R, Q)
        positive = least <= -self.threshold
        some, objects = np.nonzero(cost.min(2) < FORBIDDEN)
        positive[some, cost.argmin(2)[some, objects]] = True  # the best query of each object that may have one
        row, query = np.nonzero(positive & (least < FORBIDDEN))
        target, own = owner[row, query], least[row, query]
        order = np.lexsort((query, own, target, row))
        bag = (row * cost.shape[1] + target)[order]
        rank = np.arange(len(bag)) - np.searchsorted(bag, bag)
        kept = order[rank < self.most]
        return row[kept], query[kept], target[kept]
