"Every page of the site in a real browser, on a desk and on a phone, by light and in the dark."
import functools, http.server, importlib.util, os, re, subprocess, sys, threading
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
DESK, PHONE = (1280, 800), (390, 844)
VIEWS = [(*DESK, 'light'), (*PHONE, 'dark')]  # width moves boxes, the scheme only colours; LOOK_AT=all takes the other two as well
if os.environ.get('LOOK_AT') == 'all': VIEWS += [(*PHONE, 'light'), (*DESK, 'dark')]

if not importlib.util.find_spec('smalldocs'): pytest.skip('smalldocs, which renders the site, needs Python 3.11 or newer', allow_module_level=True)

# What a page is asked once it has the width and the scheme: an array of complaints.
LOOK = r'''
const [width, scheme, first, done] = arguments, bad = [], seen = new Set();
const name = e => e.tagName.toLowerCase() + (e.id && '#' + e.id) + (e.getAttribute('class') ? '.' + e.getAttribute('class').trim().split(/\s+/).join('.') : '');
const words = e => ' "' + e.textContent.trim().replace(/\s+/g, ' ').slice(0, 40) + '"';

function overflow() {
  if (document.scrollingElement.scrollWidth <= width) return;  // not innerWidth: a phone zooms out until all is seen
  const scrolls = e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement) if (getComputedStyle(p).overflowX !== 'visible') return true; };
  const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > width + 1 && !scrolls(e));
  bad.push(`${document.scrollingElement.scrollWidth} pixels wide: ` + wide.slice(0, 3).map(e => name(e) + words(e)).join(', '));
}

const numbers = s => { const [r, g, b, a = 1] = s.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);

function ground(e) {  // the colour behind a text; null on a picture
  const layers = [];
  for (let p = e; p; p = p.parentElement) {
    const css = getComputedStyle(p), c = numbers(css.backgroundColor);
    if (css.backgroundImage !== 'none') return null;
    if (c[3]) layers.push(c);
    if (c[3] >= 1) break;
  }
  return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
}

function contrast() {  // WCAG 2.2, 1.4.3: 4.5 to 1; 3 to 1 for large text. One of each kind of element is enough.
  for (const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walker.nextNode();) {
    const e = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    const kind = [e, e.parentElement, e.closest('pre, table, nav, header, footer, details, main')].map(x => x && x.tagName + x.className).join() + e.getAttribute('style');
    if (!text || seen.has(kind) || e.closest('svg, script, style') || !e.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    seen.add(kind);
    const css = getComputedStyle(e), back = ground(e);
    if (!back) continue;
    let ink = numbers(css.color);
    for (let p = e; p; p = p.parentElement) ink[3] *= +getComputedStyle(p).opacity;
    const [a, b] = [light(over(ink, back)), light(back)], size = parseFloat(css.fontSize);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05), large = size >= 24 || size >= 18.6 && css.fontWeight >= 700;
    if (ratio < (large ? 3 : 4.5)) bad.push(`contrast ${ratio.toFixed(2)}: ${name(e)}${words(e)}`);
  }
}

function once() {
  for (const i of document.images) if (!i.getAttribute('alt')) bad.push(`no words for the picture ${name(i)} in ${name(i.parentElement)}`);
  for (const i of document.images) if (i.complete && !i.naturalWidth && i.src.startsWith(location.origin)) bad.push(`no picture: ${i.src.slice(0, 80)}`);
}

function prose() {
  const copy = document.querySelector('main').cloneNode(true);
  copy.querySelectorAll('pre, code, script, style').forEach(e => e.replaceWith(' '));
  copy.querySelectorAll('p, li, tr, td, div, h1, h2, h3').forEach(e => e.prepend('\n'));
  return copy.textContent;
}

document.head.append(Object.assign(document.createElement('style'), {textContent: '* { transition: none !important; }'}));  // colours on their way count for nothing
const started = performance.now();
(function ready() {  // the theme follows the scheme a moment later
  const dark = light(ground(document.body) || [255, 255, 255]) < .2;
  if ((dark !== (scheme === 'dark') || Boolean(document.querySelector(':is(html, body).quarto-dark')) !== dark) && performance.now() - started < 20000)
    return setTimeout(ready, 20);
  if (dark !== (scheme === 'dark')) bad.push(`does not turn ${scheme}`);
  overflow(); contrast();
  if (first) once();
  done([bad, first ? prose() : '']);
})();
'''

@pytest.fixture(scope='module')
def module(tool): return tool('site')

