"""The parts of the matcher: costs, limits and solvers.

Together they are a fast form of these plain lines of PyTorch and SciPy, whose pairs they must equal::

    import torch
    from scipy.optimize import linear_sum_assignment

    def corners(boxes):  # cxcywh (..., 4)
        centre, size = boxes[..., :2], boxes[..., 2:]  # (..., 2) each
        return centre - size / 2, centre + size / 2  # (..., 2) each

    def giou(boxes, truth):  # DETR, equation 10: (Q, 4), (n, 4) -> (Q, n)
        (low, high), (true_low, true_high) = corners(boxes[:, None]), corners(truth)  # (Q, 1, 2), (n, 2)
        inter = (high.minimum(true_high) - low.maximum(true_low)).clamp(min=0).prod(-1)  # (Q, n)
        hull = (high.maximum(true_high) - low.minimum(true_low)).prod(-1)  # (Q, n)
        union = boxes[:, 2:].prod(-1)[:, None] + truth[:, 2:].prod(-1) - inter  # (Q, n)
        return inter / union - (hull - union) / hull  # (Q, n)

    def class_cost(logits, labels, softmax):  # (Q, K) or with "no object" (Q, K + 1), (n,) -> (Q, n)
        if softmax:  # DETR, equation 1
            return -logits.softmax(-1)[:, labels]  # (Q, n)
        p = logits.sigmoid()[:, labels]  # (Q, n); the focal loss as a positive, less that as a negative
        return 2 * (0.75 * p**2 * (1 - p + 1e-8).log() - 0.25 * (1 - p) ** 2 * (p + 1e-8).log())  # (Q, n)

    def match_image(preds, row, image, labels, truth, wanted):  # (n,), (n, 4) -> queries, targets
        boxes, n = preds.boxes[row, image], len(labels)  # (Q, 4)
        l1 = (boxes[:, None] - truth).abs().sum(-1)  # (Q, n)
        cost = class_cost(preds.logits[row, image], labels, preds.softmax) + 5 * l1 - 2 * giou(boxes, truth)  # (Q, n)
        allowed, usable = torch.ones_like(cost, dtype=torch.bool), len(boxes)  # (Q, n)
        if preds.valid is not None:  # padding queries match nothing
            allowed &= preds.valid[image, :, None]  # (Q, n)
            usable = preds.valid[image].sum().item()
        if preds.allowed is not None:
            allowed, usable = allowed & preds.allowed[image, :, :n], len(boxes)  # (Q, n)
        copies = max(1, min(wanted, usable // (2 * n)))  # Align-DETR, section 3.4; at most half the queries
        price = cost.max() + len(boxes) * (cost.max() - cost.min()) + 1  # (); no total of allowed pairs reaches it
        cost = torch.where(allowed, cost, price).repeat(1, copies)  # (Q, copies n)
        query, column = map(torch.from_numpy, linear_sum_assignment(cost.double()))  # (m,) each
        kept = allowed[query, column % n]  # (m,)
        return query[kept].tolist(), (column[kept] % n).tolist()

    def match(preds, targets, wanted):  # copies wanted in each decoder layer -> {(row, image, query, target)}
        pairs = set()
        for row in range(len(preds.boxes)):  # a query group of a decoder layer
            for image, n in enumerate(targets.counts):
                if n:
                    labels, truth = targets.labels[image, :n], targets.boxes[image, :n]  # (n,), (n, 4)
                    found = match_image(preds, row, image, labels, truth, wanted[row // preds.groups])
                    pairs |= {(row, image, q, t) for q, t in zip(*found)}
        return pairs

A test runs these lines as they stand here, and compares their pairs with the matcher's.
"""
