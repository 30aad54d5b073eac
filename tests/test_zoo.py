"""scripts/zoo.py: stages in order, what is done is not done again, stops and failures are told, finished networks are exported."""
import sys

import pytest
import torch
import yaml
from tiny import REPOSITORY, load_script

from ibmd_basicsr.compat.options import read_option_file

zoo = load_script('zoo')

SAVE = """
import pathlib, shutil, sys
with open('order.txt', 'a') as file:
    print(sys.argv[1], file=file)
pathlib.Path(sys.argv[2]).parent.mkdir(parents=True)
shutil.copy('trained.pth', sys.argv[2])
"""
"""Saved weights need no torch, whose import would be most of the time of these tests."""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of two networks whose trainings are a line of Python."""
    monkeypatch.setattr(zoo, 'ROOT', tmp_path)
    torch.save({'params_ema': {'weight': torch.arange(3.)}}, tmp_path / 'trained.pth')
    monkeypatch.setattr(zoo.Stage, 'command', lambda stage: [sys.executable, '-c', SAVE, stage.experiment, str(stage.result)])
    for name in ('teacher', 'student', 'peer'):
        (tmp_path / f'{name}.yml').write_text(f'name: {name}_run\n')
    recipes = {'ours': {'about': 'x', 'stages': [{'file': 'teacher.yml'}, {'file': 'student.yml', 'change': ['a=1']}],
                        'export': {'ours_student': 'student_run'}},
               'theirs': {'about': 'y', 'stages': [{'file': 'peer.yml'}]}}
    (tmp_path / 'zoo.yml').write_text(yaml.safe_dump(recipes))
    return tmp_path


def run(project, *arguments):
    return zoo.main(['--recipes', str(project / 'zoo.yml'), '--export', str(project / 'out'), *arguments])


def test_stages_in_order_once_and_exported(project, capsys):
    assert run(project, 'ours', 'theirs') == 0
    assert (project / 'order.txt').read_text().split() == ['teacher_run', 'student_run', 'peer_run']
    weight = torch.load(project / 'out/ours_student.pth', weights_only=True)['params_ema']['weight']
    assert weight.dtype == torch.float16 and weight.tolist() == [0, 1, 2]
    assert 'ours: done' in capsys.readouterr().out
    assert run(project, 'ours', 'theirs') == 0
    assert len((project / 'order.txt').read_text().split()) == 3, 'nothing is trained twice'
    assert run(project, '--list') == 0
    assert capsys.readouterr().out.count('[x]') == 3


def test_a_failure_is_one_line_and_the_others_go_on(project, monkeypatch, capsys):
    command = zoo.Stage.command
    monkeypatch.setattr(zoo.Stage, 'command', lambda stage: [sys.executable, '-c', 'import sys; sys.exit("error: no photographs")']
                        if stage.experiment == 'student_run' else command(stage))
    assert run(project, 'ours', 'theirs') == 1
    printed = capsys.readouterr()
    assert 'error: ours: student_run: error: no photographs (all of it: experiments/student_run.zoo.log)' in printed.err
    assert 'ours: failed' in printed.out and 'theirs: done' in printed.out


@pytest.mark.parametrize(('content', 'reason'), [
    ({'params': {'weight': torch.ones(1)}}, "has no 'params_ema'"),
    ({'params_ema': {'weight': torch.tensor([1e6])}}, 'weight has values that are not finite as float16'),
])
def test_a_network_that_cannot_be_exported_is_one_line(project, capsys, content, reason):
    torch.save(content, project / 'trained.pth')
    assert run(project, 'ours') == 1
    errors = capsys.readouterr().err
    assert 'error: ours: ours_student: ' in errors and reason in errors and not (project / 'out/ours_student.pth').exists()


def test_minutes_stop_and_the_same_command_goes_on(project, monkeypatch, capsys):
    command = zoo.Stage.command
    monkeypatch.setattr(zoo.Stage, 'command', lambda stage: [sys.executable, '-c', 'import time; time.sleep(60)'])
    assert run(project, 'theirs', '--minutes', '0.005') == 3
    assert 'stopped by --minutes; the same command goes on.' in capsys.readouterr().out
    monkeypatch.setattr(zoo.Stage, 'command', command)
    assert run(project, 'theirs') == 0


@pytest.mark.parametrize('text, message', [
    ('a: {about: x, stages: [{file: nowhere.yml}]}', 'a.stages[0].file: nowhere.yml: no such file'),
    ('a: {about: x, stages: [], exports: {}}', "unknown key 'exports', did you mean 'export'?"),
    ('a: {about: x, stages: [{file: peer.yml}], export: {f: other}}', 'a.export.f: other is none of its stages'),
])
def test_wrong_recipes_are_refused(project, capsys, text, message):
    (project / 'zoo.yml').write_text(text)
    assert run(project, 'a') == 2
    assert message in capsys.readouterr().err


def test_unknown_network(project, capsys):
    assert run(project, 'mine') == 2
    assert "no network 'mine'. Known: ours, theirs." in capsys.readouterr().err


def test_shipped_recipes_name_their_teachers():
    networks = zoo.read_recipes(zoo.RECIPES)
    for network in networks.values():
        for before, stage in zip(network.stages, network.stages[1:]):
            opt = read_option_file(REPOSITORY / stage.file)
            needed = (opt.get('teacher') or {}).get('weights') or opt['path']['pretrain_network_g']
            needed = next((change.split('=')[1] for change in stage.change if change.startswith('teacher:weights=')), needed)
            assert needed == f'experiments/{before.experiment}/models/net_g_latest.pth', stage.file