@pytest.fixture(scope='module')
def address(module):
    "Where the site is served. It is built only where it is not there: tests/test_site.py has just built it."
    cfg = module.config()
    if not (cfg.doc_path/'index.html').is_file(): subprocess.run([sys.executable, 'tools/site.py'], cwd=ROOT, check=True)
    module.Handler.base = cfg.doc_baseurl
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(module.Handler, directory=str(cfg.doc_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}{cfg.doc_baseurl}/'
        server.shutdown()

@pytest.fixture(scope='module')
def browser(chrome):
    driver = chrome('--hide-scrollbars', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1')  # fonts and badges stay away
    driver.set_script_timeout(60)
    return driver

def look(browser, module, url, views=VIEWS):
    "All that is wrong with one page, one line each."
    def turn(width, height, scheme):
        browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 500))
        browser.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[dict(name='prefers-color-scheme', value=scheme)]))
    problems, home = [], url.split('/', 3)[2]
    turn(*views[0])
    browser.get(url)
    for i, (width, height, scheme) in enumerate(views):
        if i: turn(width, height, scheme)
        bad, prose = browser.execute_async_script(LOOK, width, scheme, not i)
        problems += [f'{width} {scheme}: {b}' for b in bad]
        problems += [f'{what} shows as raw markup: {m[0]!r}' for what, pattern in module.MARKUP.items() if (m := pattern.search(prose))]
    elsewhere = re.compile(rf'^https?://(?!{re.escape(home)})')
    return problems + [f"console: {e['message']}" for e in browser.get_log('browser') if not elsewhere.match(e['message'])]

def test_every_page_in_every_view(browser, module, address):
    cfg = module.config()
    pages = sorted(module.read_pages(cfg))
    assert len(pages) > len(module.notebooks(cfg))
    problems = {page: found for page in pages if (found := look(browser, module, address + page))}
    assert not problems, '\n'.join(f'{page}: {p}' for page, found in problems.items() for p in found[:8])

GOOD = '<html><head><title>x</title><link rel="icon" href="data:,"></head><body><main><p>Prose.</p>{}</main></body></html>'

@pytest.mark.parametrize('bad, said', [
    ('', None), ('<div style="overflow-x: auto"><pre style="width: 900px">code</pre></div>', None),
    ('<table style="width: 900px"><tr><td>wide</td></tr></table>', '9\\d\\d pixels wide.*table'),
    ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', 'no words for the picture'),
    ('<img src="lost.png" alt="lost">', 'no picture'), ('<img src="lost.png" alt="lost">', 'console: .*404'), ('<script>oops()</script>', 'console: .*oops'),
    ('<p style="color: #999">pale</p>', 'contrast 2.8'), ('<p>see [boxes](boxes.html)</p>', 'a link shows'), ('<p>| --- | --- |</p>', 'a table shows')])
