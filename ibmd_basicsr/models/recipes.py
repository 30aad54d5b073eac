"""Recipes: a file of weights together with the option file that says what its numbers mean. The one way from both to a restorer."""
from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.compat.options import read_option_file, read_options
from ibmd_basicsr.models.builders import build_restorer, checked_bridge, checked_network, checked_sampler
from ibmd_basicsr.restorer import Restorer, SamplerOptions, make_grid, network_calls
from ibmd_basicsr.utils.errors import OptionError, printable
from ibmd_basicsr.utils.project import REPOSITORY, project_root

CARDS = 'cards.yml'
"""Lies beside weights and names the option file of each; its paths start at the folder above."""
WEIGHT_FOLDERS = (REPOSITORY / 'weights', Path('weights'))
"""Where weights are known by name: the first folder that has one counts."""
USUAL_SIZE = 256
"""Side of the images that a network was trained on, where its option file names no other, in pixels of the result."""
LARGEST_SCALE = 64
"""Enlargements beyond are mistyped: one pixel would become a picture."""


@dataclass(frozen=True)
class Recipe:
    """A network that restores, and how. Its blocks are checked.

    Attributes:
        name: of its weight file.
        title: what it is, one line.
        task: ``jpeg``, ``sr4x``, ...; empty if the option file names no degradation.
        network, bridge, sampler: blocks of the option file.
        scale: enlargement.
        weights: file.
        param_key: weights in the file.
        quality: of the JPEG files that it was trained on.
        size: side of the images that it was trained on, in pixels of the result.
        masked: it fills the hole of a mask (inpainting).
    """

    name: str
    title: str
    task: str
    network: dict[str, Any] = field(repr=False)
    bridge: dict[str, Any] = field(repr=False)
    sampler: dict[str, Any]
    scale: int
    weights: Path
    param_key: str = 'params_ema'
    quality: int | None = None
    size: int = USUAL_SIZE
    masked: bool = False

    @property
    def steps(self) -> int:
        """Network calls, what :meth:`with_steps` takes."""
        options = SamplerOptions(**self.sampler)
        return network_calls(options, make_grid(options, build_bridge(**self.bridge)))

    @property
    def is_student(self) -> bool:
        """Whether it was distilled to few steps."""
        return SamplerOptions(**self.sampler).of_student

    @property
    def takes(self) -> str:
        """What else than a photograph it would need (``a mask``, ``class labels``), empty for nothing."""
        if self.network.get('in_channels', 3) != 3 or self.network.get('out_channels') not in (None, 3):
            return 'images without three channels'
        if self.masked:
            return 'a mask'
        return 'class labels' if self.network.get('num_classes') else ''

    def with_steps(self, steps: int) -> Recipe:
        """Return the same network with another number of calls; a student of N steps keeps to the times that it was trained for.

        Raises:
            OptionError: not with this network.
        """
        sampler = self.sampler | {'steps': steps}
        if sampler.get('type') == 'few_step':
            sampler['trained_steps'] = self.sampler.get('trained_steps') or self.sampler.get('steps') or 1
        checked_sampler(sampler, build_bridge(**self.bridge), f'{steps} steps with {self.name}')
        return replace(self, sampler=sampler)

    def build(self, device: torch.device | str = 'cpu', precision: str = 'fp32') -> Restorer:
        """Read the weights and return the restorer.

        Args:
            device: where to run.
            precision: see :class:`~ibmd_basicsr.restorer.Restorer`.

        Raises:
            CheckpointError: the file is missing, damaged or does not fit.
            OptionError: a precision that the device does not have.
        """
        return build_restorer(network=self.network, bridge=self.bridge, weights=str(self.weights), param_key=self.param_key,
                              sampler=self.sampler, scale=self.scale, device=device, precision=precision)


