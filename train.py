"""Train a network, from nothing to a tested one.

python train.py --bn --stn                                   # on the built-in traffic signs
python train.py --dataset mnist                              # or digits, cifar10
python train.py --dataset folder --data_root FOLDER          # on your own, one folder a class
python train.py --dataset folder --data_root FOLDER --network resnet18 --pretrained --lr 1e-4
python train.py --resume checkpoints/default                 # go on where a run stopped
python train.py --bn --stn --overfit_batch                   # can it learn at all? in seconds
torchrun --nproc_per_node=2 train.py --bn --stn              # two processes
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tasks
from lab.console import LabError, Parser, UsageError, as_text, command, lab_parser, run, say
from lab.folders import located
from lab.settings import add_settings, settings_of

if TYPE_CHECKING:
    from lab.runtime import Runtime


def make_parser(field: tasks.Field) -> ArgumentParser:
    """Return the parser of train.py's flags, a field's own among them."""
    parser = lab_parser(__doc__)
    # None tells a folder that was given from the default, which not every data set has.
    parser.set_defaults(data_root=None)
    parser.add_argument(
        "--task", choices=tasks.FIELDS, default=tasks.DEFAULT, help="(default %(default)s)"
    )
    field.add_flags(parser)
    add_settings(parser, **field.defaults)
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="PATH",
        help="checkpoint, or folder of a run, to go on from; its own flags hold unless given anew",
    )
    parser.add_argument(
        "--overfit_batch",
        action="store_true",
        help="learn the first batch by heart instead, to see that the network can learn at all",
    )
    return parser


def main() -> None:
    chooser = Parser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--task", default=tasks.DEFAULT)
    chooser.add_argument("--resume", type=Path)
    chosen = chooser.parse_known_args()[0]
    resumed = weights = None
    if chosen.resume is None:
        field = tasks.load(chosen.task)
        parser = make_parser(field)
        args = parser.parse_args()
        if getattr(args, "weights", None) is not None:
            from lab import checkpoint

            weights = checkpoint.load_any(args.weights)
            flags = field.flags_of(weights)
            if getattr(args, "network", None) in (None, flags.get("network")):
                parser.set_defaults(**flags)
                args = parser.parse_args()
    else:
        from lab import checkpoint

        path = checkpoint.resume_point(chosen.resume)
        resumed = checkpoint.load(path)
        resumed["epoch"] = checkpoint.finished_epochs(resumed, path)
        field = tasks.field_of(resumed, path)
        parser = make_parser(field)
        parser.set_defaults(**resumed_flags(field, resumed, path))
        args = parser.parse_args()
        args.resume = path
        if args.task != (task := resumed.get("task", tasks.DEFAULT)):
            raise UsageError(f"{path} is a run of --task {task}; leave out --task")

    from lab.runtime import start

    runtime = start(args.device, args.precision)
    try:
        train_stages(args, field, runtime, resumed, weights)
    finally:
        runtime.close()
    if not args.no_show and not args.overfit_batch:
        from lab.pictures import show_figures

        show_figures()


def resumed_flags(field: tasks.Field, state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the flags a checkpoint was trained with, as defaults for going on."""
    known = field.flags_of(state) | {"ckpt_path": path.parent}
    known["task"] = state.get("task", tasks.DEFAULT)
    known["dataset"] = state.get("dataset", "signs")
    if state.get("data_root") is not None:
        known["data_root"] = located(state["data_root"])
    return known | state.get("settings", {}) | state.get("flags", {})


def train_stages(
    args: Namespace,
    field: tasks.Field,
    runtime: "Runtime",
    resumed: dict[str, Any] | None,
    weights: dict[str, Any] | None,
) -> None:
    """Train what the flags ask for, one stage after the other where there are several."""
    from lab.run import Run

    stages = field.stages(args, resumed)
    if len(stages) > 1 and resumed is None:
        # Else --resume of the folder would find the last stage of an earlier run.
        Run(stages[-1][0].ckpt_path, runtime).set_aside_all()
        runtime.wait_for_all()
    for number, (own, goes_on_from) in enumerate(stages, 1):
        if len(stages) > 1:
            say(f"Stage {number} of {len(stages)}, in {own.ckpt_path}")
        train(own, field, runtime, goes_on_from, weights)
    if runtime.rank == 0 and not args.overfit_batch:
        suggest(stages[-1][0], field)


