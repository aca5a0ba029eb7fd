"""Test a trained network on the test split: accuracy, a table of classes, its mistakes.

python test.py --ckpt_path checkpoints/default --epoch 10
python test.py --epoch best --save             # and every image, sorted by right and wrong
python test.py --data_root FOLDER              # on other pictures of the same classes
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.console import LabError, add_epoch_flag, lab_parser, positive_int, progress, run, say

if TYPE_CHECKING:
    from datasets import ImageDataset
    from lab.engine import Evaluation

MISTAKES_SHOWN = 48


def make_parser() -> ArgumentParser:
    """Return the parser of test.py's flags."""
    parser = lab_parser(__doc__, data_root=None)
    add_epoch_flag(parser)
    parser.add_argument(
        "--batch_size", type=positive_int, default=256, help="images a step (default %(default)s)"
    )
    parser.add_argument(
        "--save", action="store_true", help="write every image to CKPT_PATH/results, and a sheet"
    )
    return parser


def main() -> None:
    args = make_parser().parse_args()

    from lab import checkpoint, engine
    from networks import load_network

    path = checkpoint.find(args.ckpt_path, args.epoch)
    state = checkpoint.load(path)
    model = load_network(state)
    runtime = engine.start(args.device)
    say(f"Testing {path} on {runtime.device.type}")
    test(args, state, model.to(runtime.device), runtime)


def test(args: Namespace, state: dict, model, runtime) -> None:
    """Evaluate a network as the flags ask, print what it reads, save the pictures."""
    from sklearn.metrics import classification_report, confusion_matrix

    from datasets import get_test_loader
    from lab import engine
    from lab.pictures import confusion, draw, publish

    loader = get_test_loader(state, args.data_root, args.batch_size, runtime.device)
    classes = loader.dataset.classes
    evaluation = engine.evaluate(model, loader, runtime, label="testing")

    labels, predictions = evaluation.labels.numpy(), evaluation.predictions.numpy()
    every = range(len(classes))
    report = classification_report(
        labels, predictions, labels=every, target_names=classes, output_dict=True, zero_division=0
    )
    width = max(map(len, classes))
    say(f"{'class':{width}}  precision   recall   images")
    for name in classes:
        row = report[name]
        say(f"{name:{width}}  {row['precision']:9.2%}  {row['recall']:7.2%}  {row['support']:7.0f}")
    correct = int((labels == predictions).sum())
    say(f"accuracy on the test set: {evaluation.accuracy:.2%} ({correct:,} of {len(labels):,})")

    matrix = confusion_matrix(labels, predictions, labels=every)
    publish(draw(confusion(matrix, classes)), args.ckpt_path / "confusion_matrix.jpg")
    if args.save:
        save_results(loader.dataset, evaluation, args.ckpt_path / "results")


def save_results(dataset: "ImageDataset", evaluation: "Evaluation", folder: Path) -> None:
    """Write every image as NNNN_correct_LABEL_PRED.jpg or NNNN_wrong_..., and a sheet of mistakes.

    Those that an earlier test left in `folder` are removed.

    Raises:
        LabError: the folder cannot be written.
    """
    from PIL import Image

    from lab.pictures import Picture, draw, publish, sheet, shorten

    classes = dataset.classes
    wrong = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in ("[0-9]*_correct_*.jpg", "[0-9]*_wrong_*.jpg"):
            for old in folder.glob(pattern):
                old.unlink()
        pairs = zip(evaluation.labels.tolist(), evaluation.predictions.tolist(), strict=True)
        for index, (label, prediction) in enumerate(progress(list(pairs), label="saving")):
            verdict = "correct" if label == prediction else "wrong"
            name = f"{index:04d}_{verdict}_{classes[label]}_{classes[prediction]}.jpg"
            pixels = dataset.pixels([index])[0].expand(-1, -1, 3)  # grey as RGB
            image = Image.fromarray(pixels.cpu().numpy())
            image.save(folder / name, quality=95, subsampling=0)
            if label != prediction:
                wrong.append((index, label, prediction))
    except OSError as error:
        raise LabError(f"cannot write to {folder}: {error.strerror or error}") from error
    say(f"Saved {len(dataset):,} images in {folder}")
    if wrong:
        # Spread over all mistakes: in the order of the files they would show one class.
        shown = wrong[:: -(-len(wrong) // MISTAKES_SHOWN)]
        pixels = dataset.pixels([index for index, _, _ in shown]).expand(-1, -1, -1, 3)
        captions = [
            f"{shorten(classes[label])}\nread as {shorten(classes[prediction])}"
            for _, label, prediction in shown
        ]
        title = f"{len(shown)} of {len(wrong)} mistakes among {len(dataset):,} images"
        picture = Picture("mistakes.jpg", title, (sheet(pixels.cpu().numpy(), captions),))
        publish(draw(picture), folder / picture.path)


if __name__ == "__main__":
    run(main)
