"""Networks by name: what ``weights/cards.yml`` lists and the option files that it names say."""
from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.checkpoints.state_dict import printable
from ibmd_basicsr.compat.options import normalise_numbers, read_option_file
from ibmd_basicsr.models.builders import checked_bridge, checked_network, checked_sampler
from ibmd_basicsr.restorer import SamplerOptions, make_grid
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.project import project_root

CARDS = 'weights/cards.yml'
USUAL_SIZE = 256
"""Side of the images that a network was trained on, where its option file names no other, in pixels of the result."""

LARGEST_SCALE = 64
"""Enlargements beyond are mistyped: one pixel would become a picture."""


@dataclass(frozen=True)
class Recipe:
    """A network that restores, and how.

    Attributes:
        name: in the zoo, or the name of its weight file.
        title: what it is, one line.
        task: ``jpeg``, ``sr4x``, ...; empty if the option file names no degradation.
        network, bridge, sampler: blocks of the option file.
        scale: enlargement.
        weights: file.
        param_key: weights in the file.
        quality: of the JPEG files that it was trained on.
        size: side of the images that it was trained on, in pixels of the result.
        takes: what else than an image it would need (``a mask``, ``class labels``); empty for those that this package restores photos with.
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
    takes: str = ''

    @property
    def steps(self) -> int:
        """Steps of the sampler, for all but ``heun`` as many network calls."""
        return len(make_grid(SamplerOptions(**self.sampler), build_bridge(**self.bridge))) - 1

    @property
    def is_student(self) -> bool:
        """Whether it was distilled to few steps."""
        return self.sampler.get('type', 'one_step') in ('one_step', 'few_step')


def find_zoo(given: str | None) -> Path:
    """Return the folder that holds ``weights/cards.yml`` and ``options/``: ``given``, else the repository, else the working directory.

    Raises:
        OptionError: it does not.
    """
    places = [Path(given)] if given else [Path(__file__).resolve().parents[2], Path.cwd()]
    for place in places:
        if (place / CARDS).is_file():
            return place
    if given:
        raise OptionError(f'--zoo {given}: holds no {CARDS}.')
    raise OptionError(f'No networks found: neither {places[0]} nor the working directory holds {CARDS}. They are in the repository, not in '
                      'the installed package: --zoo names a clone of it, or -opt and --weights name a network of your own.')


def read_zoo(zoo: Path) -> dict[str, Recipe]:
    """Return the bridges that ``weights/cards.yml`` lists, by name; networks of other kinds are left out.

    Raises:
        OptionError: cards.yml or an option file that it names cannot be read or says something that cannot be.
    """
    cards = read_option_file(zoo / CARDS).get('cards')
    if not isinstance(cards, dict):
        raise OptionError(f'{zoo / CARDS}: cards must be a block of networks.')
    recipes = {}
    for name, card in cards.items():
        if not isinstance(card, dict) or not isinstance(card.get('options'), str):
            raise OptionError(f'{zoo / CARDS}: cards.{name} must be a block that names its options.')
        opt = read_option_file(zoo / card['options'])
        if 'bridge' in opt:
            _check_blocks(opt, zoo / card['options'])
            recipes[name] = _to_recipe(opt, zoo / card['options'], name, str(card.get('title', '')), zoo / f'weights/{name}.pth')
    return recipes


def find_recipe(recipes: Mapping[str, Recipe], name: str) -> Recipe:
    """Return a network by name; ``sr4x_nano`` is short for ``sr4x_nano_student``.

    Raises:
        OptionError: no such network.
    """
    for key in (name, f'{name}_student'):
        if key in recipes:
            return recipes[key]
    near = difflib.get_close_matches(name, recipes, 1)
    raise OptionError(f'--weights {printable(name)}: no such network{f", did you mean {near[0]!r}?" if near else "."} Known: '
                      f'{", ".join(recipes)}; or a .pth file together with -opt.')


def recipes_for_task(recipes: Mapping[str, Recipe], task: str) -> list[Recipe]:
    """Return the students for a task whose files are there.

    Raises:
        OptionError: there is none.
    """
    known = [recipe for recipe in recipes.values() if recipe.is_student and not recipe.takes]
    found = [recipe for recipe in known if recipe.task == task]
    if not found:
        tasks = sorted({recipe.task for recipe in known} - {''})
        raise OptionError(f'--task {printable(task)}: no student for it; there are some for {", ".join(tasks) or "no task"}.')
    present = [recipe for recipe in found if recipe.weights.is_file()]
    if not present:
        raise OptionError(f'--task {task}: {found[0].weights} is not there.')
    return present


def nearest_quality(recipes: Sequence[Recipe], quality: int | None) -> Recipe:
    """Return the network trained on the quality that is nearest by its ratio; the first one where either is unknown."""
    if quality is None:
        return recipes[0]
    return min(recipes, key=lambda recipe: abs(math.log(recipe.quality / quality)) if recipe.quality else math.inf)


def read_recipe(option_file: str, weights: str | None) -> Recipe:
    """Return the network of an option file for training or testing.

    Args:
        option_file: file.
        weights: file, instead of the option file's ``path.pretrain_network_g`` (which starts at the folder that holds ``options/``).

    Raises:
        OptionError: the file cannot be read, says something that cannot be, or names no weights.
    """
    opt = read_option_file(option_file)
    _check_blocks(opt, option_file)
    if weights is None:
        named = (opt.get('path') or {}).get('pretrain_network_g')
        if not isinstance(named, str):
            raise OptionError(f'{option_file}: path.pretrain_network_g names no weights; --weights FILE.pth does.')
        weights = project_root(option_file) / named
    return _to_recipe(opt, Path(option_file), Path(weights).stem, f'of {option_file}', Path(weights))


def with_steps(recipe: Recipe, steps: int) -> dict[str, Any]:
    """Return the sampler block of a network for another number of steps.

    Raises:
        OptionError: not with this network.
    """
    sampler = recipe.sampler | {'steps': steps}
    checked_sampler(sampler, build_bridge(**recipe.bridge), f'--steps {steps} with {recipe.name}')
    return sampler


def _check_blocks(opt: Mapping[str, Any], file: Path | str) -> None:
    absent = [key for key in ('bridge', 'network_g') if not isinstance(opt.get(key), dict)]
    if absent:
        raise OptionError(f'{file}: has no block {" and no block ".join(absent)}; options of a BridgeModel or IBMDModel are wanted.')
    for key in ('path', 'val', 'datasets'):
        if not isinstance(opt.get(key) or {}, dict):
            raise OptionError(f'{file}: {key} must be a block of keys, got {opt[key]!r}.')


def _to_recipe(opt: dict[str, Any], file: Path, name: str, title: str, weights: Path) -> Recipe:
    normalise_numbers(opt)
    network, bridge, scale = opt['network_g'], opt['bridge'], opt.get('scale', 1)
    if not isinstance(scale, int) or isinstance(scale, bool) or not 1 <= scale <= LARGEST_SCALE:
        raise OptionError(f'{file}: scale must be an integer from 1 to {LARGEST_SCALE}, got {scale!r}.')
    checked_network(network, f'{file}: network_g')
    sampler = (opt.get('val') or {}).get('sampler') or {}
    checked_sampler(sampler, checked_bridge(bridge, f'{file}: bridge'), f'{file}: val.sampler')
    blocks = [block for block in (opt.get('datasets') or {}).values() if isinstance(block, dict)]
    degradation = next((block['degradation'] for block in blocks if isinstance(block.get('degradation'), dict)), {})
    kind = str(degradation.get('type', ''))
    if network.get('in_channels', 3) != 3 or network.get('out_channels') not in (None, 3):
        takes = 'images without three channels'
    elif 'inpaint' in kind or bridge.get('hole') or any('dataroot_mask' in block for block in blocks):
        takes = 'a mask'
    else:
        takes = 'class labels' if network.get('num_classes') else ''
    size = next((block['gt_size'] for block in blocks if 'gt_size' in block), USUAL_SIZE)
    quality = degradation.get('quality')
    for key, value in (('gt_size', size), ('degradation.quality', quality)):
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 1):
            raise OptionError(f'{file}: {key} must be a number from 1, got {value!r}.')
    return Recipe(name, title, _task(kind, degradation), network, bridge, sampler, scale, weights,
                  str((opt.get('path') or {}).get('param_key_g') or 'params_ema'), quality, max(size, 64), takes)


def _task(kind: str, degradation: Mapping[str, Any]) -> str:
    if kind != 'sr':
        return kind
    pooled = degradation.get('kernel', 'bicubic') != 'bicubic'
    return f'sr{degradation.get("scale", 4)}x{"_pool" if pooled else ""}'
