"""The page of a comparison in a real browser: what a click, a drag and a key do, and that nothing is asked for or complained about.

Needs Debian's packages chromium and chromium-driver, or CHROMIUM and CHROMEDRIVER that name them, and the extra `browser`.
"""
import json
import os
import shutil

import numpy as np
import pytest

from ibmd_basicsr.reporting.html_report import Report, ReportImage, ReportOptions, TestSet, write_html
from ibmd_basicsr.reporting.tables import Column

pytestmark = pytest.mark.browser
HOSTILE = '</script><img src=x onerror=alert(1)>'
ROWS = {'input': (0.001, 24.0, 0.40), 'teacher@1': (0.2, 27.0, 0.30), 'teacher@5': (1.0, 25.5, 0.25), 'teacher@20': (4.0, 9.5, 0.26),
        HOSTILE: (0.21, 26.0, 0.2)}
COLUMNS = [Column('seconds', 's/image', 3), Column('psnr', 'PSNR dB', 2, 'higher'), Column('lpips', 'LPIPS', 4, 'lower')]


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    webdriver = pytest.importorskip('selenium.webdriver')
    chromium = os.environ.get('CHROMIUM') or shutil.which('chromium')
    driver = os.environ.get('CHROMEDRIVER') or shutil.which('chromedriver')
    if not chromium or not driver:
        pytest.skip('chromium and chromedriver are not installed.')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ('headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-background-networking',
                 'disable-component-update', 'disable-sync', 'disable-dev-shm-usage',
                 f'user-data-dir={tmp_path_factory.mktemp("profile")}'):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """Two test sets: three images and one; every picture of a row is of one colour, but for a spot."""
    rng = np.random.default_rng(0)

    def image(name, better):
        pictures = {}
        for number, row in enumerate(ROWS):
            pictures[row] = np.full((64, 80, 3), 40 + 30 * number, np.uint8)
            pictures[row][30:40, 50:60] = rng.integers(0, 255, (10, 10, 3))
        values = {row: {'seconds': s, 'psnr': psnr + better, 'lpips': lpips - better / 100} for row, (s, psnr, lpips) in ROWS.items()}
        return ReportImage(name, values, pictures, np.full((64, 80, 3), 200, np.uint8))

    means = {row: dict(zip(('seconds', 'psnr', 'lpips'), values)) for row, values in ROWS.items()}
    sets = [TestSet('photos', means, [image('middle', 1), image(HOSTILE, 0), image('best', 2)]),
            TestSet('rooms', {row: means[row] for row in ('input', 'teacher@1')}, [image('room', 0)]), TestSet('bare', means)]
    path = tmp_path_factory.mktemp('report') / 'report.html'
    write_html(path, Report('tiny', '2025-01-01', 'python -m x', COLUMNS, sets, notes=['see `code`'], warnings=['student failed: why'],
                            options=ReportOptions(crop=48)))
    return path.as_uri()


@pytest.fixture
def page(browser, report):
    """The page, new; afterwards the log must be empty, and all that was loaded the file itself or data inside it."""
    resize(browser, 1280, 900)
    browser.get('about:blank')
    for kind in ('browser', 'performance'):
        browser.get_log(kind)
    browser.get(report)
    yield browser
    assert browser.get_log('browser') == []
    messages = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    asked = [message['params']['request']['url'] for message in messages if message['method'] == 'Network.requestWillBeSent']
    assert report in asked  # the log does see requests
    assert [url for url in asked if url != report and not url.startswith('data:')] == []


def resize(browser, width, height, scheme='light'):
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                            {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 600})
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]})


def find(page, selector):
    return page.find_elements('css selector', selector)


def texts(page, selector):
    return [element.get_attribute('textContent') for element in find(page, selector)]


def choose(page, selector, value):
    page.execute_script("const s = document.querySelector(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))",
                        selector, value)


def test_table_sorts_by_number(page):
    def order():
        return texts(page, '#means tbody th')

    assert order() == list(ROWS)
    assert texts(page, '#means thead th') == ['restorer', 's/image', 'PSNR dB ↑', 'LPIPS ↓']
    find(page, '#means thead button')[2].click()
    assert order() == ['teacher@1', HOSTILE, 'teacher@5', 'input', 'teacher@20']  # 9.5 is the least, not the most
    assert find(page, '#means thead th')[2].get_attribute('aria-sort') == 'descending'
    page.switch_to.active_element.send_keys('\ue007')  # Enter
    assert order()[0] == 'teacher@20'
    assert find(page, '#means thead th')[2].get_attribute('aria-sort') == 'ascending'
    find(page, '#means thead button')[3].click()
    assert order()[0] == HOSTILE and len(find(page, '#means th[aria-sort]')) == 1
    assert texts(page, '#means strong') == ['0.2000', '27.00']


