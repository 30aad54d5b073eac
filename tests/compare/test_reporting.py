"""The parts of reports: store, table, grid."""
import json

import numpy as np
import pytest

from ibmd_basicsr.reporting.grid import Cell, most_detailed, picture_grid
from ibmd_basicsr.reporting.results import ResultStore, fingerprint
from ibmd_basicsr.reporting.tables import Column, markdown_table, mean


def test_store_survives_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / 'a' / 'results.jsonl'
    store = ResultStore(path)
    store.add({'dataset': 'd', 'row': 'r', 'image': 'i', 'fingerprint': 'f', 'psnr': 1.5})
    with path.open('a') as file:
        file.write('{"row": "r", "image": "j", "finge')
    store = ResultStore(path)
    assert store.get('d', 'r', 'i', 'f')['psnr'] == 1.5
    assert store.get('d', 'r', 'j', 'f') is None
    store.add({'dataset': 'd', 'row': 'r', 'image': 'j', 'fingerprint': 'f', 'psnr': float('inf')})
    assert ResultStore(path).get('d', 'r', 'j', 'f')['psnr'] == float('inf')


def test_store_passes_over_lines_that_are_no_results(tmp_path):
    path = tmp_path / 'results.jsonl'
    record = {'dataset': 'd', 'row': 'r', 'image': 'i', 'fingerprint': 'f'}
    lines = ['3', 'null', '[]', '"row"', '{"row": "r"}', '{"row": "r", "image": "i"}', json.dumps(record | {'dataset': []}),
             json.dumps(record | {'row': {}}), json.dumps(record | {'fingerprint': 3})]
    path.write_text('\n'.join([*lines, json.dumps(record), *lines]) + '\n')
    assert ResultStore(path).get('d', 'r', 'i', 'f') == record


def test_store_knows_changed_origins_and_can_forget(tmp_path):
    path = tmp_path / 'results.jsonl'
    store = ResultStore(path)
    store.add({'dataset': 'd', 'row': 'r', 'image': 'i', 'fingerprint': fingerprint({'a': 1}, 2)})
    assert store.get('d', 'r', 'i', fingerprint({'a': 1}, 2))
    assert store.get('d', 'r', 'i', fingerprint({'a': 1}, 3)) is None
    assert ResultStore(path, fresh=True).get('d', 'r', 'i', fingerprint({'a': 1}, 2)) is None


def test_table_marks_the_best_in_its_direction():
    rows = {'a': {'x': 1.0, 'y': 2.0, 'n': 5}, 'b': {'x': 3.0, 'y': 4.0, 'n': None}}
    table = markdown_table(rows, [Column('n', 'calls', 0), Column('x', 'X', 1, 'higher'), Column('y', 'Y', 2, 'lower')])
    head, rule, a, b = ([cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines())
    assert head == ['restorer', 'calls', 'X ↑', 'Y ↓']
    assert all(set(cell) <= {'-', ':'} for cell in rule)
    assert a == ['a', '5', '1.0', '**2.00**']
    assert b == ['b', '', '**3.0**', '4.00']
    assert mean([1.0, None, 3.0]) == 2 and mean([None]) is None


def test_most_detailed_square_is_found():
    image = np.zeros((90, 120, 3), np.uint8)
    image[40:60, 70:90] = np.random.default_rng(0).integers(0, 255, (20, 20, 3))
    top, left, side = most_detailed(image, 24)
    assert side == 24
    assert top <= 40 and top + 24 >= 60 and left <= 70 and left + 24 >= 90
    assert most_detailed(image, 200)[2] == 90


def test_grid_has_the_right_size_and_holds_the_pixels():
    rng = np.random.default_rng(0)
    truth, other = (rng.integers(0, 255, (64, 48, 3), dtype=np.uint8) for _ in range(2))
    rows = [[Cell(other, 'LPIPS 0.1', True), Cell(truth, 'name')]] * 2
    grid = picture_grid(rows, ['a', 'ground truth'], crop=20, zoom=4)
    # 2 columns of 80; a row: picture 107, gap 6, detail 80, caption 44, gap 6
    assert grid.shape == (2 * 14 + 40 + 2 * (107 + 6 + 80 + 44 + 6), 2 * 14 + 2 * 80 + 6, 3)
    top, left, side = most_detailed(truth, 20)
    detail = grid[14 + 40 + 107 + 6:, 14 + 80 + 6:][:80:4, :80:4]
    np.testing.assert_array_equal(detail, truth[top:top + side, left:left + side])
    with pytest.raises(ValueError, match='rows of 1 pictures'):
        picture_grid(rows, ['a'])
