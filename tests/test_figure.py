"""The figure of 03 in a real browser: dragged, typed at and slid, it shows what the library
computes."""
import html
import json
import random
import re
from pathlib import Path
import pytest
import torch

from yolov3_nb.boxes import batched_nms, nms, paired_iou

ROOT = Path(__file__).resolve().parent.parent

pytest.importorskip('selenium', reason="selenium, which drives the browser, is missing: "
                                        "pip install -e '.[dev]'")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402 (skipped without selenium)
from selenium.webdriver.common.actions.action_builder import ActionBuilder  # noqa: E402 (skipped without selenium)
from selenium.webdriver.common.actions.interaction import POINTER_TOUCH  # noqa: E402 (skipped without selenium)
from selenium.webdriver.common.actions.pointer_input import PointerInput  # noqa: E402 (skipped without selenium)
from selenium.webdriver.common.by import By  # noqa: E402 (skipped without selenium)
from selenium.webdriver.common.keys import Keys  # noqa: E402 (skipped without selenium)

@pytest.fixture(scope='module')
def figure():
    "The HTML that chapter 03 keeps in its output."
    cells = json.loads((ROOT/'nbs'/'03_boxes.ipynb').read_text(encoding='utf-8'))['cells']
    pages = [''.join(o['data']['text/html']) for c in cells for o in c.get('outputs', [])
             if 'box-figure' in ''.join(o.get('data', {}).get('text/html', ''))]
    pages = [page for page in pages if 'class="panel nms"' in page]  # the other has no such part
    assert len(pages) == 1
    return pages[0]

@pytest.fixture(scope='module')
def data(figure):
    return json.loads(html.unescape(re.search("data-figure='(.*?)'", figure)[1]))

@pytest.fixture(scope='module')
def browser(chrome):
    return chrome('--window-size=1000,1100')

@pytest.fixture
def page(browser, figure, tmp_path):
    file = tmp_path/'figure.html'
    file.write_text(f'<!doctype html><meta charset="utf-8"><meta name="viewport" '
                    f'content="width=device-width">{figure}', encoding='utf-8')
    browser.get(file.as_uri())
    yield browser
    assert browser.get_log('browser') == []  # no error, no warning, nothing fetched in vain

def handle(page, box, end='body'):
    return page.find_element(By.CSS_SELECTOR, f'[data-box={box}][data-end={end}]')

def box(page, name):
    return json.loads(handle(page, name).get_attribute('data-value'))

def agrees(page):
    """The three numbers that are shown, and those under them to the last digit, are the library's
    for these two boxes."""
    pair = [torch.tensor(box(page, n), dtype=torch.float64) for n in 'ab']
    for kind in ('iou', 'giou', 'ciou'):
        out = page.find_element(By.CSS_SELECTOR, f'[data-kind={kind}]')
        want = paired_iou(*pair, kind).item()
        assert abs(float(out.get_attribute('data-value')) - want) < 1e-12, (kind, pair)
        assert out.text == f'{want:.3f}'.replace('-', '−') or abs(abs(want * 1000 % 1) - .5) < 1e-9
    return tuple(map(tuple, (box(page, 'a'), box(page, 'b'))))

def test_values_while_dragging(page, data):
    random.seed(0)
    seen, (w, h) = {agrees(page)}, data['size']
    scale = page.find_element(By.CSS_SELECTOR, '.pair svg').rect['width'] / w
    for _ in range(12):
        name, end = random.choice('ab'), random.choice(('body', 'first', 'last'))
        grip = handle(page, name, end)
        x, y = (grip.rect[k] + grip.rect[side] / 2 for k, side in (('x', 'width'), ('y', 'height')))
        # to anywhere on the picture
        dx, dy = random.randint(5, round(w * scale)) - x, random.randint(5, round(h * scale)) - y
        ActionChains(page, duration=0).click_and_hold(grip).move_by_offset(
            round(dx), round(dy)).release().perform()
        seen.add(agrees(page))
        for x1, y1, x2, y2 in (box(page, 'a'), box(page, 'b')):
            assert 0 <= x1 <= x2 - 4 and x2 <= w and 0 <= y1 <= y2 - 4 and y2 <= h
    assert len(seen) > 8 and len({b[0] for b in seen}) > 2 and len({b[1] for b in seen}) > 2

def test_examples(page):
    seen = []
    for button in page.find_elements(By.CSS_SELECTOR, '.presets button'):
        button.click()
        seen.append(paired_iou(*(torch.tensor(b).double() for b in agrees(page))).item())
    assert len(seen) == 5 and 0. in seen and 1. in seen

