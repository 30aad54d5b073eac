"""The networks of a zoo, a folder with ``weights/cards.yml`` and ``options/``: where it is, and which of them suits a photograph."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ibmd_basicsr.models.recipes import CARDS, Recipe
from ibmd_basicsr.utils.errors import OptionError, printable
from ibmd_basicsr.utils.project import REPOSITORY

OF_PHOTOGRAPHS = ('jpeg', 'sr')
"""What the tasks of networks that take a photograph begin with; of others, such as those that take edges, a photograph becomes nonsense."""


def find_zoo(given: str | None) -> Path:
    """Return the folder that holds ``weights/cards.yml`` and ``options/``: ``given``, else the repository, else the working directory.

    Raises:
        OptionError: it does not.
    """
    places = [Path(given)] if given else [REPOSITORY, Path.cwd()]
    for place in places:
        if (place / 'weights' / CARDS).is_file():
            return place
    if given:
        raise OptionError(f'--zoo {given}: holds no weights/{CARDS}.')
    raise OptionError(f'No networks found: neither {places[0]} nor the working directory holds weights/{CARDS}. They are in the '
                      'repository, not in the installed package: --zoo names a clone of it, or -opt and --weights name a network of your '
                      'own.')


def is_offered(recipe: Recipe) -> bool:
    """Tell whether a network is for a task that can be asked for: from a photograph, and nothing else, to a photograph."""
    return recipe.task.startswith(OF_PHOTOGRAPHS) and not recipe.takes


def recipes_for_task(recipes: Mapping[str, Recipe], task: str) -> list[Recipe]:
    """Return the students for a task whose files are there.

    Raises:
        OptionError: there is none.
    """
    known = [recipe for recipe in recipes.values() if recipe.is_student and is_offered(recipe)]
    found = [recipe for recipe in known if recipe.task == task]
    if not found:
        tasks = sorted({recipe.task for recipe in known})
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
