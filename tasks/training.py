"""From the flags of train.py, or of a run that goes on, to a tested network."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

import tasks
from lab import checkpoint, engine
from lab.checkpoint import finished_epochs, resume_point
from lab.console import LabError, UsageError, as_text, command, say
from lab.engine import Learner
from lab.flags import plain_name
from lab.folders import located, stored
from lab.range_test import find_rate
from lab.run import Run, best_epoch
from lab.runtime import Runtime, start
from tasks import Job, StartFlags, State, Task, TrainFlags
from tasks.trained import Trained

TESTED = 256  # inputs a batch of what is validated beside val


def resume(path: Path) -> tuple[Task, Path, State]:
    """Return the task, the file and the content of the checkpoint that a path names to go on from.

    Raises:
        LabError: there is none, or it cannot be read.
    """
    path = resume_point(path)
    state = checkpoint.load(path)
    state["epoch"] = finished_epochs(state, path)
    return tasks.task_of(state, path), path, state


def flags_of_run(task: Task, path: Path, state: State) -> dict[str, Any]:
    """Return the flags that a checkpoint was trained with, as defaults for going on."""
    known = task.flags_of(state) | {"ckpt_path": path.parent, "task": task.name}
    known["dataset"] = state.get("dataset", "signs")
    if "also_validate" in state:
        known["also_validate"] = list(map(located, state["also_validate"]))
    if state.get("data_root") is not None:
        known["data_root"] = located(state["data_root"])
    return known | state.get("settings", {}) | state.get("flags", {})


def flags_of_weights(task: Task, flags: TrainFlags) -> tuple[State | None, dict[str, Any]]:
    """Load the weights that flags ask to start from.

    Returns:
        A checkpoint or a bare state dict, and the flags that build its network unless another
        network is asked for.
    """
    if not isinstance(flags.own, StartFlags) or flags.own.weights is None:
        return None, {}
    weights = checkpoint.load_any(flags.own.weights)
    known = task.flags_of(weights)
    return weights, known if flags.own.network in (None, known.get("network")) else {}


def run(
    task: Task, flags: TrainFlags, resumed: State | None = None, weights: State | None = None
) -> None:
    """Train what flags ask for, one stage after the other where there are several.

    Args:
        resumed: the checkpoint to go on from.
        weights: a checkpoint or a bare state dict to start from.
    """
    if resumed is not None and flags.task != task.name:
        raise UsageError(f"{flags.resume} is a run of --task {task.name}; leave out --task")
    check(task, flags)
    runtime = start(flags.device, flags.settings.precision)
    try:
        stages = task.stages(flags, resumed)
        if len(stages) > 1 and resumed is None:
            # Else --resume of the folder would find the last stage of an earlier run.
            Run(stages[-1][0].ckpt_path, runtime).set_aside_all()
            runtime.wait_for_all()
        for number, (own, goes_on_from) in enumerate(stages, 1):
            if len(stages) > 1:
                say(f"Stage {number} of {len(stages)}, in {own.ckpt_path}")
            identity = train(task, own, runtime, goes_on_from, weights)
        if identity is not None:
            say("Next, try:")
            for words in task.next_commands(own, identity):
                say(f"  {command(*words)}")
    finally:
        runtime.close()


def check(task: Task, flags: TrainFlags) -> None:
    """Raise a UsageError for flags that the task, or others beside them, leave without a sense."""
    settings = flags.settings
    if settings.warmup and settings.schedule == "onecycle":
        raise UsageError("--schedule onecycle rises by itself: leave out --warmup")
    if settings.warmup > settings.epoch:
        raise UsageError(f"--warmup {settings.warmup:g} is more than --epoch {settings.epoch}")
    if flags.also_validate and not task.beside:
        raise UsageError(f"--also_validate is of no use to --task {task.name}")
    if flags.find_lr and (flags.overfit_batch or flags.resume):
        raise UsageError("--find_lr begins anew: leave out --overfit_batch and --resume")


def others_beside(
    task: Task, flags: TrainFlags, job: Job, runtime: Runtime
) -> tuple[dict[str, DataLoader], State]:
    """Return loaders of the folders that are validated on beside val, by a name for each.

    Returns:
        The loaders, and what checkpoints hold of the folders.

    Raises:
        LabError: a folder has no such split, or other classes.
    """
    folders = flags.also_validate or []
    if not folders:
        return {}, {}
    state = {"settings": asdict(flags.settings), **job.identity}
    trained = Trained(task, flags.ckpt_path, state, job.network, job.objective, runtime)
    loaders: dict[str, DataLoader] = {}
    for folder in folders:
        name = own = f"also_{plain_name(folder.resolve().name)}"
        while name in loaders:
            name = f"{own}_{len(loaders)}"
        loaders[name] = task.test_loader(trained, folder, TESTED)
    return loaders, {"also_validate": list(map(stored, folders))}


def train(
    task: Task, flags: TrainFlags, runtime: Runtime, resumed: State | None, weights: State | None
) -> State | None:
    """Do what the flags of one stage ask for: data, network, training, test of the best epoch.

    Returns:
        What its checkpoints hold besides the state; None where one batch was learned alone.
    """
    finished = resumed["epoch"] if resumed is not None else 0
    settings = flags.settings
    if resumed is not None and finished >= settings.epoch:
        raise LabError(
            f"{flags.resume} has done {finished} epochs already; --epoch is the total: "
            f"to go on, give one above {finished}"
        )
    job = task.prepare(flags, runtime, resumed, weights)
    if flags.overfit_batch:
        batch = next(iter(job.loaders["train"]))
        engine.overfit(job.objective, job.network, batch, settings, runtime, job.parameters)
        return None
    if flags.find_lr:
        find_rate(job, settings, runtime, flags.ckpt_path)
        return None
    beside, kept = others_beside(task, flags, job, runtime)
    folder = Run(flags.ckpt_path, runtime)  # is made once the flags are found good
    begin(folder, task, flags, runtime, job, resumed)
    learner = Learner(job.objective, job.network, settings, runtime, job.parameters)
    identity = {"task": task.name, **job.identity, **kept}
    try:
        engine.fit(
            learner, job.loaders["train"], job.loaders.get("val"), folder, identity, resumed, beside
        )
    except (KeyboardInterrupt, engine.Diverged):  # which every process ends with
        task.publish_curves(folder, job.objective.ranks_by)
        runtime.wait_for_all()
        raise
    task.publish_curves(folder, job.objective.ranks_by)
    test_best(flags, job, runtime, folder.history)
    if runtime.rank == 0 and job.finish is not None:
        job.finish(job.network, flags.ckpt_path)
    runtime.wait_for_all()  # torchrun stops all when one does not end well
    return identity


def begin(
    run: Run, task: Task, flags: TrainFlags, runtime: Runtime, job: Job, resumed: State | None
) -> None:
    """Make room in a run's folder, note there what is trained on what, and say it."""
    parameters = sum(p.numel() for p in job.network.parameters() if p.requires_grad)
    counts = {mode: len(loader.dataset) for mode, loader in job.loaders.items()}
    trained = {
        "task": task.name,
        "network": job.identity.get("network"),
        "dataset": job.identity.get("dataset"),
        "ranks_by": job.objective.ranks_by,
        "parameters": parameters,
        "inputs": counts,
    }
    run.begin(runtime, flags.settings.seed, flags.resume, resumed, trained)
    if job.preview is not None and flags.resume is None and runtime.rank == 0:
        job.preview(flags.ckpt_path)
    splits = ", ".join(f"{count:,} {mode}" for mode, count in counts.items())
    say(
        f"Training {parameters:,} parameters on {splits} {job.subject} "
        f"({runtime.device.type}, {runtime.precision})"
    )


def test_best(flags: TrainFlags, job: Job, runtime: Runtime, history: list[dict[str, Any]]) -> None:
    """Test the best epoch, where there is a test split, and say how good it is."""
    if "test" not in job.loaders:
        return
    runtime.wait_for_all()  # for the first process to have saved the last epoch
    folder, ranks_by = flags.ckpt_path, job.objective.ranks_by
    # A run resumed into a new folder may have had its best epoch in the old one.
    here = best_epoch(history, ranks_by, flags.settings.schedule) in checkpoint.epochs(folder)
    which = "best" if here else "last"
    tested = checkpoint.load(checkpoint.find(folder, which))
    job.network.load_state_dict(tested["model_state"])
    meter = job.objective.meter()
    figures = engine.evaluate(job.network, meter, job.loaders["test"], runtime, "testing")
    say(f"Test {ranks_by} of the {which} epoch, {tested['epoch']}: {as_text(figures[ranks_by])}")
