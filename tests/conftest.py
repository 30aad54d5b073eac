"""Fixtures shared by all tests."""
import pytest
import torch
from tiny import make_photos, make_teacher

from ibmd_basicsr.utils.ending import note_states


@pytest.fixture(autouse=True)
def _no_earlier_run():
    """A run in this process notes where its states lie, for what it says when it ends."""
    note_states(None)


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def world(tmp_path):
    """A folder with three pictures and a teacher."""
    make_photos(tmp_path / 'photos')
    make_teacher(tmp_path)
    return tmp_path
