"""Explicit randomness: one generator per image, so that a result depends neither on batch size nor on the number of workers or ranks."""
from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that is a fixed function of ``parts`` (integers and strings), the same on every machine."""
    digest = hashlib.blake2b('\x1f'.join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


class PerImageNoise:
    """A batch's source of randomness: image i draws from ``generators[i]`` alone.

    Args:
        generators: one ``torch.Generator`` per image of the batch. Those of a CPU take 32 bits of a seed: among 77,000 images two are as
            likely as not to share their noise. Draws are made on the generators' device and moved to the device
            that is asked for, so CPU generators give the same numbers on every device.
    """

    def __init__(self, generators: Sequence[torch.Generator]):
        if not generators:
            raise ValueError('PerImageNoise needs at least one generator.')
        self.generators = list(generators)

    @classmethod
    def from_seeds(cls, seeds: Sequence[int], device: torch.device | str = 'cpu') -> PerImageNoise:
        """Make one generator per seed on ``device``."""
        return cls([torch.Generator(device).manual_seed(seed) for seed in seeds])

    @classmethod
    def for_images(cls, seed: int, names: Sequence[str], sample: int = 0) -> PerImageNoise:
        """Test time: image ``name`` gets the CPU generator of (seed, name), whatever batch it comes in.

        Samples from number 1 on, for several restorations of one image, get the generator of (seed, name, sample).
        """
        parts = [sample] if sample else []
        return cls.from_seeds([derive_seed('image', seed, name, *parts) for name in names])

    @classmethod
    def for_training(cls, seed: int, iteration: int, *, batch: int, rank: int = 0, world_size: int = 1,
                     device: torch.device | str = 'cpu') -> PerImageNoise:
        """Training: sample i of this rank gets the generator of (seed, iteration, global place i * world_size + rank).

        BasicSR's samplers deal draws to ranks in turn, so the k-th draw of an iteration meets the same noise however many ranks
        share the iteration, and a resumed run repeats the unbroken one.
        """
        return cls.from_seeds([derive_seed('train', seed, iteration, i * world_size + rank) for i in range(batch)], device)

    def part(self, images: slice) -> PerImageNoise:
        """Return the noise of some images of the batch; the generators are shared, so draws go on where they stopped."""
        return PerImageNoise(self.generators[images])

    def copy(self) -> PerImageNoise:
        """Return the same noise from here on, from generators of its own."""
        return PerImageNoise([_copy(generator) for generator in self.generators])

    def randn_like(self, x: Tensor) -> Tensor:
        """Return standard normal noise of the shape (B, ...), dtype and device of ``x``.

        Raises:
            ValueError: the batch of ``x`` is not the number of generators.
        """
        self._check(len(x))
        return hand_over(self.randn(*x.shape[1:], pinned=x.is_cuda), x)

    def randn(self, *shape: int, pinned: bool = False) -> Tensor:
        """Return standard normal noise (B, *shape), float32, on the generators' device; if a CPU, in page-locked memory if ``pinned``."""
        device = self.generators[0].device
        noise = torch.empty(len(self.generators), *shape, dtype=torch.float32, device=device, pin_memory=pinned and device.type == 'cpu')
        for image, generator in zip(noise, self.generators):  # in place: fields of large images need no second copy
            image.normal_(generator=generator)
        return noise

    def rand(self, device: torch.device | str = 'cpu') -> Tensor:
        """Return one uniform number on [0, 1) per image, (B,) float64."""
        return torch.stack([torch.rand((), generator=g, device=g.device, dtype=torch.float64) for g in self.generators]).to(device)

    def _check(self, batch: int) -> None:
        if batch != len(self.generators):
            raise ValueError(f'A batch of {batch} images needs {batch} generators, got {len(self.generators)}.')


def hand_over(noise: Tensor, x: Tensor) -> Tensor:
    """Return ``noise`` on the device and in the dtype of ``x``. A GPU is not waited for: it may still be at what was queued before."""
    if x.is_cuda and noise.device.type == 'cpu':
        noise = noise.pin_memory()  # itself, if it lies there already
    return noise.to(x.device, non_blocking=True).to(x.dtype)


def _copy(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator(generator.device)
    copy.set_state(generator.get_state())
    return copy
