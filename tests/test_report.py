"The report of a run in a real browser: readable by light and in the dark, on desk and phone."
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_site_look import LOOK

from yolov3_nb import report
from yolov3_nb.evaluation import ap_metrics
from yolov3_nb.model import YOLOv3
from yolov3_nb.toyvoc import VOC_CLASSES

ROOT = Path(__file__).resolve().parent.parent
VIEWS = [(1440, 900, 'light'), (390, 844, 'dark'), (390, 844, 'light'), (1440, 900, 'dark')]
LOOK_ONCE = LOOK.split('const started')[0] + 'overflow(); contrast(); once(); done(bad);'


class Images:
    "Some images of noise, as a data set."
    def __init__(self, n, classes, per_image=3):
        rng = np.random.default_rng(0)
        self.classes, self.ids = classes, [f'image-{i}' for i in range(n)]
        self.imgs = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(n)]
        corners = torch.from_numpy(rng.uniform(0, (43, 25), (n * per_image, 2))).float()
        self.gts = dict(
            image=torch.arange(n).repeat_interleave(per_image),
            boxes=torch.cat([corners, corners + 20], 1),
            labels=torch.from_numpy(rng.integers(0, len(classes), n * per_image)),
            difficult=torch.zeros(n * per_image, dtype=torch.bool))

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return self.imgs[i], {}

    def found(self):
        "Detections of which some are right, some shifted and some of another class."
        gts, n = self.gts, len(self.gts['labels'])
        shift = torch.tensor([0., 2, 12, 0]).repeat(n)[:n, None]
        labels = torch.where(torch.arange(n) % 4 == 3, 0, gts['labels'])
        scores = torch.linspace(.95, .1, n)
        return dict(image=gts['image'], boxes=gts['boxes'] + shift, labels=labels, scores=scores)


def a_log():
    "What a run of two epochs logs, with one validation."
    return pd.DataFrame(dict(step=[9, 19, 19], loss=[9., 7, None], box=[3., 2, None],
                             val_loss=[None, None, 5.], val_map50=[None, None, .25]))


def make(folder, data, classes):
    "A report on made-up images; the record that it shows."
    old = json.loads((ROOT/'results'/'toy_default.json').read_text())
    ds = Images(12, classes)
    dets = ds.found()
    metrics = old['metrics'] | ap_metrics(report._surer(dets), ds.gts, classes)
    result = old | dict(data=old['data'] | dict(train=f'{data}-train', test=f'{data}-test',
                                                n_test=len(ds)), metrics=metrics,
                        errors=report.find_errors(dets, ds.gts, classes))
    model = YOLOv3(len(classes), .0625, image_size=64, class_names=classes).eval()
    cell = dict(scale=torch.zeros(len(dets['labels'])).long(),
                anchor=torch.zeros(len(dets['labels'])).long(),
                cell=torch.zeros(len(dets['labels']), 2).long())
    found = dict(model=model, ds=ds, dets=dets | cell, gts=ds.gts)
    page = report.write_report(folder, result, old['settings'] | dict(epochs=3), a_log(), found)
    return page, result


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    return make(tmp_path_factory.mktemp('toy'), 'toyvoc', VOC_CLASSES)


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    return make(tmp_path_factory.mktemp('own'), 'pens', ('pen', 'a cup of a very long name'))


@pytest.fixture(scope='module')
def browser(chrome):
    driver = chrome('--hide-scrollbars', '--host-resolver-rules=MAP * ~NOTFOUND')
    driver.set_script_timeout(30)
    return driver


def rows(browser, table):
    cells = 'return [...document.querySelectorAll(arguments[0] + " tr")].map(r => ' \
            '[...r.children].map(c => c.innerText.trim()))'
    return browser.execute_script(cells, table)


@pytest.mark.parametrize('width, height, scheme', VIEWS)
@pytest.mark.parametrize('which', ['toy', 'own'])
def test_it_can_be_read(browser, request, which, width, height, scheme):
    page = request.getfixturevalue(which)[0]
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(
        width=width, height=height, deviceScaleFactor=1, mobile=width < 500))
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(
        features=[dict(name='prefers-color-scheme', value=scheme)]))
    browser.get(page.as_uri())
    browser.execute_script('document.querySelectorAll("details").forEach(d => d.open = true)')
    assert browser.execute_async_script(LOOK_ONCE, width, scheme, True) == []
    ink = browser.execute_script(
        'return [...document.querySelectorAll(".panels text")].map(t => getComputedStyle(t).fill)')
    assert set(ink) == {'rgb(28, 33, 38)' if scheme == 'light' else 'rgb(230, 233, 236)'}
    assert browser.get_log('browser') == []  # nothing failed, nothing was fetched in vain