def test_keyboard(page):
    before = box(page, 'a')
    grip = handle(page, 'a')
    grip.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_UP)
    ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.ARROW_DOWN).key_up(Keys.SHIFT).perform()
    assert box(page, 'a') == [before[0] - 2, before[1] + 9, before[2] - 2, before[3] + 9]
    handle(page, 'a', 'last').send_keys(Keys.ARROW_RIGHT)
    assert box(page, 'a') == [before[0] - 2, before[1] + 9, before[2] - 1, before[3] + 9]
    agrees(page)
    assert f'left {before[0] - 2:.0f}, top {before[1] + 9:.0f}' in grip.get_attribute(
        'aria-valuetext')
    assert 'truth' in grip.get_attribute('aria-label')
    grip.send_keys('')
    order = []
    for _ in range(6):
        order.append(page.switch_to.active_element.get_attribute('data-box'))
        ActionChains(page).send_keys(Keys.TAB).perform()
    assert sorted(order, key=str) == list('aaabbb')

def test_touch(page, data):
    before, spot = box(page, 'b'), handle(page, 'b', 'last').rect
    scale = page.find_element(By.CSS_SELECTOR, '.pair svg').rect['width'] / data['size'][0]
    x, y = int(spot['x'] + spot['width'] / 2), int(spot['y'] + spot['height'] / 2)
    actions = ActionBuilder(page, mouse=PointerInput(POINTER_TOUCH, 'finger'))
    actions.pointer_action.move_to_location(x,
                                            y).pointer_down().move_to_location(
                                                x + 40, y + 30).pointer_up()
    actions.perform()
    after = box(page, 'b')
    assert after[:2] == before[:2]
    assert abs(after[2] - before[2] - 40 / scale) <= 1
    assert abs(after[3] - before[3] - 30 / scale) <= 1
    agrees(page)

def kept(page):
    return json.loads(page.find_element(By.CSS_SELECTOR, '.kept').get_attribute('data-keep'))

def test_nms_over_the_thresholds(page, data):
    boxes = torch.tensor(data['boxes'])
    scores = torch.tensor(data['scores'])
    labels = torch.tensor(data['labels'])
    slider, each = (page.find_element(By.CSS_SELECTOR, f'.nms input[type={kind}]')
                    for kind in ('range', 'checkbox'))
    slider.send_keys(Keys.HOME)
    counts = []
    for n in range(0, 101, 5):
        threshold = float(slider.get_attribute('value'))
        assert abs(threshold - n / 100) < 1e-9
        assert page.find_element(By.CSS_SELECTOR, '.threshold').text == f'{threshold:.2f}'
        assert kept(page) == batched_nms(boxes, scores, labels, threshold).tolist()
        each.click()
        assert kept(page) == nms(boxes, scores, threshold).tolist()
        each.click()
        counts.append(len(kept(page)))
        slider.send_keys(Keys.ARROW_RIGHT * 5)
    assert counts[0] < 10 and counts[-1] == len(boxes)

def test_the_rounds_end_where_nms_ends(page, data):
    want, play = kept(page), page.find_element(By.CSS_SELECTOR, '.nms button')
    play.click()
    assert kept(page) == want[:1] and play.text == 'Stop'
    play.click()
    assert kept(page) == want and play.text != 'Stop'

def test_on_a_phone(page):
    page.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                         dict(width=360, height=700, deviceScaleFactor=2, mobile=True))
    assert page.execute_script('return document.documentElement.scrollWidth') == 360
    dots = page.find_elements(By.CSS_SELECTOR, '.corner')
    # a thumb's width, by WCAG 2.5.8
    assert all(min(d.rect['width'], d.rect['height']) >= 24 for d in dots)
    page.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})

# ---- the figure of the three grids ----

@pytest.fixture(scope='module')
def grids():
    "The course's image on a square, its boxes, and anchors for it."
    from yolov3_nb.anchors import ANCHORS, scale_anchors
    from yolov3_nb.augment import apply_transform, test_transform as letterbox
    from yolov3_nb.toyvoc import VOC_CLASSES, course_scene
    img, notes = course_scene()
    target = {'boxes': torch.tensor([list(n.box) for n in notes]).float(),
              'labels': torch.tensor([VOC_CLASSES.index(n.name) for n in notes]),
              'difficult': torch.zeros(len(notes), dtype=torch.bool)}
    x, inside = apply_transform(letterbox(416), img, target)
    return (x.permute(1, 2, 0)*255).round().byte().numpy(), inside, scale_anchors(
        ANCHORS['toyvoc'], 416)

