"""Classification: which of some classes an image shows.

    python train.py --bn --stn
    python train.py --dataset mnist
    python train.py --dataset folder --data_root FOLDER --network resnet18 --pretrained --lr 1e-4

Nothing of torch is imported before it is needed, so that `train.py --help` answers at once.
"""

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.console import LabError, UsageError, fraction, positive_int, progress, say
from lab.folders import stored
from tasks import Field, Job

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from datasets import ImageDataset, Source, Split
    from lab.images import Preprocess
    from lab.pictures import Picture
    from lab.runtime import Runtime

# Each data set with the network that is trained on it unless told otherwise.
DATASETS = {
    "signs": "classifier",
    "mnist": "mnist_cnn",
    "digits": "mnist_cnn",
    "cifar10": "classifier",
    "folder": "classifier",
}
LIKELIEST = 5  # classes named of each picture of one's own
SHOWN = 48  # pictures on a sheet


# ---------------------------------------------------------------- task, meter


class Classification:
    """Cross-entropy, ranked by accuracy.

    Args:
        label_smoothing: share of the target that is spread over all classes, in training.
    """

    name, ranks_by = "classification", "accuracy"

    def __init__(self, label_smoothing: float = 0.0):
        from torch import nn

        self.criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def loss(
        self, model: "nn.Module", images: "Tensor", labels: "Tensor"
    ) -> tuple["Tensor", dict[str, "Tensor"]]:
        """Return the loss and the accuracy of images (N, C, H, W) with labels (N,)."""
        logits = model(images)  # (N, classes)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return self.criterion(logits, labels), {"accuracy": accuracy}

    def meter(self) -> "ClassificationMeter":
        """Return a new meter."""
        return ClassificationMeter()


class ClassificationMeter:
    """Cross-entropy without smoothing, and accuracy.

    Attributes:
        labels, predictions: int64 (N,), of this process's images seen so far.
    """

    def __init__(self) -> None:
        self._labels: list[Tensor] = []
        self._predictions: list[Tensor] = []
        self._loss_sum: Tensor | float = 0.0

    def update(self, model: "nn.Module", images: "Tensor", labels: "Tensor") -> None:
        """Classify a batch."""
        from torch.nn.functional import cross_entropy

        logits = model(images).float()
        self._loss_sum += cross_entropy(logits, labels, reduction="sum").double()
        self._labels.append(labels)
        self._predictions.append(logits.argmax(1))

    @property
    def labels(self) -> "Tensor":
        return self._gathered(self._labels)

    @property
    def predictions(self) -> "Tensor":
        return self._gathered(self._predictions)

    def compute(self, runtime: "Runtime") -> dict[str, float]:
        """Return `loss` and `accuracy`, means over the images of all processes."""
        import torch

        labels, predictions = self.labels, self.predictions
        correct = (labels == predictions).sum().item()
        sums = torch.tensor(
            [float(self._loss_sum), correct, len(labels)],
            dtype=torch.float64,
            device=runtime.device,
        )
        loss, correct, count = runtime.total(sums).tolist()
        return {"loss": loss / count, "accuracy": correct / count}

    @staticmethod
    def _gathered(parts: list["Tensor"]) -> "Tensor":
        import torch

        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)


# ---------------------------------------------------------------- flags


def add_flags(parser: ArgumentParser) -> None:
    """Add the flags of data and network."""
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
    for flag, text in {
        "--bn": "classifier: batch normalisation",
        "--stn": "classifier: spatial transformer",
        "--non_local": "classifier: non-local block",
    }.items():
        network.add_argument(flag, action=BooleanOptionalAction, default=False, help=text)
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
        "--weights",
        type=Path,
        metavar="PATH",
        help="start from a checkpoint, a run's folder or a state dict",
    )
    network.add_argument(
        "--freeze",
        action=BooleanOptionalAction,
        default=False,
        help="train the output layer alone, leave the body as it is",
    )
    network.add_argument(
        "--label_smoothing",
        type=fraction,
        default=0.0,
        help="share of the target spread over all classes (default %(default)s)",
    )


