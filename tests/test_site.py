"The site builds without Quarto, and its check sees what is wrong with a page."
import functools
import http.server
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures('site_lock')

@pytest.mark.skipif(not importlib.util.find_spec('smalldocs'),
                    reason='smalldocs, which renders the site, needs Python 3.11 or newer')
@pytest.mark.skipif(os.environ.get('SITE_CHECKED') == '1',
                    reason='.ci/run has just built and checked the site, as a step of its own')
def test_every_notebook_is_a_page_and_all_links_hold():
    done = subprocess.run([sys.executable, 'tools/site.py'], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


INDEX = ('<a href="index.html">home</a><a href="boxes.html#nms">nms</a><a '
         'href="https://u.github.io/r/boxes.html">the same, in full</a>')
BOXES = ('<h2 id="nms">nms</h2><a href="index.html">back</a><a '
         'href="https://github.com/u/r/blob/main/lib.py#L2">source</a>')

@pytest.fixture
def site(tmp_path, tool, monkeypatch):
    "Write a site of two pages, and return what the check says of it."
    module = tool('site')
    cfg = SimpleNamespace(nbs_path=tmp_path/'nbs', doc_path=tmp_path/'_docs', user='u', repo='r',
                          branch='main', doc_host='https://u.github.io', doc_baseurl='/r')
    monkeypatch.setattr(module, 'config', lambda: cfg)
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    for d in (cfg.nbs_path, cfg.doc_path):
        d.mkdir()
    for name in ('index.ipynb', '03_boxes.ipynb', '_draft.ipynb'):
        (cfg.nbs_path/name).write_text('{}')
    (tmp_path/'lib.py').write_text('a = 1\nb = 2\n')
    def check(index=INDEX, boxes=BOXES):
        (cfg.doc_path/'index.html').write_text(index)
        (cfg.doc_path/'boxes.html').write_text(boxes)
        return module.check()
    return check

def test_a_good_site_has_no_problem(site):
    assert site() == []

@pytest.mark.parametrize('bad, said', [
    ('<a href="anchors.html">x</a>', 'anchors.html leads nowhere'),
    ('<a href="boxes.html#iou">x</a>', 'boxes.html#iou has no such anchor'),
    ('<a href="https://u.github.io/r/boxes.html#iou">x</a>', 'has no such anchor'),
    ('<img src="figure.png">', 'figure.png leads nowhere'),
    ('<a href="https://github.com/u/r/blob/main/lib.py#L3">x</a>', 'past the end'),
    ('<a href="https://colab.research.google.com/github/u/r/blob/main/nbs/03_box.ipynb">x</a>',
     'leads nowhere'),
    ('<pre><code>#| export\nx = 1</code></pre>', 'a directive shows'),
    ('<p>{{&lt; video x &gt;}}</p>', 'a shortcode shows'),
    ('<p>\n::: {.callout}</p>', 'a fenced div shows'),
    ('<p>see [boxes](boxes.html)</p>', 'a link shows'),
    ('<p>| --- | --- |</p>', 'a table shows'),
    ('<p><em>equal </em>ratios*, alike.*</p>', 'emphasis shows'),
    ('<p>called by :meth:<code>fit</code></p>', 'a role shows'),
    ('<pre><code>ds, # a [`VOCDataset`](data.html#vocdataset)</code></pre>', 'a linked name shows'),
    ('<h3>command.&lt;locals&gt;.script</h3>', 'an inner name shows'),
    (r'<table><tr><td>$1 - \text{CIoU}$, × 2.5</td></tr></table>', 'a formula shows'),
    ('<p id="a"></p><p id="a"></p>', 'the id a stands 2 times'),
    ('<pre>/home/student/.cache/toyvoc</pre>', 'a path of the machine')])
def test_the_check_sees(site, bad, said):
    problems = site(index=INDEX + bad)
    assert len(problems) == 1 and said in problems[0]

def test_what_quarto_repeats(site):
    assert site(index=INDEX
                + '<p id="quarto-a"></p><p id="quarto-a"></p><a href="boxes.html#top">x</a>') == []

def test_code_may_hold_what_prose_may_not(site):
    assert site(index=INDEX + '<pre><code>x[0](1) ** 2  # | --- |\n::: {{&lt; </code></pre>') == []

def test_a_page_that_the_sidebar_lacks(site):
    assert (site(index='<p>no links</p>')
            == ['nbs/03_boxes.ipynb: is not in the sidebar (_quarto.yml)',
                'nbs/index.ipynb: is not in the sidebar (_quarto.yml)'])

def test_two_notebooks_with_one_page(site, tmp_path):
    (tmp_path/'nbs'/'20_boxes.ipynb').write_text('{}')
    assert site() == ['nbs/20_boxes.ipynb: has the page of nbs/03_boxes.ipynb, boxes.html; '
                      'rename it']

def test_links_that_no_page_shows(site, tmp_path):
    (tmp_path/'nbs'/'03_boxes.ipynb').write_text(
        json.dumps({'cells': [{'cell_type': 'markdown',
                               'source': ['[a](index.ipynb), [b](boxes.ipynb)']}]}))
    (tmp_path/'README.md').write_text('[a](lib.py#L1), [b](nbs/4.ipynb), [c](https://example.org)')
    (tmp_path/'_docs'/'search.json').write_text(
        json.dumps([{'href': 'boxes.html#nms'}, {'href': 'boxes.html#iou'}]))
    assert site() == ['nbs/03_boxes.ipynb: boxes.ipynb is no notebook beside it',
                      'README.md: nbs/4.ipynb leads nowhere',
                      'search.json: boxes.html#iou has no such anchor']

def test_pages_are_made_anew_when_symbols_move(tool, tmp_path):
    "nbdev keeps the pages of notebooks that did not change, with the links that they had."
    import os
    stale, cfg = tool('site').stale, SimpleNamespace(config_path=tmp_path, lib_path=tmp_path)
    (tmp_path/'_modidx.py').write_text('')
    assert not stale(cfg)  # nothing is kept yet
    (tmp_path/'_proc').mkdir()
    os.utime(tmp_path/'_modidx.py', (1e9, 1e9))
    assert not stale(cfg)
    os.utime(tmp_path/'_proc', (9e8, 9e8))
    assert stale(cfg)

def test_links_in_html_lead_to_pages(tool):
    module = tool('site')
    def change(m):
        return m[1] + str(module.unnumbered(Path(m[2])).with_suffix('.html'))
    shown = json.dumps('<a href="03_boxes.ipynb">a</a><a href="https://u.org/04_x.ipynb">b</a><a '
                       'href="solutions/03_boxes.ipynb#x">c</a>')
    assert json.loads(module.RAW_LINK.sub(change, shown)) == (
        '<a href="boxes.html">a</a><a href="https://u.org/04_x.ipynb">b</a><a '
        'href="solutions/boxes.html#x">c</a>')

def processed(path):
    """A notebook's page as nbdev makes it with this project's processors: the cells that Quarto and
    smalldocs get."""
    from execnb.nbio import read_nb
    from nbdev.processors import FilterDefaults
    nb = read_nb(path)
    FilterDefaults()(nb)
    return nb.cells

def test_both_builds_share_the_processor():
    "nbdev itself calls it, so nbdev_docs and tools/site.py start from the same pages."
    from nbdev.processors import FilterDefaults
    from yolov3_nb.docs import CoursePages
    assert CoursePages in list(FilterDefaults().procs())

def test_a_page_after_nbdev_and_the_processor(monkeypatch):
    "The faults that Quarto's own rendering showed, in the notebook that has them all."
    monkeypatch.chdir(ROOT/'nbs')
    cells = processed(ROOT/'nbs'/'09_evaluation.ipynb')
    assert 'title: 09 · ' in cells[0]['source']
    text = '\n'.join(c['source'] for c in cells if c['cell_type'] == 'markdown')
    # a word here, a function elsewhere
    assert '[`positives`](' not in text and '`positives`' in text
    outputs = [o['data'] for c in cells for o in c.get('outputs', ()) if 'data' in o]
    assert not any('text/html' in d for d in outputs)
    assert any('{=html}' in ''.join(d.get('text/markdown', '')) for d in outputs)
    entries = [''.join(o['data']['text/markdown']) for c in cells if 'show_doc(' in c['source']
               for o in c['outputs']]
    assert entries and not any(re.search(r'```python.*\[`[^`]+`\]\(', e, re.S) for e in entries)
    # where the source stands, its signature does not stand above it too
    for cell, after in zip(cells, cells[1:]):
        if 'show_doc(' in cell['source'] and 'Exported source' in after['source']:
            assert '```' not in ''.join(cell['outputs'][0]['data']['text/markdown'])
    # what a chapter asks and what a figure shows are marked, for styles.css
    assert len(re.findall(r'^::: {.predict}$', text, re.M)) > 9
    captions = [i for i, c in enumerate(cells) if c['source'].startswith('::: {.figure-words}')]
    marked = re.compile(r'::: {.figure-words}\n\*.+\*\n:::', re.S)
    assert captions and all(marked.fullmatch(cells[i]['source']) for i in captions)
    assert all(cells[i - 1].get('outputs') for i in captions)  # directly below what it describes
    assert all(c['id'].startswith('cell-') for c in cells)
    figures = [c['source'] for c in cells
               if any(k.startswith('image/') for o in c.get('outputs', ())
                      for k in o.get('data', ()))]
    assert figures and all('fig-alt' in f for f in figures)

CHAPTERS = sorted(file.name for file in (ROOT/'nbs').glob('*.ipynb')
                  if re.match(r'(0[1-9]|1[0-4])b?_', file.name))

@pytest.mark.parametrize('chapter', CHAPTERS)
def test_the_head_of_a_chapter_is_marked(chapter):
    "By the words that every chapter opens with; its badges are pictures of the site's own."
    from yolov3_nb import docs
    cells = json.loads((ROOT/'nbs'/chapter).read_text(encoding='utf-8'))['cells']
    text = '\n\n'.join(docs.own_badges(docs.mark_head(''.join(c['source']))) for c in cells
                       if c['cell_type'] == 'markdown')
    head = re.search(r'^::: {.chapter-head}\n(.*?)\n:::$', text, re.M | re.S)
    assert head and 'you can' in head[1] and 'You need' in head[1], chapter
    assert text.count('::: {.question}') == text.count('**The question.**')
    badges = re.findall(r'!\[Open in \w+\]\(([^)]*)\)', text)
    assert len(badges) == 2 and all((ROOT/'nbs'/badge).is_file() for badge in badges)
    imports = [''.join(c['source']) for c in cells if c['cell_type'] == 'code'
               and ''.join(c['source']).startswith('import')]
    assert any(docs.fold_imports(source) != source for source in imports)

def test_without_npm_formulas_come_from_elsewhere(tool, tmp_path, monkeypatch, capsys):
    "The site is built all the same, and that is said."
    monkeypatch.syspath_prepend(ROOT/'tools')
    import detector
    def fetch(*_):
        raise detector.NoRuntime('npm was not installed where this site was built.')
    monkeypatch.setattr(detector, 'fetch_package', fetch)
    page = '<script src="https://cdn.jsdelivr.net/npm/katex@0.16.11/dist/katex.min.js"></script>'
    (tmp_path/'a.html').write_text(page)
    tool('site').bring_katex(SimpleNamespace(doc_path=tmp_path))
    assert (tmp_path/'a.html').read_text() == page
    assert capsys.readouterr().out == ('Formulas need the network: npm was not installed where '
                                       'this site was built.\n')

def test_nbdev_docs_leaves_the_readme_alone():
    "It makes one from the notebook that settings.ini names, wherever that exists."
    from nbdev.config import get_config
    from nbdev.quarto import _doc_mtime_not_older
    cfg = get_config(path=ROOT)
    assert not (cfg.nbs_path/cfg.readme_nb).exists()
    assert _doc_mtime_not_older(ROOT/'README.md', cfg.nbs_path/cfg.readme_nb)

def test_search_leads_to_sections(tool, site, tmp_path):
    "An entry of a function is found in its section, as Quarto's search has it."
    site(boxes='<section id="nms-by-hand" class="level2"><h2>NMS by hand</h2><section id="nms" '
               'class="level3"><h3>nms</h3></section></section>')
    file = tmp_path/'_docs'/'search.json'
    file.write_text(json.dumps([{'href': 'boxes.html', 'section': '', 'text': 'a'},
                                {'href': 'boxes.html#nms-by-hand', 'section': 'NMS by hand',
                                 'text': 'b'},
                                {'href': 'boxes.html#nms', 'section': 'nms', 'text': 'c'}]))
    module = tool('site')
    module.by_sections(SimpleNamespace(doc_path=tmp_path/'_docs'))
    assert ([(e['href'], e['text']) for e in json.loads(file.read_text())]
            == [('boxes.html', 'a'), ('boxes.html#nms-by-hand', 'b nms c')])

GLOSSARY = ('<p><a id="term-nms"></a><strong>NMS</strong> Keeps one box of many. → '
            '<a href="boxes.html">03 Boxes</a></p>'
            '<p><a id="term-cell"></a><strong>grid cell (cell)</strong> A square. → '
            '<a href="anchors.html">04 Anchors</a></p>')
ENTRY = ('<p><a href="lib.py#L2" style="float:right">source</a></p>'
         '<h3 id="nms" class="anchored">nms</h3>')
INDEXED = [('fast.html#nms', '20e · Fast', 'NMS', 'nms nms nms'),
           ('boxes.html#questionnaire', '03 · Boxes', 'Questionnaire', 'What is NMS?'),
           ('boxes.html#in-short', '03 · Boxes', 'In short', 'NMS, NMS, NMS'),
           ('boxes.html#iou', '03 · Boxes', 'IoU', 'Before NMS there is IoU, says NMS. NMS!'),
           ('boxes.html#too-many-nms', '03 · Boxes', 'Too many: NMS', 'One is kept.'),
           ('anchors.html#grids', '04 · Anchors', 'Grids', 'Each cell of the cells is a cell.'),
           ('anchors.html#back', '04 · Anchors', 'Back', 'No cell.')]

def test_terms_of_the_glossary_stand_first_in_the_search(tool, site, tmp_path):
    site(boxes=ENTRY)
    folder = tmp_path/'_docs'
    (folder/'glossary.html').write_text(GLOSSARY)
    (folder/'search.json').write_text(json.dumps([
        dict(objectID=href, href=href, title=title, section=section, text=text)
        for href, title, section, text in INDEXED] + [
        dict(objectID='glossary.html#n', href='glossary.html#n', title='Glossary', section='N',
             text='NMS')]))
    module = tool('search')
    index = module.rewrite(folder)
    assert [(e['title'], e['href']) for e in index[:3]] == [
        ('NMS', 'boxes.html#too-many-nms'), ('non-maximum suppression', 'boxes.html#too-many-nms'),
        ('grid cell (cell)', 'anchors.html#grids')]
    assert [e['href'] for e in index[3:]] == [
        'boxes.html#iou', 'boxes.html#too-many-nms', 'anchors.html#grids', 'anchors.html#back',
        'boxes.html#in-short', 'fast.html#nms', 'boxes.html#nms']
    assert index[-1]['title'] == 'nms' and 'reference' in index[-1]['section']
    assert module.rewrite(folder) == index == json.loads((folder/'search.json').read_text())

def test_what_is_not_there_has_a_page_of_its_own(tool, tmp_path):
    module = tool('site')
    for name in ('index', '404'):
        (tmp_path/f'{name}.html').write_text(f'this is {name}')
    module.Handler.base = '/r'
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0),
                                         functools.partial(module.Handler,
                                                           directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        def get(path):
            return urllib.request.urlopen(
                f'http://127.0.0.1:{server.server_port}{path}').read().decode()
        assert get('/r/index.html') == get('/index.html') == get('/r/') == 'this is index'
        with pytest.raises(urllib.error.HTTPError) as e:
            get('/r/deep/er.html')
        assert e.value.code == 404 and e.value.read().decode() == 'this is 404'
        server.shutdown()