def test_it_says_what_the_record_says(browser, toy):
    page, result = toy
    browser.get(page.as_uri())
    head, *lines = rows(browser, '.compared')
    want = [report._show_value(key, result['metrics'][key]) for key in report._COLUMNS]
    assert lines[-1] == ['this run', *want] and head[1:] == list(report._COLUMNS.values())
    for name, line in (('toy_default', lines[0]), ('toy', lines[1])):
        record = json.loads((ROOT/'results'/f'{name}.json').read_text())['metrics']
        assert line[1:] == [report._show_value(key, record[key]) for key in report._COLUMNS]
    classes = [(name, ap) for name, ap, _ in rows(browser, '.classes')[1:]]
    assert classes == [(name, report._show_value('ap', ap))
                       for name, ap in report._by_ap(result['metrics']['ap50'])]
    counts = {kind.split('\n')[0]: (n, gain) for kind, n, gain in rows(browser, '.tide')[1:]}
    tide = result['errors']['tide']
    assert counts == {kind: (f'{n:,}', report._show_value('gain', tide['gain'][kind]))
                      for kind, n in tide['count'].items()}
    matrix = browser.execute_script(
        'return [...document.querySelectorAll(".matrix tbody tr")].map(r => '
        '[...r.querySelectorAll("td")].map(c => Number(c.textContent) || 0))')
    assert matrix == result['errors']['confusion']
    changed = [row for row in rows(browser, '.settings') if row[0] == 'epochs']
    assert changed[0][1:3] == ['3', str(report.PRESETS['toy'].epochs)]


def test_boxes_are_those_of_the_images(browser, toy):
    page, _ = toy
    browser.get(page.as_uri())
    ds = Images(12, VOC_CLASSES)
    first = browser.find_elements('css selector', '.pair')[0].find_elements('css selector', 'svg')
    shown, wrong, missed = report._mistakes(ds.found(), ds.gts)
    for svg, all_of, bad in zip(first, (ds.gts, shown), (missed, wrong)):
        mine = all_of['image'] == 0
        boxes = svg.find_elements('css selector', 'rect:not(.halo)')
        tags = svg.find_elements('css selector', 'text')
        assert len(boxes) == mine.sum() and len(tags) == len(boxes)
        dashed = [box.get_attribute('stroke-dasharray') is not None for box in boxes]
        assert sum(dashed) == bad[mine].sum()


def test_names_of_boxes_stay_within_their_image(browser, toy):
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(
        width=1440, height=900, deviceScaleFactor=1, mobile=False))
    browser.get(toy[0].as_uri())
    outside = browser.execute_script('''
        return [...document.querySelectorAll('.pair svg')].flatMap(svg => {
          const right = svg.getBoundingClientRect().right + 1;
          return [...svg.querySelectorAll('text')].filter(t =>
            t.getBoundingClientRect().right > right).map(t => t.textContent);
        })''')
    assert outside == []


def test_own_data_stand_alone(browser, own):
    page, result = own
    browser.get(page.as_uri())
    lines = rows(browser, '.compared')
    assert [line[0] for line in lines] == ['', 'this run']
    html = page.read_text('utf-8')
    assert 'VOC 2007' not in html and 'asked for (VOC)' not in html
    assert not re.search(r'(?:src|href)="(?!data:|https?://[^"]*\.html"|#)', html)


def test_name_and_notes_are_kept_and_saved(browser, own, tmp_path):
    page, _ = own
    browser.execute_cdp_cmd('Browser.setDownloadBehavior', dict(
        behavior='allow', downloadPath=str(tmp_path)))
    browser.get(page.as_uri())
    browser.execute_script('localStorage.clear()')
    browser.refresh()
    assert not browser.find_element('id', 'who').is_displayed()  # folded until it is used
    browser.find_element('css selector', '#hand-in summary').click()
    browser.find_element('id', 'who').send_keys('Ada <b>')
    browser.find_element('id', 'notes').send_keys('more epochs & "less"')
    browser.refresh()
    assert browser.find_element('id', 'who').get_attribute('value') == 'Ada <b>'
    browser.find_element('id', 'keep').click()
    copy = tmp_path/'report-with-notes.html'
    for _ in range(100):
        if copy.exists() and copy.stat().st_size > 1000:
            break
        browser.execute_async_script('setTimeout(arguments[0], 50)')
    browser.execute_script('localStorage.clear()')
    browser.get(copy.as_uri())
    assert browser.find_element('id', 'who').get_attribute('value') == 'Ada <b>'
    assert browser.find_element('id', 'notes').get_attribute('value') == 'more epochs & "less"'


def test_a_figure_of_one_validation_shows_a_point(toy):
    html = toy[0].read_text('utf-8')
    panel = next(svg for svg in re.findall(r'<svg.*?</svg>', html, re.S)
                 if 'loss on validation' in svg)
    assert '<use' in panel  # matplotlib draws markers so


def test_it_is_small_and_every_chart_is_a_file(toy):
    page, _ = toy
    assert page.stat().st_size < 1_500_000
    for name in ('curves', 'thresholds', 'precision_recall', 'errors', 'calibration',
                 'predictions', 'heat_maps'):
        assert (page.parent/f'{name}.png').read_bytes()[:4] == b'\x89PNG'


def test_links_lead_to_chapters(toy):
    pages = {re.sub(r'^\d+[a-z]?_', '', path.stem) for path in (ROOT/'nbs').glob('*.ipynb')}
    linked = set(re.findall(r'href="https?://[^"]*/([a-z_]+)\.html', toy[0].read_text('utf-8')))
    advised = {chapter for _, _, chapter in report._FAULTS.values()} | {'augmentation', 'low_map'}
    assert {'evaluation', 'errors', 'training', 'gradcam', 'recipe'} <= linked
    assert linked | advised <= pages
