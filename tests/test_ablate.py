"""scripts/ablate.py: changes block by block, every shipped variant is accepted, a tiny ablation runs, stops where it must and resumes."""
import os
import subprocess
import sys

import pytest
import yaml
from tiny import REPOSITORY, forked_command, load_script, make_photos, make_teacher, options, parsed

from ibmd_basicsr.models.option_rules import check_options
from ibmd_basicsr.utils.errors import OptionError

ablate = load_script('ablate')
FILES = sorted((REPOSITORY / 'options/ablations').glob('*.yml'))


def test_changes_go_block_by_block():
    base = {'a': {'b': 1, 'c': [1, 2]}, 'd': 4}
    assert ablate.merged(base, {'a': {'b': 2}, 'd': None, 'e': {'f': 5}}) == {'a': {'b': 2, 'c': [1, 2]}, 'e': {'f': 5}}
    assert base == {'a': {'b': 1, 'c': [1, 2]}, 'd': 4}


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_every_shipped_variant_is_accepted(file):
    content, runs = ablate.read_runs(file, None)
    assert len(content['seeds']) >= 3 and len(runs) == len(content['seeds']) * len(content['variants'])
    assert len({opt['name'] for opt in runs.values()}) == len(runs)
    for opt in runs.values():
        for phase, block in opt['datasets'].items():
            assert 'photos/test' not in str(block), 'settings are not chosen on the test photographs'
            block |= {'phase': phase, 'scale': opt['scale']}
        check_options(parsed(opt) | {'num_gpu': 0})


def test_unknown_keys_are_refused(tmp_path):
    (tmp_path / 'a.yml').write_text('base: options/sr4x_ibmd.yml\nseeds: [0]\nvariant: {}\noutput: x\n')
    with pytest.raises(OptionError, match="'variant', did you mean 'variants'"):
        ablate.read_runs(tmp_path / 'a.yml', None)


def test_a_tiny_ablation(tmp_path, monkeypatch, capsys):
    make_photos(tmp_path / 'photos', 2, (32, 32))
    make_teacher(tmp_path)
    base = options(tmp_path, 'IBMDModel', train__total_iter=3, logger__save_checkpoint_freq=1000)
    (tmp_path / 'base.yml').write_text(yaml.safe_dump(base))
    (tmp_path / 'tiny.yml').write_text(yaml.safe_dump({
        'base': 'base.yml', 'seeds': [0, 1], 'output': 'results/tiny',
        'variants': {'base': {}, 'broken': {'teacher': {'weights': 'nowhere.pth'}}}}))
    monkeypatch.setattr(ablate, 'ROOT', tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(REPOSITORY))
    real_run = subprocess.run

    def run(command, *, cwd, env, stdout, stderr):
        if command[-1].endswith('tiny_base_s0.yml'):  # one as a user has it, the others quicker
            return real_run(command, cwd=cwd, env=env, stdout=stdout, stderr=stderr)
        assert command[:3] == [sys.executable, '-m', 'ibmd_basicsr.train'] and env == os.environ | {'OMP_NUM_THREADS': '1'}
        result = forked_command(*command[3:], cwd=cwd)
        stdout.write(result.stdout + result.stderr)
        return result

    monkeypatch.setattr(ablate.subprocess, 'run', run)
    monkeypatch.setattr(sys, 'argv', ['ablate.py', str(tmp_path / 'tiny.yml'), '--jobs', '2'])
    monkeypatch.setattr(ablate, 'measure', lambda *_: {'lpips': 0.5, 'texture_distance': 1.0, 'psnr': 20.0})
    monkeypatch.setattr(ablate, 'mean_pairwise_lpips', lambda *_, **__: 0.25)
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as only_table:
        only_table.setattr(sys, 'argv', [*sys.argv, '--table'])
        assert ablate.main() == 0
        assert '* not run yet: base, ' in (tmp_path / 'results/tiny/table.md').read_text()
    assert ablate.main() == 1
    text = (tmp_path / 'results/tiny/table.md').read_text()
    assert '| base | 2 | 0.5000 ± 0.0000 |' in text and '| broken | 0 |' in text
    assert '**tiny_broken_s0 failed**: error:' in text and 'nowhere.pth' in text
    assert 'tiny_broken_s1: error' in capsys.readouterr().err

    monkeypatch.setattr(ablate, 'judge', lambda *_: pytest.fail('measured again'))
    assert ablate.main() == 1