def network_of(state: dict[str, Any]) -> str | None:
    """Return the network a checkpoint holds; a bare state dict does not say."""
    return state.get("network", "classifier") if "configs" in state else None


def flags_of(state: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that build a checkpoint's network."""
    flags = {"network": network_of(state)}
    if flags["network"] == "classifier":
        configs = state["configs"]
        flags["bn"] = configs.get("use_batch_norm", False)
        flags["stn"] = configs.get("use_stn", False)
        flags["dropout"] = configs.get("dropout_prob", 0.0)
        flags["non_local"] = configs.get("use_non_local", False)
    return flags


def check_flags(args: Namespace, resumed: dict[str, Any] | None) -> None:
    """Raise a UsageError for a flag that the network or the run has no use for."""
    from networks import NETWORKS

    if resumed is not None and (args.pretrained or args.weights or args.image_size):
        raise UsageError("--resume has its own: leave out --pretrained, --weights, --image_size")
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
            "--weights PATH"
        )
    if resumed is not None:
        frozen = (resumed.get("settings", {}) | resumed.get("flags", {})).get("freeze", False)
        if args.freeze != frozen:
            with_it, other = ("with", "without") if frozen else ("without", "with")
            raise UsageError(
                f"{args.resume} was trained {with_it} --freeze, so it does not go on {other}"
            )
    elif args.freeze and not (args.pretrained or args.weights):
        raise UsageError("--freeze leaves a trained body as it is: add --pretrained or --weights")


# ---------------------------------------------------------------- what train.py trains


