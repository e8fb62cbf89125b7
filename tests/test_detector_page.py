"The page \"The detector\" in a real browser: it finds the library's boxes, and its sliders, curve and ways in work."
import functools, http.server, json, random, re, threading
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image

from yolov3_nb.augment import test_transform as letterbox_transform
from yolov3_nb.data import read_image
from yolov3_nb.evaluation import flatten, voc_ap
from yolov3_nb.export import detect_images
from yolov3_nb.model import YOLOv3
from yolov3_nb.toyvoc import course_scene, scene

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT/'nbs'/'detector'
OWN_SCRIPTS = 60_000  # bytes that the page's own scripts may have, without the runtime

pytest.importorskip('selenium', reason="selenium, which drives the browser, is missing: pip install -e '.[dev]'")
pytest.importorskip('onnxscript', reason="onnxscript, which the export to ONNX needs, is missing: pip install -e '.[export]'")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

def skeleton(source):
    "The page's own HTML without the site around it: what stands in its raw blocks."
    blocks = re.findall(r'^```\{=html\}\n(.*?)^```$', source, re.M | re.S)
    return '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><main>' + ''.join(blocks) + '</main>'

@pytest.fixture(scope='module')
def built(tool):
    "The page's build folder, made anew where anything changed; without npm or a network there is no page to test, and that is said."
    site = tool('detector').make()
    if site['missing']: pytest.skip(f"ONNX Runtime Web could not be had: {site['missing']}")
    return site

