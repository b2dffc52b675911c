"""The mask branch against slow formulas, with padding, gradients and published sizes."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import instantiate
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from align_detr.errors import ConfigError
from align_detr.projects.detr_segmentation import BoxAttention, GaussianBoxAttention, MaskBranch, MaskFeatures, MaskHead
from align_detr.projects.detr_segmentation import masks as mask_module
from align_detr.projects.detr_segmentation.features import cell_side
from align_detr.structures import Memory
from support.shrink import config

DIM, HEADS = 16, 2


def maps_by_hand(attention: BoxAttention, hidden: Tensor, tokens: Tensor, inside: Tensor) -> Tensor:
    """The maps of one query over the tokens of one image: exp of the heads' products, over the sum of all of them."""
    query = attention.query.weight @ hidden + attention.query.bias
    keys = tokens @ attention.key.weight.T + attention.key.bias
    parts = torch.arange(DIM).chunk(HEADS)
    logits = torch.stack([keys[:, part] @ query[part] / math.sqrt(len(part)) for part in parts])  # (H, S)
    weights = logits.exp() * inside
    return weights / weights.sum()


def test_attention_maps_with_padding_and_their_gradients() -> None:
    """Each query sees its own image; the maps of all its heads add up to 1."""
    torch.manual_seed(0)
    attention = BoxAttention(embed_dim=DIM, num_heads=HEADS)
    nn.init.normal_(attention.query.bias)
    tokens, hidden = torch.randn(2, DIM, 2, 3, requires_grad=True), torch.randn(3, DIM, requires_grad=True)
    image, boxes = torch.tensor([1, 0, 1]), torch.rand(3, 4)
    padding = torch.tensor([[False] * 6, [False, False, True] * 2])
    ours = attention(hidden, tokens, image, boxes=boxes, cells=torch.ones(2, 2), padding=padding)
    flat = tokens.flatten(2).transpose(1, 2)
    slow = torch.stack([maps_by_hand(attention, h, flat[b], ~padding[b]) for h, b in zip(hidden, image, strict=True)])
    assert_close(ours, slow.unflatten(-1, (2, 3)))
    assert_close(ours.sum((1, 2, 3)), torch.ones(3))
    leaves, cotangent = [tokens, hidden, *attention.parameters()], torch.randn_like(ours)
    expected = torch.autograd.grad(slow, leaves, cotangent.flatten(2))
    for a, b in zip(torch.autograd.grad(ours, leaves, cotangent), expected, strict=True):
        assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_gaussian_maps_start_at_the_box() -> None:
    """By hand: a box of 2 x 4 cells in the middle of 4 x 8 cells, of which the map has one more column of padding.

    exp(-2 d^2), d the distance from the centre in half sides of the box, over its largest value.
    """
    attention = GaussianBoxAttention(embed_dim=DIM, num_heads=HEADS, gain=3.0)
    tokens, hidden = torch.randn(1, DIM, 8, 5), torch.randn(1, DIM)
    boxes, cells = torch.tensor([[0.5, 0.5, 0.5, 0.5]]), torch.tensor([[4.0, 8.0]])
    padding = (torch.arange(40) % 5 == 4)[None]
    image = torch.zeros(1, dtype=torch.int64)
    maps = attention(hidden, tokens, image, boxes=boxes, cells=cells, padding=padding)
    along_x = [math.exp(-2 * (x + 0.5 - 2) ** 2) for x in range(4)] + [0.0]
    along_y = [math.exp(-2 * ((y + 0.5 - 4) / 2) ** 2) for y in range(8)]
    expected = torch.tensor(along_y)[:, None] * torch.tensor(along_x)
    assert_close(maps[0], (3 * expected / expected.max()).expand(HEADS, 8, 5))
    nn.init.normal_(attention.query.weight)
    moved = attention(hidden, tokens, image, boxes=boxes, cells=cells, padding=padding)
    assert_close(moved.amax((2, 3)), torch.full((1, HEADS), 3.0))
    assert (moved - maps).abs().max() > 0.1


