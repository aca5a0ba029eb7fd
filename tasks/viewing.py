"""What visualize.py does: the pictures of a view, made and saved."""

from collections.abc import Collection
from dataclasses import replace

import tasks
from lab.console import UsageError
from lab.drawing import draw, publish, publish_film
from lab.flags import as_name, as_words, asked_for
from lab.pictures import Film
from tasks import Task, ViewFlags
from tasks.trained import another_run, load_run

# Flags by which a picture of one view differs from another; its name and its title say them.
NAMED = ("model", "image", "image_idx", "layer_idx", "target", "position", "prompt", "steps", "lr",
         "seed")  # fmt: skip


def view(flags: ViewFlags) -> None:
    """Make the pictures that flags ask for, and save them.

    Raises:
        UsageError: the view is not for this network; says which are.
    """
    trained, task = None, tasks.load(tasks.DEFAULT)
    owner = next(name for name in tasks.TASKS if flags.type in tasks.load(name).views)
    if flags.model is None:
        trained = load_run(flags, flags.device, "fp32", flags.task or owner)
        task = trained.task
    elif flags.type not in task.views:  # a published network of another task, or of torchvision's
        every = map(tasks.load, tasks.TASKS)
        task = next((other for other in every if flags.model in other.published), task)
    if flags.type not in task.views:
        others = ", ".join(task.views)
        wrong = f"--type {flags.type} is not for {flags.model or trained.path}: try {others}"
        if trained is not None:
            wrong += f"; it is for {owner}: {another_run(owner, flags.ckpt_path)}"
        raise UsageError(wrong)
    asked = asked_for(flags, *NAMED)
    check(flags.type, task, asked)
    for name, value in task.shown_unasked.get(flags.type, {}).items():
        if asked.get(name) == value:
            del asked[name]
    for picture in task.look(flags, trained):
        # Some have the layer in their names already, as the course's scaffold does.
        own = {
            k: v for k, v in asked.items() if f"{k.removesuffix('_idx')}_{v}" not in picture.path
        }
        path = flags.save_dir / picture.path
        path = path.with_stem(path.stem + as_name(own))
        if isinstance(picture, Film):
            publish_film(picture, path)
            continue
        title = f"{picture.title}\n{as_words(own)}" if own else picture.title
        publish(draw(replace(picture, title=title)), path)


def check(name: str, task: Task, asked: Collection[str]) -> None:
    """Raise a UsageError for flags that a view has no use for."""
    unused = ", ".join(f"--{flag}" for flag in asked if flag not in ("model", *task.views[name]))
    if unused:
        own = ", ".join(f"--{flag}" for flag in task.views[name]) or "none of these"
        raise UsageError(f"--type {name} of {task.name} has no use for {unused}; it takes {own}")