def test_slider_follows_pointer_and_keys(page):
    from selenium.webdriver import ActionChains, Keys

    def shown():
        clip = page.execute_script("return getComputedStyle(document.getElementById('stage-left')).clipPath")
        handle = find(page, '#handle')[0]
        return clip, float(handle.get_attribute('aria-valuenow'))

    assert shown() == ('inset(0px 50% 0px 0px)', 50)
    stage, handle = find(page, '#stage')[0], find(page, '#handle')[0]
    page.execute_script("document.documentElement.style.scrollBehavior = 'auto'; arguments[0].scrollIntoView({block: 'center'})", stage)
    quarter = round(stage.size['width'] / 4)
    ActionChains(page).move_to_element(handle).click_and_hold().move_by_offset(-quarter, 30).release().perform()
    clip, value = shown()
    assert value == pytest.approx(25, abs=1) and clip.startswith('inset(0px 7')
    ActionChains(page).move_by_offset(2 * quarter, 0).perform()
    assert shown() == (clip, value)  # released
    for key, expected in ((Keys.HOME, 0), (Keys.ARROW_RIGHT, 2), (Keys.PAGE_UP, 12), (Keys.ARROW_LEFT, 10), (Keys.END, 100)):
        page.switch_to.active_element.send_keys(key)
        assert shown()[1] == expected
    left, right = (find(page, f'#stage-{side}')[0].get_attribute('src') for side in ('left', 'right'))
    assert left != right
    find(page, '#slider-swap')[0].click()
    assert find(page, '#stage-left')[0].get_attribute('src') == right and texts(page, '#tag-right') == ['input']
    choose(page, '#slider-left', 'ground truth')
    assert texts(page, '#tag-left') == ['ground truth']


def test_plots_hold_the_points_and_join_steps(page):
    for plot in ('#plot-distortion', '#plot-latency'):
        assert len(find(page, f'{plot} .point')) == len(ROWS)
        chains = find(page, f'{plot} .chain')
        assert len(chains) == 1 and len(chains[0].get_attribute('points').split()) == 3
        assert set(texts(page, f'{plot} .label')) >= {'input', 'teacher@1', 'teacher@5', 'teacher@20'}
    assert texts(page, '#plot-distortion .better') == ['better ↘'] and texts(page, '#plot-latency .better') == ['↙ better']
    by_name = {mark.get_attribute('aria-label').split(',')[0]: mark.rect for mark in find(page, '#plot-distortion .point')}
    assert by_name['teacher@20']['x'] < by_name['input']['x'] < by_name['teacher@1']['x']
    assert by_name['input']['y'] < by_name['teacher@1']['y'] < by_name['teacher@5']['y']
    page.execute_script("document.querySelector('#plot-latency .point').focus()")
    assert texts(page, '#tooltip') == ['input\ns/image: 0.001\nLPIPS: 0.4000'] and find(page, '#tooltip')[0].is_displayed()
    boxes = [mark.rect for mark in find(page, '#plot-distortion .label')]
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            apart = abs(a['x'] + a['width'] / 2 - b['x'] - b['width'] / 2) >= (a['width'] + b['width']) / 2 - 4
            assert apart or abs(a['y'] - b['y']) >= 10


def test_pictures_from_worst_to_best_open_in_the_slider(page):
    assert texts(page, '#ranking-list .name') == [HOSTILE, 'middle', 'best']
    choose(page, '#ranking-order', 'best')
    assert texts(page, '#ranking-list .name') == ['best', 'middle', HOSTILE]
    choose(page, '#ranking-row', 'teacher@1')
    assert 'LPIPS 0.2800 · rank 1 of 3' in texts(page, '#ranking-list .rank')
    page.execute_script("document.querySelector('#ranking-list button').click()")
    assert texts(page, '#tag-left') == ['teacher@1'] and texts(page, '#tag-right') == ['ground truth']
    assert find(page, '#stage-left')[0].get_attribute('alt') == 'best, teacher@1'
    assert find(page, '#crops-image')[0].get_attribute('value') == '2'


def test_crops_zoom_and_move(page):
    def view():
        return page.execute_script("const v = document.querySelector('.window img'); const s = getComputedStyle(v);"
                                   'return [v.style.width, v.style.left, s.imageRendering]')

    assert texts(page, '#crop-grid .name') == [*ROWS, 'ground truth']
    width, left, rendering = view()
    assert (width, rendering) == ('400%', 'pixelated')
    find(page, '.window')[0].send_keys('\ue012')  # left
    assert view()[1] != left
    choose(page, '#crops-zoom', '1')
    assert view()[:2] == ['100%', '0%']


def test_other_test_set_and_one_without_pictures(page):
    choose(page, '#set', '1')
    assert texts(page, '#means tbody th') == ['input', 'teacher@1'] and '1 image ·' in texts(page, '#meta')[0]
    assert len(find(page, '#plot-distortion .point')) == 2
    assert find(page, '#stage-left')[0].get_attribute('alt') == 'room, input'
    choose(page, '#set', '2')
    assert not find(page, '#slider')[0].is_displayed() and find(page, '#plots')[0].is_displayed()
    choose(page, '#set', '0')
    assert find(page, '#slider')[0].is_displayed()


def test_hostile_names_are_text(page):
    assert HOSTILE in texts(page, '#means tbody th') and HOSTILE in texts(page, '#slider-image option')
    assert not find(page, 'img[src=x]')
    assert texts(page, '#notes code') == ['code'] and texts(page, '#warnings li') == ['student failed: why']


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_fits_a_phone(page, scheme):
    resize(page, 390, 844, scheme)
    page.refresh()
    width = page.execute_script('return document.documentElement.scrollWidth')
    assert width == 390
    assert find(page, '#plot-distortion svg')[0].rect['width'] < 390
    # WCAG AA: 4.5 to 1 for text on its card
    ratios = page.execute_script('''
        const light = text => { const c = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
        const card = light(getComputedStyle(document.querySelector('#table')).backgroundColor);
        return ['.hint', '#means td', '#means strong', '#legend li', 'nav a', 'label'].map(selector => {
            const ink = light(getComputedStyle(document.querySelector(selector)).color);
            return (Math.max(ink, card) + 0.05) / (Math.min(ink, card) + 0.05); });''')
    assert min(ratios) >= 4.5