def test_gaussian_maps_have_the_gradient_of_their_formula() -> None:
    """One map of logits a > b has gain and gain exp(b - a): of the sum of both, the gradient by a is -gain exp(b - a)
    and by b the opposite. A common shift of the logits changes no map, so its gradient is 0.
    """
    attention = GaussianBoxAttention(embed_dim=DIM, num_heads=HEADS, gain=3.0)
    logits = torch.tensor([0.7, 0.2], requires_grad=True)
    wide = torch.tensor([[0.5, 0.5, 1e3, 1e3]])  # the Gaussian is the same in all cells
    maps = attention.normalize(logits.view(1, 1, 1, 2), wide, torch.tensor([[2.0, 1.0]]))
    lower = 3 * math.exp(-0.5)
    assert_close(maps.flatten(), torch.tensor([3.0, lower]), atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(maps.sum(), logits)
    assert_close(gradient, torch.tensor([-lower, lower]), atol=1e-5, rtol=1e-5)


def head() -> MaskHead:
    return MaskHead(embed_dim=DIM, num_heads=HEADS, in_features=["b", "a"], in_channels={"a": 3, "b": 5})


def head_by_hand(head: MaskHead, image_map: Tensor, attention: Tensor, maps: list[Tensor]) -> Tensor:
    """The logits of one query, step by step."""

    def block(index: int, x: Tensor) -> Tensor:
        conv, norm = head.blocks[index].conv, head.blocks[index].norm
        x = F.conv2d(x, conv.weight, conv.bias, padding=1).unflatten(1, (norm.num_groups, -1))
        mean, variance = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), keepdim=True, unbiased=False)
        x = ((x - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        return (x * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)

    x = block(1, block(0, torch.cat([image_map, attention])[None]))
    for index, finer in enumerate(maps):
        adapter = head.adapters[index]
        adapted = torch.einsum("oi,ihw->ohw", adapter.weight[..., 0, 0], finer) + adapter.bias[:, None, None]
        rows, columns = (torch.arange(n) * m // n for n, m in zip(finer.shape[1:], x.shape[2:], strict=True))
        x = block(index + 2, adapted[None] + x[:, :, rows][..., columns])
    return F.conv2d(x, head.output.weight, head.output.bias, padding=1)[0, 0]


def test_head_against_the_steps_of_the_paper() -> None:
    """Maps of sizes that are no multiples of each other, and queries of two images in any order."""
    torch.manual_seed(0)
    mask_head = head()
    for parameter in mask_head.parameters():
        nn.init.normal_(parameter, std=0.3)
    image_map, attention = torch.randn(2, DIM, 2, 3), torch.rand(3, HEADS, 2, 3)
    maps, image = [torch.randn(2, 5, 4, 6), torch.randn(2, 3, 7, 11)], torch.tensor([1, 0, 1])
    found = mask_head(image_map, attention, maps, image)
    for query, b in enumerate(image.tolist()):
        slow = head_by_hand(mask_head, image_map[b], attention[query], [x[b] for x in maps])
        assert_close(found[query], slow, atol=1e-5, rtol=1e-4)


def test_channels_of_the_released_model() -> None:
    """1,202,073 + 131,584 parameters, added up by hand; published: 42.8 M (Panoptic SegFormer, table 1) for the whole
    model, which here has 42.9 M with statistics of norms that are not trained.
    """
    with torch.device("meta"):
        model = instantiate(config("DETRSegmentation/detr_r50_panoptic_25ep.py").model)
    widths = [(block.conv.in_channels, block.conv.out_channels) for block in model.masks.head.blocks]
    assert widths == [(264, 264), (264, 128), (128, 64), (64, 32), (32, 16)]
    assert [block.norm.num_groups for block in model.masks.head.blocks] == [8] * 5
    assert [(x.in_channels, x.out_channels) for x in model.masks.head.adapters] == [(1024, 128), (512, 64), (256, 32)]
    assert sum(p.numel() for p in model.masks.head.parameters()) == 1_202_073
    assert sum(p.numel() for p in model.masks.attention.parameters()) == 131_584
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 42.87


def features(sizes: list[tuple[int, int]]) -> MaskFeatures:
    """Random features of images of these sizes, padded to 32 x 32, with something else outside of the images."""
    return MaskFeatures(
        encoded=torch.randn(len(sizes), DIM, 4, 4),
        projected=torch.randn(len(sizes), DIM, 4, 4),
        padding=torch.zeros(len(sizes), 16, dtype=torch.bool),
        maps=[torch.randn(len(sizes), 5, 8, 8), torch.randn(len(sizes), 3, 16, 16)],
        image_sizes=sizes,
        padded_size=(32, 32),
        stride=8,
    )


def test_an_image_is_cut_out_and_computed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing outside of it counts, its masks are resized to the output, and some queries at a time give the same."""
    torch.manual_seed(0)
    branch = MaskBranch(attention=BoxAttention(embed_dim=DIM, num_heads=HEADS), head=head())
    batch = features([(32, 32), (17, 24)])
    own = batch.of_image(1)
    assert [x.shape[-2:] for x in (own.encoded, own.projected, *own.maps)] == [(3, 3), (3, 3), (5, 6), (9, 12)]
    hidden, boxes = torch.randn(3, DIM), torch.rand(3, 4)
    assert_close(batch.cells(), torch.tensor([[4.0, 4.0], [3.0, 17 / 8]]))  # width and height
    assert_close(own.cells(), torch.tensor([[3.0, 17 / 8]]))
    found = branch.of_image(batch, hidden, boxes, 1, (40, 60))
    logits = branch(own, hidden, boxes, torch.zeros(3, dtype=torch.int64))
    assert_close(found, F.interpolate(logits[None], size=(40, 60), mode="bilinear")[0])
    batch.maps[1][1, :, 9:] = torch.nan
    batch.encoded[1, :, :, 3:] = torch.nan
    assert torch.equal(branch.of_image(batch, hidden, boxes, 1, (40, 60)), found)
    monkeypatch.setattr(mask_module, "QUERIES_AT_ONCE", 2)
    assert_close(branch.of_image(batch, hidden, boxes, 1, (40, 60)), found)
    assert branch.of_image(batch, hidden[:0], boxes[:0], 1, (40, 60)).shape == (0, 40, 60)


class LargeTensors(TorchDispatchMode):
    """Keeps what operators return of at least so many numbers."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.found: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.found += [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.numel() >= self.numbers]
        return out

    def memory(self) -> int:
        """Return the bytes of all of them, each storage once."""
        return sum({s.data_ptr(): s.nbytes() for s in (x.untyped_storage() for x in self.found)}.values())


def test_masks_of_detections_take_one_byte_a_pixel() -> None:
    """5 detections of 200 x 300 pixels: what has the pixels of two masks or more is the result itself, 5 * 60,000
    bytes, and logits of the output's size, which are the same to the last bit, are there once (4 bytes a number).
    """
    torch.manual_seed(0)
    branch = MaskBranch(attention=BoxAttention(embed_dim=DIM, num_heads=HEADS), head=head())
    batch, size, pixels = features([(32, 32), (17, 24)]), (200, 300), 60_000
    hidden, boxes, queries = torch.randn(6, DIM), torch.rand(6, 4), torch.tensor([4, 1, 1, 5, 0])
    with torch.no_grad():
        with LargeTensors(2 * pixels) as large:
            masks = branch.masks_of_image(batch, hidden, boxes, queries, 1, size)
        assert masks.shape == (5, *size) and masks.dtype == torch.bool and large.memory() == 5 * pixels
        some = torch.tensor([0, 1, 4, 5])
        with LargeTensors(2 * pixels) as large:
            logits = branch.of_image(batch, hidden[some], boxes[some], 1, size)
        assert large.memory() == 4 * 4 * pixels
        small = branch(batch.of_image(1), hidden[some], boxes[some], torch.zeros(4, dtype=torch.int64))
        at_once = F.interpolate(small[:, None], size=size, mode="bilinear")[:, 0]
    assert torch.equal(logits, at_once)
    assert torch.equal(masks, at_once[torch.tensor([2, 1, 1, 3, 0])] > 0)
    assert 0.01 < masks.float().mean() < 0.99
    assert branch.masks_of_image(batch, hidden, boxes, queries[:0], 1, size).shape == (0, *size)


def test_the_gaussian_of_a_box_is_in_one_place_in_a_batch_and_alone() -> None:
    """By hand: an image of 70 x 193 pixels in cells of 32. The box's centre at x = 0.9 * 193 = 173.7 is in column 5,
    5.43 columns from the left; in columns that divide 193 pixels into 7 it would be 6.3, in column 6.
    """
    attention = GaussianBoxAttention(embed_dim=DIM, num_heads=HEADS)
    map_ = torch.randn(1, DIM, 3, 7)
    batch = MaskFeatures(map_, map_, torch.zeros(1, 21, dtype=torch.bool), [], [(70, 193)], (96, 224), 32)
    uneven = MaskFeatures(map_, map_, None, [], [(70, 193)], (70, 193), 32)
    hidden, image = torch.randn(1, DIM), torch.zeros(1, dtype=torch.int64)
    boxes = torch.tensor([[0.9, 0.5, 0.05, 0.2]])
    along_x = torch.tensor([math.exp(-2 * ((x + 0.5 - 0.9 * 193 / 32) / 0.5) ** 2) for x in range(7)])
    for found in (batch, batch.of_image(0), uneven, uneven.of_image(0)):
        assert_close(found.cells(), torch.tensor([[193 / 32, 70 / 32]]))
        maps = attention(hidden, found.encoded, image, boxes=boxes, cells=found.cells(), padding=found.padding)
        assert_close(maps[0, 0].amax(0), 10 * along_x / along_x[5])


def test_the_side_of_a_cell() -> None:
    """ceil(70 / 32) = 3 and ceil(193 / 32) = 7; ceil(66 / 64) = 2, a neck's level behind the last map; 66 / 3 = 22 and
    70 / 10 = 7 are no strides.
    """
    assert cell_side((3, 7), (96, 224), [4, 8, 16, 32]) == cell_side((3, 7), (70, 193), [4, 8, 16, 32]) == 32
    assert cell_side((2, 1), (66, 10), [16, 32]) == 64
    assert cell_side((3, 3), (66, 66), [16, 32]) == 32
    assert cell_side((5, 3), (70, 42), [14]) == 14
    with pytest.raises(ConfigError, match=r"10 x 3 cells for 70 x 66 pixels, which has no stride of .*\(16, 32\)"):
        cell_side((10, 3), (70, 66), [16, 32])


def test_features_are_those_of_one_level() -> None:
    branch = MaskBranch(attention=BoxAttention(embed_dim=DIM, num_heads=HEADS), head=head(), level=1)
    tokens = torch.randn(1, 6 + 2, DIM)
    memory = Memory(tokens, torch.zeros_like(tokens), None, [(2, 3), (1, 2)], [[(2, 3)], [(1, 2)]])
    backbone = {"a": torch.zeros(1, 3, 9, 9), "b": torch.zeros(1, 5, 5, 5), "c": torch.zeros(1)}
    found = branch.features(backbone, memory, memory.with_tokens(tokens + 1), [(9, 15)], (9, 17), [4, 8])
    assert (found.padded_size, found.image_sizes, found.stride) == ((9, 17), [(9, 15)], 16)
    assert_close(found.projected[0, :, 0], tokens[0, 6:].T)
    assert_close(found.encoded, found.projected + 1)
    assert [x is backbone[name] for x, name in zip(found.maps, "ba", strict=True)] == [True, True]
    del backbone["a"]
    with pytest.raises(ConfigError, match=r"in_features names 'a', but the backbone gives b, c: add"):
        branch.features(backbone, memory, memory, [(9, 15)], (9, 17), [4, 8])
    branch.level = 2
    with pytest.raises(ConfigError, match=r"level is 2, but model\.neck has 2 levels"):
        branch.features(backbone, memory, memory, [(9, 15)], (9, 17), [4, 8])


def test_maps_and_their_channels_have_the_same_names() -> None:
    with pytest.raises(ConfigError, match="name the same ones in both"):
        MaskHead(in_features=["res4"], in_channels={"res3": 4})
    with pytest.raises(ConfigError, match="embed_dim 4 cannot be halved for 2 backbone maps"):
        MaskHead(embed_dim=4, in_features=["a", "b"], in_channels={"a": 4, "b": 4})
