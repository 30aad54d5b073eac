"""scripts/publish_results.py: tables, summaries and pictures from a comparison's folder; what was not run here stays or stops it."""
import sys

import cv2
import numpy as np
import pytest
from tiny import load_script

publish = load_script('publish_results')

DOCUMENT = """# Tasks
<!-- summary: aim -->
| task | student | teacher | student − teacher ± standard error | student better on | aim |
|---|---|---|---|---|---|
| Away | kept as it is |
<!-- end of summary -->
<!-- summary: best -->
<!-- end of summary -->

## Here
<!-- table: results/here -->
old
<!-- end of table -->

## Away
<!-- table: results/away -->
old and kept
<!-- end of table -->
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A document on two comparisons, of which `here` was run: the student gains 0.1 or nothing on the teacher at 20 calls."""
    monkeypatch.setattr(publish, 'ROOT', tmp_path)
    here = tmp_path / 'results' / 'here'
    here.mkdir(parents=True)
    (here / 'table.md').write_text('# here\n\nnew table\n')
    values = {'input,0': (0.9, 0.9), 'teacher@1,1': (0.3, 0.2), 'teacher@20,20': (0.4, 0.5), 'student,1': (0.3, 0.5)}
    (here / 'results.csv').write_text('row,calls,dataset,image,lpips\n' + ''.join(
        f'{row},photos,{image},{value}\n' for row, both in values.items() for image, value in zip('xy', both)))
    cv2.imwrite(str(here / 'grid.png'), np.zeros((20, 40, 3), np.uint8))
    (tmp_path / 'tasks.md').write_text(DOCUMENT)
    return tmp_path


def run(world, monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, 'argv', ['publish_results.py', str(world / 'tasks.md'), *arguments])
    return publish.main()


def test_what_was_run_is_published_and_the_rest_stays(world, monkeypatch, capsys):
    assert run(world, monkeypatch, '--only-present', '--width', '30') == 0
    text = (world / 'tasks.md').read_text()
    assert '<!-- table: results/here -->\nnew table\n<!-- end of table -->' in text
    assert '<!-- table: results/away -->\nold and kept\n<!-- end of table -->' in text
    aim = '| Here | 0.4000 at 1 call | 0.4500 at 20 calls | −0.0500 ± 0.0500 | 1 of 2 images | reached |\n'
    best = '| Here | 0.4000 at 1 call | 0.2500 at 1 call | +0.1500 ± 0.1500 | 0 of 2 images | not told apart |\n'
    assert f'{aim}| Away | kept as it is |\n' in text and f'{best}| Away | | | | | |\n' in text
    assert 'results/away: not run here; its table, pictures and lines of summaries stay as they are.' in capsys.readouterr().out
    assert cv2.imread(str(world / 'docs/images/here.jpg')).shape == (15, 30, 3)
    assert run(world, monkeypatch, '--only-present') == 0 and (world / 'tasks.md').read_text() == text


def test_a_missing_comparison_stops_it(world, monkeypatch, capsys):
    assert run(world, monkeypatch) == 2
    message = 'error: results/away: no table.md. Run the comparison first, or publish the others alone with --only-present.'
    assert message in capsys.readouterr().err
    assert (world / 'tasks.md').read_text() == DOCUMENT and not (world / 'docs').exists()


def test_nothing_to_publish_is_an_error(world, monkeypatch, capsys):
    (world / 'results/here/table.md').unlink()
    assert run(world, monkeypatch, '--only-present') == 2
    assert 'error: results/here, results/away: no table.md. Run the comparison first.' in capsys.readouterr().err


@pytest.mark.parametrize('text, message', [
    ('nothing', 'tasks.md: holds no <!-- table: FOLDER -->'),
    (DOCUMENT.replace('summary: best', 'summary: worst'), "unknown summary 'worst'. Allowed: aim, best, versus:FOLDER[:ROW]."),
])
def test_documents_that_cannot_be_filled(text, message, world, monkeypatch, capsys):
    (world / 'tasks.md').write_text(text)
    assert run(world, monkeypatch, '--only-present') == 2
    assert message in capsys.readouterr().err
    assert (world / 'tasks.md').read_text() == text


def test_a_summary_needs_the_teacher_at_20_times_the_calls(world, monkeypatch, capsys):
    results = world / 'results/here/results.csv'
    results.write_text(results.read_text().replace('student,1', 'student@2,2'))
    assert run(world, monkeypatch, '--only-present') == 2
    assert 'results.csv: no rows student and teacher, the teacher at 20 times the calls of the student.' in capsys.readouterr().err
    assert (world / 'tasks.md').read_text() == DOCUMENT


@pytest.mark.parametrize('student, verdict', [
    ((0.1, 0.2, 0.3), 'student'), ((0.3, 0.4, 0.5), 'teacher'), ((0.1, 0.3, 0.5), 'not told apart')])
def test_differences_beyond_two_standard_errors_are_told_apart(student, verdict):
    rows = [publish.Row(name, 1, {('photos', str(number)): value for number, value in enumerate(values)})
            for name, values in (('student', student), ('teacher', (0.2, 0.31, 0.4)))]
    assert publish.better(publish.paired(*rows)) == verdict


def test_the_student_minus_each_other_row(world, monkeypatch):
    document = world / 'tasks.md'
    document.write_text(DOCUMENT + '<!-- summary: versus:results/here -->\n<!-- end of summary -->\n'
                        '<!-- summary: versus:results/here:teacher@20 -->\n<!-- end of summary -->\n'
                        '<!-- summary: versus:results/away -->\nkept\n<!-- end of summary -->\n')
    assert run(world, monkeypatch, '--only-present') == 0
    text = document.read_text()
    assert '| teacher@20 minus | LPIPS |\n|---|---:|\n| input |' in text and '| student | +0.050 ± 0.050 |\n' in text
    assert ('<!-- summary: versus:results/here -->\n| student minus | LPIPS |\n|---|---:|\n| input | −0.500 ± 0.100 |\n'
            '| teacher@1 | +0.150 ± 0.150 |\n| teacher@20 | −0.050 ± 0.050 |\n<!-- end of summary -->') in text
    assert 'versus:results/away -->\nkept\n<!-- end' in text


def test_sets_have_errors_of_the_jackknife(world, monkeypatch, capsys):
    values = {'input': (9, 9, 9), 'teacher@1': (3, 2, 4), 'teacher@20': (2, 2, 2), 'student': (2, 1.5, 2)}
    lines = [f'photos,{row},{metric},{group},{value}\n' for metric in ('FD-AlexNet/64', 'KD-VGG16') for row, numbers in values.items()
             for group, value in enumerate(numbers)]
    sets = world / 'results/here/sets.csv'
    sets.write_text('dataset,row,metric,left_out,value\n' + ''.join(lines))
    document = world / 'tasks.md'
    document.write_text(DOCUMENT + '<!-- summary: versus:results/here -->\n<!-- end of summary -->\n')
    assert run(world, monkeypatch, '--only-present') == 0
    assert '| student minus | LPIPS | FD-AlexNet/64 | KD-VGG16 |\n|---|---:|---:|---:|\n' in document.read_text()
    assert '| teacher@1 | +0.150 ± 0.150 | −1.0 ± 0.8 | −1.000 ± 0.750 |\n' in document.read_text()
    sets.write_text(sets.read_text().replace('photos,input,KD', 'photos,other,KD'))
    assert run(world, monkeypatch, '--only-present') == 2
    assert 'sets.csv: needs KD-VGG16 of student and input on one test set.' in capsys.readouterr().err
