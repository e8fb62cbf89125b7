"""The page "The detector" in a real browser: it finds the library's boxes, and its sliders, its
curve and its ways in work."""
import base64
import functools
import http.server
import json
import random
import re
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from yolov3_nb.augment import test_transform as letterbox_transform
from yolov3_nb.data import read_image
from yolov3_nb.evaluation import flatten, voc_ap
from yolov3_nb.export import detect_images
from yolov3_nb.model import YOLOv3
from yolov3_nb.toyvoc import course_scene, scene

pytest.importorskip('selenium', reason="selenium is missing: pip install -e '.[dev]'")
pytest.importorskip('onnxscript', reason="onnxscript is missing: pip install -e '.[export]'")
By = pytest.importorskip('selenium.webdriver.common.by').By
Keys = pytest.importorskip('selenium.webdriver.common.keys').Keys
ui = pytest.importorskip('selenium.webdriver.support.ui')

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT/'nbs'/'detector'
OWN_SCRIPTS = 60_000  # bytes that the page's own scripts may have, without the runtime
NO_BOXES = np.zeros((0, 5), np.float32)
HEAD = ('<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">'
        '<meta name="viewport" content="width=device-width">')

def write_page(folder):
    "The page's own HTML without the site around it: what stands in its raw blocks."
    source = (ROOT/'nbs'/'detector.qmd').read_text(encoding='utf-8')
    blocks = re.findall(r'^```\{=html\}\n(.*?)^```$', source, re.M | re.S)
    page = f'{HEAD}<main>{"".join(blocks)}</main>'
    (folder/'detector.html').write_text(page, encoding='utf-8')

