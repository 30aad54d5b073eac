"""Weights that a card speaks of, whatever their file is called: whether they are used for what they were made for."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ibmd_basicsr.models.recipes import WEIGHT_FOLDERS, Recipe, read_cards, recipe_of_weights
from ibmd_basicsr.utils.errors import OptionError, printable
from ibmd_basicsr.utils.files import file_digest

LEAST_DIGITS = 8
"""Of a sha256 in a card, which holds its first digits."""


def known_recipe(file: Path, folders: Sequence[Path] = WEIGHT_FOLDERS) -> Recipe | None:
    """Return the network of the card that speaks of a weight file, None if no card does.

    Cards know files by their sha256. A file is read only where one beside the cards has its size: large ones cost nothing.

    Args:
        file: weights.
        folders: hold weights and ``cards.yml``.
    """
    if not file.is_file():
        return None
    size, digest = file.stat().st_size, None
    for folder in folders:
        same = [path for path in sorted(folder.glob('*.pth')) if path.stat().st_size == size]
        if not same:
            continue
        try:
            cards = read_cards(folder)
            for path in same:
                told = str(cards.get(path.stem, {}).get('sha256', ''))
                digest = digest or file_digest(file)
                if len(told) >= LEAST_DIGITS and digest.startswith(told):
                    return recipe_of_weights(path)
        except OptionError:  # cards that cannot be read know nothing, and baselines are no bridges
            continue
    return None


def misuse(file: Path, task: str, scale: int, user: str) -> str | None:
    """Return a line about weights that were made for something else, None where nothing is known against them.

    Args:
        file: weights.
        task: as of :class:`~ibmd_basicsr.models.recipes.Recipe`; empty where it is not known.
        scale: enlargement.
        user: the option file, for the line.
    """
    known = known_recipe(file)
    if known is None or (known.scale == scale and (known.task == task or not known.task or not task)):
        return None
    name = '' if known.name == file.stem else f' (which are {known.name})'
    return (f'{printable(file, 400)}: these weights{name} were made for {_shown(known.task, known.scale)}, '
            f'but {printable(user, 400)} is for {_shown(task, scale)}.')


def _shown(task: str, scale: int) -> str:
    return f'{task or "a task"} at scale {scale}'
