"""What images are compared by when they are found by gradients: a network's features, roughness.

Looking into a network and painting with one both vary an image until its features are those
wanted, and keep it smooth meanwhile.
"""

from collections.abc import Sequence

from torch import Tensor, nn


class _Reached(Exception):
    """Ends a forward pass that need go no further."""


def inputs_of(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    """Return what a layer of a network gets for images; all else as of `outputs_of`."""
    return outputs_of(model, [layer], images, before=True)[0]


def outputs_of(
    model: nn.Module, layers: Sequence[nn.Module], images: Tensor, before: bool = False
) -> list[Tensor]:
    """Return what layers of a network put out for images, or get; the forward pass ends there.

    Gradients flow through them. A layer that is called several times counts at its first call.

    Raises:
        ValueError: the forward pass does not use one of the layers.
    """
    found: dict[nn.Module, Tensor] = {}
    wanted = len(set(layers))

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | None = None) -> None:
        if layer in found:
            return
        found[layer] = inputs[0] if before else output
        if len(found) == wanted:
            raise _Reached
        found[layer] = found[layer].clone()  # a later layer may work in place

    register = nn.Module.register_forward_pre_hook if before else nn.Module.register_forward_hook
    handles = [register(layer, keep) for layer in set(layers)]
    try:
        model(images)
    except _Reached:
        return [found[layer] for layer in layers]
    finally:
        for handle in handles:
            handle.remove()
    raise ValueError("the forward pass does not use this layer")


def total_variation(images: Tensor, mean: bool = True) -> Tensor:
    """Return each image's squared differences of neighbours, (N, C, H, W) to (N,).

    Args:
        mean: the mean over pairs along y plus that along x, whatever the size; else the sum.
    """
    down = (images[:, :, 1:] - images[:, :, :-1]).square().flatten(1)
    right = (images[..., 1:] - images[..., :-1]).square().flatten(1)
    return down.mean(1) + right.mean(1) if mean else down.sum(1) + right.sum(1)