@contextmanager
def served(handler, folder):
    "The page's address while `folder` is served."
    handler = functools.partial(handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/detector.html'
        server.shutdown()

@pytest.fixture(scope='module')
def built(tool):
    "The page's build folder, made anew where anything changed; without npm there is no page."
    site = tool('detector').make()
    if site['missing']:
        pytest.skip(f"ONNX Runtime Web could not be had: {site['missing']}")
    return site

@pytest.fixture(scope='module')
def address(tmp_path_factory, tool, built):
    "Where the page is served, as its own file and folder stand in the site."
    folder = tmp_path_factory.mktemp('page')
    write_page(folder)
    (folder/'detector').symlink_to(PAGE, target_is_directory=True)
    with served(tool('site').Handler, folder) as url:
        yield url

@pytest.fixture(scope='module')
def browser(chrome):
    return chrome('--window-size=1280,1000', '--use-fake-device-for-media-stream',
                  '--use-fake-ui-for-media-stream')

@pytest.fixture(scope='module')
def toy():
    return YOLOv3.from_pretrained(ROOT/'weights'/'toy')


# ---- what a test does with the page ----

def root(browser):
    return browser.find_element(By.ID, 'detector-run')

def found_by(browser, css):
    return browser.find_element(By.CSS_SELECTOR, css)

def wait(browser, condition, seconds=90):
    return ui.WebDriverWait(browser, seconds, poll_frequency=.05).until(condition)

def data(browser, name):
    "What the page keeps under data-`name`."
    return root(browser).get_attribute(f'data-{name}')

def settle(browser):
    "Wait until the page has answered; its state and what it says."
    wait(browser, lambda b: data(b, 'state') != 'loading')
    return data(browser, 'state'), found_by(browser, '.detector-state').text

@pytest.fixture
def page(browser, address):
    browser.get(address)
    assert settle(browser)[0] == 'ready', settle(browser)
    yield browser
    assert browser.get_log('browser') == []

def detections(page):
    return json.loads(data(page, 'detections'))

def drop(page, file, state='ready'):
    "Give the page a file; what it then has found, or says."
    found_by(page, '.detector-button input[type=file]').send_keys(str(file))
    if state == 'ready':
        wait(page, lambda b: data(b, 'image') == Path(file).name)
        return detections(page)
    wait(page, lambda b: data(b, 'state') == state)
    return settle(page)[1]

def choose(page, **choices):
    "Take another network or precision, where it is not chosen already."
    for name, value in choices.items():
        select = ui.Select(found_by(page, f'.{name}'))
        if select.first_selected_option.get_attribute('value') != value:
            select.select_by_value(value)
            settle(page)

def answered(page):
    "Wait until the page shows what belongs to its sliders."
    score, iou = (found_by(page, f'.{name}').get_attribute('value') for name in ('score', 'iou'))
    wait(page, lambda b: data(b, 'thresholds') == f'{score} {iou}')

def slide(page, name, value):
    script = '''const [slider, value] = arguments;
    slider.value = value;
    slider.dispatchEvent(new Event("input", {bubbles: true}));'''
    page.execute_script(script, found_by(page, f'.{name}'), value)
    answered(page)

def all_examples(page):
    "Wait until the curve stands on every example."
    wait(page, lambda b: data(b, 'examples') == 'done', 240)


# ---- the library's boxes ----

@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "A JPEG to shrink, a PNG to grow that is transparent above, a large JPEG that EXIF turns."
    folder = tmp_path_factory.mktemp('pictures')
    scenes = course_scene(), scene(random.Random('page-1')), scene(random.Random('page-4'))
    first, second, third = (Image.fromarray(img) for img, _ in scenes)
    first.resize((371, 278), Image.LANCZOS).save(folder/'shrink.jpg', quality=95, subsampling=0)
    second = second.resize((131, round(131*second.height/second.width)), Image.LANCZOS)
    alpha = np.full((second.height, second.width), 255, np.uint8)
    alpha[:12] = 0
    second.putalpha(Image.fromarray(alpha))
    second.save(folder/'grow.png')
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by 90 degrees
    third = third.resize((1536, round(1536*third.height/third.width)), Image.BICUBIC)
    third.rotate(90, expand=True).save(folder/'turned.jpg', quality=92, exif=exif)
    return [folder/name for name in ('shrink.jpg', 'grow.png', 'turned.jpg')]

def compare(found, model, file, pixels, points):
    """Each of the page's boxes is one of the library's and the other way round, but for those that
    score within `points` of the threshold; how many there are."""
    want = detect_images(model, [read_image(file)], score_threshold=.25 - points)[0]
    where = (want[k].tolist() for k in ('scale', 'anchor', 'cell'))
    places = [(scale, anchor, *cell) for scale, anchor, cell in zip(*where)]
    seen = set()
    for d in found:
        i = places.index((d['scale'], d['anchor'], d['row'], d['column']))
        gap = (want['boxes'][i] - torch.tensor(d['box'])).abs().max()
        assert want['labels'][i] == d['label'] and gap <= pixels, (file.name, d, want['boxes'][i])
        assert abs(want['scores'][i] - d['score']) <= points, (file.name, d, want['scores'][i])
        seen.add(i)
    sure = (want['scores'] > .25 + points).nonzero()[:, 0].tolist()
    assert set(sure) <= seen and len(seen) == len(found), file.name
    return len(found)

@pytest.mark.parametrize('network', ['toy', 'voc'])
def test_boxes_are_the_librarys(page, pictures, network):
    model = YOLOv3.from_pretrained(ROOT/'weights'/network)
    files = pictures if network == 'toy' else [PAGE/'build'/'grace_hopper.jpg', *pictures]
    choose(page, network=network)
    counts = [compare(drop(page, f), model, f, pixels=1, points=.02) for f in files]
    assert sum(counts) > (6 if network == 'toy' else 0), counts

def test_eight_bits_are_close(page, pictures, toy):
    "What the page says of them: a pixel of the square that the network sees, and 0.03."
    choose(page, bits='8')
    count = 0
    for file in pictures:
        pixels = max(1, max(read_image(file).shape)/toy.image_size)
        count += compare(drop(page, file), toy, file, pixels, points=.03)
    assert count > 6

LETTERBOX = '''const [address, size, bytes, done] = arguments;
(async () => {
  const core = await import(new URL('detector/core.js', address));
  const blob = new Blob([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))]);
  const bitmap = await createImageBitmap(blob, {colorSpaceConversion: 'none'});
  const {width, height} = bitmap;
  const context = new OffscreenCanvas(width, height).getContext('2d');
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  done(Array.from(core.letterbox(context.getImageData(0, 0, width, height), size).view));
})()'''

def test_letterbox_is_the_librarys(page, address, pictures):
    "Pixel by pixel: by area when shrinking, linear when growing, turned, white where transparent."
    for file in pictures:
        content = base64.b64encode(file.read_bytes()).decode()
        ours = np.array(page.execute_async_script(LETTERBOX, address, 160, content), np.float32)
        ours = ours.reshape(160, 160, 4)[..., :3]
        theirs = letterbox_transform(160)(image=read_image(file), bboxes=NO_BOXES)['image']
        gap = np.abs(ours - theirs.permute(1, 2, 0).numpy()*255)
        assert gap.mean() < .4 and np.quantile(gap, .999) <= 4, (file.name, gap.mean(), gap.max())


# ---- sliders, curve, grids ----

def library_map(built, model, score, iou):
    "What the library's voc_ap says of the examples."
    known = [e for e in built['examples'] if e['test']]
    imgs = [read_image(PAGE/'build'/e['file']) for e in known]
    keys = 'boxes', 'labels', 'difficult'
    gts = flatten([{k: torch.tensor(e[k]) for k in keys} for e in known])
    found = detect_images(model, imgs, score_threshold=score, iou_threshold=iou)
    return voc_ap(flatten(found), gts, 20)['map']

def curve(page):
    return json.loads(data(page, 'curve'))

def test_the_curve_is_the_librarys(page, built, toy):
    all_examples(page)
    assert abs(curve(page)['map'] - library_map(built, toy, .25, .45)) < .02
    assert abs(curve(page)['whole'] - library_map(built, toy, .01, .45)) < .02
    slide(page, 'iou', .9)
    assert abs(curve(page)['map'] - library_map(built, toy, .25, .9)) < .03

def test_sliders_and_keyboard(page):
    all_examples(page)
    before, few = curve(page), len(detections(page))
    slider = found_by(page, '.score')
    slider.send_keys(Keys.HOME)
    answered(page)
    low = curve(page)
    assert slider.get_attribute('value') == '0.01' and len(detections(page)) > few
    assert low['recall'] > before['recall'] and low['precision'] < before['precision']
    assert abs(low['map'] - low['whole']) < 1e-9
    slide(page, 'score', .8)
    high = curve(page)
    assert high['precision'] > before['precision'] and high['map'] < before['map']
    slide(page, 'score', .25)
    slide(page, 'iou', .9)
    assert len(detections(page)) > few and curve(page)['precision'] < before['precision']
    for name, value in (('score', '0.25'), ('iou', '0.9')):  # beside the image, beside the curve
        both = page.find_elements(By.CSS_SELECTOR, f'input.{name}')
        assert [s.get_attribute('value') for s in both] == [value, value]

def test_no_tag_lies_on_another(page):
    page.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                         dict(width=320, height=844, deviceScaleFactor=1, mobile=True))
    try:
        slide(page, 'score', .2)
        slide(page, 'score', .25)
        covered = page.execute_script('''
            const tags = [...document.querySelectorAll('.detector-stage .tag')];
            const meets = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 &&
                                    a.top < b.bottom - 1 && b.top < a.bottom - 1;
            return [tags.length, tags.flatMap((t, i) => tags.slice(i + 1).filter(u =>
              meets(t.getBoundingClientRect(), u.getBoundingClientRect())).map(u =>
              `${t.textContent} on ${u.textContent}`))]''')
    finally:
        page.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    assert covered[0] == len(detections(page)) > 4 and covered[1] == []