def load_restorer(name: Path | str, *, weights: Path | str | None = None, device: torch.device | str = 'cpu', precision: str = 'fp32',
                  steps: int | None = None) -> Restorer:
    """Return a network, ready to restore images (B, C, h, w), RGB in [0, 1].

    Args:
        name: of a network in ``weights/`` (``sr4x_nano_student``, or ``sr4x_nano`` for short); a weight file beside whose ``cards.yml``
            its option file is named; or an option file (``.yml``) for training or testing.
        weights: with an option file: the weights, instead of those that it names.
        device: where to run.
        precision: see :class:`~ibmd_basicsr.restorer.Restorer`.
        steps: network calls, for teachers and students of several steps; default: what the option file says.

    Raises:
        OptionError: nothing of that name, an option file that cannot be read or says something that cannot be, steps that this network does
            not take, or a precision that the device does not have.
        CheckpointError: the weights are missing, damaged or do not fit.
    """
    if Path(name).suffix in ('.yml', '.yaml'):
        recipe = recipe_from_options(name, weights)
    elif weights is None:
        recipe = recipe_of_weights(find_weights(str(name)))
    else:
        raise OptionError(f'weights go with an option file (.yml), got {printable(weights)} with {printable(name)}.')
    return (recipe if steps is None else recipe.with_steps(steps)).build(device, precision)


def recipe_from_options(option_file: Path | str, weights: Path | str | None = None, param_key: str | None = None) -> Recipe:
    """Return the network of an option file for training or testing.

    Args:
        option_file: file.
        weights: file, instead of the option file's ``path.pretrain_network_g`` (which starts at the folder that holds ``options/``).
        param_key: which weights of the file; default: the option file's ``path.param_key_g``, else ``params_ema``. What a training says
            there is about the weights that it starts from, and counts for these alone.

    Raises:
        OptionError: the file cannot be read, says something that cannot be, or names no weights.
    """
    return _to_recipe(read_options(option_file), option_file, weights, param_key)


def recipe_of_weights(weights: Path, param_key: str | None = None) -> Recipe:
    """Return the network of a weight file whose option file :data:`CARDS` beside it names.

    Args:
        weights: file.
        param_key: which weights of the file; default: as for :func:`recipe_from_options`.

    Raises:
        OptionError: no option file is named, or one that cannot be read or says something that cannot be.
    """
    card = read_cards(weights.parent).get(weights.stem)
    if card is None:
        raise OptionError(f'{weights}: no {CARDS} beside it names its options; give the option file of its training or test, too (-opt).')
    recipe = recipe_from_options(_options_of(card, weights.parent), weights, param_key)
    return replace(recipe, title=str(card.get('title', recipe.title)))


def recipes_in(folder: Path) -> dict[str, Recipe]:
    """Return the bridges that :data:`CARDS` in a folder lists, by name, whether their weights are there or not.

    Raises:
        OptionError: cards.yml or an option file that it names cannot be read or says something that cannot be.
    """
    recipes = {}
    for name, card in read_cards(folder).items():
        file = _options_of(card, folder)
        opt = read_options(file)
        if 'bridge' in opt:  # baselines are other networks
            recipe = _to_recipe(opt, file, folder / f'{name}.pth', None)
            recipes[name] = replace(recipe, title=str(card.get('title', recipe.title)))
    return recipes


