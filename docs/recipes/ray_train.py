"""Ray Train: TorchTrainer makes the processes and their group, `align_detr.train` trains in each of them.

    python docs/recipes/ray_train.py --data cells --output /shared/cells --workers 8 --use-gpu

All nodes see the folders of the data and of the output. A worker that dies makes Ray start all again (FailureConfig),
and `resume=True` continues the last checkpoint.
"""

import argparse
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer


def train(options: dict[str, Any]) -> None:
    """Train in one of Ray's workers."""
    import align_detr

    given = {name: options[name] for name in ("data", "config_file") if options[name]}
    align_detr.train(
        **given,
        overrides=[f"train.output_dir={options['output']}", *options["overrides"]],
        resume=True,
    )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="folder of a data set")
    parser.add_argument("--config-file", help="path, or name in the model zoo")
    parser.add_argument("--output", required=True, help="folder that all nodes share")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--use-gpu", action="store_true")
    parser.add_argument("--max-failures", type=int, default=3)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args()
    trainer = TorchTrainer(
        train,
        train_loop_config=vars(args),
        scaling_config=ScalingConfig(num_workers=args.workers, use_gpu=args.use_gpu),
        run_config=RunConfig(
            storage_path=args.output, name="ray", failure_config=FailureConfig(max_failures=args.max_failures)
        ),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