def train(
    args: Namespace,
    field: tasks.Field,
    runtime: "Runtime",
    resumed: dict[str, Any] | None = None,
    weights: dict[str, Any] | None = None,
) -> None:
    """Do what the flags ask for: data, network, training, test of the best epoch.

    Args:
        resumed: the checkpoint to go on from.
        weights: a checkpoint or a bare state dict (`checkpoint.load_any`) to start from.
    """
    from lab import engine
    from lab.run import Run

    finished = resumed["epoch"] if resumed is not None else 0
    if resumed is not None and finished >= args.epoch:
        raise LabError(
            f"{args.resume} has done {finished} epochs already; --epoch is the total: "
            f"to go on, give one above {finished}"
        )
    settings = settings_of(args)
    job = field.prepare(args, runtime, resumed, weights)
    if args.overfit_batch:
        batch = next(iter(job.loaders["train"]))
        engine.overfit(job.task, job.model, batch, settings, runtime, job.parameters)
        return

    counts = {mode: len(loader.dataset) for mode, loader in job.loaders.items()}
    parameters = sum(p.numel() for p in job.model.parameters() if p.requires_grad)
    trained = {
        "task": job.task.name,
        "network": job.identity.get("network"),
        "dataset": job.identity.get("dataset"),
        "ranks_by": job.task.ranks_by,
        "parameters": parameters,
        "inputs": counts,
    }
    run = Run(args.ckpt_path, runtime)  # whose folder is made once the flags are found good
    run.begin(runtime, args.seed, args.resume, finished, trained)
    if job.preview is not None and resumed is None and runtime.rank == 0:
        job.preview(args.ckpt_path)
    splits = ", ".join(f"{count:,} {mode}" for mode, count in counts.items())
    say(
        f"Training {parameters:,} parameters on {splits} {job.subject} "
        f"({runtime.device.type}, {runtime.precision})"
    )
    history = engine.fit(
        job.task, job.model, job.loaders["train"], job.loaders.get("val"), settings, runtime, run,
        job.identity, resumed, job.parameters,
    )  # fmt: skip
    test_best(args, job, runtime, history)
    if runtime.rank == 0:
        from lab.pictures import draw_curves, publish

        publish(draw_curves(history, job.task.ranks_by), args.ckpt_path / "loss_and_acc.jpg")
        if job.finish is not None:
            job.finish(job.model, args.ckpt_path)
    runtime.wait_for_all()  # torchrun stops all when one does not end well


def test_best(
    args: Namespace, job: tasks.Job, runtime: "Runtime", history: list[dict[str, Any]]
) -> None:
    """Test the best epoch, where there is a test split, and say how good it is."""
    from lab import checkpoint, engine
    from lab.run import best_epoch

    if "test" not in job.loaders:
        return
    runtime.wait_for_all()  # for the first process to have saved the last epoch
    ranks_by = job.task.ranks_by
    # A run resumed into a new folder may have had its best epoch in the old one.
    here = best_epoch(history, ranks_by, args.schedule) in checkpoint.epochs(args.ckpt_path)
    which = "best" if here else "last"
    tested = checkpoint.load(checkpoint.find(args.ckpt_path, which))
    job.model.load_state_dict(tested["model_state"])
    loader, meter = job.loaders["test"], job.task.meter()
    figures = engine.evaluate(job.model, meter, loader, runtime, "testing")
    say(f"Test {ranks_by} of the {which} epoch, {tested['epoch']}: {as_text(figures[ranks_by])}")


def suggest(args: Namespace, field: tasks.Field) -> None:
    """Print the commands to try next on this run."""
    default = str(args.ckpt_path) == "checkpoints/default"
    where = [] if default else ["--ckpt_path", str(args.ckpt_path)]
    epoch = [] if args.epoch == 10 else ["--epoch", "last"]
    say("Next, try:")
    say(f"  {command('test.py', *where, '--epoch', 'best', '--save')}")
    for kind in field.suggestions(args):
        say(f"  {command('visualize.py', *kind, *where, *epoch)}")


if __name__ == "__main__":
    run(main)