@pytest.fixture
def grid_page(browser, grids, tmp_path):
    from yolov3_nb.figure import grid_figure
    square, inside, anchors = grids
    file = tmp_path/'grids.html'
    figure = grid_figure(square, inside['boxes'], inside['labels'], anchors)
    file.write_text(f'<!doctype html><meta charset="utf-8"><meta name="viewport" '
                    f'content="width=device-width">{figure}', encoding='utf-8')
    browser.get(file.as_uri())
    yield browser
    assert browser.get_log('browser') == []

def grip(page, i, end='body'):
    return page.find_element(By.CSS_SELECTOR, f'[data-box="{i}"][data-end={end}]')

def same_as_encode(page, anchors, n):
    """Cells, slots and ignored anchors that the figure shows are those of `encode` for the boxes
    where they now are; the boxes."""
    from yolov3_nb.anchors import STRIDES, encode
    boxes = torch.tensor([json.loads(grip(page, i).get_attribute('data-value')) for i in range(n)],
                         dtype=torch.float32)
    target = {'boxes': boxes, 'labels': torch.arange(n),
              'difficult': torch.zeros(n, dtype=torch.bool)}
    shown = json.loads(page.find_element(By.CSS_SELECTOR,
                                         '.grid-figure').get_attribute('data-encoded'))
    for places, grid, stride in zip(shown, encode([target], anchors, 416), STRIDES):
        owners = torch.zeros(grid.shape[1:4])
        for place in places:
            row, col = place['cell']
            owners[:, row, col] = torch.tensor(place['owners']).float()
        # 1 + the box, -1 ignored, 0 background
        want = torch.where(grid[0, ..., 4] == 1, grid[0, ..., 5] + 1, grid[0, ..., 4])
        assert torch.equal(owners, want), (stride, boxes)
    return boxes

def test_grids_while_dragging(grid_page, grids):
    anchors, n = grids[2], len(grids[1]['boxes'])
    random.seed(1)
    seen = {tuple(same_as_encode(grid_page, anchors, n).flatten().tolist())}
    scale = grid_page.find_element(By.CSS_SELECTOR, '.stage').rect['width'] / 416
    for _ in range(14):
        i, end = random.randrange(n), random.choice(('body', 'first', 'last'))
        spot = grip(grid_page, i, end).rect
        x, y = spot['x'] + spot['width'] / 2, spot['y'] + spot['height'] / 2
        actions = ActionBuilder(grid_page, duration=0)
        actions.pointer_action.move_to_location(round(x) + 1, round(y) + 1).pointer_down()
        to = round(random.uniform(10, 400) * scale), round(60 + random.uniform(10, 400) * scale)
        actions.pointer_action.move_to_location(*to).pointer_up()
        actions.perform()
        seen.add(tuple(same_as_encode(grid_page, anchors, n).flatten().tolist()))
    assert len(seen) > 8