FOCUS = '''  // in one go: what is drawn stays only as long as the row has the focus
    arguments[0].focus();
    const rect = css => document.querySelector(css).getBoundingClientRect().toJSON();
    const count = css => document.querySelectorAll(css).length;
    return [count(".boxes .cell"), count(".boxes .anchor"),
            rect(".detector-stage"), rect(".boxes .cell")];
'''

def test_cells_that_answered(page):
    "Each kept box is counted under its grid; a row that has the focus shows its cell and anchor."
    found = detections(page)
    for scale, text in enumerate(page.find_elements(By.CSS_SELECTOR, '.detector-grids figcaption')):
        n = sum(d['scale'] == scale for d in found)
        assert (f'{n} box' if n else 'no box') in text.text, (text.text, found)
    button = found_by(page, '.detections button')
    cells, anchors, stage, cell = page.execute_script(FOCUS, button)
    assert (cells, anchors) == (1, 1)
    img = found_by(page, '.detector-stage img')
    w, h = (img.get_property(f'natural{side}') for side in ('Width', 'Height'))
    stride = (32, 16, 8)[found[0]['scale']]
    share = stride/160*max(w, h)  # less where the image's edge cuts the cell
    assert cell['width']/stage['width'] <= share/w + .01
    assert cell['height']/stage['height'] <= share/h + .01
    x1, y1, x2, y2 = found[0]['square']
    assert (x1 + x2)/2//stride == found[0]['column'] and (y1 + y2)/2//stride == found[0]['row']


# ---- ways in ----

