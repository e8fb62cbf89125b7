"The site builds without Quarto, and its check sees what is wrong with a page."
import functools, http.server, importlib.util, json, subprocess, sys, threading, urllib.error, urllib.request
from pathlib import Path
from types import SimpleNamespace
import pytest

ROOT = Path(__file__).resolve().parent.parent

@pytest.mark.skipif(not importlib.util.find_spec('smalldocs'), reason='smalldocs, which renders the site, needs Python 3.11 or newer')
def test_every_notebook_is_a_page_and_all_links_hold():
    done = subprocess.run([sys.executable, 'tools/site.py'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


INDEX = '<a href="index.html">home</a><a href="boxes.html#nms">nms</a><a href="https://u.github.io/r/boxes.html">the same, in full</a>'
BOXES = '<h2 id="nms">nms</h2><a href="index.html">back</a><a href="https://github.com/u/r/blob/main/lib.py#L2">source</a>'

@pytest.fixture
def site(tmp_path, tool, monkeypatch):
    "Write a site of two pages, and return what the check says of it."
    module = tool('site')
    cfg = SimpleNamespace(nbs_path=tmp_path/'nbs', doc_path=tmp_path/'_docs', user='u', repo='r', branch='main', doc_host='https://u.github.io', doc_baseurl='/r')
    monkeypatch.setattr(module, 'config', lambda: cfg)
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    for d in (cfg.nbs_path, cfg.doc_path): d.mkdir()
    for name in ('index.ipynb', '03_boxes.ipynb', '_draft.ipynb'): (cfg.nbs_path/name).write_text('{}')
    (tmp_path/'lib.py').write_text('a = 1\nb = 2\n')
    def check(index=INDEX, boxes=BOXES):
        (cfg.doc_path/'index.html').write_text(index)
        (cfg.doc_path/'boxes.html').write_text(boxes)
        return module.check()
    return check

def test_a_good_site_has_no_problem(site): assert site() == []

@pytest.mark.parametrize('bad, said', [
    ('<a href="anchors.html">x</a>', 'anchors.html leads nowhere'),
    ('<a href="boxes.html#iou">x</a>', 'boxes.html#iou has no such anchor'),
    ('<a href="https://u.github.io/r/boxes.html#iou">x</a>', 'has no such anchor'),
    ('<img src="figure.png">', 'figure.png leads nowhere'),
    ('<a href="https://github.com/u/r/blob/main/lib.py#L3">x</a>', 'past the end'),
    ('<a href="https://colab.research.google.com/github/u/r/blob/main/nbs/03_box.ipynb">x</a>', 'leads nowhere'),
    ('<pre><code>#| export\nx = 1</code></pre>', 'a directive shows'),
    ('<p>{{&lt; video x &gt;}}</p>', 'a shortcode shows'),
    ('<p>\n::: {.callout}</p>', 'a fenced div shows'),
    ('<p>see [boxes](boxes.html)</p>', 'a link shows'),
    ('<p>| --- | --- |</p>', 'a table shows'),
    ('<p><em>equal </em>ratios*, alike.*</p>', 'emphasis shows'),
    ('<p>called by :meth:<code>fit</code></p>', 'a role shows'),
    ('<pre><code>ds, # a [`VOCDataset`](data.html#vocdataset)</code></pre>', 'a linked name shows'),
    ('<h3>command.&lt;locals&gt;.script</h3>', 'an inner name shows'),
    ('<p id="a"></p><p id="a"></p>', 'the id a stands 2 times'),
    ('<pre>/home/student/.cache/toyvoc</pre>', 'a path of the machine')])
def test_the_check_sees(site, bad, said):
    problems = site(index=INDEX + bad)
    assert len(problems) == 1 and said in problems[0]

def test_code_may_hold_what_prose_may_not(site):
    assert site(index=INDEX + '<pre><code>x[0](1) ** 2  # | --- |\n::: {{&lt; </code></pre>') == []

def test_a_page_that_the_sidebar_lacks(site):
    assert site(index='<p>no links</p>') == ['nbs/03_boxes.ipynb: is not in the sidebar (_quarto.yml)', 'nbs/index.ipynb: is not in the sidebar (_quarto.yml)']

def test_links_that_no_page_shows(site, tmp_path):
    (tmp_path/'nbs'/'03_boxes.ipynb').write_text(json.dumps({'cells': [{'cell_type': 'markdown', 'source': ['[a](index.ipynb), [b](boxes.ipynb)']}]}))
    (tmp_path/'README.md').write_text('[a](lib.py#L1), [b](nbs/4.ipynb), [c](https://example.org)')
    (tmp_path/'_docs'/'search.json').write_text(json.dumps([{'href': 'boxes.html#nms'}, {'href': 'boxes.html#iou'}]))
    assert site() == ['nbs/03_boxes.ipynb: boxes.ipynb is no notebook beside it', 'README.md: nbs/4.ipynb leads nowhere',
                      'search.json: boxes.html#iou has no such anchor']

def test_links_in_html_lead_to_pages(tool):
    module = tool('site')
    change = lambda m: m[1] + str(module.unnumbered(Path(m[2])).with_suffix('.html'))
    shown = json.dumps('<a href="03_boxes.ipynb">a</a><a href="https://u.org/04_x.ipynb">b</a><a href="solutions/03_boxes.ipynb#x">c</a>')
    assert json.loads(module.RAW_LINK.sub(change, shown)) == (
        '<a href="boxes.html">a</a><a href="https://u.org/04_x.ipynb">b</a><a href="solutions/boxes.html#x">c</a>')

SIGNATURE = '---\n\n### {}\n\n```python\ndef {}(\n    ds, # a [`VOCDataset`](data.html#vocdataset)\n):\n```\n\n*{}*'

@pytest.mark.parametrize('name, short, own, heading, said', [
    ('nms', 'nms', {'nms': 'Keep the best'}, 'nms', 'As nbdev has it, with a [link](boxes.html)'),
    ('Lit.test_step', 'test_step', {'Lit.test_step': None}, 'Lit.test_step', None),  # inherited
    ('Lit.extra', 'extra', {}, 'Lit.extra', 'As nbdev has it, with a [link](boxes.html)'),
    ('command.<locals>.script', 'script', {'train': 'Train it'}, 'train, the command', 'Train it')])
def test_documentation_is_our_own(tool, name, short, own, heading, said):
    shown = name if '<' not in name else 'train'
    text = tool('site').documented(SIGNATURE.format(name, short, 'As nbdev has it, with a [link](boxes.html)'), shown, own)
    assert text == SIGNATURE.replace('[`VOCDataset`](data.html#vocdataset)', '`VOCDataset`').format(
        heading, shown if '<' in name else short, said).replace('\n\n*None*', '')

def test_figures_have_words(tool):
    picture = {'cell_type': 'code', 'source': ['show(img)'], 'outputs': [{'data': {'image/png': 'x'}}]}
    words = lambda *prose: [{'cell_type': 'markdown', 'source': list(prose)}]
    alt = lambda *cells: json.loads(tool('site').tidy(cells, {}) or ''.join(cells[1]['source']).splitlines()[0].partition(': ')[2])
    assert alt(*words('## Cells'), dict(picture), *words('*The `grid`, as [04](04_anchors.ipynb)\nhas it.* More.')) == 'The grid, as 04 has it.'
    assert alt(*words('## Cells\n\nSee.'), dict(picture), *words('**Before you run it:** no.')) == 'Figure: Cells'

def test_what_is_not_there_has_a_page_of_its_own(tool, tmp_path):
    module = tool('site')
    for name in ('index', '404'): (tmp_path/f'{name}.html').write_text(f'this is {name}')
    module.Handler.base = '/r'
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(module.Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        get = lambda path: urllib.request.urlopen(f'http://127.0.0.1:{server.server_port}{path}').read().decode()
        assert get('/r/index.html') == get('/index.html') == get('/r/') == 'this is index'
        with pytest.raises(urllib.error.HTTPError) as e: get('/r/deep/er.html')
        assert e.value.code == 404 and e.value.read().decode() == 'this is 404'
        server.shutdown()
