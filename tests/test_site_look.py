"Every page of the site in a real browser, on a desk and on a phone, by light and in the dark."
import base64
import functools
import http.server
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures('site_lock')
DESK, PHONE = (1280, 800), (390, 844)
# width moves boxes, the scheme only colours; LOOK_AT=all takes the other two as well
VIEWS = [(*DESK, 'light'), (*PHONE, 'dark')]
if os.environ.get('LOOK_AT') == 'all':
    VIEWS += [(*PHONE, 'light'), (*DESK, 'dark')]

if not importlib.util.find_spec('smalldocs'):
    pytest.skip('smalldocs, which renders the site, needs Python 3.11 or newer',
                allow_module_level=True)

# What a page is asked once it has the width and the scheme: an array of complaints.
LOOK = (Path(__file__).parent/'site_look.js').read_text(encoding='utf-8')

@pytest.fixture(scope='module')
def module(tool):
    return tool('site')

@pytest.fixture(scope='module')
def address(module):
    """Where the site is served. It is built only where it is not there: tests/test_site.py has just
    built it."""
    cfg = module.config()
    if not (cfg.doc_path/'index.html').is_file():
        subprocess.run([sys.executable, 'tools/site.py'], cwd=ROOT, check=True)
    module.Handler.base = cfg.doc_baseurl
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0),
                                         functools.partial(module.Handler,
                                                           directory=str(cfg.doc_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}{cfg.doc_baseurl}/'
        server.shutdown()

@pytest.fixture(scope='module')
def browser(chrome):
    # fonts and badges stay away
    driver = chrome('--hide-scrollbars', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1')
    driver.set_script_timeout(60)
    return driver

def look(browser, module, url, views=VIEWS):
    "All that is wrong with one page, one line each."
    def turn(width, height, scheme):
        browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                                dict(width=width, height=height, deviceScaleFactor=1,
                                     mobile=width < 500))
        browser.execute_cdp_cmd('Emulation.setEmulatedMedia',
                                dict(features=[dict(name='prefers-color-scheme', value=scheme)]))
    problems, home = [], url.split('/', 3)[2]
    turn(*views[0])
    browser.get(url)
    for i, (width, height, scheme) in enumerate(views):
        if i:
            turn(width, height, scheme)
        bad, prose = browser.execute_async_script(LOOK, width, scheme, not i)
        problems += [f'{width} {scheme}: {b}' for b in bad]
        problems += [f'{what} shows as raw markup: {m[0]!r}'
                     for what, pattern in module.MARKUP.items() if (m := pattern.search(prose))]
    elsewhere = re.compile(rf'^https?://(?!{re.escape(home)})')
    return problems + [f"console: {e['message']}" for e in browser.get_log('browser')
                       if not elsewhere.match(e['message'])]

def test_every_page_in_every_view(browser, module, address):
    cfg = module.config()
    pages = sorted(module.read_pages(cfg))
    assert len(pages) > len(module.notebooks(cfg))
    problems = {page: found for page in pages if (found := look(browser, module, address + page))}
    assert not problems, '\n'.join(f'{page}: {p}' for page, found in problems.items()
                                   for p in found[:8])

GOOD = ('<html><head><title>x</title><link rel="icon" '
        'href="data:,"></head><body><main><p>Prose.</p>{}</main></body></html>')

@pytest.mark.parametrize('bad, said', [
    ('', None), ('<div style="overflow-x: auto"><pre style="width: 900px">code</pre></div>', None),
    ('<table style="width: 900px"><tr><td>wide</td></tr></table>', '9\\d\\d pixels wide.*table'),
    ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', 'no words for the picture'),
    ('<img src="lost.png" alt="lost">', 'no picture'),
    ('<img src="lost.png" alt="lost">', 'console: .*404'),
    ('<script>oops()</script>', 'console: .*oops'),
    ('<p style="color: #999">pale</p>', 'contrast 2.8'),
    ('<style>i::before { content: "*"; color: #bbb }</style><i class="bi"></i>', 'of an icon'),
    ('<svg viewBox="0 0 900 90" width="300"><text y="40" font-size="13">x</text></svg>',
     'letters of 4.3 pixels'),
    ('<p>it sorts _mistakes</p>', 'a private name shows'),
    ('<p>see [boxes](boxes.html)</p>', 'a link shows'),
    ('<p>| --- | --- |</p>', 'a table shows')])
def test_it_sees(browser, module, tmp_path, bad, said):
    (tmp_path/'x.html').write_text('<!doctype html><meta charset="utf-8"><meta name="viewport" '
                                   'content="width=device-width">' + GOOD.format(bad),
                                   encoding='utf-8')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0),
                                         functools.partial(module.Handler,
                                                           directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        problems = look(browser, module, f'http://127.0.0.1:{server.server_port}/x.html',
                        [(390, 844, 'light')])
        server.shutdown()
    assert any(re.search(said, p) for p in problems) if said else problems == []


# The structure that Quarto 1.7 and 1.10 give a page (smalldocs gives another): headings are
# sections, the theme stands on the body, tables have Bootstrap's class, entries of functions hang
# in a section and not in their cell's output. Bootstrap's rules that matter here are in short.
QUARTO = (Path(__file__).parent/'quarto_page.html').read_text(encoding='utf-8')

@pytest.fixture(scope='module')
def quarto_page(module, tmp_path_factory):
    "Where a page of Quarto's structure is served with the site's own styles."
    folder = tmp_path_factory.mktemp('quarto')
    (folder/'index.html').write_text(QUARTO, encoding='utf-8')
    (folder/'styles.css').write_bytes((ROOT/'nbs'/'styles.css').read_bytes())
    shutil.copytree(ROOT/'nbs'/'fonts', folder/'fonts')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0),
                                         functools.partial(module.Handler,
                                                           directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/index.html'
        server.shutdown()

def test_styles_fit_quartos_structure(browser, module, quarto_page):
    every = [(*DESK, 'light'), (*PHONE, 'light'), (*PHONE, 'dark'), (*DESK, 'dark')]
    assert look(browser, module, quarto_page, every) == []
    def box(css):
        return browser.execute_script(
            'return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()', css)
    assert box('.narrow')['width'] < 200  # its lines are as wide as it is
    assert box('td:first-child code')['height'] < 30  # in one line on a phone too
    browser.get(quarto_page + '#nms')
    assert (box('#nms h3')['top'] >= box('#quarto-header')['bottom']
            or browser.execute_script(
                'return innerHeight + scrollY >= document.documentElement.scrollHeight - 1'))
    browser.get(quarto_page + '#ap')
    browser.execute_script('document.querySelector("#nms").scrollIntoView()')
    assert box('#nms h3')['top'] >= box('#quarto-header')['bottom']

CUT = ('<div class="katex-display" style="overflow-x: auto; width: 99px">'
       '<div style="width: 300px">x = y</div></div>')

@pytest.mark.parametrize('bad, view, said', [
    (CUT, (1280, 800, 'light'), 'a formula is cut'), (CUT, (390, 844, 'light'), None),
    ('<div class="cell-output-display"><img alt="a plot" src="{}"></div>', (390, 844, 'dark'),
     'a figure glares in the dark: a plot'),
    ('<div class="cell-output-display"><img alt="a plot" style="filter: invert(1)" src="{}"></div>',
     (390, 844, 'dark'), None)])
def test_it_sees_in_one_view(browser, module, tmp_path, bad, view, said):
    "A formula that is cut counts on a desk, a white figure in the dark."
    import io
    from PIL import Image
    file = io.BytesIO()
    Image.new('RGB', (90, 60), 'white').save(file, 'PNG')
    shown = bad.replace('{}', f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}')
    page = GOOD.format(shown)
    if view[2] == 'dark':
        page = page.replace('<body>', '<body class="quarto-dark" style="background: #222; '
                            'color: #fff">')
    (tmp_path/'x.html').write_text('<!doctype html><meta charset="utf-8"><meta name="viewport" '
                                   f'content="width=device-width">{page}', encoding='utf-8')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0),
                                         functools.partial(module.Handler,
                                                           directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        problems = look(browser, module, f'http://127.0.0.1:{server.server_port}/x.html', [view])
        server.shutdown()
    assert any(said in p for p in problems) if said else problems == []

def test_plots_turn_dark_and_of_photographs_only_the_paper(browser, module, tmp_path):
    "The script of _quarto.yml tells them apart by how much of a figure is white paper."
    import io
    import yaml
    from PIL import Image, ImageDraw
    from selenium.webdriver.support.ui import WebDriverWait
    wait = WebDriverWait(browser, 30, poll_frequency=.05)
    plot = Image.new('RGB', (400, 200), 'white')
    ImageDraw.Draw(plot).line([(10, 190), (200, 20), (390, 150)], fill='#0072b2', width=4)
    bars = Image.new('RGB', (400, 200), 'white')  # little of the paper is left
    for y in range(8, 190, 10):
        ImageDraw.Draw(bars).rectangle((60, y, 380, y + 5), fill='#0072b2')
    photographs = Image.new('RGB', (400, 200), 'white')  # two on one sheet
    for x in (5, 205):
        photographs.paste((90, 140, 60), (x, 5, x + 190, 195))
    def tag(image, name):
        file = io.BytesIO()
        image.save(file, 'PNG')
        return (f'<img id="{name}" alt="{name}" '
                f'src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">')
    script = yaml.safe_load((ROOT/'_quarto.yml').read_text(
        encoding='utf-8'))['format']['html']['include-after-body'][0]['text']
    figures = ''.join(f'<div class="cell-output-display">{tag(i, n)}</div>'
                      for i, n in ((plot, 'plot'), (bars, 'bars'),
                                   (photographs, 'photographs'),
                                   (plot.resize((900, 200)), 'strip')))
    figures += '<p><code id="option">run --start voc</code></p>'
    figures += '<pre id="long" style="width: 9em; overflow-x: auto">a line that is cut off</pre>'
    (tmp_path/'styles.css').write_bytes((ROOT/'nbs'/'styles.css').read_bytes())
    (tmp_path/'x.html').write_text(f'<!doctype html><link rel="stylesheet" href="styles.css"><body '
                                   f'class="quarto-dark" style="background: #222"><main>{figures}'
                                   f'</main>{script}', encoding='utf-8')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0),
                                         functools.partial(module.Handler,
                                                           directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.get(f'http://127.0.0.1:{server.server_port}/x.html')
        look = 'return getComputedStyle(document.getElementById(arguments[0])).filter'
        filters = [browser.execute_script(look, name) for name in ('plot', 'bars', 'photographs')]
        def photographs():
            "What is seen of them, once their paper at the edge is dark."
            png = browser.find_element('id', 'photographs').screenshot_as_png
            shown = Image.open(io.BytesIO(png)).convert('RGB')
            w, h = shown.size
            return max(shown.getpixel((w//200, h//2))) < 60 and shown
        shown = wait.until(lambda _: photographs())
        whole = [e.text for e in browser.find_elements('css selector', '#option .whole')]
        cut = browser.find_element('id', 'long').get_attribute('class')
        strips = [e.get_attribute('id') for e in browser.find_elements('css selector', '.strip')]
        browser.execute_script('document.getElementById("long").scrollLeft = 999')
        wait.until(lambda _: browser.find_element('id', 'long').get_attribute('class') == '')
        server.shutdown()
    browser.get_log('browser')
    assert ['invert' in f for f in filters] == [True, True, False], filters
    assert whole == ['--start']  # and does not break behind its dashes
    w, h = shown.size
    red, green, blue = shown.getpixel((w//4, h//2))
    assert green > red + 20 > blue  # and the photograph is green, as it was
    assert strips == ['strip']
    assert cut == 'cut'  # what goes on at the right says so until it is seen

# Formulas, pictures and letters of a page, where no host but its own can be reached.
OFFLINE = """
const done = arguments[0];
(async () => {
  await document.fonts.ready;
  const math = [...document.querySelectorAll('main .math')];
  const raw = math.filter(e => !e.querySelector('.katex'));
  const images = [...document.images].filter(i => i.complete && !i.naturalWidth);
  const faces = [...document.fonts].filter(f => f.family.includes('Source Sans 3'));
  done({math: math.length, raw: raw.length, broken: images.map(i => i.src),
        faces: faces.filter(f => f.status === 'loaded').length,
        body: getComputedStyle(document.body).fontFamily});
})();"""

def test_a_page_needs_no_other_host(browser, module, address):
    browser.get(f'{address}boxes.html')
    found = browser.execute_async_script(OFFLINE)
    browser.get_log('browser')
    assert found['broken'] == []
    assert found['body'].startswith('"Source Sans 3"') and found['faces'] >= 2
    if not (module.config().doc_path/'site_libs'/'katex').is_dir():
        pytest.skip('npm could not fetch KaTeX when this site was built')
    assert found['math'] > 10 and found['raw'] == 0

def test_tables_of_figures_can_be_read_on_a_phone(browser, address):
    "A figure stands in one line; the table scrolls, but not on a desk that has room for it."
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                            dict(width=PHONE[0], height=PHONE[1], deviceScaleFactor=1, mobile=True))
    browser.get(f'{address}records.html')
    lines = browser.execute_script("""
        const cells = [...document.querySelectorAll('.records td:nth-child(2)')];
        return cells.map(td => {
          const range = document.createRange();
          range.selectNodeContents(td);
          return range.getClientRects().length;
        })""")
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                            dict(width=1440, height=900, deviceScaleFactor=1, mobile=False))
    cut = browser.execute_script("""
        const tables = [...document.querySelectorAll('.records table')];
        return tables.map(e => e.scrollWidth - e.clientWidth)""")
    browser.get_log('browser')
    assert len(lines) > 20 and set(lines) == {1}
    assert len(cut) == 5 and max(cut) <= 1, cut

def test_no_line_of_code_on_the_first_page_wraps(browser, address):
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                            dict(width=DESK[0], height=DESK[1], deviceScaleFactor=1, mobile=False))
    browser.get(f'{address}index.html')
    blocks = browser.execute_script("""
        return [...document.querySelectorAll('main pre > code')].map(code => {
          const tall = code.getBoundingClientRect().height;
          const lines = code.textContent.trimEnd().split('\\n').length;
          code.style.whiteSpace = 'pre';
          return [lines, tall, code.getBoundingClientRect().height];
        })""")
    browser.get_log('browser')
    assert len(blocks) > 4 and max(lines for lines, *_ in blocks) > 5
    assert [b for b in blocks if b[1] > b[2] + 1] == []

def test_the_head_and_the_questionnaire_of_a_chapter(browser, address):
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                            dict(width=DESK[0], height=DESK[1], deviceScaleFactor=1, mobile=False))
    browser.get(f'{address}boxes.html')
    found = browser.execute_script("""
        const one = css => document.querySelector(css), css = e => getComputedStyle(e);
        const answers = [...document.querySelectorAll('#questionnaire details')];
        const left = e => e.getBoundingClientRect().left;
        const summary = answers[0].querySelector('summary').getBoundingClientRect();
        const box = answers[0].getBoundingClientRect();
        return {head: one('.chapter-head').innerText,
                ground: css(one('.chapter-head')).backgroundColor,
                question: parseFloat(css(one('.question > p')).fontSize),
                prose: parseFloat(css(one('main > p, main section > p')).fontSize),
                imports: [...document.querySelectorAll('details.code-fold:not([open]) > summary')]
                  .filter(e => e.textContent.trim() === 'Imports').length,
                above: summary.top - box.top, below: box.bottom - summary.bottom,
                hangs: Math.min(...answers.map(e => left(e) - left(one('#questionnaire ol')))),
                text: left(one('#questionnaire ol'))
                  + parseFloat(css(one('#questionnaire ol')).paddingLeft) - left(answers[0])}""")
    browser.get_log('browser')
    for words in ('After this chapter you can', 'Before you begin'):
        assert words in found['head']
    assert found['ground'] != 'rgba(0, 0, 0, 0)'
    assert found['question'] > found['prose']
    assert found['imports'] >= 1  # nbdev leaves out those that are exported
    assert abs(found['above'] - found['below']) < 1.5  # the words stand in the middle of their box
    assert found['hangs'] > 10 and abs(found['text']) < 10  # a box stands under its question

@pytest.mark.parametrize('page, open_', [
    ('boxes.html', []), ('solutions/boxes.html', ['Solutions']), ('figure.html', ['Workshops'])])
def test_what_stands_behind_the_course_is_folded(address, module, page, open_):
    html = (module.config().doc_path/page).read_text(encoding='utf-8')
    folded = (r'<span class="menu-text">(Solutions|Workshops)</span></a>.*?'
              r'aria-expanded="(true|false)"')
    states = dict(re.findall(folded, html, re.S))
    assert states == {name: str(name in open_).lower() for name in ('Solutions', 'Workshops')}

def test_the_search_finds_no_solution(address, module):
    import json
    entries = json.loads((module.config().doc_path/'search.json').read_text(encoding='utf-8'))
    hrefs = [entry['href'] for entry in entries]
    assert hrefs and not [href for href in hrefs if href.startswith('solutions/')]

QUERIES = {
    'anchor': 'anchors.html#the-shapes-of-things',
    'IoU': 'boxes.html#iou-how-much-of-two-boxes-is-one',
    'ignore mask': 'anchors.html#encoding-from-boxes-to-targets',
    'mosaic': 'augmentation.html#the-mosaic',
    'NMS': 'boxes.html#too-many-boxes-non-maximum-suppression',
    'Grad-CAM': 'gradcam.html#grad-cam-in-numbers-that-fit-on-a-napkin',
    'learning rate': 'lr_finder.html#',
    'mAP': 'evaluation.html#one-number-from-a-curve',
    'letterbox': 'augmentation.html#into-the-square',
    'objectness': 'anchors.html#encoding-from-boxes-to-targets'}

def test_the_search_leads_to_what_explains(browser, address):
    "What a student types, and where the first line of the answer leads."
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                            dict(width=DESK[0], height=DESK[1], deviceScaleFactor=1, mobile=False))
    browser.get(f'{address}index.html')
    first = {}
    for query in QUERIES:
        first[query] = browser.execute_async_script('''
            const [query, done] = arguments;
            const input = document.querySelector('#quarto-header .smalldocs-search input');
            const lists = document.querySelectorAll('.smalldocs-search-results');
            for (const list of lists) list.replaceChildren();
            input.value = query;
            input.dispatchEvent(new Event('input'));
            (function ask() {
              const found = document.querySelector('.smalldocs-search-results a');
              if (found) done(found.getAttribute('href').replace('./', ''));
              else setTimeout(ask, 50);
            })();''', query)
    assert {q: h for q, h in first.items() if not h.startswith(QUERIES[q])} == {}

def test_every_explanation_that_the_search_is_told_is_there(tool, address, module):
    search, folder = tool('search'), module.config().doc_path
    pages = module.read_pages(module.config())
    for href in search.EXPLAINED.values():
        page, _, anchor = href.partition('#')
        assert anchor in pages[page].ids, href
    glossary = (folder/'glossary.html').read_text(encoding='utf-8')
    terms = {search.plain(name) for _, name, *_ in search.TERM.findall(glossary)}
    assert len(terms) > 100 and {*search.EXPLAINED, *search.ALSO} <= terms

def test_a_page_brings_little_of_its_own_to_run(address, module):
    "Its own scripts have less than 60 kB; those that the site's program brings do not count."
    folder = module.config().doc_path
    sizes = {}
    for page in module.read_pages(module.config()):
        html = (folder/page).read_text(encoding='utf-8')
        inline = re.findall(r'<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>', html, re.S)
        sources = re.findall(r'<script[^>]*\bsrc="([^"]+)"', html)
        files = [(folder/page).parent/src for src in sources
                 if not re.match('[a-z]+:', src) and 'site_libs' not in src]
        if any(file.parent.name == 'detector' for file in files):
            files = list((folder/'detector').glob('*.js'))
        sizes[page] = sum(len(s.encode()) for s in inline) + sum(f.stat().st_size for f in files)
    assert sizes['detector.html'] > 30_000  # it is seen
    assert {page: size for page, size in sizes.items() if size >= 60_000} == {}
