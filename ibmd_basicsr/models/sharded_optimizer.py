"""Optimiser states shared out over the processes of a run (``train.shard_optimizer``), with states on disk that do not show it."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer


class ShardedOptimizer(ZeroRedundancyOptimizer):
    """torch's ``ZeroRedundancyOptimizer``: each process keeps the states of some tensors, updates these, and sends them to the others.

    Tensors are given out whole, so a step computes for each what it would compute unshared: the weights are equal bit for bit.
    A state is read and written in the form of the plain optimiser: a run that shares can go on as one that does not, and the reverse,
    in any number of processes.
    """

    def gather_state(self) -> dict[str, Any] | None:
        """Return on rank 0 the state dict of the unshared optimiser, on the CPU; None on the others. All processes must call it.

        Tensors are sent one after the other, so a process needs room for one of them. torch's own ``consolidate_state_dict`` pickles
        whole shares, at a tenth of a second of a core for each MiB.
        """
        place = {parameter: number for number, parameter in enumerate(_parameters(self.param_groups))}
        own = {place[parameter]: state for parameter, state in self.optim.state.items()}
        layouts: list[Any] = [None] * self.world_size
        # on the meta device tensors are shape and dtype alone
        dist.all_gather_object(layouts, {number: {key: value.to('meta') if isinstance(value, Tensor) else value
                                                  for key, value in state.items()} for number, state in own.items()})
        device = next(iter(place)).device
        owners = {number: rank for rank, layout in enumerate(layouts) for number in layout}
        states: dict[int, dict[str, Any]] = {}
        for number in sorted(owners):
            owner = owners[number]
            states[number] = {}
            for key, value in layouts[owner][number].items():
                if isinstance(value, Tensor):
                    value = own[number][key].to(device) if owner == self.rank else torch.empty_like(value, device=device)
                    dist.broadcast(value, owner)
                    value = value.cpu() if self.rank == 0 else None
                states[number][key] = value
        if self.rank != 0:
            return None
        return {'state': states, 'param_groups': Optimizer.state_dict(self)['param_groups']}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take this process's share of the state dict of an unshared optimiser, by the rules of the optimiser that is shared out.

        torch's own method moves Adam's ``step`` to the CPU, where fused kernels of a GPU cannot use it, and keeps a second copy of the
        share.

        Raises:
            ValueError: the state is one of other parameters.
        """
        saved = state_dict['param_groups']
        if [len(group['params']) for group in saved] != [len(group['params']) for group in self.param_groups]:
            raise ValueError('The saved state of the optimiser is one of other parameters.')
        place = {parameter: number for number, parameter in enumerate(_parameters(self.param_groups))}
        own = [place[parameter] for parameter in _parameters(self.optim.param_groups)]
        numbers = iter(range(len(own)))
        groups = [{**old, 'params': [next(numbers) for _ in group['params']]} for old, group in zip(saved, self.optim.param_groups)]
        states = {number: state_dict['state'][index] for number, index in enumerate(own) if index in state_dict['state']}
        self.optim.load_state_dict({'state': states, 'param_groups': groups})
        for group, local in zip(self.param_groups, self.optim.param_groups):
            group.update({key: value for key, value in local.items() if key != 'params'})


def _parameters(groups: Sequence[dict[str, Any]]) -> chain:
    return chain.from_iterable(group['params'] for group in groups)