def test_what_is_no_image(page, tmp_path):
    (tmp_path/'notes.txt').write_text('no pixels here')
    said = drop(page, tmp_path/'notes.txt', state='error')
    assert 'not an image' in said and said.count('.') == 1
    page.find_elements(By.CSS_SELECTOR, '.detector-examples button')[3].click()
    wait(page, lambda b: data(b, 'state') == 'ready')

GIVE = '''const [how] = arguments;
const canvas = Object.assign(document.createElement('canvas'), {width: 90, height: 60});
canvas.getContext('2d').fillRect(0, 0, 90, 60);
canvas.toBlob(blob => {
  const content = new DataTransfer(), bubbles = true;
  content.items.add(new File([blob], how + '.png', {type: 'image/png'}));
  const event = how === 'paste' ? new ClipboardEvent('paste', {clipboardData: content, bubbles})
    : new DragEvent('drop', {dataTransfer: content, bubbles, cancelable: true});
  document.body.dispatchEvent(event);
});'''

def shown_width(browser):
    return found_by(browser, '.detector-stage img').get_property('naturalWidth')

@pytest.mark.parametrize('how', ['paste', 'drop'])
def test_paste_and_drop(page, how):
    page.execute_script(GIVE, how)
    wait(page, lambda b: data(b, 'image') == f'{how}.png' and shown_width(b) == 90)

def test_camera(page):
    found_by(page, '.camera').click()
    video = found_by(page, 'video')
    wait(page, lambda b: video.get_property('videoWidth') > 0)
    before = data(page, 'image')
    found_by(page, '.snap').click()
    wait(page, lambda b: data(b, 'image') != before)
    assert shown_width(page) == video.get_property('videoWidth') and not video.is_displayed()

def test_nothing_is_sent_away(browser, address, pictures):
    "All that the page asks for comes from the site itself, and a dropped image asks for nothing."
    browser.get(address)
    settle(browser)
    all_examples(browser)
    script = 'return performance.getEntriesByType("resource").map(e => e.name)'
    before = browser.execute_script(script)
    home = address.rsplit('/', 1)[0]
    assert before and all(url.removeprefix('blob:').startswith(home) for url in before)
    drop(browser, pictures[0])
    after = browser.execute_script(script)[len(before):]
    assert [url for url in after if not url.startswith('blob:')] == []


# ---- the build ----

def test_small_and_alone(built):
    "The page's own scripts are small, and so is what a first detection loads."
    assert sum(f.stat().st_size for f in PAGE.glob('*.js')) < OWN_SCRIPTS
    half, quarter = (built['networks']['toy']['files'][bits]['bytes'] for bits in ('16', '8'))
    assert built['runtime']['bytes'] + half < 13e6 and 1.9 < half/quarter < 2.05
    for file in (PAGE/'build').glob('*.onnx'):
        assert b'.py' not in file.read_bytes(), f'{file.name} holds paths of where it was made'

@pytest.mark.parametrize('site, said', [
    (None, 'not part of this copy'),
    ({'runtime': None, 'missing': 'npm was not installed.'}, 'npm was not installed')])
def test_where_the_network_is_missing(browser, tool, tmp_path, site, said):
    "A site that was built without the network, or without npm, says so in one sentence."
    write_page(tmp_path)
    (tmp_path/'detector'/'build').mkdir(parents=True)
    for file in PAGE.glob('*.*'):
        (tmp_path/'detector'/file.name).write_bytes(file.read_bytes())
    if site:
        (tmp_path/'detector'/'build'/'site.json').write_text(json.dumps(site))
    with served(tool('site').Handler, tmp_path) as url:
        browser.get(url)
        state, text = settle(browser)
    browser.get_log('browser')  # the missing file stands there
    assert state == 'error' and said in text and text.endswith('.')

def test_without_npm(tool, monkeypatch, tmp_path):
    "The build goes on where npm is missing, fails or gives another package, and says which."
    module = tool('detector')
    monkeypatch.setattr(module.shutil, 'which', lambda name: None)
    with pytest.raises(module.NoRuntime, match='npm was not installed'):
        module.fetch_runtime(tmp_path)
    npm = tmp_path/'npm'
    monkeypatch.setattr(module.shutil, 'which', lambda name: str(npm))
    for script, said in (('exit 1', 'could not fetch'),
                         (f'echo other > {tmp_path}/other.tgz', 'is not that package')):
        npm.write_text(f'#!/bin/sh\n{script}\n')
        npm.chmod(0o755)
        with pytest.raises(module.NoRuntime, match=said):
            module.fetch_runtime(tmp_path)
