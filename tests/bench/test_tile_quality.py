"""scripts/tile_quality.py: the table of a shipped student on a photograph of one's own, and what it refuses."""
import sys

import numpy as np
import pytest
from tiny import REPOSITORY, load_script, make_photos

from ibmd_basicsr.benchmarks.tiles import near_seams
from ibmd_basicsr.utils.tiling import plan_tiles

quality = load_script('tile_quality')
OPTIONS = str(REPOSITORY / 'options/test/sr4x_ibmd.yml')


def run(monkeypatch, *arguments) -> int:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(sys, 'argv', ['tile_quality.py', *map(str, arguments)])
    return quality.main()


def test_table(tmp_path, monkeypatch, capsys):
    make_photos(tmp_path, count=1, size=(64, 96))
    assert run(monkeypatch, OPTIONS, '--photos', tmp_path, '--tiles', '32+16', '96+0') == 0
    heading, *lines = (line for line in capsys.readouterr().out.splitlines() if line.startswith('| ') and '---' not in line)
    assert heading == '| tile + halo | photo_0: all | 8 px at seams | elsewhere | to the truth |'
    (small, *values), (large, *same) = ([cell.strip() for cell in line.strip('|').split('|')] for line in lines)
    assert small == '32 + 16' and all(10 < float(value) < 60 for value in values[:3])
    # one tile is the whole image
    assert large == '96 + 0' and same[0] == 'inf' and float(same[3]) == 0


def test_seams_lie_between_cores_in_pixels_of_the_result():
    near = near_seams(plan_tiles(16, 24, 8, 2, 1), 4).numpy()
    rows, columns = np.zeros(64, bool), np.zeros(96, bool)
    rows[24:40] = columns[24:40] = columns[56:72] = True
    assert (near == (rows[:, None] | columns)).all()


@pytest.mark.parametrize('arguments, message', [
    ([OPTIONS, '--photos', 'nowhere'], 'nowhere: no such image folder'),
    ([REPOSITORY / 'options/sr4x_ibmd.yml'], 'is no option file of a test of BridgeModel'),
    ([OPTIONS, '--tiles', '34+8'], '--tiles: 34 is not a multiple of the scale 4.'),
])
def test_wrong_input_is_one_line(monkeypatch, capsys, arguments, message):
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_wrong_tiles_are_told(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, OPTIONS, '--tiles', '2x4')
    assert "--tiles: must be core and halo, such as 192+32, got '2x4'" in capsys.readouterr().err