@pytest.fixture(scope='module')
def address(tmp_path_factory, tool, built):
    "Where the page is served, as its own file and folder stand in the site."
    folder = tmp_path_factory.mktemp('page')
    (folder/'detector.html').write_text(skeleton((ROOT/'nbs'/'detector.qmd').read_text(encoding='utf-8')), encoding='utf-8')
    (folder/'detector').symlink_to(PAGE, target_is_directory=True)
    module = tool('site')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(module.Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/detector.html'
        server.shutdown()

@pytest.fixture(scope='module')
def browser(chrome): return chrome('--window-size=1280,1000', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream')

def root(browser): return browser.find_element(By.ID, 'detector-run')

def wait(browser, condition, seconds=60): return WebDriverWait(browser, seconds, poll_frequency=.05).until(condition)

def settle(browser):
    "Wait until the page has answered; its state and what it says."
    wait(browser, lambda b: root(b).get_attribute('data-state') != 'loading')
    return root(browser).get_attribute('data-state'), browser.find_element(By.CLASS_NAME, 'detector-state').text

@pytest.fixture
def page(browser, address):
    browser.get(address)
    assert settle(browser)[0] == 'ready', settle(browser)
    yield browser
    assert browser.get_log('browser') == []

def detections(page): return json.loads(root(page).get_attribute('data-detections'))

def drop(page, file, state='ready'):
    "Give the page a file; what it then has found, or says."
    page.find_element(By.CSS_SELECTOR, '.detector-button input[type=file]').send_keys(str(file))
    if state == 'ready': wait(page, lambda b: root(b).get_attribute('data-image') == Path(file).name)
    else: wait(page, lambda b: root(b).get_attribute('data-state') == state)
    return detections(page) if state == 'ready' else settle(page)[1]

def choose(page, **choices):
    for name, value in choices.items():
        select = Select(page.find_element(By.CLASS_NAME, name))
        if select.first_selected_option.get_attribute('value') == value: continue
        select.select_by_value(value)
        settle(page)

def slide(page, name, value):
    "Move a slider; the page answers within the same turn of the worker's queue."
    page.execute_script('const [s, v] = arguments; s.value = v; s.dispatchEvent(new Event("input", {bubbles: true}))', page.find_element(By.CLASS_NAME, name), value)
    page.execute_async_script('setTimeout(arguments[0], 400)')

@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "Three files: a JPEG that is shrunk by 2.3, a PNG that grows and is in part transparent, a large JPEG that EXIF turns."
    folder = tmp_path_factory.mktemp('pictures')
    rgb = [Image.fromarray(img) for img, _ in (course_scene(), scene(random.Random('page-1')), scene(random.Random('page-4')))]
    rgb[0].resize((371, 278), Image.LANCZOS).save(folder/'shrink.jpg', quality=95, subsampling=0)
    small = rgb[1].resize((131, round(131*rgb[1].height/rgb[1].width)), Image.LANCZOS).convert('RGBA')
    alpha = np.full((small.height, small.width), 255, np.uint8)
    alpha[:12] = 0
    small.putalpha(Image.fromarray(alpha))
    small.save(folder/'grow.png')
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by 90 degrees
    turned = rgb[2].resize((1536, round(1536*rgb[2].height/rgb[2].width)), Image.BICUBIC).rotate(90, expand=True)
    turned.save(folder/'turned.jpg', quality=92, exif=exif)
    return [folder/name for name in ('shrink.jpg', 'grow.png', 'turned.jpg')]

def compare(found, model, file, pixels, points, slack):
    """Each of the page's boxes is one of the library's and the other way round, but for those that score within `slack` of the
    threshold; how many there are."""
    want = detect_images(model, [read_image(file)], score_threshold=.25 - slack)[0]
    sure = (want['scores'] > .25 + slack).nonzero()[:, 0].tolist()
    pairs = {}
    for n, d in enumerate(found):
        alike = [i for i in range(len(want['scores'])) if want['labels'][i] == d['label'] and want['scale'][i] == d['scale']
                 and want['anchor'][i] == d['anchor'] and want['cell'][i].tolist() == [d['row'], d['column']]]
        assert len(alike) == 1, (file.name, d)
        i = pairs[n] = alike[0]
        assert (want['boxes'][i] - torch.tensor(d['box'])).abs().max() <= pixels, (file.name, d, want['boxes'][i])
        assert abs(want['scores'][i] - d['score']) <= points, (file.name, d, want['scores'][i])
    assert set(sure) <= set(pairs.values()), file.name
    return len(found)

@pytest.mark.parametrize('network', ['toy', 'voc'])
def test_boxes_are_the_librarys(page, pictures, network):
    model = YOLOv3.from_pretrained(ROOT/'weights'/network)
    if network == 'voc': pictures = [PAGE/'build'/'grace_hopper.jpg', *pictures]
    choose(page, network=network)
    counts = [compare(drop(page, file), model, file, pixels=1, points=.02, slack=.02) for file in pictures]
    assert sum(counts) > (6 if network == 'toy' else 0), counts

def test_eight_bits_are_close(page, pictures):
    "A quarter of the bytes of 32 bits, and what the page says of it: within a pixel of the square that the network sees, and 0.03."
    model = YOLOv3.from_pretrained(ROOT/'weights'/'toy')
    choose(page, bits='8')
    side = lambda file: max(read_image(file).shape)
    assert sum(compare(drop(page, file), model, file, pixels=max(1, side(file)/160), points=.03, slack=.03) for file in pictures) > 6

def test_letterbox_is_the_librarys(page, address, pictures):
    "Pixel by pixel, for the files as the browser decodes them: shrunk by area, grown linearly, turned by EXIF, white where transparent."
    script = '''const [address, size, bytes, done] = arguments;
    (async () => {
      const core = await import(new URL('detector/core.js', address));
      const blob = new Blob([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))]);
      const bitmap = await createImageBitmap(blob, {colorSpaceConversion: 'none'});
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
      context.fillStyle = '#fff';
      context.fillRect(0, 0, bitmap.width, bitmap.height);
      context.drawImage(bitmap, 0, 0);
      done(Array.from(core.letterbox(context.getImageData(0, 0, bitmap.width, bitmap.height), size).view));
    })()'''
    import base64
    for file in pictures:
        view = page.execute_async_script(script, address, 160, base64.b64encode(file.read_bytes()).decode())
        ours = np.array(view, np.float32).reshape(160, 160, 4)[..., :3]
        theirs = letterbox_transform(160)(image=read_image(file), bboxes=np.zeros((0, 5), np.float32))['image'].permute(1, 2, 0).numpy()*255
        gap = np.abs(ours - theirs)
        assert gap.mean() < .4 and np.quantile(gap, .999) <= 4, (file.name, gap.mean(), gap.max())

def test_sliders_keyboard_and_curve(page, built):
    wait(page, lambda b: root(b).get_attribute('data-examples') == 'done', 120)
    model = YOLOv3.from_pretrained(ROOT/'weights'/'toy')
    known = [e for e in built['examples'] if e['test']]
    files = [PAGE/'build'/e['file'] for e in known]
    gts = flatten([{'boxes': torch.tensor(e['boxes']), 'labels': torch.tensor(e['labels']), 'difficult': torch.tensor(e['difficult'])} for e in known])
    def library(score, iou): return voc_ap(flatten(detect_images(model, [read_image(f) for f in files], score_threshold=score, iou_threshold=iou)), gts, 20)['map']
    shown = lambda: json.loads(root(page).get_attribute('data-curve'))
    assert abs(shown()['map'] - library(.25, .45)) < .02 and abs(shown()['whole'] - library(.01, .45)) < .02
    before, few = shown(), len(detections(page))
    slider = page.find_element(By.CLASS_NAME, 'score')
    slider.send_keys(Keys.HOME)
    page.execute_async_script('setTimeout(arguments[0], 400)')
    assert slider.get_attribute('value') == '0.01' and len(detections(page)) > few and shown()['recall'] > before['recall']
    assert shown()['precision'] < before['precision'] and abs(shown()['map'] - shown()['whole']) < 1e-9
    slide(page, 'score', .8)
    assert shown()['precision'] > before['precision'] and shown()['map'] < before['map']
    slide(page, 'score', .25)
    slide(page, 'iou', .9)
    values = [[s.get_attribute('value') for s in page.find_elements(By.CSS_SELECTOR, f'input.{name}')] for name in ('score', 'iou')]
    assert values == [['0.25', '0.25'], ['0.9', '0.9']]  # beside the image and beside the curve
    assert len(detections(page)) > few and shown()['precision'] < before['precision']
    assert abs(shown()['map'] - library(.25, .9)) < .03

def test_cells_that_answered(page):
    "Each kept box is counted under its grid, and a row that has the focus shows its cell and its anchor."
    found = detections(page)
    panels = [c.text for c in page.find_elements(By.CSS_SELECTOR, '.detector-grids figcaption')]
    for scale, text in enumerate(panels):
        n = sum(d['scale'] == scale for d in found)
        assert (f'{n} box' in text) if n else ('no box' in text), (text, found)
    button = page.find_element(By.CSS_SELECTOR, '.detections button')
    page.execute_script('arguments[0].focus()', button)
    assert len(page.find_elements(By.CSS_SELECTOR, '.boxes .cell')) == len(page.find_elements(By.CSS_SELECTOR, '.boxes .anchor')) == 1
    stage, cell = (page.find_element(By.CSS_SELECTOR, f'.detector-stage{s}').rect for s in ('', ' .cell'))
    d, stride = found[0], (32, 16, 8)[found[0]['scale']]
    w, h = (page.find_element(By.CSS_SELECTOR, '.detector-stage img').get_property(f'natural{side}') for side in ('Width', 'Height'))
    assert cell['width'] / stage['width'] <= stride / 160 * max(w, h) / w + .01  # less where the image's edge cuts the cell
    assert cell['height'] / stage['height'] <= stride / 160 * max(w, h) / h + .01
    x1, y1, x2, y2 = d['square']
    assert d['column']*stride <= (x1 + x2)/2 <= (d['column'] + 1)*stride and d['row']*stride <= (y1 + y2)/2 <= (d['row'] + 1)*stride

def test_what_is_no_image(page, tmp_path):
    (tmp_path/'notes.txt').write_text('no pixels here')
    said = drop(page, tmp_path/'notes.txt', state='error')
    assert 'not an image' in said and said.count('.') <= 2
    page.find_elements(By.CSS_SELECTOR, '.detector-examples button')[3].click()
    wait(page, lambda b: root(b).get_attribute('data-state') == 'ready')

def test_paste_drop_and_camera(page):
    give = '''const [how] = arguments;
    const canvas = Object.assign(document.createElement('canvas'), {width: 90, height: 60});
    canvas.getContext('2d').fillRect(0, 0, 90, 60);
    canvas.toBlob(blob => {
      const data = new DataTransfer();
      data.items.add(new File([blob], how + '.png', {type: 'image/png'}));
      const event = how === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, bubbles: true}) : new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true});
      document.body.dispatchEvent(event);
    });'''
    picture = lambda b: b.find_element(By.CSS_SELECTOR, '.detector-stage img')
    for how in ('paste', 'drop'):
        page.execute_script(give, how)
        wait(page, lambda b: picture(b).get_attribute('alt') == f'{how}.png' and picture(b).get_property('naturalWidth') == 90)
    page.find_element(By.CLASS_NAME, 'camera').click()
    wait(page, lambda b: b.find_element(By.TAG_NAME, 'video').get_property('videoWidth') > 0)
    page.find_element(By.CLASS_NAME, 'snap').click()
    wait(page, lambda b: picture(b).get_property('naturalWidth') > 90)
    assert not page.find_element(By.TAG_NAME, 'video').is_displayed()

def test_nothing_is_sent_away(browser, address, pictures):
    "All that the page asks for comes from the site itself, by GET, and a dropped image asks for nothing."
    browser.get(address)
    settle(browser)
    wait(browser, lambda b: root(b).get_attribute('data-examples') == 'done', 120)
    asked = lambda: browser.execute_script('return performance.getEntriesByType("resource").map(e => e.name)')
    home, before = address.rsplit('/', 1)[0], asked()
    assert before and all(url.startswith((home, f'blob:{home[:home.index("/", 8)] if "/" in home[8:] else home}')) for url in before)
    drop(browser, pictures[0])
    assert [url for url in asked()[len(before):] if not url.startswith('blob:')] == []

def test_small_and_alone(built):
    "The page's own scripts are small, and what is loaded for a first detection has a size that a phone can bear."
    scripts = sum(f.stat().st_size for f in PAGE.glob('*.js'))
    assert scripts < OWN_SCRIPTS
    assert built['runtime']['bytes'] + built['networks']['toy']['files']['16']['bytes'] < 13e6
    assert 1.9 < built['networks']['toy']['files']['16']['bytes'] / built['networks']['toy']['files']['8']['bytes'] < 2.05
    for file in (PAGE/'build').glob('*.onnx'): assert b'.py' not in file.read_bytes(), f'{file.name} holds the paths of the machine that made it'

@pytest.mark.parametrize('missing, said', [('site.json', 'not part of this copy'), (None, 'npm was not installed')])
def test_where_the_network_is_missing(browser, tool, tmp_path, missing, said):
    "A site that was built without the network, or without npm, says so in one sentence."
    (tmp_path/'detector.html').write_text(skeleton((ROOT/'nbs'/'detector.qmd').read_text(encoding='utf-8')), encoding='utf-8')
    (tmp_path/'detector'/'build').mkdir(parents=True)
    for file in PAGE.glob('*.*'): (tmp_path/'detector'/file.name).write_bytes(file.read_bytes())
    if not missing: (tmp_path/'detector'/'build'/'site.json').write_text(json.dumps({'runtime': None, 'missing': 'npm was not installed where this site was built.'}))
    module = tool('site')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(module.Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.get(f'http://127.0.0.1:{server.server_port}/detector.html')
        state, text = settle(browser)
        server.shutdown()
    browser.get_log('browser')
    assert state == 'error' and said in text and text.endswith('.')

def test_without_npm(tool, monkeypatch, tmp_path):
    "The build goes on where npm is missing, fails or gives another package, and says which."
    module = tool('detector')
    monkeypatch.setattr(module.shutil, 'which', lambda name: None)
    with pytest.raises(module.NoRuntime, match='npm was not installed'): module.fetch_runtime(tmp_path)
    npm = tmp_path/'npm'
    for script, said in (('exit 1', 'could not fetch'), (f'echo other > {tmp_path}/other.tgz', 'is not that package')):
        npm.write_text(f'#!/bin/sh\n{script}\n')
        npm.chmod(0o755)
        monkeypatch.setattr(module.shutil, 'which', lambda name: str(npm))
        with pytest.raises(module.NoRuntime, match=said): module.fetch_runtime(tmp_path)
