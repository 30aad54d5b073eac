"""Rows of a comparison against each other image by image, and tables read back from documents."""
import math
import statistics

import numpy as np
import pytest
from tiny import REPOSITORY

from ibmd_basicsr.reporting.documents import SUMMARY, TABLE, cells, read_tables
from ibmd_basicsr.reporting.pairs import Row, clustered_error, paired, read_rows, read_sets, set_difference


def row(name: str, *values: float) -> Row:
    return Row(name, 1, {('photos', str(number)): value for number, value in enumerate(values)})


def test_mean_error_and_wins():
    pair = paired(row('a', 0.1, 0.4, 0.2, 0.3), row('b', 0.2, 0.3, 0.4, 0.3))
    assert (pair.wins, pair.images) == (2, 4)  # a tie is nobody's
    assert pair.difference == pytest.approx(-0.05)
    assert pair.standard_error == pytest.approx(math.sqrt((0.05**2 + 0.15**2 + 0.15**2 + 0.05**2) / 3 / 4))


def test_images_are_matched_by_name_not_by_place():
    first = row('a', 0.1, 0.4)
    second = Row('b', 1, dict(reversed(row('b', 0.2, 0.5).scores.items())))
    assert paired(first, second).standard_error == pytest.approx(0)


def test_a_single_image_has_no_error():
    assert paired(row('a', 0.1), row('b', 0.2)).standard_error is None


def test_rows_of_other_images_are_refused():
    with pytest.raises(ValueError, match='a has 2 images, b has 1 or others: run the comparison to its end'):
        paired(row('a', 0.1, 0.4), row('b', 0.2))


def test_rows_are_read_in_order(tmp_path):
    file = tmp_path / 'results.csv'
    file.write_text('dataset,row,image,calls,lpips\nphotos,teacher@20,x,20,0.5\nphotos,student,x,1.0,0.25\nphotos,student,y,1.0,0.75\n')
    rows = read_rows(file, 'lpips')
    assert [(found.name, found.calls, found.mean) for found in rows.values()] == [('teacher@20', 20, 0.5), ('student', 1, 0.5)]
    file.write_text('dataset,row,image,calls,lpips\nphotos,student,x,1,\n')
    with pytest.raises(ValueError, match='results.csv: no lpips of student on x'):
        read_rows(file, 'lpips')


def test_values_of_sets_are_compared_group_by_group(tmp_path):
    file = tmp_path / 'sets.csv'
    lines = [('a', 3.0, 2.0, 4.0), ('b', 2.0, 1.5, 2.0)]
    file.write_text('dataset,row,metric,left_out,value\n' + ''.join(
        f'photos,{name},FD,{group},{value}\n' for name, *values in lines for group, value in enumerate(values)) + 'few,b,FD,0,\n')
    rows = read_sets(file)['FD']
    assert rows == {'a': [{'0': 3.0, '1': 2.0, '2': 4.0}], 'b': [{'0': 2.0, '1': 1.5, '2': 2.0}]}
    # differences 0.5 and 2 without each of two groups
    assert set_difference(rows['a'][0], rows['b'][0]) == (1.0, pytest.approx(math.sqrt(0.5 * (0.75**2 + 0.75**2))))
    assert set_difference({'0': 3.0}, {'0': 1.0}) == (2.0, None)
    with pytest.raises(ValueError, match='2 and 1 groups were left out: run the comparison to its end'):
        set_difference(rows['a'][0], {'0': 1.0, '1': 1.0})


def test_a_table_is_read_back():
    text = ('# Document\n## A task\n<!-- table: results/compare/tiny -->\n| restorer | LPIPS ↓ |\n| --- | ---: |\n| teacher@1 | 0.5 |\n'
            '| student | **0.4** |\n\nMeans over 2 images.\n\n* `compare -opt tiny.yml`, 2026-01-02\n* machine\n'
            '* teacher@1, teacher@5: `a.pth` (sha256 0123abcd..., params_ema), 5 parameters\n<!-- end of table -->\n## Next\n')
    table = read_tables(text)['results/compare/tiny']
    assert (table.heading, table.explanation) == ('A task', 'Means over 2 images.')
    assert (table.command, table.date) == ('compare -opt tiny.yml', '2026-01-02')
    assert table.rows == {'teacher@1': {'restorer': 'teacher@1', 'LPIPS ↓': '0.5'}, 'student': {'restorer': 'student', 'LPIPS ↓': '0.4'}}
    assert table.weights == {'teacher@1': ('a.pth', '0123abcd'), 'teacher@5': ('a.pth', '0123abcd')}
    assert read_tables('<!-- table: x -->\n<!-- end of table -->')['x'].rows == {}


