"""Training and evaluation from the command line: `python train_net.py`, `align-detr train`, also under torchrun."""

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from align_detr.cli.help_texts import DATA_HELP, EXIT_CODES, LAYOUT_HELP, LAYOUTS, SEED_HELP
from align_detr.cli.requirements import require_detectron2
from align_detr.dependency_warnings import ignore_deprecated_script
from align_detr.errors import EXIT_INTERRUPTED, EXIT_KEYBOARD, EXIT_USER_ERROR, AlignDetrError, ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def build_parser(prog: str = "align-detr train") -> argparse.ArgumentParser:
    """Return the parser of the training command; it needs neither torch nor detectron2."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train and evaluate a detector: on the folder of a data set, or on what a config names.",
        epilog=f"Examples: {prog} --data raccoon; "
        f"{prog} --config-file detr/detr_r50_500ep.py --num-gpus 8 train.output_dir=runs/detr; "
        f"{prog} --config-file my/config.py --eval-only train.init_checkpoint=model.pth; "
        f"torchrun --nproc-per-node 8 train_net.py --config-file ... {EXIT_CODES}",
    )
    parser.add_argument(
        "--config-file",
        metavar="NAME",
        help="path, or name in the model zoo; default with --data: quickstart/your_data.py, a small Align-DINO that "
        "trains on a CPU",
    )
    _add_data_arguments(parser)
    parser.add_argument(
        "--eval-only",
        action="store_true",
        help="only evaluate: the train.init_checkpoint given here, else the last checkpoint of train.output_dir",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the last checkpoint of train.output_dir, with optimizer and iteration (train.init_checkpoint "
        "starts anew from weights)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="remove checkpoints and metrics of an earlier run in train.output_dir; without this or --resume it is "
        "refused",
    )
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="processes on this machine, one per GPU (or on the CPU)"
    )
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of machine 0; needed for several machines")
    parser.add_argument(
        "--dist-timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="that machines and processes wait for each other at most, at the start and in each exchange "
        "(default: 1800)",
    )
    parser.add_argument(
        "--profile",
        type=int,
        default=0,
        metavar="N",
        help="write profile.md, which says where the time of N steps goes, and their trace into train.output_dir; "
        "training goes on",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values of the config, e.g. train.epochs=12")
    return parser


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group(
        "your own data", "The config that is made is printed and, for training, saved as config.py in train.output_dir."
    )
    data.add_argument("--data", metavar="DIR", help=DATA_HELP)
    data.add_argument("--layout", choices=LAYOUTS, help=LAYOUT_HELP)
    data.add_argument(
        "--val-fraction",
        type=float,
        default=0.2,
        metavar="F",
        help="of the training images, which become the validation split if there is none (default: 0.2)",
    )
    data.add_argument("--split-seed", type=int, default=0, metavar="N", help=SEED_HELP)


def main(argv: Sequence[str] | None = None, *, prog: str = "align-detr train") -> int:
    """Run the command; return 0, or another of EXIT_CODES after one printed sentence on what the user can do."""
    args = build_parser(prog).parse_intermixed_args(argv)
    ignore_deprecated_script()
    try:
        require_detectron2()
        if args.data is None and args.config_file is None:
            raise ConfigError("There is nothing to train on: pass --data with a folder, or --config-file, or both.")
        with nullcontext(args.config_file) if args.data is None else _config_of_data(args) as args.config_file:
            _start(args)
    except AlignDetrError as error:
        return _report(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _report(
            "Ctrl-C has ended the command at once: --resume goes on after the last checkpoint.", EXIT_KEYBOARD
        )
    except OSError as error:
        from align_detr.checkpoint.files import describe_disk, is_disk_full

        if not is_disk_full(error):
            raise
        return _report(describe_disk(error.filename, error))
    except Exception as error:
        # started processes hand their error over as text, in a class of torch, which is not imported for this alone
        if type(error).__name__ != "ProcessRaisedException":
            raise
        sentence = _sentence_of_process(str(error))
        if sentence is None:
            raise
        return _report(sentence, _status_of_process(str(error)))
    return 0


@contextmanager
def _config_of_data(args: argparse.Namespace) -> Iterator[str]:
    """Make the config of the data set's folder, print it, and yield its path: for an evaluation that of a copy."""
    from align_detr.engine.data_config import DEFAULT_CONFIG, DataOptions, make_config, write_config

    options = DataOptions(args.data, args.layout, args.val_fraction, args.split_seed)
    config_file = args.config_file or DEFAULT_CONFIG
    if args.eval_only:
        _, text = make_config(options, config_file, args.overrides)
        print(text, flush=True)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "config.py"
            path.write_text(text, encoding="utf-8")
            yield str(path)
        return
    path = write_config(options, config_file, args.overrides, resume=args.resume, overwrite=args.overwrite)
    print(f"{path.read_text(encoding='utf-8')}\nThis config is {path}.", flush=True)
    yield str(path)


