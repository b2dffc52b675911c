"""Rank-DETR's high-order matching cost in one line of a config: `switch_to_high_order(model)`. Its home is
`align_detr.modeling`.
"""

from align_detr.modeling import switch_to_high_order

__all__ = ["switch_to_high_order"]
