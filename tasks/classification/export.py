"""A classifier as export.py writes it, and as its page has it.

classifier: pictures of any size to the probabilities of classes
inside: a picture to logits, the network's input, what its transformer hands on, every layer's maps
slope: input and a class to logits and the gradient, which saliency and fooling need
"""

import copy
from dataclasses import asdict

import torch
from torch import Tensor, nn

from lab.console import LabError, say
from lab.features import outputs_of
from lab.images import Preprocess
from looking.insight import conv_layers, convolution_of, reach
from tasks.blocks import fold
from tasks.exporting import PICTURES, Exported, as_images
from tasks.gradients import Sampler, slope_of
from tasks.showing import Shown, evenly
from tasks.trained import Trained, preprocess_of_run

MOST_LAYERS = 16  # whose maps a page shows, all over the network
PICTURE = {"pictures": {1: "H", 2: "W"}}  # one, of any size


class PictureClassifier(nn.Module):
    """Resizes pictures, uint8 (N, H, W, 3), and classifies them: (N, C)."""

    def __init__(self, network: nn.Module, preprocess: Preprocess):
        super().__init__()
        self.network, self.preprocess = network, preprocess

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network(as_images(pictures, self.preprocess)).softmax(1)


class Inside(nn.Module):
    """A picture, uint8 (1, H, W, 3), to logits, input (1, C, h, w), and all that lies between.

    Behind a spatial transformer: theta (1, 2, 3), and what is handed on, (1, C, h, w). Then the
    maps of each layer.
    """

    def __init__(
        self, network: nn.Module, preprocess: Preprocess, layers: list[str], has_stn: bool
    ):
        super().__init__()
        self.network, self.preprocess = network, preprocess
        self.layers, self.has_stn = layers, has_stn

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        images, kept = as_images(pictures, self.preprocess), {}
        own = [self.network.get_submodule(name) for name in self.layers]
        if self.has_stn:
            own = [self.network.stn.localization_fc, self.network.stn, *own]
        handles = [
            layer.register_forward_hook(lambda _, inputs, output, k=k: kept.update({k: output * 1}))
            for k, layer in enumerate(own)
        ]
        try:
            logits = self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        return logits, images, *(kept[k] for k in range(len(own)))


def exported(trained: Trained) -> list[Exported]:
    preprocess = preprocess_of_run(trained.state)
    network = PictureClassifier(trained.network, preprocess)
    return [Exported("classifier", network, PICTURES, ("probabilities",))]


def shown(trained: Trained) -> Shown:
    preprocess = preprocess_of_run(trained.state)
    network, names = fold(copy.deepcopy(trained.network)), list(conv_layers(trained.network))
    names = [names[place] for place in evenly(len(names), MOST_LAYERS)]
    has_stn = bool(trained.state["configs"].get("use_stn"))
    outputs = ["logits", "images", *("theta", "handed") * has_stn]
    outputs += [f"layer_{k}" for k in range(len(names))]
    inside = Inside(network, preprocess, names, has_stn)
    graphs = [Exported("inside", inside, PICTURE, outputs, trial=lambda pictures: (pictures[:1],))]
    beside = []
    try:
        beside = [slope(network, preprocess, has_stn)]
    except LabError as error:
        say(f"The page is without saliency: {error}")
    body = copy.deepcopy(network)
    if has_stn:
        body.stn = nn.Identity()
    layers = [body.get_submodule(name) for name in names]
    example = torch.randn(1, *preprocess.shape[2:], *preprocess.size)
    maps = outputs_of(body, layers, example)
    known = [
        {"name": name, "shape": own.shape[1:], "reach": reach(body, layer, example)}
        for name, layer, own in zip(names, layers, maps, strict=True)
    ]
    facts = {"classes": trained.classes, "preprocess": asdict(preprocess), "has_stn": has_stn}
    kernels = [convolution_of(layer).weight.detach().numpy() for layer in layers]
    arrays = {f"kernel_{k}": kernel for k, kernel in enumerate(kernels)}
    return Shown(graphs, beside, facts | {"layers": known}, arrays)


def slope(network: nn.Module, preprocess: Preprocess, has_stn: bool) -> Exported:
    """Return the network's score with its gradient."""
    network = copy.deepcopy(network)
    if has_stn:
        network.stn = Sampler(network.stn)

    def trial(pictures: Tensor) -> tuple[Tensor, Tensor]:
        return as_images(pictures[:1], preprocess), torch.full((1,), len(pictures) % 2)

    images, _ = trial(torch.zeros(1, *preprocess.size, 3, dtype=torch.uint8))
    graph = slope_of(network, images)
    return Exported(
        "slope", graph, {"images": {}, "target": {}}, ("logits", "gradient"), trial=trial
    )
