"""A device that is not there: what computes on it is known to, and its numbers are real.

    with device_there() as device:
        images = torch.zeros(2, 3, 32, 32, device=device.name)

Tensors say that they are on CUDA; their values are held and computed on the CPU, so that what
depends on values, as a mask of boxes does, goes its real way. An operation that mixes devices
raises, as it does there. What would wait for the device is noted. torch's own FakeTensorMode knows
no values. Without a gradient: autograd would ask for the device's streams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
# They take tensors of two devices: copies, and indices, which come from wherever.
MIXING = {aten.copy_, aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
# They tell Python a value, or make as much as values say.
WAITING = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero,
    aten.bincount, aten._unique2, aten.unique_dim, aten.repeat_interleave,
}  # fmt: skip


class FarTensor(Tensor):
    """A tensor that says it is on the device; `value` is on the CPU."""

    @staticmethod
    def __new__(cls, value: Tensor) -> FarTensor:
        # As FakeTensor: of no device where C++ would turn to it, and of this one to Python.
        shape = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return Tensor._make_subclass(
            cls, shape, False, dispatch_device=True, device_for_backend_keys=torch.device(Far.name)
        )

    def __init__(self, value: Tensor):
        self.value = value

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        if operation is torch.ops.prim.device.default:
            return torch.device(Far.name)
        raise AssertionError(f"{operation} outside of the device")


class Far(TorchDispatchMode):
    """The device.

    Args:
        refuses: types that it does not know.

    Attributes:
        waits: how often each operation has waited for the device.
    """

    name = "cuda:0"

    def __init__(self, refuses: tuple[torch.dtype, ...] = ()):
        super().__init__()
        self.refuses, self.waits = refuses, Counter()
        self._pinned: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs, kind = dict(kwargs or {}), operation.overloadpacket
        if kind is torch.ops.prim.device:
            return torch.device(self.name)
        if torch.is_inference_mode_enabled():  # where they come as they are written
            with self:
                result = operation.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if kind is aten._thnn_fused_lstm_cell:
            return self._lstm_cell(*args)
        if kind is aten._pin_memory:
            pinned = args[0].clone()
            self._pinned.add(pinned.untyped_storage().data_ptr())
            return pinned
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        far = [tensor for tensor in tensors if isinstance(tensor, FarTensor)]
        near = [tensor for tensor in tensors if not isinstance(tensor, FarTensor)]
        to = kwargs.pop("device", None)
        arrives = bool(far) if to is None else torch.device(to).type == "cuda"
        if to is not None and kind is not aten._to_copy:
            far, kwargs["device"] = [], "cpu"
        elif far and kind not in MIXING and any(tensor.dim() for tensor in near):
            raise AssertionError(f"{operation} mixes devices")
        self._note(kind, args, kwargs, far, near, arrives)
        kwargs.pop("non_blocking", None)
        result = operation(*tree_map(_value, args), **tree_map(_value, kwargs))
        if not arrives:
            return result
        result = tree_map(self._place, result)
        return return_and_correct_aliasing(operation, args, kwargs, result) if far else result

    def _note(
        self, kind: Any, args: Any, kwargs: Any, far: list, near: list, arrives: bool
    ) -> None:
        """Note where the device is waited for."""
        masks = kind in MIXING and any(
            isinstance(leaf, FarTensor) and leaf.dtype in (torch.bool, torch.uint8)
            for leaf in tree_leaves(args[1:2])
        )
        waits = bool(far) and kind in WAITING or masks and kind is not aten.copy_
        if kind in (aten._to_copy, aten.copy_):
            source = args[0] if kind is aten._to_copy else args[1]
            leaves = isinstance(source, FarTensor) and not arrives
            leaves |= kind is aten.copy_ and bool(near) and isinstance(source, FarTensor)
            comes = arrives and not isinstance(source, FarTensor) and source.numel() > 0
            if comes:
                pinned = source.untyped_storage().data_ptr() in self._pinned
                waits |= not (pinned and kwargs.get("non_blocking", False))
            waits |= leaves
        if waits:
            self.waits[str(kind)] += 1

    @staticmethod
    def _lstm_cell(
        into: Tensor, again: Tensor, cell: Tensor, *biases: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Do what CUDA has a kernel of its own for."""
        gates = into.value + again.value + sum(bias.value for bias in biases)
        into, forget, change, out = gates.chunk(4, 1)
        new = forget.sigmoid() * cell.value + into.sigmoid() * change.tanh()
        return FarTensor(out.sigmoid() * new.tanh()), FarTensor(new), FarTensor(gates)

    def _place(self, result: Any) -> Any:
        if not isinstance(result, Tensor):
            return result
        if result.dtype in self.refuses:
            raise AssertionError(f"the device knows no {result.dtype}")
        return FarTensor(result)


@contextmanager
def device_there(refuses: tuple[torch.dtype, ...] = ()) -> Iterator[Far]:
    """Have the device there, as FakeTensorMode does it where there is none."""
    torch._C._ensureCUDADeviceGuardSet()
    before = torch._C._only_lift_cpu_tensors()
    with ExitStack() as stack:
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        for name, answer in (
            ("_lazy_init", None), ("amp.common.amp_definitely_not_available", False),
            ("is_bf16_supported", True), ("mem_get_info", (2**40, 2**40)),
        ):  # fmt: skip
            stack.enter_context(mock.patch(f"torch.cuda.{name}", return_value=answer))
        stack.enter_context(mock.patch.object(nn.Module, "to", _to))
        yield stack.enter_context(Far(refuses))


def _value(leaf: Any) -> Any:
    return leaf.value if isinstance(leaf, FarTensor) else leaf


MODULE_TO = nn.Module.to


def _to(network: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    device = torch._C._nn._parse_to(*args, **kwargs)[0]
    return (
        send(network)
        if device is not None and device.type == "cuda"
        else MODULE_TO(network, *args, **kwargs)
    )


def send(network: nn.Module) -> nn.Module:
    """Bring a network to the device; return it."""
    for module in network.modules():
        for own in (module._parameters, module._buffers):
            for name, value in own.items():
                if value is not None:
                    sent = value.detach().to(Far.name)
                    is_weight = own is module._parameters
                    own[name] = nn.Parameter(sent, value.requires_grad) if is_weight else sent
    return network
