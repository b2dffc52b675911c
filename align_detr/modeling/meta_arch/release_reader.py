"""Published weights in any loader: PyTorch's load_state_dict, detectron2's checkpointer, predictor and trainers."""

import logging
from collections.abc import Mapping, MutableMapping
from typing import Any

from torch import Tensor, nn

from align_detr.checkpoint.class_rows import rows_of
from align_detr.checkpoint.contents import AVERAGES_BESIDE, EVALUATED, without_prefix
from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.loading import into_pyramid

logger = logging.getLogger(__name__)


class ReleaseReader(nn.Module):
    """A model whose `load_state_dict` converts published weights to the names here; other weights are left alone.

    It warns of the plain weights of a checkpoint that has averaged ones, too: loaders that know nothing of averages
    take those.
    """

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, *args: Any, **kwargs: Any) -> Any:
        """Load as PyTorch does; without `strict`, leave out the rows of a release's classes if their number differs."""
        if not strict:
            state_dict = self._without_other_classes(state_dict)
        return super().load_state_dict(state_dict, strict, *args, **kwargs)

    def _load_from_state_dict(
        self, state_dict: MutableMapping[str, Any], prefix: str, local_metadata: Mapping[str, Any], *args: Any
    ) -> None:
        """Convert the entries below `prefix` in place, if they are a release's, before any module takes its own."""
        averages = local_metadata.get(AVERAGES_BESIDE)
        if averages is True or isinstance(averages, str):
            logger.warning(
                "These are the plain weights of a checkpoint that also has averaged ones, by which its training was "
                "evaluated: %s.",
                f"load {averages} of the same folder to get those"
                if averages in EVALUATED.values()
                else "Detector and align-detr take those, and `align-detr weights convert` writes them as a file",
            )
        own = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        converted = self._converted(own)
        if converted is not own:
            for key in own:
                del state_dict[prefix + key]
            state_dict.update({prefix + key: value for key, value in converted.items()})
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def _converted(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the same mapping if it is no release's, else the converted weights."""
        bare = without_prefix(state, "module.")
        converted = convert(bare, num_classes=getattr(self, "num_classes", None))
        if converted is bare:
            return bare if bare is not state and not hasattr(self, "module") else state
        return into_pyramid(converted, self.state_dict().keys())

    def _without_other_classes(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the converted weights of a release without those of another number of classes; report them."""
        converted = self._converted(state)
        if converted is state:
            return state
        num_classes, parts, kept = getattr(self, "num_classes", None), [], dict(converted)
        for key, tensor in self.state_dict().items():
            rows = rows_of(key, tensor, num_classes)
            if rows is not None and key in kept and kept[key].shape != tensor.shape:
                del kept[key]
                parts.append(rows.part)
        if parts:
            logger.warning(
                "The weights are of another number of classes than %s: %s start fresh.",
                num_classes,
                ", ".join(dict.fromkeys(parts)),
            )
        return kept
