"""Checksums of archives, and small weight files for distribution."""
import sys
import zipfile

import pytest
import torch
from tiny import load_script

from ibmd_basicsr.checkpoints.conversion import export_half
from ibmd_basicsr.checkpoints.state_dict import load_file
from ibmd_basicsr.utils.errors import CheckpointError
from ibmd_basicsr.utils.files import file_digest
from ibmd_basicsr.utils.torch_files import UnreadableFile, check_records

STATE = {'weight': torch.arange(6.).view(2, 3).T, 'steps': torch.tensor(70_000)}


@pytest.fixture
def checkpoint(tmp_path):
    torch.save({'params': {}, 'params_ema': STATE}, tmp_path / 'net_g_latest.pth')
    return tmp_path / 'net_g_latest.pth'


def test_a_flipped_bit_is_found_and_named(checkpoint):
    check_records(checkpoint)
    content = bytearray(checkpoint.read_bytes())
    content[content.index(torch.arange(6.).numpy().tobytes()) + 3] ^= 1
    checkpoint.write_bytes(content)
    load_file(checkpoint)  # torch does not see it
    with pytest.raises(UnreadableFile, match='^is damaged, the checksum of data/0 is wrong$'):
        check_records(checkpoint)


def test_archives_that_cannot_be_walked_are_refused_and_others_pass(checkpoint, tmp_path):
    with zipfile.ZipFile(checkpoint) as archive:
        start = archive.start_dir
    content = bytearray(checkpoint.read_bytes())
    content[start] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(UnreadableFile, match='^is damaged '):
        check_records(checkpoint)
    (tmp_path / 'old').write_bytes(b'no archive')
    check_records(tmp_path / 'old')


def test_export_has_ema_weights_in_half_precision(checkpoint, tmp_path):
    output = tmp_path / 'weights/small.pth'
    assert export_half(checkpoint, output) == file_digest(output)
    content = load_file(output)
    assert list(content) == ['params_ema'] and list(content['params_ema']) == list(STATE)
    weight, steps = content['params_ema'].values()
    assert weight.dtype == torch.float16 and torch.equal(weight.float(), STATE['weight'])
    assert steps.dtype == torch.int64 and steps == 70_000


def test_export_refuses_what_half_precision_cannot_hold(tmp_path):
    torch.save({'params_ema': {'weight': torch.tensor([70_000.])}}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='weight has values that are not finite as float16'):
        export_half(tmp_path / 'a.pth', tmp_path / 'b.pth')
    assert not (tmp_path / 'b.pth').exists()


def test_the_script_says_what_it_wrote(checkpoint, tmp_path, capsys, monkeypatch):
    script, output = load_script('export_weights'), tmp_path / 'small.pth'
    monkeypatch.setattr(sys, 'argv', ['export_weights.py', str(checkpoint), str(output)])
    assert script.main() == 0
    assert capsys.readouterr().out == f'{output}: {output.stat().st_size:,} bytes, sha256 {file_digest(output)}\n'
    assert script.main([str(checkpoint), str(output), '--param_key', 'ema']) == 2
    assert capsys.readouterr().err.startswith(f"error: {checkpoint}: has no 'ema'")
