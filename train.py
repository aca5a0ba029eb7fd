"""Train a traffic-sign classifier, from nothing to a tested network.

python train.py --bn --stn                                   # on the built-in data
python train.py --bn --stn --augment --data_root FOLDER      # on your own, one folder a class
python train.py --resume checkpoints/default                 # go on where a run stopped
torchrun --nproc_per_node=2 train.py --bn --stn              # two processes
"""

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import (
    LabError,
    fraction,
    lab_parser,
    natural,
    non_negative_float,
    positive_float,
    positive_int,
    run,
    say,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

OPTIMIZER_NAMES = ("sgd", "adam", "adagrad", "rmsprop", "adadelta", "adamw")


def make_parser() -> "ArgumentParser":
    """Return the parser of train.py's flags."""
    parser = lab_parser(__doc__)
    network = parser.add_argument_group("network")
    network.add_argument("--bn", action="store_true", help="batch normalisation")
    network.add_argument("--stn", action="store_true", help="spatial transformer in front")
    network.add_argument("--dropout", type=fraction, default=0.0, help="(default %(default)s)")
    training = parser.add_argument_group("training")
    for flags, options in {
        ("--epoch",): dict(type=positive_int, default=10, help="epochs in all, resumed or not"),
        ("--batch_size", "--batchsize"): dict(type=positive_int, default=32, help="images a step"),
        ("--lr",): dict(
            type=positive_float, default=1e-3, help="learning rate (onecycle: its peak)"
        ),
        ("--momentum",): dict(type=fraction, default=0.9, help="of sgd"),
        ("--weight_decay",): dict(type=non_negative_float, default=0.0, help="L2 penalty"),
        ("--optim_type",): dict(choices=OPTIMIZER_NAMES, default="adam", help="optimizer"),
        ("--schedule",): dict(choices=("constant", "onecycle"), default="constant", help="of lr"),
        ("--label_smoothing",): dict(type=fraction, default=0.0, help="share of the target spread"),
        ("--val_interval",): dict(type=positive_int, default=1, help="epochs between validations"),
        ("--max_ckpt_save_num",): dict(type=positive_int, default=10, help="checkpoints kept"),
        ("--precision",): dict(
            choices=("auto", "fp32", "bf16"), default="auto", help="bf16 where it is fast"
        ),
        ("--seed",): dict(type=natural, default=0, help="of weights, order, augmentation, dropout"),
        ("--num_workers",): dict(
            type=natural, default=0, help="loader processes, for images too many for memory"
        ),
    }.items():
        options["help"] += " (default %(default)s)"
        training.add_argument(*flags, **options)
    training.add_argument("--augment", action="store_true", help="vary the training images")
    training.add_argument(
        "--resume",
        type=Path,
        metavar="PATH",
        help="checkpoint, or folder of a run, to go on from; its own flags hold unless given anew",
    )
    return parser


def main() -> None:
    parser = make_parser()
    args = parser.parse_args()

    import checkpoint
    import engine

    resumed = None
    if args.resume is not None:
        path = checkpoint.resume_point(args.resume)
        resumed = checkpoint.load(path)
        parser.set_defaults(**resumed_flags(resumed, path))
        args = parser.parse_args()
        args.resume = path
    runtime = engine.start(args.device, args.precision)
    try:
        train(args, runtime, resumed)
    finally:
        if runtime.world_size > 1:
            engine.dist.destroy_process_group()


def resumed_flags(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the flags a checkpoint was trained with, as defaults for going on."""
    configs = state["configs"]
    known = {
        "bn": configs.get("use_batch_norm", False),
        "stn": configs.get("use_stn", False),
        "dropout": configs.get("dropout_prob", 0.0),
        "ckpt_path": path.parent,
    }
    if "data_root" in state:
        known["data_root"] = Path(state["data_root"])
    return known | state.get("settings", {})


def train(args: "Namespace", runtime: Any, resumed: dict[str, Any] | None) -> None:
    """Do what the flags ask for: data, network, training, test of the best epoch."""
    import torch
    from torch import nn

    import checkpoint
    import engine
    from datasets import MODES, check_classes, get_data_loader, prepare_data
    from networks import IMAGE_SIZE, Classifier, load_weights
    from pictures import draw_curves, publish

    settings = engine.TrainSettings(
        **{field.name: getattr(args, field.name) for field in fields(engine.TrainSettings)}
    )
    engine.check_batch_size(args.batch_size, runtime.world_size, args.bn or args.stn)
    if args.resume is not None and checkpoint_epoch(resumed, args.resume) >= args.epoch:
        raise LabError(
            f"{args.resume} has done {resumed['epoch']} epochs already; --epoch is the total: "
            f"to go on, give one above {resumed['epoch']}"
        )
    prepare_folder(args.ckpt_path)

    if runtime.rank == 0:
        prepare_data(args.data_root)
    engine.wait_for_all(runtime)
    loaders = {
        mode: get_data_loader(
            args.data_root,
            mode,
            IMAGE_SIZE,
            args.batch_size if mode == "train" else max(args.batch_size, 256),
            args.num_workers,
            args.augment,
            seed=args.seed,
            rank=runtime.rank,
            world_size=runtime.world_size,
            device=runtime.device,
        )
        for mode in MODES
        if mode != "test" or (args.data_root / "test").is_dir()
    }
    classes = loaders["train"].dataset.classes
    if "class_names" in (resumed or {}):
        check_classes(classes, resumed["class_names"], args.data_root, args.resume)

    torch.manual_seed(args.seed)
    model = Classifier(3, len(classes), args.bn, args.stn, args.dropout)
    configs = asdict(model.config)
    if resumed is not None:
        check_same_network(configs, resumed["configs"], args.resume)
        load_weights(model, resumed["model_state"])
    identity = {
        "configs": configs,
        "task": "classification",
        "network": "classifier",
        "class_names": list(classes),
        "preprocess": asdict(loaders["train"].dataset.preprocess),
        "data_root": str(args.data_root),
    }

    if runtime.rank == 0 and args.resume is None:
        files = ("metrics.csv", "loss_and_acc.jpg", "confusion_matrix.jpg", "events.out.*")
        if place := checkpoint.set_aside(args.ckpt_path, files):
            say(f"{args.ckpt_path} held an earlier run; it is now in {place}")
    counts = ", ".join(f"{len(loader.dataset):,} {mode}" for mode, loader in loaders.items())
    precision = "bf16" if runtime.autocast_dtype else "fp32"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    say(
        f"Training {parameters:,} parameters on {counts} images of {len(classes)} classes "
        f"from {args.data_root} ({runtime.device.type}, {precision})"
    )
    history = engine.fit(
        model,
        nn.CrossEntropyLoss(label_smoothing=args.label_smoothing),
        loaders["train"],
        loaders["val"],
        settings,
        runtime,
        args.ckpt_path,
        identity,
        resumed,
    )

    if "test" in loaders:
        engine.wait_for_all(runtime)  # for the first process to have saved the last epoch
        # A run resumed into a new folder may have had its best epoch in the old one.
        here = engine.best_epoch(history) in checkpoint.epochs(args.ckpt_path)
        which = "best" if here else "last"
        tested = checkpoint.load(checkpoint.find(args.ckpt_path, which))
        model.load_state_dict(tested["model_state"])
        accuracy = engine.evaluate(model, loaders["test"], runtime, label="testing").accuracy
        say(f"Test accuracy of the {which} epoch, {tested['epoch']}: {accuracy:.2%}")
    if runtime.rank == 0:
        publish(draw_curves(history), args.ckpt_path / "loss_and_acc.jpg")
        suggest(args)


def checkpoint_epoch(state: dict[str, Any], path: Path) -> int:
    """Return the epochs a checkpoint has finished; the scaffold's say so in their name alone."""
    import checkpoint

    if "epoch" not in state:
        match = checkpoint.EPOCH_FILE.fullmatch(path.name)
        if match is None:
            raise LabError(f"{path} does not say its epoch; name it ckpt_epoch_N.pth")
        state["epoch"] = int(match[1])
    return state["epoch"]


def check_same_network(asked: dict[str, Any], saved: dict[str, Any], path: Path) -> None:
    """Raise a LabError that names the first difference unless two configs are the same."""
    for name, value in asked.items():
        if saved.get(name) != value:
            raise LabError(
                f"{path} holds another network: {name} is {saved.get(name)} there, {value} here; "
                "leave out --bn, --stn and --dropout to go on with its own"
            )


def prepare_folder(folder: Path) -> None:
    """Make the checkpoint folder, and find out now, not after an epoch, if it cannot be written."""
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise LabError(f"cannot write to --ckpt_path {folder}: {error.strerror}") from error


def suggest(args: "Namespace") -> None:
    """Print the commands to try next on this run."""
    path = args.ckpt_path
    where = "" if str(path) == "checkpoints/default" else f" --ckpt_path {path}"
    epoch = "" if args.epoch == 10 else " --epoch last"
    say("Next, try:")
    say(f"  python test.py{where} --epoch best --save")
    kinds = ["filter --layer_idx 0", "feature --layer_idx 1 --image_idx 50", "tsne"]
    for kind in kinds + ["stn"] * args.stn:
        say(f"  python visualize.py --type {kind}{where}{epoch}")


if __name__ == "__main__":
    run(main)