@pytest.mark.parametrize('document', sorted((REPOSITORY / 'docs').glob('*.md')), ids=lambda path: path.stem)
def test_summaries_hold_the_means_of_the_tables_below(document):
    text = document.read_text(encoding='utf-8')
    tables = {table.heading: table for table in read_tables(text).values()}
    for summary in SUMMARY.finditer(text):
        if summary['name'].startswith('versus:'):
            continue
        lines = [cells(line) for line in summary['body'].splitlines()[2:]]
        assert [line[0] for line in lines] == list(tables)
        for task, *sides in lines:
            for role, side in zip(('student', 'teacher'), sides):
                value, calls = side.split(' at ')
                means = {found['calls']: found['LPIPS ↓'] for name, found in tables[task].rows.items() if name.startswith(role)}
                assert means[calls.split()[0]] == value
                if summary['name'] == 'best':
                    assert value == min(means.values())


@pytest.mark.parametrize('document', sorted((REPOSITORY / 'docs').glob('*.md')), ids=lambda path: path.stem)
def test_differences_are_those_of_the_means_in_the_tables(document):
    text = document.read_text(encoding='utf-8')
    tables = read_tables(text)
    for summary in SUMMARY.finditer(text):
        if not summary['name'].startswith('versus:'):
            continue
        folder, _, first = summary['name'].removeprefix('versus:').partition(':')
        rows, first = tables[folder].rows, first or 'student'
        heading, _, *lines = [cells(line) for line in summary['body'].splitlines()]
        assert {line[0] for line in lines} == rows.keys() - {first}
        for name, *differences in lines:
            for title, difference in zip(heading[1:], differences):
                column = next(column for column in rows[first] if column.startswith(title))
                numbers = [rows[first][column], rows[name][column], difference.split(' ± ')[0].replace('−', '-')]
                ours, theirs, value = map(float, numbers)
                assert abs(value - (ours - theirs)) <= 1.01 * sum(map(half_of_the_last_digit, numbers)), (name, title)


def half_of_the_last_digit(number: str) -> float:
    return 0.5 * 10.0**-len(number.partition('.')[2])


def test_the_documents_have_tables_and_summaries():
    texts = [document.read_text(encoding='utf-8') for document in (REPOSITORY / 'docs').glob('*.md')]
    assert sum(len(SUMMARY.findall(text)) for text in texts) == 11 and sum(len(TABLE.findall(text)) for text in texts) >= 9


def test_crops_of_one_photograph_count_as_one(tmp_path):
    """Two crops that are copies of each other carry the error of one; crops that know nothing of each other the usual one."""
    values = [0.1, -0.2, 0.4, 0.3, -0.5]
    single = clustered_error([[value] for value in values])
    assert single == pytest.approx(statistics.stdev(values) / 5**0.5, rel=1e-12)
    assert clustered_error([[value, value] for value in values]) == pytest.approx(single, rel=1e-12)
    assert clustered_error([values]) is None
    lines = ['dataset,row,image,photograph,calls,lpips']
    for row, sign in (('a', 1), ('b', 0)):
        lines += [f'photos,{row},{number}_{crop},{number},1,{sign * value}' for number, value in enumerate(values) for crop in 'xy']
    (tmp_path / 'results.csv').write_text('\n'.join(lines) + '\n')
    rows = read_rows(tmp_path / 'results.csv', 'lpips')
    pair = paired(rows['a'], rows['b'])
    assert pair.standard_error == pytest.approx(single, rel=1e-12) and pair.images == 10


def test_the_clustered_error_is_the_spread_over_repeated_samples():
    """Means of 8 photographs with 4 crops each, whose crops share most of their noise, six hundred times."""
    random = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(600):
        crops = random.normal(size=(8, 1)) + 0.5 * random.normal(size=(8, 4))
        means.append(crops.mean())
        errors.append(clustered_error(crops.tolist()))
    assert statistics.fmean(errors) == pytest.approx(statistics.stdev(means), rel=0.1)