def run(args: argparse.Namespace, cfg: "DictConfig | None" = None) -> None:
    """Train or evaluate in this process, which is alone or has joined the others.

    `cfg` is the loaded config (None: load it). A process loads a config file only once: the file may register data
    sets, and detectron2 refuses a second registration.
    """
    # imported here, as all that needs torch: `--help` works without it
    from align_detr.engine.run import evaluate_only, train
    from align_detr.engine.start import set_up
    from align_detr.lazy_config import load_config

    if cfg is None:
        cfg = load_config(args.config_file, args.overrides)
    set_up(cfg.train)
    if args.eval_only:
        given_here = any(text.lstrip("+").startswith("train.init_checkpoint=") for text in args.overrides)
        evaluate_only(cfg, checkpoint=cfg.train.init_checkpoint if given_here else "")
    else:
        train(cfg, resume=args.resume, overwrite=args.overwrite, profile=args.profile)


def _start(args: argparse.Namespace) -> None:
    """Run in the processes that the arguments ask for, or in those that torchrun has started."""
    from align_detr.data.workers import follow_launcher
    from align_detr.engine import distributed, launcher
    from align_detr.engine.run_length import check_batch
    from align_detr.lazy_config import load_config

    if args.num_gpus < 1 or args.num_machines < 1:
        raise ConfigError("--num-gpus and --num-machines count processes, on the CPU as well: set them to at least 1.")
    if args.profile < 0:
        raise ConfigError(f"--profile is {args.profile} steps: set it to 1 or more, or leave it out.")
    if args.eval_only and args.profile:
        raise ConfigError("--profile measures training steps, of which --eval-only makes none: leave one of them out.")
    if args.eval_only and (args.resume or args.overwrite):
        other = "--resume" if args.resume else "--overwrite"
        raise ConfigError(f"--eval-only and {other} exclude each other: leave one of them out.")
    process = distributed.torchrun_rank()
    world_size = args.num_gpus * args.num_machines
    if process is not None and world_size > 1:
        raise ConfigError("torchrun has started the processes: leave out --num-gpus and --num-machines.")
    if process is not None and args.overwrite:
        distributed.check_restarts()
    if not args.dist_timeout > 0:
        raise ConfigError(f"--dist-timeout is {args.dist_timeout:g} seconds: set it to a number above 0.")
    cfg = load_config(args.config_file, args.overrides)  # a wrong config is reported once, before processes start
    if world_size == 1 and process is None:
        distributed.check_alone()
        run(args, cfg)
        return
    if not args.eval_only:
        check_batch(cfg.dataloader.train, world_size if process is None else process.world_size)
    if process is not None:
        follow_launcher(grace=5.0)
        with distributed.membership(process, cfg.train.device, timeout=args.dist_timeout):
            run(args, cfg)
        return
    launcher.spawn(
        run,
        (args,),
        device=cfg.train.device,
        local_size=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        timeout=args.dist_timeout,
    )


def _sentence_of_process(text: str) -> str | None:
    """Return the sentence of an AlignDetrError in the traceback of another process, or None for any other error."""
    kind, _, sentence = text.strip().splitlines()[-1].partition(": ")
    return sentence if sentence and _user_error(kind) else None


def _status_of_process(text: str) -> int:
    """Return the exit status of the AlignDetrError in the traceback of another process."""
    kind = _user_error(text.strip().splitlines()[-1].partition(": ")[0])
    return EXIT_USER_ERROR if kind is None else kind.exit_status


def _user_error(qualified_name: str) -> type[AlignDetrError] | None:
    """Return the AlignDetrError of a class's dotted name, or None if it is no such class."""
    module, _, name = qualified_name.rpartition(".")
    if not module.startswith("align_detr."):
        return None
    kind = getattr(importlib.import_module(module), name, None)
    return kind if isinstance(kind, type) and issubclass(kind, AlignDetrError) else None


def _report(sentence: str, status: int = EXIT_USER_ERROR) -> int:
    prefix = "" if status == EXIT_INTERRUPTED else "error: "
    print(f"{prefix}{sentence}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
