"""What random option files of comparisons have found: each is a line that names the key, before anything is restored."""
import pytest
from tiny import REPOSITORY

from ibmd_basicsr.compat.options import read_options
from ibmd_basicsr.reporting.pictures import load_image_sets
from ibmd_basicsr.reporting.rows import read_rows
from ibmd_basicsr.utils.errors import OptionError


@pytest.fixture
def opt():
    return read_options(REPOSITORY / 'options/compare/sr4x.yml')


@pytest.mark.parametrize('change, message', [
    ({'grid': 3.5}, 'grid: must be a block of keys, got 3.5'), ({'grid': {'columns': 3}}, 'grid.columns: must be a list of rows, got 3'),
    ({'grid': {'crop': 'x'}}, "grid.crop: must be an integer from 1 to 4096, got 'x'"), ({'grid': {'zoom': 0}}, 'grid.zoom: must be'),
    ({'grid': {'images': 10**9}}, 'grid.images: must be an integer from 1 to 1000, got 1000000000'),
    ({'scale': True}, 'scale: must be an integer from 1 to 64, got True'), ({'name': None}, 'name: must be text, got None'),
    ({'output': 3}, 'output: must be text, got 3'), ({'output': 'a\nb'}, r"output: must be text, got 'a\\nb'"),
    ({'crops_after': 3}, 'crops_after: must be text such as "_", got 3'), ({'crops_after': ''}, "crops_after: must be text such as"),
    ({'crop_border': 'x'}, "crop_border: must be an integer from 0 to 4096, got 'x'"), ({'manual_seed': -1}, 'manual_seed: must be'),
    ({'restorers': [{'name': 'x', 'kind': []}]}, r"restorers\[0\] \(x\).kind: must be one of .*, got \[\]"),
    ({'restorers': [{'name': 'a\x1bb', 'kind': 'input'}]}, r"restorers\[0\].*name: names a folder"),
    ({'restorers': [{'name': 'x', 'kind': 'ncnn', 'weights': 'x', 'channels': {}}]}, 'channels: must be one of')])
def test_rows(change, message, opt):
    with pytest.raises(OptionError, match=message) as error:
        read_rows(opt | change)
    assert str(error.value).isprintable()


@pytest.mark.parametrize('change, message', [
    ({'dataroot_gt': 3}, r'dataset.dataroot_gt: must be text, got 3'), ({'type': {}}, 'dataset.type: must be one of .*, got {}'),
    ({'type': None}, 'dataset.type: must be one of .*, got None'), ({'type': ''}, 'dataset.type: must be one of'),
    ({'io_backend': 3}, 'dataset.io_backend: must be a block of keys, got 3')])
def test_data_sets(change, message, opt, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(OptionError, match=message):
        load_image_sets(opt | {'dataset': opt['dataset'] | change}, 1)
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('change', [{'dataroot_gt': 0.0}, {'dataroot_lq': -1}, {'io_backend': 10**6}, {'io_backend': {'type': 3}},
                                    {'filename_tmpl': None}], ids=str)
def test_data_sets_of_the_host(change, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    opt = read_options(REPOSITORY / 'options/compare/normals.yml')
    with pytest.raises(OptionError, match='dataset'):
        load_image_sets(opt | {'dataset': opt['dataset'] | change}, 1)
