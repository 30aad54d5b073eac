"""A data order that depends on the seed, is the same however many ranks share it, and can be entered in the middle of an epoch."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from torch.utils.data import Dataset, Sampler


class Draw(int):
    """Index of an image that also knows its place in the whole run: ``number`` counts draws over all epochs and ranks.

    Datasets that key their randomness by ``number`` give a resumed run the crops of the unbroken one.
    """

    number: int

    def __new__(cls, index: int, number: int):
        draw = super().__new__(cls, index)
        draw.number = number
        return draw

    def __reduce__(self):
        return Draw, (int(self), self.number)


class IterationSampler(Sampler):
    """Stands in for BasicSR's ``EnlargedSampler`` (same constructor): one permutation of the enlarged set per epoch.

    Rank r takes the draws r, r + world, r + 2 world, ... Unlike the host's, the permutation depends on the seed, and after a resume at
    iteration ``start_iter`` the first epoch goes on behind the draws that were used up. An epoch is a whole number of batches, the last
    one filled up from the permutation's beginning: the same batches whether one process draws them or N share them, and as many as the
    host counts when it derives the number of epochs from ``total_iter`` (it would drop the incomplete batch, and stop early).

    Args:
        dataset: its ``opt`` gives ``manual_seed`` (default 0), ``batch_size_per_gpu`` and ``start_iter`` (default 0).
        num_replicas: number of ranks.
        rank: this rank.
        ratio: how often the set is repeated within an epoch.

    Attributes:
        on_resume: epoch in which a state was saved, and what restores the generators to it; None for a new run. Called when the first
            index of that epoch is asked for. The loader draws a seed from torch's global generator whenever it starts an epoch, and the
            host starts the first one twice; both draws of a resumed run are ones that the unbroken run did not make.
        images: the data set of this run.
        current_epoch: the host's number of the epoch that is running, which it tells models only when it lets them save.
    """

    on_resume: ClassVar[tuple[int, Callable[[], None]] | None] = None
    images: ClassVar[Dataset | None] = None
    current_epoch: ClassVar[int] = 0

    def __init__(self, dataset: Dataset, num_replicas: int, rank: int, ratio: float = 1):
        IterationSampler.on_resume = None
        IterationSampler.images = dataset
        self.length = len(dataset)
        self.num_replicas, self.rank = num_replicas, rank
        self.epoch = 0
        self.seed = dataset.opt.get('manual_seed') or 0
        batch = dataset.opt.get('batch_size_per_gpu', 1)
        self.draws = math.ceil(self.length * ratio)
        batches_per_epoch = math.ceil(self.draws / (batch * num_replicas))
        self.num_samples = batches_per_epoch * batch
        self.total_size = self.num_samples * num_replicas
        start_iter = dataset.opt.get('start_iter', 0)
        self._start_epoch = start_iter // batches_per_epoch
        self._start_sample = start_iter % batches_per_epoch * batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation.

        The host counts epochs from the one in which the state was saved. A state saved at the very end of an epoch is therefore entered
        once more by the host: that epoch has nothing left and is empty.
        """
        self.epoch = IterationSampler.current_epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        if self.on_resume is not None and self.epoch <= self.on_resume[0]:
            self.on_resume[1]()
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = torch.randperm(self.draws, generator=generator).tolist()
        if self.epoch < self._start_epoch:
            first = self.num_samples
        else:
            first = self._start_sample if self.epoch == self._start_epoch else 0
        for position in range(first * self.num_replicas + self.rank, self.total_size, self.num_replicas):
            yield Draw(order[position % self.draws] % self.length, self.epoch * self.total_size + position)

    def __len__(self) -> int:
        return self.num_samples
