"""Values on command lines: what is taken, and the one line that names what is not."""
import argparse

import pytest
import torch

from ibmd_basicsr.cli.arguments import above_zero, find_device, jpeg_quality, pixels, positive
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


@pytest.mark.parametrize('name', ['abacus', 'meta:x', 'cuda:99'])
def test_a_device_that_cannot_be_used_is_one_line(name):
    with pytest.raises(OptionError, match=f'^--device {name}: [^\\n]+$'):
        find_device(name)