def choose_preprocess(
    args: Namespace, source: "Source", state: dict[str, Any] | None
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


def make_configs(args: Namespace, channels: int, num_classes: int) -> dict[str, Any]:
    """Return the configs of the network that the flags ask for."""
    from networks import NETWORKS, ClassifierConfig

    if args.network == "classifier":
        flags = (args.bn, args.stn, args.dropout, args.non_local)
        return asdict(ClassifierConfig(channels, num_classes, *flags))
    if args.network in NETWORKS:
        return asdict(NETWORKS[args.network][1](channels, num_classes))
    return {"num_classes": num_classes}


def start_from(model: "nn.Module", args: Namespace, weights: dict[str, Any] | None) -> str | None:
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


def prepare(
    args: Namespace,
    runtime: "Runtime",
    resumed: dict[str, Any] | None,
    weights: dict[str, Any] | None,
) -> Job:
    """Read the data and build the network that the flags ask for."""
    import torch

    from datasets import SOURCES, check_classes, find_data, make_loader, modes_of
    from lab.batches import check_count
    from lab.runtime import check_batch_size
    from networks import build_network, check_network, load_weights, parameter_groups

    args.network = args.network or DATASETS[args.dataset]
    check_flags(args, resumed)
    args.data_root = find_data(args.dataset, args.data_root)
    source = SOURCES[args.dataset]
    preprocess = choose_preprocess(args, source, resumed or weights)
    channels = len(preprocess.mean)
    normalises = check_network(args.network, make_configs(args, channels, 2), preprocess.size)
    normalises = normalises and not args.freeze
    check_batch_size(args.batch_size, runtime, normalises)

    if runtime.rank == 0 and source.prepare is not None:
        source.prepare(args.data_root)
    runtime.wait_for_all()
    loaders = {
        mode: make_loader(
            source.read(args.data_root, mode, preprocess, args.val_share),
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
    train_split = loaders["train"].dataset.split
    check_count(len(train_split.labels), runtime.world_size, normalises)
    classes = train_split.classes
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
    identity = {
        "configs": configs,
        "network": args.network,
        "dataset": args.dataset,
        "class_names": list(classes),
        "preprocess": asdict(preprocess),
        "data_root": args.data_root and stored(args.data_root),
        "new_layer": new_layer,
        "flags": {"label_smoothing": args.label_smoothing, "freeze": args.freeze},
    }
    digits = args.dataset in ("mnist", "digits")
    return Job(
        Classification(args.label_smoothing),
        model,
        loaders,
        identity,
        parameter_groups(model, new_layer, args.freeze),
        f"images of {len(classes)} classes from {args.data_root or 'scikit-learn'}",
        (lambda folder: save_first_picture(train_split, folder / "vis.png")) if digits else None,
    )


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


def suggestions(args: Namespace) -> list[list[str]]:
    """Return the arguments of visualize.py that are worth trying on a run."""
    kinds = [["filter", "--layer_idx", "0"], ["feature", "--layer_idx", "1", "--image_idx", "50"]]
    kinds += [["tsne"]] + [["stn"]] * args.stn + [["attention"]] * args.non_local
    return [["--type", *kind] for kind in kinds]


# ---------------------------------------------------------------- what test.py tests


def restore(state: dict[str, Any]) -> tuple[Classification, "nn.Module"]:
    """Return the task and the trained network of a loaded checkpoint."""
    from networks import load_network

    return Classification(), load_network(state)


def test_loader(
    state: dict[str, Any], data_root: Path | None, batch_size: int, runtime: "Runtime"
) -> "DataLoader":
    """Return the test split that a checkpoint's network can be tried on."""
    from datasets import get_test_loader

    return get_test_loader(state, data_root, batch_size, runtime.device)


def report(args: Namespace, meter: ClassificationMeter, dataset: "ImageDataset") -> None:
    """Print a table of classes and the accuracy, and draw what was confused with what."""
    report_classes(args, meter, dataset.classes, "images")
    if args.save:
        labels, predictions = meter.labels.tolist(), meter.predictions.tolist()
        save_results(dataset, labels, predictions, args.ckpt_path / "results")


def report_classes(
    args: Namespace, meter: ClassificationMeter, classes: Sequence[str], inputs: str
) -> None:
    """Print and draw the same of whatever is classified.

    What each input was taken for goes into `predictions.csv`, in the order of the split.

    Args:
        inputs: what they are, in the plural.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    from lab.pictures import confusion, draw, publish
    from lab.run import as_csv, write_whole

    labels, predictions = meter.labels.cpu().numpy(), meter.predictions.cpu().numpy()
    every = range(len(classes))
    table = precision_recall_fscore_support(labels, predictions, labels=every, zero_division=0)
    width = max(5, *map(len, classes))
    say(f"{'class':{width}}  precision   recall  {inputs:>7}")
    for name, precision, recall, _, count in zip(classes, *table, strict=True):
        say(f"{name:{width}}  {precision:9.2%}  {recall:7.2%}  {count:7d}")
    correct = int((labels == predictions).sum())
    share = correct / len(labels)
    say(f"accuracy on the test set: {share:.2%} ({correct:,} of {len(labels):,})")

    rows = [
        {"input": index, "label": classes[label], "prediction": classes[prediction]}
        for index, (label, prediction) in enumerate(zip(labels, predictions, strict=True))
    ]
    write_whole(args.ckpt_path / "predictions.csv", as_csv(rows))
    matrix = confusion_matrix(labels, predictions, labels=every)
    publish(draw(confusion(matrix, classes)), args.ckpt_path / "confusion_matrix.jpg")


def file_part(name: str) -> str:
    """Return a class's name as a part of a file's name, of 80 bytes at the most."""
    return name.encode(errors="surrogateescape")[:80].decode(errors="ignore")


def save_results(
    dataset: "ImageDataset", labels: list[int], predictions: list[int], folder: Path
) -> None:
    """Write every image into a folder, as `write_results` does, and a sheet of mistakes."""
    from PIL import Image

    from lab.pictures import Picture, draw, publish, sheet, shorten

    def image(index: int) -> Image.Image:
        pixels = dataset.pixels([index])[0].expand(-1, -1, 3)  # grey as RGB
        return Image.fromarray(pixels.cpu().numpy())

    classes = dataset.classes
    wrong = write_results(folder, classes, labels, predictions, image)
    say(f"Saved {len(dataset):,} images in {folder}")
    if wrong:
        shown = some_of(wrong)
        pixels = dataset.pixels([index for index, _, _ in shown]).expand(-1, -1, -1, 3)
        captions = [
            f"{shorten(classes[label])}\nread as {shorten(classes[prediction])}"
            for _, label, prediction in shown
        ]
        title = f"{len(shown)} of {len(wrong)} mistakes among {len(dataset):,} images"
        picture = Picture("mistakes.jpg", title, (sheet(pixels.cpu().numpy(), captions),))
        publish(draw(picture), folder / picture.path)


Mistake = tuple[int, int, int]  # index, label, prediction


def write_results(
    folder: Path,
    classes: Sequence[str],
    labels: Sequence[int],
    predictions: Sequence[int],
    image: "Callable[[int], Image.Image]",
) -> list[Mistake]:
    """Write images as NNNN_correct_LABEL_PRED.jpg or NNNN_wrong_...; return the mistakes.

    Those that an earlier test left in `folder` are removed.

    Args:
        image: the one of an index.

    Raises:
        LabError: the folder cannot be written.
    """
    wrong = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in ("[0-9]*_correct_*.jpg", "[0-9]*_wrong_*.jpg"):
            for old in folder.glob(pattern):
                old.unlink()
        pairs = list(zip(labels, predictions, strict=True))
        for index, (label, prediction) in enumerate(progress(pairs, label="saving")):
            verdict = "correct" if label == prediction else "wrong"
            names = f"{file_part(classes[label])}_{file_part(classes[prediction])}"
            path = folder / f"{index:04d}_{verdict}_{names}.jpg"
            image(index).save(path, quality=95, subsampling=0)
            if label != prediction:
                wrong.append((index, label, prediction))
    except OSError as error:
        raise LabError(f"cannot write to {folder}: {error.strerror or error}") from error
    return wrong


def some_of(wrong: Sequence[Mistake], most: int = SHOWN) -> Sequence[Mistake]:
    """Return at most so many, of all: the first ones would be of one class."""
    return wrong[:: -(-len(wrong) // most)]


def read_images(
    args: Namespace,
    state: dict[str, Any],
    model: "nn.Module",
    files: list[Path],
    runtime: "Runtime",
) -> None:
    """Print the likeliest classes of pictures, and draw them on a sheet."""
    import torch

    from lab.images import Preprocess, to_arrays
    from lab.pictures import Picture, draw, publish, sheet, shorten

    preprocess = Preprocess(**state.get("preprocess", {}))
    classes = state.get("class_names") or [str(k) for k in range(state["configs"]["num_classes"])]
    captions, pixels = [], []
    width = max(len(path.name) for path in files)
    for start in range(0, len(files), 256):
        batch = files[start : start + 256]
        images = preprocess.read(batch).to(runtime.device)
        with torch.inference_mode(), runtime.autocast():
            confidences = model.eval()(images).float().softmax(1)
        likeliest = confidences.topk(min(LIKELIEST, len(classes)))
        for path, shares, labels in zip(
            batch, likeliest.values.tolist(), likeliest.indices.tolist(), strict=True
        ):
            named = [f"{classes[k]} {p:.1%}" for k, p in zip(labels, shares, strict=True)]
            say(f"{path.name:{width}}  {', '.join(named)}")
            captions.append("\n".join([shorten(path.name), *named[:2]]))
        pixels.extend(to_arrays(preprocess.denormalize(images.cpu())))
    shown = len(files) if len(files) <= SHOWN else SHOWN
    title = f"What the network makes of {shown} of {len(files)} pictures"
    picture = Picture("images.jpg", title, (sheet(pixels[:shown], captions[:shown]),))
    publish(draw(picture), args.ckpt_path / picture.path)


# ---------------------------------------------------------------- what visualize.py shows

VIEWS = ("filter", "feature", "tsne", "stn", "saliency", "fooling", "class", "invert", "attention")


def look(args: Namespace, state: dict[str, Any] | None, runtime: "Runtime") -> Iterable["Picture"]:
    """Return the pictures of the view that `--type` names."""
    from looking import views
    from looking.subject import load_subject

    return views.VIEWS[args.type](load_subject(args, state, runtime))


FIELD = Field(
    add_flags=add_flags,
    flags_of=flags_of,
    prepare=prepare,
    restore=restore,
    test_loader=test_loader,
    report=report,
    read_images=read_images,
    views=VIEWS,
    look=look,
    suggestions=suggestions,
)
