"""Build the site into _docs/ and check it: `python tools/site.py [--serve] [--port 8000]
[--check]`.

Where Quarto is installed, `python tools/detector.py && nbdev_docs && python tools/search.py` builds
the same site; this needs nothing but the packages of `[dev]`. nbdev processes the notebooks into
_proc/ (its last step is `yolov3_nb.docs`), smalldocs renders them, tools/search.py puts the terms
of the glossary into the search, and then every page is read again: each notebook is a page and
stands in the sidebar, links and anchors hold, no id stands twice, no raw markup or path of the
building machine shows, the search finds pages that exist, and the notebooks' own links lead to
notebooks. `--check` only reads the pages that are there."""
import argparse
import collections
import contextlib
import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

ROOT = Path(__file__).resolve().parent.parent
NUMBERED = re.compile(r'^\d+[a-zA-Z0-9]*_')
# a Markdown link to a notebook beside this one
LINK = re.compile(r'(\]\()(?![a-z]+:)([^)\s]*\.ipynb)')
# and one in the HTML that a cell has shown, as it stands in JSON
RAW_LINK = re.compile(r'(href=\\?")(?![a-z]+:)([^"\\#]*\.ipynb)')
MARKUP = {'a directive': re.compile(r'^\s*#\| ?\w', re.M), 'a shortcode': re.compile(r'\{\{<'),
          'a fenced div': re.compile(r'^\s*:::', re.M),
          'a heading': re.compile(r'^#{1,6} \w', re.M), 'a link': re.compile(r'\]\(\S+\)'),
          'emphasis': re.compile(r'(?<![\w*])\*{1,2}\w|\w[.,;:]?\*{1,2}(?![\w*])'),
          'a table': re.compile(r'\|\s*:?---'), 'a code fence': re.compile(r'```'),
          'a role': re.compile(r'(?<!\S):[a-z]+:(?!\w)'),
          'an inner name': re.compile(r'<locals>'),
          'a private name': re.compile(r'(?<!\S)_[a-z]\w*'),
          'a linked name': re.compile(r'\[`[^`\]]+`\]\('),
          'a formula': re.compile(r'\$[^$\n]*\\[a-zA-Z]+[^$\n]*\$')}
KATEX = 'katex@0.16.11'
KATEX_SHA512 = ('RQrI8rlHY92OLf3rho/Ts8i/XvjgguEjOkO1BEXcU3N8BqPpSzBNwV/G0Ukr+P/l'
                '3ivvJUE/Fa/CwbS6HesGNQ==')
KATEX_FILES = re.compile(r'package/(LICENSE|dist/(?:katex\.min\.(?:css|js)'
                         r'|contrib/auto-render\.min\.js|fonts/[\w-]+\.woff2))')
HOME_PATH = re.compile(r'(?<![\w.:/\-])/(?:root|home|Users|work|tmp|mnt)/\w[\w./-]*')


def config():
    from nbdev.config import get_config
    return get_config(path=ROOT)

def site_url(cfg):
    return f'{cfg.doc_host}{cfg.doc_baseurl}/'

def notebooks(cfg):
    "Every notebook that becomes a page, relative to the notebooks' folder."
    found = (f.relative_to(cfg.nbs_path) for f in cfg.nbs_path.rglob('*.ipynb'))
    return sorted(f for f in found if not any(p[0] in '._' for p in f.parts))

def unnumbered(path):
    return path.with_name(NUMBERED.sub('', path.name.lower()))

def stale(cfg):
    """nbdev processes the notebooks that changed; but every page depends on where symbols are
    defined, and on `yolov3_nb.docs`."""
    proc = cfg.config_path/'_proc'
    sources = [cfg.lib_path/name for name in ('_modidx.py', 'docs.py')]
    return (proc.is_dir()
            and proc.stat().st_mtime < max(f.stat().st_mtime for f in sources if f.is_file()))

def process(cfg):
    "nbdev's own steps for its docs, as `nbdev_docs` takes them before it calls Quarto."
    from importlib.metadata import entry_points
    import nbdev.doclinks
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    if cfg.lib_name not in entry_points(group='nbdev').names:
        sys.exit(f"The names in backticks cannot be linked: {cfg.lib_name} is not installed here; "
                 f"run: pip install -e '.[dev]'")
    anew = stale(cfg)
    refresh_quarto_yml()
    nbdev.doclinks._build_modidx()
    try:
        return proc_nbs(n_workers=min(os.cpu_count() or 1, 4), force=anew)
    except Exception as e:
        sys.exit(f'nbdev cannot process the notebooks for the site; it runs their imports and '
                 f'exported cells. {e}')

