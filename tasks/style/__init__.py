"""Style transfer: the content of one picture in the manner of another.

`losses` compares pictures by a network's features, `picture` varies one picture until they fit,
`network` trains a network that paints in one pass. Nothing of torch is imported here, so that flags
are read before it is.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Which features of a network are compared, and what each difference weighs.

    Attributes:
        content_layer, style_layers: modules of the network, by name.
        content_weight, style_weights, tv_weight: factors of `content_loss`, `style_loss` (one a
            layer) and `tv_loss`.
        size, style_size: shorter side of the content and of the style picture in pixels.
    """

    content_layer: str
    style_layers: tuple[str, ...]
    content_weight: float
    style_weights: tuple[float, ...]
    tv_weight: float
    size: int
    style_size: int


# CS231n's three, for SqueezeNet.
_FIRE = ("features.3", ("features.1", "features.4", "features.6", "features.7"))
PRESETS = {
    "composition": Recipe(*_FIRE, 5e-2, (20000, 500, 12, 1), 5e-2, 192, 512),
    "scream": Recipe(*_FIRE, 3e-2, (200000, 800, 12, 1), 2e-2, 192, 224),
    "starry": Recipe(*_FIRE, 6e-2, (300000, 1000, 15, 3), 2e-2, 192, 192),
}
# Of other networks. VGG-19: the last convolution of block 4 and the first of each block, after
# their ReLU. A layer's weight falls with the square of its channels, as the mean of its squared
# differences does. Of our classifier: its ConvBlocks, by their place in `conv_net`.
RECIPES = {
    "vgg19": Recipe(
        "features.26",
        ("features.1", "features.6", "features.11", "features.20", "features.29"),
        2e-2, (2.4e6, 6e5, 1.5e5, 4e4, 4e4), 1e-2, 256, 256,
    ),
    "classifier": Recipe(
        "3", ("0", "1", "3", "4"),
        1e-3, (2e5, 5e4, 5e4, 1e4), 3e-2, 192, 192,
    ),
}  # fmt: skip
OPTIMIZERS = {"lbfgs": 1.0, "adam": 0.1}  # with the learning rates they start at