def read_cards(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what :data:`CARDS` in a folder says of each weight file, by name; empty if there is none.

    Raises:
        OptionError: it cannot be read, or an entry names no option file.
    """
    file = folder / CARDS
    cards = read_option_file(file).get('cards') if file.is_file() else {}
    if not isinstance(cards, dict):
        raise OptionError(f'{file}: cards must be a block of networks.')
    for name, card in cards.items():
        if not isinstance(card, dict) or not isinstance(card.get('options'), str):
            raise OptionError(f'{file}: cards.{name} must be a block that names its options.')
    return cards


def find_weights(name: str, folders: Sequence[Path] = WEIGHT_FOLDERS) -> Path:
    """Return the weight file that a name means: that of one in ``folders`` without its ending, or a path.

    ``sr4x_nano`` is short for ``sr4x_nano_student``.

    Raises:
        OptionError: neither; the message lists the names.
    """
    known = {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob('*.pth'))}
    for key in (name, f'{name}_student'):
        if key in known:
            return known[key]
    if Path(name).is_file():
        return Path(name)
    near = difflib.get_close_matches(name, known, 1)
    raise OptionError(f'{printable(name)}: no such network{f", did you mean {near[0]!r}?" if near else "."} Known: '
                      f'{", ".join(sorted(known)) or "none"}; or a .pth file together with its option file (-opt).')


def _options_of(card: Mapping[str, Any], folder: Path) -> Path:
    return folder.absolute().parent / card['options']


def _to_recipe(opt: Mapping[str, Any], file: Path | str, weights: Path | str | None, param_key: str | None) -> Recipe:
    """Check what an option file says; arguments as for :func:`recipe_from_options`."""
    _check_blocks(opt, file)
    network, bridge, scale, path = opt['network_g'], opt['bridge'], opt.get('scale'), opt.get('path') or {}
    sampler = (opt.get('val') or {}).get('sampler') or {'type': 'one_step'}
    if not isinstance(scale, int) or isinstance(scale, bool) or not 1 <= scale <= LARGEST_SCALE:
        raise OptionError(f'{file}: scale must be an integer from 1 to {LARGEST_SCALE}, got {scale!r}.')
    checked_network(network, f'{file}: network_g')
    checked_sampler(sampler, checked_bridge(bridge, f'{file}: bridge'), f'{file}: val.sampler')
    if weights is None:
        if not isinstance(path.get('pretrain_network_g'), str):
            raise OptionError(f'{file}: path.pretrain_network_g names no weights, and no others are given.')
        weights = project_root(file) / path['pretrain_network_g']
    elif 'train' in opt:
        param_key = param_key or 'params_ema'
    weights = Path(weights)
    return Recipe(weights.stem, str(opt.get('name') or weights.stem), network=network, bridge=bridge, sampler=sampler, scale=scale,
                  weights=weights, param_key=param_key or str(path.get('param_key_g') or 'params_ema'), **_about_images(opt, file))


def _check_blocks(opt: Mapping[str, Any], file: Path | str) -> None:
    absent = [key for key in ('bridge', 'network_g') if not isinstance(opt.get(key), dict)]
    if absent:
        raise OptionError(f'{file}: has no block {" and no block ".join(absent)}; options of a BridgeModel or IBMDModel are wanted.')
    for key in ('path', 'val', 'datasets'):
        if not isinstance(opt.get(key) or {}, dict):
            raise OptionError(f'{file}: {key} must be a block of keys, got {opt[key]!r}.')


def _about_images(opt: Mapping[str, Any], file: Path | str) -> dict[str, Any]:
    """Return what the data sets of an option file tell: task, quality, size and masked of a :class:`Recipe`."""
    blocks, degradation = _data_sets(opt), _degradation(opt)
    kind, quality = str(degradation.get('type', '')), degradation.get('quality')
    size = next((block['gt_size'] for block in blocks if 'gt_size' in block), USUAL_SIZE)
    for key, value in (('gt_size', size), ('degradation.quality', quality)):
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 1):
            raise OptionError(f'{file}: {key} must be a number from 1, got {value!r}.')
    masked = 'inpaint' in kind or opt['bridge'].get('hole', 'keep') != 'keep' or any('dataroot_mask' in block for block in blocks)
    return {'task': task_of(opt), 'quality': quality, 'size': max(size, 64), 'masked': masked}


def _data_sets(opt: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [block for block in (opt.get('datasets') or {}).values() if isinstance(block, dict)]


def _degradation(opt: Mapping[str, Any]) -> dict[str, Any]:
    return next((block['degradation'] for block in _data_sets(opt) if isinstance(block.get('degradation'), dict)), {})


def task_of(opt: Mapping[str, Any]) -> str:
    """Return the task of an option file by the first degradation of its data sets; empty if there is none."""
    degradation = _degradation(opt)
    kind = str(degradation.get('type', ''))
    if kind != 'sr':
        return kind
    pooled = degradation.get('kernel', 'bicubic') != 'bicubic'
    return f'sr{degradation.get("scale", 4)}x{"_pool" if pooled else ""}'
