"""Values on command lines: what is taken, and the one line that names what is not."""
import argparse
import importlib
import tempfile

import pytest
import torch

from ibmd_basicsr.cli.arguments import above_zero, find_device, jpeg_quality, pixels, positive, prepare_folder
from ibmd_basicsr.cli.pipelines import make_parser
from ibmd_basicsr.utils.errors import OptionError


@pytest.mark.parametrize('read, text, value', [(positive, '3', 3), (pixels, '0', 0), (above_zero, '0.5', 0.5), (jpeg_quality, '100', 100)])
def test_numbers_within_their_bounds(read, text, value):
    assert read(text) == value


@pytest.mark.parametrize('read, text, message', [
    (positive, '0', "must be a positive integer, got '0'"), (positive, '2.5', "must be a positive integer, got '2.5'"),
    (pixels, '-1', "must be a number of pixels, 0 or more, got '-1'"), (above_zero, '0', "must be a number above 0, got '0'"),
    (above_zero, 'nan', "must be a number above 0, got 'nan'"), (jpeg_quality, '0', "must be a JPEG quality, 1 to 100, got '0'"),
    (jpeg_quality, '101', "must be a JPEG quality, 1 to 100, got '101'")])
def test_others_are_named(read, text, message):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        read(text)
    assert str(error.value) == message


@pytest.mark.parametrize('there, kind', [(False, 'cpu'), (True, 'cuda')])
def test_default_device_is_a_gpu_if_there_is_one(there, kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: there)
    monkeypatch.setattr(torch, 'empty', lambda *_, **__: None)
    assert find_device(None).type == kind and find_device('cpu').type == 'cpu'


def test_a_device_that_cannot_be_used_is_one_line():
    with pytest.raises(OptionError, match=r'^--device cuda:99: [^\n]+$'):
        find_device('cuda:99')


@pytest.mark.parametrize('name', ['gpu', 'abacus', 'meta', 'mps', 'cuda:', 'cuda:x', ''])
def test_a_device_of_no_such_name_is_told_what_there_is(name):
    with pytest.raises(OptionError) as error:
        find_device(name)
    assert str(error.value) == f'--device: must be cpu, cuda or cuda:N, got {name!r}.'


@pytest.mark.parametrize('command, arguments, line', [
    ('restore', ['x.png', '--tile', 'abc'], "argument --tile: must be a number of pixels, 0 or more, got 'abc'"),
    ('compare', [], 'the following arguments are required: -opt'), ('compare', ['-opt', 'x.yml', '--lmit', '3'], 'unrecognized arguments'),
    ('create_lmdb', ['in'], 'the following arguments are required: OUTPUT.lmdb'), ('doctor', ['--jso\x1b'], 'unrecognized arguments'),
    ('export', ['x.pth'], 'the following arguments are required: -o'), ('bench', ['--parts', 'z'], 'argument --parts: invalid choice'),
    ('import_checkpoint', [], 'the following arguments are required: FILE')])
def test_what_is_wrong_with_a_command_line_is_one_line(command, arguments, line, capsys):
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f'ibmd_basicsr.cli.{command}').main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and len(error.splitlines()) == 1 and error.removesuffix('\n').isprintable()
    assert line in error and error.startswith('error: ') and error.endswith('; --help shows examples.\n')


@pytest.mark.parametrize('is_train', [True, False])
def test_training_and_testing_tell_it_in_one_line(is_train, capsys):
    with pytest.raises(SystemExit) as stop:
        make_parser(is_train).parse_args(['--debug'])
    assert stop.value.code == 2
    assert capsys.readouterr().err == 'error: the following arguments are required: -opt; --help shows examples.\n'


def test_auto_resume_is_taken_with_both_kinds_of_dashes():
    for name in ('--auto_resume', '--auto-resume'):
        assert make_parser(is_train=True).parse_args(['-opt', 'x.yml', name]).auto_resume


def test_a_folder_for_results_is_made(tmp_path):
    prepare_folder(tmp_path / 'a' / 'b')
    assert list((tmp_path / 'a' / 'b').iterdir()) == []


@pytest.mark.parametrize('name', ['file', 'file/below'])
def test_a_file_is_no_folder_for_results(name, tmp_path):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(OptionError, match=f'^-o {tmp_path}/{name}: is a file, or lies in one; name a folder.$'):
        prepare_folder(tmp_path / name)


def test_a_folder_that_takes_no_files(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, 'Permission denied', dir)
    monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
    with pytest.raises(OptionError, match=rf'^-o {tmp_path}: cannot be written to \(Permission denied\).$'):
        prepare_folder(tmp_path)
