"""What is to be exported: a weight file together with the option file that says what its numbers mean."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ibmd_basicsr.checkpoints.state_dict import load_params
from ibmd_basicsr.compat.options import normalise_numbers, read_option_file
from ibmd_basicsr.models.builders import build_restorer, checked_bridge, checked_network, checked_sampler
from ibmd_basicsr.restorer import Restorer
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.files import file_digest
from ibmd_basicsr.version import __version__

CARDS = 'cards.yml'
UNKNOWN = 'not recorded'
BLOCKS = ('scale', 'bridge', 'network_g')


@dataclass(frozen=True)
class Student:
    """A restorer with its weights as they are in the file.

    Attributes:
        restorer: the network on the CPU, ready to run.
        params: the weights in the file's own precision.
        masked: it fills the hole of a mask (inpainting).
        about: what an exported file tells its user, all text: ``task``, ``scale``, ``licence``, ``source``, ``source_sha256``, ...
    """

    restorer: Restorer
    params: dict[str, Tensor]
    masked: bool
    about: dict[str, str]


def find_weights(name: str, folders: list[Path]) -> Path:
    """Return the weight file that ``name`` means: a path, or the name of one in ``folders`` without its ending.

    Raises:
        OptionError: neither; the message lists the names.
    """
    if Path(name).is_file():
        return Path(name)
    known = {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob('*.pth'))}
    if name in known:
        return known[name]
    raise OptionError(f'{name}: no such weight file' + (f'; known by name are {", ".join(sorted(known))}.' if known else '.'))


def read_card(weights: Path) -> tuple[dict[str, Any], Path]:
    """Return what ``cards.yml`` beside a weight file says of it, empty if nothing, and the folder where the paths in it start."""
    cards = weights.parent / CARDS
    content = read_option_file(cards) if cards.is_file() else {}
    return (content.get('cards') or {}).get(weights.stem) or {}, weights.resolve().parent.parent


def read_student(weights: Path, option_file: Path | None = None, param_key: str | None = None, one_step: bool = False) -> Student:
    """Read a student's weights and build its restorer.

    Args:
        weights: BasicSR checkpoint.
        option_file: of its training or test; default: the one that ``cards.yml`` beside the weights names.
        param_key: which weights of the file; default: ``params_ema``.
        one_step: call a student of several steps once, as ``val.sampler: {type: few_step, trained_steps: N, steps: 1}`` does.

    Raises:
        OptionError: no option file is known, or it is none of a bridge.
        CheckpointError: the file cannot be read or does not fit the network.
    """
    card, root = read_card(weights)
    if option_file is None:
        if 'options' not in card:
            raise OptionError(f'{weights}: no {CARDS} beside it names its options; give the option file of its training with -opt.')
        option_file = root / card['options']
    opt = normalise_numbers(read_option_file(option_file))
    missing = [key for key in BLOCKS if key not in opt]
    if missing:
        raise OptionError(f'{option_file}: has no {", ".join(missing)}: students of bridges can be exported, nothing else.')
    key = param_key or 'params_ema'
    sampler = dict((opt.get('val') or {}).get('sampler') or {'type': 'one_step'})
    if one_step and sampler.get('type') == 'few_step':
        sampler = {'trained_steps': sampler.get('steps'), **sampler, 'steps': 1}
    checked_network(opt['network_g'], f'{option_file}: network_g')
    checked_sampler(sampler, checked_bridge(opt['bridge'], f'{option_file}: bridge'), f'{option_file}: val.sampler')
    restorer = build_restorer(network=opt['network_g'], bridge=opt['bridge'], weights=str(weights), param_key=key, sampler=sampler,
                              scale=opt['scale'])
    masked = any(isinstance(block, dict) and ('dataroot_mask' in block or (block.get('degradation') or {}).get('type') == 'inpaint')
                 for block in (opt.get('datasets') or {}).values())
    return Student(restorer, load_params(weights, key), masked, describe(weights, opt | {'sampler': sampler}, card, restorer))


def describe(weights: Path, opt: Mapping[str, Any], card: Mapping[str, Any], restorer: Restorer) -> dict[str, str]:
    """Return :attr:`Student.about`; ``opt`` is the option file with ``sampler`` at its top."""
    scale = restorer.scale
    return {
        'title': card.get('title', opt.get('name', weights.stem)),
        'task': card.get('task', opt.get('name', weights.stem)),
        'licence': card.get('licence', UNKNOWN),
        'source': weights.name,
        'source_sha256': file_digest(weights),
        'made_by': f'ibmd_basicsr {__version__}',
        'scale': str(scale),
        'size_multiple': str(restorer.size_multiple * scale),
        'noise_channels': str(restorer.net.noise_channels),
        'network': json.dumps(opt['network_g']),
        'bridge': json.dumps(opt['bridge']),
        'sampler': json.dumps(opt['sampler']),
    }
