"""Fixtures shared by all tests."""
import pytest
import torch
from tiny import make_photos, make_teacher


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
