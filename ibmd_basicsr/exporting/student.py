"""What is to be exported: a weight file together with the option file that says what its numbers mean."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ibmd_basicsr.checkpoints.state_dict import load_params
from ibmd_basicsr.models.recipes import Recipe, read_cards
from ibmd_basicsr.restorer import Restorer
from ibmd_basicsr.utils.files import file_digest
from ibmd_basicsr.version import __version__

UNKNOWN = 'not recorded'


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


def read_student(recipe: Recipe) -> Student:
    """Read a student's weights and build its restorer, on the CPU.

    Raises:
        OptionError: ``cards.yml`` beside the weights cannot be read.
        CheckpointError: the file cannot be read or does not fit the network.
    """
    restorer = recipe.build()
    card = read_cards(recipe.weights.parent).get(recipe.weights.stem, {})
    return Student(restorer, load_params(recipe.weights, recipe.param_key), recipe.masked, describe(recipe, card, restorer))


def describe(recipe: Recipe, card: Mapping[str, Any], restorer: Restorer) -> dict[str, str]:
    """Return :attr:`Student.about`; ``card`` is what ``cards.yml`` says of the weights."""
    return {
        'title': card.get('title', recipe.title),
        'task': card.get('task', recipe.title),
        'licence': card.get('licence', UNKNOWN),
        'source': recipe.weights.name,
        'source_sha256': file_digest(recipe.weights),
        'made_by': f'ibmd_basicsr {__version__}',
        'scale': str(recipe.scale),
        'size_multiple': str(restorer.size_multiple * recipe.scale),
        'noise_channels': str(restorer.net.noise_channels),
        'network': json.dumps(recipe.network),
        'bridge': json.dumps(recipe.bridge),
        'sampler': json.dumps(recipe.sampler),
    }