def stage(cfg, proc, dest):
    """Copy the processed notebooks under the names that nbdev's links have (03_boxes.ipynb:
    boxes.html), with links to match."""
    def unlink(m):
        return m[1] + str(unnumbered(Path(m[2])))
    for src in (f for f in cfg.nbs_path.rglob('*') if f.is_file()):
        rel = src.relative_to(cfg.nbs_path)
        if not (proc/rel).is_file():
            continue
        if src.suffix != '.ipynb':
            (dest/rel).parent.mkdir(parents=True, exist_ok=True)
            if src.suffix == '.qmd':
                (dest/rel).write_text(LINK.sub(unlink, (proc/rel).read_text(encoding='utf-8')),
                                      encoding='utf-8')
            else:
                shutil.copy(proc/rel, dest/rel)
            continue
        nb = json.loads((proc/rel).read_text(encoding='utf-8'))
        text = LINK.sub(unlink, json.dumps(nb, ensure_ascii=False))
        text = RAW_LINK.sub(lambda m: m[1] + str(unnumbered(Path(m[2])).with_suffix('.html')), text)
        text = text.replace(site_url(cfg), '../' * (len(rel.parts) - 1))
        text = re.sub(r'output-file: [^\\"]*(\\n)?', '', text)  # a key that only Quarto reads
        (dest/unnumbered(rel)).parent.mkdir(parents=True, exist_ok=True)
        (dest/unnumbered(rel)).write_text(text, encoding='utf-8')
    yml = (ROOT/'_quarto.yml').read_text(encoding='utf-8')
    yml = re.sub(r'(href: )(\S+\.ipynb)', unlink, yml)
    # smalldocs always does, and does not know the key
    yml = re.sub(r'(?m)^ *respect-user-color-scheme:.*\n', '', yml)
    (dest.parent/'_quarto.yml').write_text(yml, encoding='utf-8')

def build_detector():
    "What the page that detects in the browser loads: nbs/detector/build/."
    from detector import make
    if missing := make()['missing']:
        print(f'The detector page cannot run: {missing}')

def bring_katex(cfg):
    """What draws the formulas becomes part of the site, so that they show without the network.
    Where npm does not give it, the pages go on loading it from where smalldocs says."""
    from detector import NoRuntime, fetch_package
    out = cfg.doc_path/'site_libs'/'katex'
    try:
        with (tempfile.TemporaryDirectory() as tmp,
              tarfile.open(fetch_package(KATEX, KATEX_SHA512, tmp)) as package):
            for name in filter(KATEX_FILES.fullmatch, package.getnames()):
                file = out/name.removeprefix('package/').removeprefix('dist/')
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(package.extractfile(name).read())
    except NoRuntime as e:
        print(f'Formulas need the network: {e}')
        return
    for page in cfg.doc_path.rglob('*.html'):
        up = '../' * (len(page.relative_to(cfg.doc_path).parts) - 1)
        text = page.read_text(encoding='utf-8')
        own = re.sub(r'https://[\w.]+/npm/katex@[\d.]+/dist/', f'{up}site_libs/katex/', text)
        if own != text:
            page.write_text(own, encoding='utf-8')

def keep_own_font(cfg):
    "The themes ask another host for fonts; the site has its own (styles.css)."
    for theme in (cfg.doc_path/'site_libs'/'themes').glob('*.css'):
        text = theme.read_text(encoding='utf-8')
        theme.write_text(re.sub(r'@import url\([^)]*\);', '', text), encoding='utf-8')

def build():
    "Build _docs/; ends with what smalldocs has to say where it warns of anything."
    cfg = config()
    if not importlib.util.find_spec('smalldocs'):
        sys.exit("smalldocs, which renders the site, is missing: pip install -e '.[dev]' with "
                 "Python 3.11 or newer")
    build_detector()
    proc = process(cfg)
    with tempfile.TemporaryDirectory() as tmp:
        pages = Path(tmp)/'pages'
        pages.mkdir()
        stage(cfg, proc, pages)
        done = subprocess.run([sys.executable, '-m', 'smalldocs.cli', 'render', '--strict',
                               '--quiet', str(pages)])
        out = pages/cfg.doc_path.name
        if not out.is_dir():
            sys.exit('smalldocs built no site.')
        for nb in notebooks(cfg):  # "view source" leads to the notebook under its own name
            page = out/unnumbered(nb).with_suffix('.html')
            if page.is_file():
                text = page.read_text(encoding='utf-8')
                page.write_text(text.replace(f'/nbs/{unnumbered(nb).as_posix()}',
                                             f'/nbs/{nb.as_posix()}'), encoding='utf-8')
        shutil.rmtree(cfg.doc_path, ignore_errors=True)
        shutil.move(out, cfg.doc_path)
    bring_katex(cfg)
    keep_own_font(cfg)
    by_sections(cfg)
    from search import rewrite
    rewrite(cfg.doc_path)
    lost = cfg.doc_path/'404.html'
    if lost.is_file():  # it is shown at any depth, so its links start from the site's address
        text = re.sub(r'((?:href|src)=")(?:\./)?(?![a-z]+:|/|#)', rf'\g<1>{cfg.doc_baseurl}/',
                      lost.read_text(encoding='utf-8'))
        lost.write_text(re.sub(r'(<meta[^>]*smalldocs:offset[^>]*content=")[^"]*',
                               rf'\g<1>{cfg.doc_baseurl}/', text), encoding='utf-8')
    return done.returncode

