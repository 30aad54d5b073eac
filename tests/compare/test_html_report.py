"""The page of a comparison: one file, nothing fetched, and names that try to be markup stay names."""
import base64
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from ibmd_basicsr.reporting.html_report import Report, ReportImage, ReportOptions, TestSet, write_html
from ibmd_basicsr.reporting.tables import Column

HOSTILE = '</script><img src=x onerror=alert(1)><!--'
COLUMNS = [Column('seconds', 's/image', 3), Column('psnr', 'PSNR dB', 2, 'higher'), Column('lpips', 'LPIPS', 4, 'lower')]


class Page(HTMLParser):
    """Collects the elements with their attributes, and the text of each script."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.scripts, self.inside = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == 'script':
            self.scripts.append('')
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == 'script':
            self.scripts[-1] += data


def make_image(name: str, seed: int, rows=('input', 'student'), size=(40, 56)) -> ReportImage:
    rng = np.random.default_rng(seed)
    truth = np.full((*size, 3), 120, np.uint8)
    pictures = {}
    for row in rows:
        pictures[row] = truth.copy()
        pictures[row][20:28, 40:48] = rng.integers(0, 255, (8, 8, 3))
    return ReportImage(name, {row: {'psnr': 20.0 + seed, 'lpips': 0.5 - 0.01 * seed} for row in rows}, pictures, truth)


def make_report(images, rows=('input', 'student'), **changes) -> Report:
    means = {row: {'seconds': 0.1, 'psnr': 20.0, 'lpips': 0.5} for row in rows}
    return Report(**{'title': 'tiny', 'date': '2025-01-01', 'command': 'python -m x', 'columns': COLUMNS,
                     'sets': [TestSet('photos', means, images)]} | changes)


def written(tmp_path, report: Report) -> tuple[str, Page, dict]:
    path = tmp_path / 'report.html'
    write_html(path, report)
    text = path.read_text(encoding='utf-8')
    page = Page(text)
    return text, page, json.loads(page.scripts[0])


def test_nothing_is_fetched(tmp_path):
    text, page, _ = written(tmp_path, make_report([make_image('a', 0)]))
    # the name of the SVG namespace is no place that a browser visits
    assert re.findall(r'https?://[^\s\'"]*', text) == ['http://www.w3.org/2000/svg']
    for tag, attributes in page.elements:
        assert 'src' not in attributes, tag
        assert attributes.get('href', '#')[0] == '#' or attributes['href'] == 'data:,', tag
    assert not re.search(r'@import|url\(|fetch\(|XMLHttpRequest|innerHTML', text)
    policies = [attributes['content'] for tag, attributes in page.elements if attributes.get('http-equiv') == 'Content-Security-Policy']
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert '{{' not in text


def test_names_do_not_become_markup(tmp_path):
    rows = (HOSTILE, 'b@2')
    plain = written(tmp_path, make_report([make_image('a', 0)]))[1]
    report = make_report([make_image(HOSTILE, 0, rows)], rows, title=HOSTILE, command=HOSTILE, notes=[HOSTILE], warnings=[HOSTILE],
                         columns=[*COLUMNS, Column('niqe', HOSTILE, 1, 'lower')])
    text, page, data = written(tmp_path, report)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert text.count('</script') == 2 and '<img src=x' not in text and '<!--' not in text
    assert data['title'] == data['command'] == data['sets'][0]['images'][0]['name'] == data['columns'][3]['title'] == HOSTILE


def test_values_survive(tmp_path):
    image = make_image('a', 0)
    image.values['student'].update(psnr=float('inf'), lpips=float('nan'))
    data = written(tmp_path, make_report([image, make_image('b', 1)]))[2]
    first, second = data['sets'][0]['images']
    assert first['values']['student'] == [None, 'Infinity', None]
    assert second['values']['student'] == [None, 21.0, 0.49]
    assert first['ranks']['student'] == [None, 1, None] and second['ranks']['student'] == [None, 2, 1]
    assert data['sets'][0]['rows'][0] == {'name': 'input', 'values': [0.1, 20.0, 0.5]}


def test_crop_shows_where_the_restorers_differ(tmp_path):
    image = make_image('a', 0)
    path = tmp_path / 'input.png'
    cv2.imwrite(str(path), image.pictures['input'])
    image = ReportImage('a', image.values, image.pictures | {'input': path}, image.truth)  # a file, beside arrays
    data = written(tmp_path, make_report([image], options=ReportOptions(crop=24, quality=100)))[2]['sets'][0]['images'][0]
    assert [picture['name'] for picture in data['pictures']] == ['input', 'student', 'ground truth']
    top, left, side = data['top'], data['left'], data['side']
    assert side == 24 and top <= 20 <= 28 <= top + 24 and left <= 40 <= 48 <= left + 24
    assert 20 <= top + 24 * data['focus'][1] <= 28 and 40 <= left + 24 * data['focus'][0] <= 48
    head, code = data['pictures'][0]['src'].split(',')
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_COLOR)
    assert head == 'data:image/jpeg;base64'
    assert np.abs(shown.astype(int) - cv2.imread(str(path))[top:top + 24, left:left + 24]).max() < 40


def test_some_images_of_many_from_worst_to_best(tmp_path):
    images = [make_image(f'i{seed}', seed) for seed in (3, 0, 4, 1, 2)]
    data = written(tmp_path, make_report(images, options=ReportOptions(images=3)))[2]['sets'][0]
    assert data['count'] == 5 and [image['name'] for image in data['images']] == ['i0', 'i4', 'i2']
    assert data['images'][0]['ranks']['student'] == [None, 5, 5]


def test_pictures_stay_below_the_limit_in_every_set(tmp_path):
    rng = np.random.default_rng(0)
    images = [ReportImage(f'i{n}', {}, {'a': rng.integers(0, 255, (256, 256, 3), dtype=np.uint8)},
                          rng.integers(0, 255, (256, 256, 3), dtype=np.uint8)) for n in range(8)]
    sets = [TestSet('one', {'a': {}}, images), TestSet('two', {'a': {}}, images), TestSet('none', {'a': {}})]
    text, _, data = written(tmp_path, make_report([], sets=sets, options=ReportOptions(megabytes=1)))
    counts = [len(test_set['images']) for test_set in data['sets']]
    assert 0.7e6 < len(text) < 1.1e6
    assert counts[0] - counts[1] in (0, 1) and 0 < counts[1] < 8 and counts[2] == 0


def test_refusals(tmp_path):
    image = make_image('a', 0)
    with pytest.raises(ValueError, match='at least one test set'):
        write_html(tmp_path / 'x.html', make_report([], sets=[]))
    with pytest.raises(ValueError, match='a: pictures of different sizes'):
        write_html(tmp_path / 'x.html', make_report([ReportImage('a', {}, image.pictures, image.truth[:-1])]))
    with pytest.raises(ValueError, match="a: the name 'ground truth' is taken"):
        write_html(tmp_path / 'x.html', make_report([ReportImage('a', {}, {'ground truth': image.truth}, image.truth)]))
    with pytest.raises(FileNotFoundError, match='nothing.png: no such picture'):
        write_html(tmp_path / 'x.html', make_report([ReportImage('a', {}, {'b': tmp_path / 'nothing.png'}, image.truth)]))
    for options, message in (({'images': -1}, 'images must be a whole number from 0, got -1'), ({'crop': 1.5}, 'crop'),
                             ({'quality': 101}, 'quality must be a whole number from 1 to 100, got 101'),
                             ({'megabytes': True}, 'megabytes')):
        with pytest.raises(ValueError, match=message):
            ReportOptions(**options)