def test_grids_share_a_cell(grid_page, grids):
    "Two boxes on one centre: the later one finds the slot taken, and the figure says by what."
    anchors, n = grids[2], len(grids[1]['boxes'])
    names = json.loads(grid_page.find_element(By.CSS_SELECTOR,
                                              '.grid-figure').get_attribute('data-figure'))['names']
    for i, side in ((3, 60), (4, 62)):  # pulled to the same place, corner by corner
        for end, where in (('first', 200 - side // 2), ('last', 200 + side // 2),
                           ('first', 200 - side // 2)):
            for axis, keys in ((0, (Keys.ARROW_LEFT, Keys.ARROW_RIGHT)),
                               (1, (Keys.ARROW_UP, Keys.ARROW_DOWN))):
                gap = (where
                       - json.loads(grip(grid_page,
                                         i).get_attribute('data-value'))[axis + 2 * (
                                             end == 'last')])
                grip(grid_page, i, end).send_keys(keys[gap > 0] * int(abs(gap)))
    boxes = same_as_encode(grid_page, anchors, n)
    assert boxes[3].tolist() == [170, 170, 230, 230] and boxes[4].tolist() == [169, 169, 231, 231]
    words = ' '.join(c.text for c in grid_page.find_elements(By.CSS_SELECTOR, '.grid figcaption'))
    assert f'is taken by {names[3]}' in words and words.count('is taken by this box') == 3

def test_grids_on_a_phone_and_without_scripts(grid_page, grids):
    grid_page.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                              dict(width=390, height=844, deviceScaleFactor=2, mobile=True))
    assert grid_page.execute_script('return document.documentElement.scrollWidth') == 390
    assert all(min(d.rect['width'], d.rect['height']) >= 24
               for d in grid_page.find_elements(By.CSS_SELECTOR, '.first, .last'))
    grid_page.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    grid_page.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', dict(value=True))
    try:
        grid_page.refresh()
        cells = grid_page.find_elements(By.CSS_SELECTOR, '.grid .static rect[fill-opacity]')
        assert len(cells) == 3 * len(grids[1]['boxes']) and all(c.is_displayed() for c in cells)
        assert not grid_page.find_element(By.CSS_SELECTOR, '.how').is_displayed()
    finally:
        grid_page.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', dict(value=False))

# ---- frames with a slider ----

HEAD = ('<!doctype html><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">')


def chapter_pages():
    "Every slider figure that a notebook keeps in its outputs: {cell: HTML}."
    found = {}
    for path in sorted((ROOT/'nbs').glob('[01]*.ipynb')):
        for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
            for output in cell.get('outputs', []):
                page = ''.join(output.get('data', {}).get('text/html', ''))
                if 'class="slider-figure"' in page:
                    found[f"{path.stem} {cell['id']}"] = page
    return found


SLIDERS = chapter_pages()


@pytest.fixture
def sliders(browser, tmp_path):
    "All of them on one page, as a page of the site has several."
    file = tmp_path/'sliders.html'
    file.write_text(HEAD + ''.join(SLIDERS.values()), encoding='utf-8')
    browser.get(file.as_uri())
    yield browser
    assert browser.get_log('browser') == []


def part(figure, selector):
    return figure.find_element(By.CSS_SELECTOR, selector)


def seen(figure):
    "The number of the frame that a figure shows, whose value and sentence stand beside it."
    frames = figure.find_elements(By.CSS_SELECTOR, '.frame')
    on = [i for i, frame in enumerate(frames)
          if frame.value_of_css_property('display') != 'none']
    assert len(on) == 1
    assert part(figure, '.value').text == frames[on[0]].get_attribute('data-value')
    assert part(figure, '.words').text == frames[on[0]].get_attribute('data-words')
    return on[0]


def test_the_chapters_have_their_sliders():
    chapters = {name.split('_')[0] for name in SLIDERS}
    assert chapters >= {'02', '03', '04', '06', '07', '09', '10', '18'}
    assert all(len(page.encode()) < 200_000 for page in SLIDERS.values())


def test_sliders_by_keyboard_and_drag(sliders):
    for figure in sliders.find_elements(By.CSS_SELECTOR, '.slider-figure'):
        slider, stage = part(figure, 'input'), part(figure, 'svg')
        last = len(figure.find_elements(By.CSS_SELECTOR, '.frame')) - 1
        slider.send_keys(Keys.HOME)
        assert seen(figure) == 0
        slider.send_keys(Keys.ARROW_RIGHT)
        assert seen(figure) == 1
        assert slider.get_attribute('aria-valuetext') == part(figure, '.value').text
        slider.send_keys(Keys.END)
        assert seen(figure) == last
        sliders.execute_script('arguments[0].scrollIntoView({block: "center"})', stage)
        mouse = ActionChains(sliders, duration=0)
        mouse.move_to_element(stage).click_and_hold().perform()
        assert abs(seen(figure) - last / 2) <= 1
        mouse = ActionChains(sliders, duration=0)
        mouse.move_by_offset(round(stage.rect['width'] * .45), 0).release().perform()
        assert seen(figure) >= .85 * last


def test_sliders_play_and_stop(sliders):
    figure = part(sliders, '.slider-figure')
    slider, play = part(figure, 'input'), part(figure, 'button')
    slider.send_keys(Keys.HOME)
    play.click()
    assert play.text == 'Stop'
    slider.send_keys(Keys.END)  # a hand on the slider ends it
    assert play.text == 'Play'
    seen(figure)


def test_sliders_on_a_phone_and_without_scripts(sliders):
    phone = dict(width=390, height=844, deviceScaleFactor=2, mobile=True)
    sliders.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', phone)
    assert sliders.execute_script('return document.documentElement.scrollWidth') == 390
    sliders.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    sliders.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', dict(value=True))
    try:
        sliders.refresh()
        for figure in sliders.find_elements(By.CSS_SELECTOR, '.slider-figure'):
            frames = figure.find_elements(By.CSS_SELECTOR, '.frame')
            assert sum(frame.value_of_css_property('display') != 'none' for frame in frames) == 1
            assert part(figure, '.words').text
            assert not part(figure, '.how').is_displayed()
    finally:
        sliders.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', dict(value=False))


def test_the_scripts_of_the_figures_are_small():
    templates = ROOT/'yolov3_nb'/'templates'
    sizes = [file.stat().st_size for kind in ('js', 'css', 'html')
             for file in templates.glob(f'*_figure.{kind}')]
    assert sum(sizes) < 60_000
