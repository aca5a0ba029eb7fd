"""From flags to a detector that is to be trained on pictures with boxes."""

from lab.console import counted
from lab.registry import new_config
from lab.runtime import Runtime
from tasks import Job, State, TrainFlags
from tasks.annotated import read_loaders
from tasks.detection import OWN, data
from tasks.detection.meter import are_signs
from tasks.detection.networks import NETWORKS
from tasks.detection.objective import DetectionObjective
from tasks.detection.ssd import BOOK_SIZES, SIGN_SIZES
from tasks.detection.torchvision_detectors import PUBLISHED
from tasks.starting import check_start, start_network


def prepare(
    flags: TrainFlags, runtime: Runtime, resumed: State | None, weights: State | None
) -> Job:
    """Read the data and build the network that flags ask for."""
    own = flags.own
    name = own.network or OWN[0]
    new_config(NETWORKS, name, num_classes=1)  # an unknown name is refused before data are read
    check_start(name, flags, resumed, published=name in PUBLISHED)
    root, loaders, longest = read_loaders(flags, runtime, resumed, data)
    classes = loaders["train"].dataset.classes

    # Signs are smaller than what the book's anchors are for.
    arguments = {"sizes": SIGN_SIZES if are_signs(classes) else BOOK_SIZES}
    earlier = resumed or weights or {}
    if earlier.get("network") == name:  # but for its classes, it stays as it is
        arguments = earlier["configs"]
    config = new_config(NETWORKS, name, **{**arguments, "num_classes": len(classes)})

    coco = (name, "COCO")
    start = start_network(NETWORKS, name, config, flags, resumed, weights, coco, classes)
    subject = f"pictures, {counted(len(classes), 'classes')} of boxes, from {root}"
    objective, kept = DetectionObjective(classes), {"freeze": own.freeze}
    return start.job(objective, loaders, subject, own.dataset, root, flags=kept, longest=longest)
