"""From flags to a network that is to be trained on pictures with labels."""

import numpy as np

from lab.console import LabError, UsageError, counted
from lab.registry import new_config
from lab.runtime import Runtime
from tasks import Job, State, TrainFlags
from tasks.annotated import read_loaders
from tasks.segmentation import BODY, COARSE_SHARE, FCNS, NETWORK, data
from tasks.segmentation.data import class_shares, count_labels
from tasks.segmentation.networks import NETWORKS
from tasks.segmentation.objective import SegmentationObjective, class_weights
from tasks.starting import check_start, start_network

# That a network looks at pictures in. What learns the drawn streets mostly sees windows of half the
# size, and is surer of what is large where it is as small.
SIZES = {"street": 2}


def prepare(
    flags: TrainFlags, runtime: Runtime, resumed: State | None, weights: State | None
) -> Job:
    """Read the data and build the network that flags ask for."""
    own, settings, name = flags.own, flags.settings, flags.own.network or NETWORK
    new_config(NETWORKS, name, num_classes=1)  # an unknown name is refused before data are read
    if own.width and name != NETWORK:
        raise UsageError(f"--width is of {NETWORK}: {name} has the channels of {BODY}")
    check_start(name, flags, resumed, name in FCNS, ", ".join(FCNS))
    coarse = own.coarse
    if coarse is None:
        coarse = 0.0 if own.pretrained or own.weights else COARSE_SHARE
    epochs = int(round(coarse * settings.epoch, 6))  # 0.29 * 100 is 28.999...
    root, loaders, longest = read_loaders(flags, runtime, resumed, data, coarse=epochs)
    classes = loaders["train"].dataset.classes

    split, of_classes = loaders["train"].dataset.split, None
    labelled = np.flatnonzero(count_labels(split.labels)[: len(classes)])
    if len(labelled) < 2:
        raise LabError(
            f"{root} leaves nothing to tell apart: all of train that is labelled is of one class, "
            f"{classes[labelled[0]]}"
        )
    if own.class_weights:
        of_classes = class_weights(class_shares(split))
    earlier = resumed or weights or {}
    known = earlier["configs"] if earlier.get("network") == name else {}
    if own.width:
        known = known | {"width": own.width}
    if not resumed:
        known = known | {"sizes": SIZES.get(own.dataset, 1)}
    config = new_config(NETWORKS, name, **(known | {"num_classes": len(classes)}))

    imagenet = (BODY, "ImageNet")
    start = start_network(NETWORKS, name, config, flags, resumed, weights, imagenet, classes)
    subject = f"pictures, {counted(len(classes), 'classes')} of pixels, from {root}"
    objective = SegmentationObjective(classes, of_classes)
    kept = {"class_weights": own.class_weights, "coarse": coarse, "freeze": own.freeze}
    own_facts = {"flags": kept, "class_weights": of_classes, "longest": longest}
    return start.job(objective, loaders, subject, own.dataset, root, **own_facts)