def by_sections(cfg):
    """Let the search lead to sections, as Quarto's does: what stands under a smaller heading, such
    as a function's entry, counts for its section."""
    file, sections = cfg.doc_path/'search.json', []
    own = {page: set(re.findall(r'<section id="([^"]+)"[^>]*class="[^"]*level2',
                                (cfg.doc_path/page).read_text(encoding='utf-8')))
           for page in read_pages(cfg)}
    for entry in json.loads(file.read_text(encoding='utf-8')):
        page, _, anchor = entry['href'].partition('#')
        if (not anchor or anchor in own[page] or not sections
            or not sections[-1]['href'].startswith(page)):
            sections.append(entry)
        else:
            sections[-1]['text'] += f" {entry['section']} {entry['text']}"
    file.write_text(json.dumps(sections, ensure_ascii=False), encoding='utf-8')


class Page(HTMLParser):
    """What the checks need of one page: its anchors, its links, its text, and its code apart from
    its text."""
    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.ids = set()
        self.links = []
        self.text = []
        self.code = []
        self.inside = []
        self.counts = collections.Counter()
        self.feed(path.read_text(encoding='utf-8'))
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids.update(attrs[k] for k in ('id', 'name') if attrs.get(k))
        if attrs.get('id') and not attrs['id'].startswith('quarto-'):
            self.counts.update([attrs['id']])  # Quarto repeats ids of its own
        self.links += [attrs[k] for k in ('href', 'src') if attrs.get(k)
                       and (tag, k) != ('base', 'href')]
        if tag in ('pre', 'code', 'script', 'style'):
            self.inside.append(tag)
            self.code.append('\n')
        elif tag in ('p', 'div', 'li', 'tr', 'section', 'td'):
            self.text.append('\n')

    def handle_endtag(self, tag):
        if tag in self.inside:
            del self.inside[self.inside.index(tag):]

    def handle_data(self, data):
        if not self.inside:
            self.text.append(data)
        elif not {'script', 'style'} & set(self.inside):
            self.code.append(data)


def local(url, page, cfg):
    """The file of the tree or of the site that a link means, and its anchor; None where it leads
    elsewhere."""
    blob = f'{cfg.user}/{cfg.repo}/blob/{cfg.branch}/'
    # a file of the repository: on GitHub, Colab or Kaggle
    if url.startswith('http') and blob in url:
        path, _, anchor = url.partition(blob)[2].partition('#')
        return ROOT/unquote(path.partition('?')[0]), anchor
    base = site_url(cfg)
    parts = urlsplit(urljoin(base + page, url))
    if not parts.geturl().startswith(base):
        return None
    path = unquote(parts.path)[len(urlsplit(base).path):]
    if not path or path.endswith('/'):
        path += 'index.html'
    return cfg.doc_path/path, unquote(parts.fragment)

def broken(url, page, pages, cfg):
    "Why a link on a page does not hold, or None."
    if not (found := local(url, page, cfg)):
        return None
    file, anchor = found
    if not file.exists():
        return f'{url} leads nowhere'
    if file.suffix == '.html' and anchor and anchor != 'top':  # a browser knows the top of any page
        target = pages.get(file.relative_to(cfg.doc_path).as_posix())
        if target and anchor not in target.ids:
            return f'{url} has no such anchor'
    line = re.fullmatch(r'L(\d+)(-L\d+)?', anchor)
    if line and int(line[1]) > len(file.read_text(encoding='utf-8').splitlines()):
        return f'{url} is past the end of the file'

def read_pages(cfg):
    return {f.relative_to(cfg.doc_path).as_posix(): Page(f)
            for f in sorted(cfg.doc_path.rglob('*.html')) if 'site_libs' not in f.parts}

