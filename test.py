"""Test a trained network on the test split, or on pictures of your own.

python test.py --ckpt_path checkpoints/default --epoch 10
python test.py --epoch best --save             # and every image, sorted by right and wrong
python test.py --data_root FOLDER              # on other pictures of the same classes
python test.py --image photo.jpg FOLDER        # what it makes of your own
python test.py --ckpt_path checkpoints/street --read checkpoints/default    # signs found, then read
"""

import json
from argparse import ArgumentParser
from pathlib import Path

import tasks
from lab.console import (
    UsageError,
    add_epoch_flag,
    add_precision_flag,
    lab_parser,
    positive_int,
    run,
    say,
)
from lab.folders import stored

OF_A_FIELD = ("read",)  # flags that some fields alone have a use for


def make_parser() -> ArgumentParser:
    """Return the parser of test.py's flags."""
    parser = lab_parser(__doc__, data_root=None)
    add_epoch_flag(parser)
    add_precision_flag(parser)
    parser.add_argument(
        "--batch_size", type=positive_int, default=256, help="images a step (default %(default)s)"
    )
    parser.add_argument(
        "--save", action="store_true", help="write every image to CKPT_PATH/results, and a sheet"
    )
    parser.add_argument(
        "--image",
        nargs="+",
        metavar="PICTURE",
        help="files, folders or http(s) addresses to look at instead of the test split; of video, "
        "clips and folders of frames",
    )
    parser.add_argument(
        "--read",
        type=Path,
        metavar="CHECKPOINT",
        help="detection, diffusion: have this classifier of signs, or the best of its run, read "
        "what is found or painted",
    )
    return parser


def main() -> None:
    args = make_parser().parse_args()

    from lab import checkpoint, engine
    from lab.images import image_files
    from lab.pictures import show_figures
    from lab.run import write_whole
    from lab.runtime import place, start_as

    path = checkpoint.find(args.ckpt_path, args.epoch)
    state = checkpoint.load(path)
    field = tasks.field_of(state, path)
    for name in OF_A_FIELD:
        if getattr(args, name) is not None and name not in field.test_flags:
            raise UsageError(f"--{name} is for another task than that of {path}")
    task, model = field.restore(state)
    runtime = start_as(state, args.device, args.precision)
    model = place(model, runtime)
    say(f"Testing {path} on {runtime.device.type} ({runtime.precision})")
    if args.image:
        find = field.find_files or image_files
        files = find(args.image, Path("visualized") / "images")
        field.read_images(args, state, model, files, runtime)
    else:
        loader = field.test_loader(state, args.data_root, args.batch_size, runtime)
        meter = task.meter()
        figures = engine.evaluate(model, meter, loader, runtime, "testing")
        found = {
            "task": task.name,
            "checkpoint": path.name,
            "data_root": args.data_root and stored(args.data_root),
            "inputs": len(loader.dataset),
            "figures": figures,
        }
        write_whole(args.ckpt_path / "test.json", json.dumps(found, indent=2) + "\n")
        field.report(args, meter, loader.dataset)
    if not args.no_show:
        show_figures()


if __name__ == "__main__":
    run(main)
