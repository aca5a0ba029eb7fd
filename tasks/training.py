"""From the flags of train.py, or of a run that goes on, to a tested network."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

import tasks
from lab import checkpoint, engine
from lab.batches import fingerprint
from lab.checkpoint import finished_epochs, resume_point
from lab.console import LabError, UsageError, as_text, command, keep_log, process_rank, say
from lab.flags import CKPT_PATH, asked_for, plain_name
from lab.folders import PRETRAINED, located, stored
from lab.learner import Learner, compiling
from lab.run import Run, has_ended
from lab.runtime import Runtime, start
from tasks import Job, StartFlags, State, Task, TrainFlags
from tasks.trained import Trained, another_run

TESTED = 256  # inputs a batch of what is validated beside val


def resume(path: Path) -> tuple[Task, Path, State]:
    """Return the task, the file and the content of the checkpoint that a path names to go on from.

    Raises:
        LabError: there is none, or it cannot be read.
    """
    path = resume_point(path)
    state = checkpoint.load(path)
    if "shipped" in state:
        wrong = f"{path} comes with the project, without its optimizer: it does not go on"
        raise UsageError(f"{wrong}; start a run from it by --weights {path.parent}")
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
    path = flags.own.weights
    if not (path.is_file() or checkpoint.epochs(path)):
        other = another_run(task.name, path.with_suffix(""), "--weights")
        raise LabError(f"no weights in {path}; {other}")
    weights = checkpoint.load_any(path)
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
        wrong = f"{flags.resume} is a run of --task {task.name}; leave out --task"
        raise UsageError(f"{wrong}; {another_run(flags.task, flags.resume.parent, '--resume')}")
    check(task, flags)
    runtime = start(flags.device, flags.settings.precision)
    try:
        stages = task.stages(flags, resumed)
        for number, (own, goes_on_from) in enumerate(stages, 1):
            if number > 1:
                keep_log(None)  # what is said now is of the next stage's
            if len(stages) > 1:
                say(f"Stage {number} of {len(stages)}, in {own.ckpt_path}")
            if number < len(stages) and is_done(own, goes_on_from) and has_ended(own.ckpt_path):
                continue
            outer = stages[-1][0].ckpt_path if resumed is None else None
            trained = train(task, own, runtime, goes_on_from, weights, outer)
        if trained is not None:
            say("Next, try:")
            for words in task.next_commands(own, *trained):
                say(f"  {command(*words)}")
    finally:
        runtime.close()


def check(task: Task, flags: TrainFlags) -> None:
    """Raise a UsageError for flags that the task, or others beside them, leave without a sense."""
    settings, folder = flags.settings, flags.ckpt_path
    if PRETRAINED in folder.resolve().parents:
        wrong = f"{folder} is of the networks that come with the project, which stay as they are"
        raise UsageError(f"{wrong}: train in --ckpt_path {CKPT_PATH.with_name(folder.name)}")
    own = task.defaults.get("warmup", 0.0)  # which nobody has asked for
    if settings.warmup not in (0, own) and settings.schedule == "onecycle":
        raise UsageError("--schedule onecycle rises by itself: leave out --warmup")
    if settings.warmup > settings.epoch:
        raise UsageError(f"--warmup {settings.warmup:g} is more than --epoch {settings.epoch}")
    if asked_for(settings, "momentum") and settings.optim_type != "sgd" and flags.resume is None:
        raise UsageError("--momentum is of --optim_type sgd: leave it out")
    if flags.also_validate and not task.beside:
        raise UsageError(f"--also_validate is of no use to --task {task.name}")
    if flags.find_lr and (flags.overfit_batch or flags.resume):
        raise UsageError("--find_lr begins anew: leave out --overfit_batch and --resume")
    if flags.find_lr and process_rank()[1] > 1:
        raise UsageError("--find_lr is for one process: leave out torchrun")


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


def is_done(flags: TrainFlags, resumed: State | None) -> bool:
    """True of a run that goes on from its last epoch: what may be missing is what follows."""
    return resumed is not None and resumed["epoch"] >= flags.settings.epoch


def train(
    task: Task,
    flags: TrainFlags,
    runtime: Runtime,
    resumed: State | None,
    weights: State | None,
    outer: Path | None = None,
) -> tuple[Job, str] | None:
    """Do what the flags of one stage ask for: data, network, training, test of the best epoch.

    Nothing of an earlier run is touched before the first step can be taken.

    Args:
        outer: folder of a later stage, where an earlier run has to make room as well.

    Returns:
        What was trained, and which epoch is tested, the best or the last; None where one batch was
        learned alone.
    """
    settings, done = flags.settings, is_done(flags, resumed)
    if done:
        check_unfinished(flags, resumed)
    job = task.prepare(flags, runtime, resumed, weights)
    train_and_val = job.loaders["train"], job.loaders.get("val")
    if flags.overfit_batch:
        batch = next(iter(train_and_val[0]))
        with compiling(settings):
            engine.overfit(job.objective, job.network, batch, settings, runtime, job.parameters)
        return None
    if flags.find_lr:
        task.find_rate(job, flags, runtime)
        return None
    beside, kept = others_beside(task, flags, job, runtime)
    data = {mode: fingerprint(loader.dataset) for mode, loader in job.loaders.items()}
    learner = Learner(job.objective, job.network, settings, runtime, job.parameters)
    if resumed is not None:
        learner.load(resumed)
        resumed = with_data(resumed, data, flags)
    folder = Run(flags.ckpt_path, runtime)  # is made once the flags are found good
    with folder.taken():
        if outer not in (None, flags.ckpt_path):
            # Else --resume of that folder would find the last stage of an earlier run.
            Run(outer, runtime).set_aside_all()
        begin(folder, task, flags, runtime, job, resumed)
        try:
            if done:
                learner.finish()
            else:
                identity = {"task": task.name, "data": data, **job.identity, **kept}
                with compiling(settings):
                    engine.fit(learner, *train_and_val, folder, identity, resumed, beside)
        except (KeyboardInterrupt, engine.Diverged):  # which every process ends with
            task.publish_curves(folder, job.objective.ranks_by)
            runtime.wait_for_all()
            raise
        return job, finish(folder, task, runtime, job)


def finish(run: Run, task: Task, runtime: Runtime, job: Job) -> str:
    """Do what follows a training: curves, a test, what is made of the network.

    Returns:
        Which epoch is tested, the best or the last.
    """
    task.publish_curves(run, job.objective.ranks_by)
    runtime.wait_for_all()  # for the first process to have saved the last epoch
    tested = which_tested(run.folder)
    if "test" in job.loaders:
        test_epoch(run.folder, job, runtime, tested)
    if run.writes and job.finish is not None:
        job.finish(job.network, run.folder)
    run.end()
    runtime.wait_for_all()  # torchrun stops all when one does not end well
    return tested


def check_unfinished(flags: TrainFlags, resumed: State) -> None:
    """Raise a LabError where nothing is missing of a run that has done all its epochs."""
    finished, folder = resumed["epoch"], flags.resume.parent
    here = folder.resolve() == flags.ckpt_path.resolve()
    if finished > flags.settings.epoch or not here or has_ended(folder):
        raise LabError(
            f"{flags.resume} has done {finished} epochs already; --epoch is the total: "
            f"to go on, give one above {finished}"
        )


def with_data(resumed: State, data: Mapping[str, list[int]], flags: TrainFlags) -> State:
    """Return the checkpoint that a run goes on from, having said where the data are others.

    The rest of an epoch that other training data began is no rest: it begins anew.

    Args:
        data: of each split, its `fingerprint`.
    """
    known = resumed.get("data", {})
    for mode in known | data:
        then, now = known.get(mode, [0]), data.get(mode, [0])
        if known and then != now:
            numbers = f"{then[0]:,} then, {now[0]:,} now"
            if then[0] == now[0]:
                numbers = f"{now[0]:,} as then, but others or in another order"
            say(f"The {mode} data have changed since {flags.resume} was saved: {numbers}")
    begun = resumed.get("epoch_state")
    if begun is None:
        return resumed
    count = data["train"][0]
    if known.get("train", data["train"]) == data["train"] and begun["images"] < count:
        return resumed
    say(f"Epoch {resumed['epoch'] + 1}, of which {begun['images']:,} were done, begins anew")
    return resumed | {"epoch_state": None}


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
    if is_done(flags, resumed):
        say(f"All {resumed['epoch']} epochs of {run.folder} are done; what follows them is made")
        return
    splits = ", ".join(f"{count:,} {mode}" for mode, count in counts.items())
    say(
        f"Training {parameters:,} parameters on {splits} {job.subject} "
        f"({runtime.device.type}, {runtime.precision})"
    )


def which_tested(folder: Path) -> str:
    """Return which epoch is to be tested: the best, or the last where that is not in the folder."""
    best = checkpoint.load(checkpoint.find(folder, "last")).get("best_epoch")
    if best is None or best in checkpoint.epochs(folder):
        return "last" if best is None else "best"
    say(f"There is no checkpoint of the best epoch, {best}, in {folder}: the last is tested")
    return "last"


def test_epoch(folder: Path, job: Job, runtime: Runtime, which: str) -> None:
    """Test an epoch, and say how good it is."""
    tested = checkpoint.load(checkpoint.find(folder, which))
    job.network.load_state_dict(tested["model_state"])
    meter, ranks_by = job.objective.meter(), job.objective.ranks_by
    figures = engine.evaluate(job.network, meter, job.loaders["test"], runtime, "testing")
    say(f"Test {ranks_by} of the {which} epoch, {tested['epoch']}: {as_text(figures[ranks_by])}")
