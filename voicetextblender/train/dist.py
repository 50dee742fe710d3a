"""Ranks: the processes that torchrun starts, one for each device, and what they share.

Under `ddp` every rank has the whole model, and gradients are summed once a step, after all of its
rows: one exchange that every rank takes part in whatever its rows held, so ranks that drew text
only cannot keep others waiting. Under `fsdp` the layers are sharded (`fully_shard`); what is left
whole are the embedding table and the head. It knows nothing of losses or files.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from voicetextblender.model.modeling import SpeechLM

T = TypeVar("T")

BUCKET = 2**24
"""Numbers that are exchanged at a time: 64 MiB of gradients."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    num: int
    device: torch.device
    is_sharded: bool = False
    """Whether layers are sharded, so that all ranks must go through the same ones."""

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks, on the CPU, so that a GPU is not waited for."""
        total = values.to("cpu", copy=True)
        if self.num > 1:
            distributed.all_reduce(total)
        return total

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in order."""
        values: list[T] = [value] * self.num
        if self.num > 1:
            distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Go on when all ranks are here."""
        if self.num > 1:
            distributed.barrier()


ALONE = Ranks(0, 1, torch.device("cpu"))
"""The one process that there is when none was started by torchrun."""


@contextmanager
def join_ranks(parallel: str = "ddp") -> Iterator[Ranks]:
    """Join the ranks that torchrun's environment speaks of; without one, this is all there is."""
    num, local = (int(os.environ.get(key, default)) for key, default in _ENVIRONMENT)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if num == 1:
        yield Ranks(0, 1, device)
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    yield Ranks(distributed.get_rank(), num, device, parallel == "fsdp")
    distributed.destroy_process_group()  # not after an error: the other ranks may still exchange


_ENVIRONMENT = (("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


@contextmanager
def first_alone(ranks: Ranks) -> Iterator[None]:
    """Let the first rank go through the block before the others, to fill a cache that all read."""
    if not ranks.is_first:
        ranks.wait()
    yield
    if ranks.is_first:
        ranks.wait()


def spread(model: SpeechLM, ranks: Ranks) -> None:
    """Give every rank the first one's weights, and its shard of the layers if they are sharded."""
    if ranks.num == 1:
        return
    for tensor in model.trained_state().values():
        distributed.broadcast(tensor, 0)
    if not ranks.is_sharded:
        return
    mesh = init_device_mesh(ranks.device.type, (ranks.num,))
    decoder = model.llm.get_decoder()
    sharded = [
        fully_shard(layer, mesh=mesh)
        for stack in (decoder, model.encoder.encoder)
        for layer in cast(nn.ModuleList, stack.layers)
    ]
    # The embedding table is read outside of the decoder too: by CTC and, if tied, by the head.
    table = cast(nn.Parameter, model.table)
    sharded.append(fully_shard(decoder, mesh=mesh, ignored_params={table}))
    sharded += [fully_shard(part, mesh=mesh) for part in (model.encoder, model.adapter)]
    for module in sharded:  # gradients are summed, not averaged: losses have global counts
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def share_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Sum gradients over the ranks; a parameter that no row used has a gradient of zeros."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if not isinstance(parameter, DTensor):  # sharded ones were summed in the backward pass
            gradients.append(parameter.grad)
    if ranks.num == 1:
        return
    while gradients:
        bucket = [gradients.pop()]
        while gradients and sum(map(Tensor.numel, bucket)) < BUCKET:
            bucket.append(gradients.pop())
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        distributed.all_reduce(flat)
        for gradient, total in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(total.view_as(gradient))


def clip_norm(parameters: Sequence[nn.Parameter], limit: float) -> float:
    """Scale a part's gradient down to a norm and return what it was; all is sharded, or nothing."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()


def gather(state: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    """Return tensors in full, at the first rank; all ranks must ask for sharded ones."""
    full: dict[str, Tensor] = {}
    for name, tensor in state.items():
        one = tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
        if ranks.is_first:
            full[name] = one
    return full


def shard_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Return a whole tensor where `parameter` is and, if that is sharded, sharded as it is."""
    tensor = tensor.to(parameter.device)
    if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
    return tensor
