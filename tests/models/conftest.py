"""Fixtures of the tests of models."""
import pytest
from helpers import FLAT
from tiny import make_photos, make_teacher


@pytest.fixture(scope='module')
def flat(tmp_path_factory):
    """A world of networks of one level."""
    folder = tmp_path_factory.mktemp('flat')
    make_photos(folder / 'photos')
    make_teacher(folder, **FLAT)
    return folder