def test_it_sees(browser, module, tmp_path, bad, said):
    (tmp_path/'x.html').write_text('<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">' + GOOD.format(bad), encoding='utf-8')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(module.Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        problems = look(browser, module, f'http://127.0.0.1:{server.server_port}/x.html', [(390, 844, 'light')])
        server.shutdown()
    assert any(re.search(said, p) for p in problems) if said else problems == []


# The structure that Quarto 1.7 and 1.10 give a page (smalldocs gives another): headings are sections, the theme stands on the body,
# tables have Bootstrap's class, entries of functions hang in a section and not in their cell's output. Bootstrap's own rules that
# matter here are said in short.
QUARTO = '''<!doctype html><html><head><title>x</title><meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<style>
  body { margin: 0; font: 17px system-ui; color: #373a3c; background: #fff } body.quarto-dark { color: #fff; background: #222 }
  :root { --bs-link-color: #2780e3 } .quarto-dark { --bs-link-color: #4392f1 } a { color: var(--bs-link-color) }
  main { padding: 0 1rem } main *, main { box-sizing: border-box } .table { width: 100%; border-collapse: collapse; border-top: 1px solid; border-bottom: 1px solid }
  #quarto-header { position: sticky; top: 0 } .navbar { height: 60px; background: #2780e3 } .navbar a { color: #fdfeff }
  details.code-fold > summary { color: #9aa0a6 } pre { overflow-x: auto; background: rgba(100, 100, 100, .1) } .fill { height: 1500px }
</style><link rel="stylesheet" href="styles.css"></head><body>
<script>const scheme = matchMedia('(prefers-color-scheme: dark)');
  const follow = () => { document.body.className = scheme.matches ? 'quarto-dark' : 'quarto-light'; };
  scheme.addEventListener('change', follow); follow();</script>
<header id="quarto-header" class="headroom"><nav class="navbar"><a class="nav-link" href="#top">Map</a></nav></header>
<div id="quarto-content"><main class="content" id="quarto-document-content">
<section id="ap" class="level2"><h2>Average precision</h2><p>Prose with a <a href="#nms">link</a>.</p>
<div class="cell" id="cell-a"><div class="cell-output cell-output-display cell-output-markdown">
<table class="caption-top table"><thead><tr><th>run</th><th>test</th></tr></thead><tbody><tr><td><a href="#x"><code>--preset toy_long</code></a></td><td>a sentence that is long enough to want more room than a phone has, and so it wraps</td></tr></tbody></table></div></div>
<table class="caption-top table narrow"><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>
<p><a href="#s" style="float:right; font-size:smaller">source</a></p>
<section id="nms" class="level3"><h3 class="anchored">nms</h3>
<div id="cell-b" class="cell"><details open class="code-fold"><summary>Exported source</summary><div class="sourceCode cell-code"><pre class="sourceCode python"><code>def nms(boxes): return boxes.some_name_that_is_long.another_name_that_is_long.and_one_more_name_that_is_long()</code></pre></div></details>
<div class="cell-output cell-output-display"><div><figure class="figure"><p><img alt="a plot" class="img-fluid figure-img" width="60" src="data:image/gif;base64,R0lGODlhAQABAAAAACw="></p></figure></div></div></div>
</section></section><details><summary>Answer</summary><p>42</p></details><div class="fill"></div></main></div></body></html>'''

@pytest.fixture(scope='module')
def quarto_page(module, tmp_path_factory):
    "Where a page of Quarto's structure is served with the site's own styles."
    folder = tmp_path_factory.mktemp('quarto')
    (folder/'index.html').write_text(QUARTO, encoding='utf-8')
    (folder/'styles.css').write_bytes((ROOT/'nbs'/'styles.css').read_bytes())
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(module.Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/index.html'
        server.shutdown()

def test_styles_fit_quartos_structure(browser, module, quarto_page):
    every = [(*DESK, 'light'), (*PHONE, 'light'), (*PHONE, 'dark'), (*DESK, 'dark')]
    assert look(browser, module, quarto_page, every) == []
    box = lambda css: browser.execute_script('return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()', css)
    assert box('.narrow')['width'] < 200  # its lines are as wide as it is
    assert box('td:first-child code')['height'] < 30  # in one line on a phone too
    browser.get(quarto_page + '#nms')
    assert box('#nms h3')['top'] >= box('#quarto-header')['bottom'] or browser.execute_script('return innerHeight + scrollY >= document.documentElement.scrollHeight - 1')
    browser.get(quarto_page + '#ap')
    browser.execute_script('document.querySelector("#nms").scrollIntoView()')
    assert box('#nms h3')['top'] >= box('#quarto-header')['bottom']

def test_plots_turn_dark_and_photographs_do_not(browser, module, tmp_path):
    "The script of _quarto.yml tells them apart by how much of a figure is white paper."
    import base64, io, yaml
    from PIL import Image, ImageDraw
    plot = Image.new('RGB', (400, 200), 'white')
    ImageDraw.Draw(plot).line([(10, 190), (200, 20), (390, 150)], fill='#0072b2', width=4)
    photographs = Image.new('RGB', (400, 200), 'white')  # two on one sheet
    for x in (5, 205): photographs.paste((90, 140, 60), (x, 5, x + 190, 195))
    def tag(image, name):
        file = io.BytesIO()
        image.save(file, 'PNG')
        return f'<img id="{name}" alt="{name}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
    script = yaml.safe_load((ROOT/'_quarto.yml').read_text(encoding='utf-8'))['format']['html']['include-after-body'][0]['text']
    figures = ''.join(f'<div class="cell-output-display">{tag(i, n)}</div>' for i, n in ((plot, 'plot'), (photographs, 'photographs')))
    (tmp_path/'styles.css').write_bytes((ROOT/'nbs'/'styles.css').read_bytes())
    (tmp_path/'x.html').write_text(f'<!doctype html><link rel="stylesheet" href="styles.css"><body class="quarto-dark">{figures}{script}', encoding='utf-8')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(module.Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.get(f'http://127.0.0.1:{server.server_port}/x.html')
        look = 'return getComputedStyle(document.getElementById(arguments[0])).filter'
        filters = [browser.execute_script(look, name) for name in ('plot', 'photographs')]
        server.shutdown()
    browser.get_log('browser')
    assert 'invert' in filters[0] and 'invert' not in filters[1], filters

@pytest.mark.parametrize('page, open_', [('boxes.html', []), ('solutions/boxes.html', ['Solutions']), ('figure.html', ['Workshops'])])
def test_what_stands_behind_the_course_is_folded(address, module, page, open_):
    html = (module.config().doc_path/page).read_text(encoding='utf-8')
    states = dict(re.findall(r'<span class="menu-text">(Solutions|Workshops)</span></a>.*?aria-expanded="(true|false)"', html, re.S))
    assert states == {name: str(name in open_).lower() for name in ('Solutions', 'Workshops')}

def test_the_search_finds_no_solution(address, module):
    import json
    entries = json.loads((module.config().doc_path/'search.json').read_text(encoding='utf-8'))
    assert entries and not [entry['href'] for entry in entries if entry['href'].startswith('solutions/')]
