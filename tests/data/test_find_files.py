"""Folders of photographs as people have them: subfolders, and what operating systems leave behind."""
import cv2
import numpy as np
import pytest
from tiny import make_photos

from ibmd_basicsr.data.degraded_image_dataset import DegradedImageDataset
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.files import find_files
from ibmd_basicsr.utils.image_sets import EXTENSIONS, list_images, read_images


@pytest.fixture
def folder(tmp_path):
    make_photos(make_photos(tmp_path / 'photos', 2) / 'more', 1)
    for name in ('.DS_Store', '._photo_0.png', 'notes.txt', '.thumbnails/photo_9.png'):
        file = tmp_path / 'photos' / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b'no image')
    (tmp_path / 'photos' / 'LOUD.PNG').write_bytes((tmp_path / 'photos' / 'photo_0.png').read_bytes())
    return tmp_path / 'photos'


def test_hidden_files_are_left_out(folder):
    expected = ['LOUD.PNG', 'more/photo_0.png', 'photo_0.png', 'photo_1.png']
    assert list_images(folder) == find_files(folder, ('.png',)) == expected
    assert len(list(read_images(folder))) == 4


def test_data_sets_and_metrics_take_the_same_files_for_images(tmp_path):
    """Of every ending that is listed, a clean photograph for the one is a reference image for the other."""
    picture = np.full((8, 8, 3), 90, np.uint8)
    for ending in EXTENSIONS:
        (tmp_path / f'{ending[1:]}{ending}').write_bytes(cv2.imencode(ending, picture)[1].tobytes())
    dataset = DegradedImageDataset({'name': 'x', 'phase': 'val', 'dataroot_lq': str(tmp_path)})
    assert len(dataset) == len(list(read_images(tmp_path))) == len(EXTENSIONS)


def test_links_to_folders_are_followed_once(folder, tmp_path):
    make_photos(tmp_path / 'elsewhere', 1)
    (folder / 'linked').symlink_to(tmp_path / 'elsewhere')
    before = find_files(folder, ('.png',))
    assert 'linked/photo_0.png' in before
    (folder / 'round').symlink_to(folder)
    (folder / 'more' / 'up').symlink_to(folder)
    assert find_files(folder, ('.png',)) == before


def test_a_folder_that_cannot_be_read_is_no_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        find_files(tmp_path / 'nowhere', ('.png',))


@pytest.mark.parametrize('key', ['dataroot_gt', 'dataroot_lq', 'dataroot_mask'])
def test_an_empty_text_is_not_the_working_directory(key):
    with pytest.raises(OptionError, match=f'datasets.x.{key}: must name a folder, got an empty text'):
        DegradedImageDataset({'name': 'x', key: ''})
