"""Train a classifier, from nothing to a tested network.

python train.py --bn --stn                                   # on the built-in traffic signs
python train.py --dataset mnist                              # or digits, cifar10
python train.py --dataset folder --data_root FOLDER          # on your own, one folder a class
python train.py --dataset folder --data_root FOLDER --network resnet18 --pretrained --lr 1e-4
python train.py --resume checkpoints/default                 # go on where a run stopped
torchrun --nproc_per_node=2 train.py --bn --stn              # two processes
"""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.console import (
    LabError,
    UsageError,
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

    from torch import nn

    from datasets import Source, Split
    from lab.images import Preprocess

# Each data set with the network that is trained on it unless told otherwise.
DATASETS = {
    "signs": "classifier",
    "mnist": "mnist_cnn",
    "digits": "mnist_cnn",
    "cifar10": "classifier",
    "folder": "classifier",
}
OPTIMIZER_NAMES = ("sgd", "adam", "adagrad", "rmsprop", "adadelta", "adamw")


def make_parser() -> "ArgumentParser":
    """Return the parser of train.py's flags."""
    parser = lab_parser(__doc__)
    # None tells a folder that was given from the default, which not every data set has.
    parser.set_defaults(data_root=None)
    parser.add_argument(
        "--dataset", choices=DATASETS, default="signs", help="what to train on (default signs)"
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--network",
        metavar="NAME",
        help="classifier (default), mnist_cnn (default of mnist and digits) or one of "
        "torchvision's classifiers: resnet18, vgg11, mobilenet_v3_small and so on",
    )
    network.add_argument("--bn", action="store_true", help="classifier: batch normalisation")
    network.add_argument("--stn", action="store_true", help="classifier: spatial transformer")
    network.add_argument("--non_local", action="store_true", help="classifier: non-local block")
    network.add_argument(
        "--dropout", type=fraction, default=0.0, help="classifier: (default %(default)s)"
    )
    network.add_argument(
        "--image_size",
        type=positive_int,
        help="torchvision's: pixels a side (default: what its weights were trained with)",
    )
    start = network.add_mutually_exclusive_group()
    start.add_argument(
        "--pretrained", action="store_true", help="torchvision's: start from its ImageNet weights"
    )
    start.add_argument(
        "--weights", type=Path, metavar="FILE", help="start from a checkpoint or a state dict"
    )
    network.add_argument(
        "--freeze",
        action="store_true",
        help="train the output layer alone, leave the body as it is",
    )
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

    from lab import checkpoint, engine

    resumed = weights = None
    if args.resume is not None:
        if args.pretrained or args.weights or args.image_size:
            raise UsageError(
                "--resume has its own: leave out --pretrained, --weights, --image_size"
            )
        path = checkpoint.resume_point(args.resume)
        resumed = checkpoint.load(path)
        parser.set_defaults(**resumed_flags(resumed, path))
        args = parser.parse_args()
        args.resume = path
        if args.freeze != resumed.get("settings", {}).get("freeze", False):
            raise UsageError(f"{path} was trained without --freeze, so it goes on without")
    elif args.weights is not None:
        weights = checkpoint.load_any(args.weights)
        if args.network in (None, network_of(weights)):
            parser.set_defaults(**network_flags(weights))
            args = parser.parse_args()
    args.network = args.network or DATASETS[args.dataset]
    runtime = engine.start(args.device, args.precision)
    try:
        train(args, runtime, resumed, weights)
    finally:
        if runtime.world_size > 1:
            engine.dist.destroy_process_group()


def network_of(state: dict[str, Any]) -> str | None:
    """Return the network a checkpoint holds; a bare state dict does not say."""
    return state.get("network", "classifier") if "configs" in state else None


def network_flags(state: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that build a checkpoint's network."""
    flags = {"network": network_of(state)}
    if flags["network"] == "classifier":
        configs = state["configs"]
        flags["bn"] = configs.get("use_batch_norm", False)
        flags["stn"] = configs.get("use_stn", False)
        flags["dropout"] = configs.get("dropout_prob", 0.0)
        flags["non_local"] = configs.get("use_non_local", False)
    return flags


def resumed_flags(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the flags a checkpoint was trained with, as defaults for going on."""
    known = network_flags(state) | {"ckpt_path": path.parent}
    known["dataset"] = state.get("dataset", "signs")
    if state.get("data_root") is not None:
        known["data_root"] = Path(state["data_root"])
    return known | state.get("settings", {})


def check_network_flags(args: "Namespace") -> None:
    """Raise a UsageError for a flag that the network has no use for."""
    from networks import NETWORKS

    if args.network != "classifier" and (args.bn or args.stn or args.non_local or args.dropout):
        raise UsageError(
            "--bn, --stn, --non_local and --dropout belong to --network classifier; "
            f"{args.network} is as it is"
        )
    if args.network in NETWORKS and args.image_size:
        raise UsageError(f"{args.network} has one size; --image_size is for torchvision's networks")
    if args.network in NETWORKS and args.pretrained:
        raise UsageError(
            f"--pretrained is for torchvision's networks; give {args.network} a checkpoint with "
            "--weights FILE"
        )
    if args.freeze and not (args.pretrained or args.weights or args.resume):
        raise UsageError("--freeze leaves a trained body as it is: add --pretrained or --weights")


def choose_preprocess(
    args: "Namespace", source: "Source", state: dict[str, Any] | None
) -> "Preprocess":
    """Return how images are put into the network that the flags ask for.

    Args:
        state: a checkpoint that it starts from, which knows; or a bare state dict.
    """
    from lab.images import Preprocess
    from networks import NETWORKS

    if state is not None and "configs" in state:
        preprocess = Preprocess(**state.get("preprocess", {}))
    elif args.network in NETWORKS:
        size = NETWORKS[args.network][0].image_size
        preprocess = Preprocess((size, size), source.mean, source.std)
    else:
        from lab.pretrained import preprocess_of

        preprocess = preprocess_of(args.network)
    if args.image_size:
        resize = preprocess.resize and round(
            preprocess.resize * args.image_size / preprocess.size[0]
        )
        preprocess = replace(preprocess, size=(args.image_size,) * 2, resize=resize)
    return preprocess


def make_configs(args: "Namespace", channels: int, num_classes: int) -> dict[str, Any]:
    """Return the configs of the network that the flags ask for."""
    from networks import NETWORKS, ClassifierConfig

    if args.network == "classifier":
        flags = (args.bn, args.stn, args.dropout, args.non_local)
        return asdict(ClassifierConfig(channels, num_classes, *flags))
    if args.network in NETWORKS:
        return asdict(NETWORKS[args.network][1](channels, num_classes))
    return {"num_classes": num_classes}


def start_from(model: "nn.Module", args: "Namespace", weights: dict[str, Any] | None) -> str | None:
    """Load the weights that the flags ask to start from; return the output layer's name if new."""
    from networks import load_body, output_layer

    if args.pretrained:
        from lab.pretrained import download_weights

        hint = "train it from scratch, without --pretrained"
        new_layer = load_body(model, download_weights(args.network, hint))
    elif weights is not None:
        new_layer = load_body(model, weights["model_state"])
    else:
        return None
    layer = f"a new output layer, {new_layer}" if new_layer else "its output layer"
    whence = args.weights or "ImageNet"
    rest = "frozen" if args.freeze else "trained as well"
    say(f"Starting from {whence}: the body, {rest}, with {layer} ({output_layer(model)[1]})")
    return new_layer


def train(
    args: "Namespace",
    runtime: Any,
    resumed: dict[str, Any] | None = None,
    weights: dict[str, Any] | None = None,
) -> None:
    """Do what the flags ask for: data, network, training, test of the best epoch.

    Args:
        resumed: the checkpoint to go on from.
        weights: a checkpoint or a bare state dict (`checkpoint.load_any`) to fine-tune.
    """
    import torch
    from torch import nn

    from datasets import SOURCES, check_classes, find_data, make_loader, modes_of
    from lab import checkpoint, engine
    from lab.pictures import draw_curves, publish
    from networks import build_network, check_network, load_weights, parameter_groups

    settings = engine.TrainSettings(
        **{field.name: getattr(args, field.name) for field in fields(engine.TrainSettings)}
    )
    check_network_flags(args)
    args.data_root = find_data(args.dataset, args.data_root)
    source = SOURCES[args.dataset]
    preprocess = choose_preprocess(args, source, resumed or weights)
    channels = len(preprocess.mean)
    normalises = check_network(args.network, make_configs(args, channels, 2), preprocess.size)
    engine.check_batch_size(args.batch_size, runtime.world_size, normalises and not args.freeze)
    if args.resume is not None and checkpoint_epoch(resumed, args.resume) >= args.epoch:
        raise LabError(
            f"{args.resume} has done {resumed['epoch']} epochs already; --epoch is the total: "
            f"to go on, give one above {resumed['epoch']}"
        )
    checkpoint.prepare_folder(args.ckpt_path)

    if runtime.rank == 0 and source.prepare is not None:
        source.prepare(args.data_root)
    engine.wait_for_all(runtime)
    loaders = {
        mode: make_loader(
            source.read(args.data_root, mode, preprocess),
            preprocess,
            args.batch_size if mode == "train" else max(args.batch_size, 256),
            args.num_workers,
            shuffle=mode == "train",
            augment=source.augment if args.augment and mode == "train" else None,
            seed=args.seed,
            rank=runtime.rank,
            world_size=runtime.world_size,
            device=runtime.device,
        )
        for mode in modes_of(args.dataset, args.data_root)
    }
    classes = loaders["train"].dataset.classes
    if "class_names" in (resumed or {}):
        where = args.data_root or args.dataset
        check_classes(classes, resumed["class_names"], where, args.resume)

    torch.manual_seed(args.seed)
    configs = make_configs(args, channels, len(classes))
    model = build_network(args.network, configs)
    if resumed is not None:
        check_same_network(args.network, configs, resumed, args.resume)
        load_weights(model, resumed["model_state"])
        new_layer = resumed.get("new_layer")
    else:
        new_layer = start_from(model, args, weights)
    parameters = parameter_groups(model, new_layer, args.freeze)
    identity = {
        "configs": configs,
        "task": "classification",
        "network": args.network,
        "dataset": args.dataset,
        "class_names": list(classes),
        "preprocess": asdict(preprocess),
        "data_root": args.data_root and str(args.data_root),
        "new_layer": new_layer,
    }

    if runtime.rank == 0 and args.resume is None:
        files = ("metrics.csv", "loss_and_acc.jpg", "confusion_matrix.jpg", "events.out.*")
        if place := checkpoint.set_aside(args.ckpt_path, files):
            say(f"{args.ckpt_path} held an earlier run; it is now in {place}")
        if args.dataset in ("mnist", "digits"):
            save_first_picture(loaders["train"].dataset.split, args.ckpt_path / "vis.png")
    counts = ", ".join(f"{len(loader.dataset):,} {mode}" for mode, loader in loaders.items())
    precision = "bf16" if runtime.autocast_dtype else "fp32"
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    say(
        f"Training {count:,} parameters on {counts} images of {len(classes)} classes "
        f"from {args.data_root or 'scikit-learn'} ({runtime.device.type}, {precision})"
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
        parameters,
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
    engine.wait_for_all(runtime)  # torchrun stops all when one does not end well


def save_first_picture(split: "Split", path: Path) -> None:
    """Save the first training picture in its own size, as the MNIST assignment asks."""
    from PIL import Image

    image = Image.fromarray(split.images[0].squeeze(2).numpy())
    try:
        image.save(path)
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror or error}") from error
    name = split.classes[int(split.labels[0])]
    say(f"Saved {path}, the first training picture: {name}, {image.width}x{image.height}")


def checkpoint_epoch(state: dict[str, Any], path: Path) -> int:
    """Return the epochs a checkpoint has finished; the scaffold's say so in their name alone."""
    from lab import checkpoint

    if "epoch" not in state:
        match = checkpoint.EPOCH_FILE.fullmatch(path.name)
        if match is None:
            raise LabError(f"{path} does not say its epoch; name it ckpt_epoch_N.pth")
        state["epoch"] = int(match[1])
    return state["epoch"]


def check_same_network(
    network: str, configs: dict[str, Any], resumed: dict[str, Any], path: Path
) -> None:
    """Raise a LabError that names the first difference to a checkpoint's network, if there is."""
    saved = {"network": network_of(resumed), "use_non_local": False} | resumed["configs"]
    for name, value in ({"network": network} | configs).items():
        if saved.get(name) != value:
            raise LabError(
                f"{path} holds another network: {name} is {saved.get(name)} there, {value} here; "
                "leave out --network, --bn, --stn, --non_local and --dropout to go on with its own"
            )


def suggest(args: "Namespace") -> None:
    """Print the commands to try next on this run."""
    path = args.ckpt_path
    where = "" if str(path) == "checkpoints/default" else f" --ckpt_path {path}"
    epoch = "" if args.epoch == 10 else " --epoch last"
    say("Next, try:")
    say(f"  python test.py{where} --epoch best --save")
    kinds = ["filter --layer_idx 0", "feature --layer_idx 1 --image_idx 50", "tsne"]
    for kind in kinds + ["stn"] * args.stn + ["attention"] * args.non_local:
        say(f"  python visualize.py --type {kind}{where}{epoch}")


if __name__ == "__main__":
    run(main)