def notebook_links(cfg):
    """Links of the notebooks themselves, as JupyterLab follows them: each must lead to a file
    beside them."""
    for nb in notebooks(cfg):
        text = (cfg.nbs_path/nb).read_text(encoding='utf-8')
        if not text.strip() or 'cells' not in (cells := json.loads(text)):
            continue
        prose = '\n'.join(''.join(c['source']) for c in cells['cells']
                          if c['cell_type'] == 'markdown')
        for url in dict.fromkeys(m[2] for m in LINK.finditer(prose)):
            if not (cfg.nbs_path/nb).parent.joinpath(unquote(url)).is_file():
                yield f'nbs/{nb}: {url} is no notebook beside it'

def file_links(cfg):
    "Links of the README and its like, as a clone shows them."
    for name in ('README.md', 'CONTRIBUTING.md'):
        text = (re.sub(r'```.*?```', '', (ROOT/name).read_text(encoding='utf-8'), flags=re.S)
                if (ROOT/name).is_file() else '')
        for url in dict.fromkeys(re.findall(r'\]\(([^)\s]+)\)', text)):
            if (not re.match(r'[a-z]+:|#', url)
                and not (ROOT/unquote(url.partition('#')[0])).exists()):
                yield f'{name}: {url} leads nowhere'

def search_entries(cfg, pages):
    "What the search of the site leads to: each entry must be a page, and an anchor on it."
    file = cfg.doc_path/'search.json'
    for entry in json.loads(file.read_text(encoding='utf-8')) if file.is_file() else ():
        if why := broken(entry['href'], 'index.html', pages, cfg):
            yield f'search.json: {why}'

def check():
    "Everything that is wrong with the pages in _docs/, one line each."
    cfg = config()
    pages = read_pages(cfg)
    if not pages:
        return [f'{cfg.doc_path.name}/ holds no page']
    problems = []
    nav = {local(u, 'index.html', cfg)[0] for u in pages['index.html'].links
           if local(u, 'index.html', cfg)} if 'index.html' in pages else set()
    made_from = {}
    for nb in notebooks(cfg):
        page = unnumbered(nb).with_suffix('.html').as_posix()
        first = made_from.setdefault(page, nb)
        if first != nb:
            problems.append(f'nbs/{nb}: has the page of nbs/{first}, {page}; rename it')
        if page not in pages:
            problems.append(f'nbs/{nb}: has no page')
        elif cfg.doc_path/page not in nav:
            problems.append(f'nbs/{nb}: is not in the sidebar (_quarto.yml)')
    for name, page in pages.items():
        problems += [f'{name}: {why}' for url in dict.fromkeys(page.links)
                     if (why := broken(url, name, pages, cfg))]
        prose, shown = ''.join(page.text), ''.join(page.text + page.code)
        for what, pattern in MARKUP.items():
            text = shown if what in ('a directive', 'a linked name') else prose
            if m := pattern.search(text):
                problems.append(
                    f'{name}: {what} shows as raw markup: '
                    f'{text[max(0, m.start() - 30):m.end() + 30]!r}')
        if m := HOME_PATH.search(shown):
            problems.append(f'{name}: shows a path of the machine that ran it: {m[0]}')
        problems += [f'{name}: the id {i} stands {n} times'
                     for i, n in page.counts.items() if n > 1]
    return [*problems, *notebook_links(cfg), *file_links(cfg), *search_entries(cfg, pages)]

class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves _docs/ as GitHub Pages does: under the site's path, with its own page for what is not
    there."""
    base = ''

    def translate_path(self, path):
        return super().translate_path(path[len(self.base):]
                                      if path.startswith(f'{self.base}/') else path)

    def send_error(self, code, message=None, explain=None):
        lost = Path(self.directory)/'404.html'
        if code != 404 or not lost.is_file():
            return super().send_error(code, message, explain)
        page = lost.read_bytes()
        self.send_response(404)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.send_header('Content-Length', str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *args):
        pass

def serve(port):
    cfg = config()
    Handler.base = cfg.doc_baseurl
    with http.server.ThreadingHTTPServer(('127.0.0.1', port),
                                         functools.partial(Handler,
                                                           directory=str(cfg.doc_path))) as server:
        print(f'The site: http://127.0.0.1:{server.server_port}{cfg.doc_baseurl}/ (Ctrl-C ends it)',
              flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--serve', action='store_true', help='serve the site when it is built')
    p.add_argument('--port', type=int, default=8000)
    p.add_argument('--check', action='store_true',
                   help='check the pages in _docs/ without building them')
    a = p.parse_args()
    os.environ['NO_ALBUMENTATIONS_UPDATE'] = '1'
    os.environ['PYTHONPATH'] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))  # for nbdev's workers
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    warned = 0 if a.check else build()
    problems = check()
    print(*problems, sep='\n')
    pages = len(list(config().doc_path.glob('**/*.html')))
    print(f'{pages} pages in {config().doc_path.name}/, {len(problems)} problems')
    if a.serve:
        serve(a.port)
    sys.exit(bool(warned or problems))
