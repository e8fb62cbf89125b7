"""Keep the badges and the runtime cell of every chapter in one form: `python tools/badges.py`.

Each chapter opens on Colab and Kaggle by its badges. There its second cell (the one with
`default_exp`) fetches the course, installs what the chapter needs and goes to its folder; anywhere
else it does nothing, and the site hides it. Packages that only some chapters import are found in
their cells. `--check` changes nothing and fails where a chapter is not in this form."""
import argparse
import ast
import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_WORKSHOP = '18'  # from here on no badges: nobody opens them on Colab to learn from
OLD_BADGES = re.compile(r'^(?:\[!\[Open in \w+\]\([^)]*\)\]\([^)]*\)\s*)+', re.I)
RUNTIME = re.compile(r'^#\| hide\n# On Colab and Kaggle.*', re.M | re.S)
TOOLS = {'nbdev', 'execnb', 'ghapi', 'fastgit', 'fastcore', 'jupyterlab', 'nbconvert', 'smalldocs',
         'pytest', 'ruff', 'selenium'}  # of maintainers
WITH = {'onnx': ['onnxscript']}  # what torch needs to write ONNX
COLAB = 'https://colab.research.google.com'
KAGGLE = 'https://kaggle.com'


def settings(root):
    cfg = ConfigParser(delimiters=['='])
    cfg.read(root/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def source(cell):
    return ''.join(cell['source'])


def badges(cfg, name):
    path = f"{cfg['user']}/{cfg['repo']}/blob/{cfg['branch']}/nbs/{name}"
    return (f'[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{path})\n'
            f'[![Open in Kaggle]({KAGGLE}/static/images/open-in-kaggle.svg)]'
            f'({KAGGLE}/kernels/welcome?src=https://github.com/{path})')


def imported(text):
    "The packages that a cell's source imports; none where it is no Python."
    lines = ('' if line.lstrip()[:1] in ('%', '!') else line for line in text.splitlines())
    try:
        tree = ast.parse('\n'.join(lines))
    except SyntaxError:
        return set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or '')
    return {name.split('.')[0] for name in names}


def extras(cells, cfg):
    "Requirements of `[dev]` that the cells import and a plain install lacks."
    more = {}
    for spec in cfg['dev_requirements'].split():
        name = re.match(r'[\w.-]+', spec)[0]
        if name not in TOOLS:
            more[name.replace('-', '_')] = spec.partition(';')[0]
    found = set()
    for cell in cells:
        if cell['cell_type'] == 'code':
            found |= imported(source(cell))
    found |= {other for name in found for other in WITH.get(name, ())}
    return [more[name] for name in sorted(found & more.keys())]


def runtime(cells, cfg):
    "Source of the runtime cell; no import, for which nbdev would run it when it builds the site."
    repo, url = cfg['repo'], cfg['git_url'].replace('%(user)s', cfg['user'])
    packages = ''.join(f"\n        \" '{spec}'\"" for spec in extras(cells, cfg))
    return f'''#| hide
# On Colab and Kaggle (with Internet switched on): fetch the course and what this chapter needs.
if not (os := __import__('os')).path.exists('../settings.ini') and (
        {{'COLAB_RELEASE_TAG', 'KAGGLE_KERNEL_RUN_TYPE'}} & os.environ.keys()):
    get_ipython().system(
        "[ -d {repo} ] || git clone -q --depth 1 {url}"
        " && pip install -q ./{repo}"{packages})
    os.chdir('{repo}/nbs')'''


def runtime_place(cells):
    "The index of the cell that holds the runtime lines; a new one is put in where there is none."
    for i, cell in enumerate(cells):
        text = source(cell)
        if cell['cell_type'] == 'code' and '#| default_exp' in text and '#| export' not in text:
            return i
    at = next((i for i, cell in enumerate(cells) if cell['id'] == 'runtime'), None)
    if at is None:
        at = 1
        cells.insert(at, dict(cell_type='code', execution_count=None, id='runtime', metadata={},
                              outputs=[], source=[]))
    return at


def dressed(cells, name, cfg):
    "The cells of a chapter, with badges and runtime cell as they should be, and all others."
    cells = [dict(c) for c in cells]
    at = runtime_place(cells)
    kept = RUNTIME.sub('', source(cells[at])).strip('\n')
    lines = '\n'.join(filter(None, [kept, runtime(cells[:at] + cells[at + 1:], cfg)]))
    cells[at]['source'] = lines.splitlines(keepends=True)
    prose = [c for c in cells[1:] if c['cell_type'] == 'markdown']
    intro = next((c for c in prose if OLD_BADGES.match(source(c))), prose[0] if prose else None)
    if not intro:
        intro = dict(cell_type='markdown', id='badges', metadata={}, source=[])
        cells.insert(at + 1, intro)
    text = badges(cfg, name) + '\n\n' + OLD_BADGES.sub('', source(intro)).lstrip()
    intro['source'] = text.strip().splitlines(keepends=True)
    return cells


def chapters(root):
    found = sorted((root/'nbs').glob('[0-9][0-9]*_*.ipynb'))
    return [f for f in found if f.name[:2] < FIRST_WORKSHOP]


def main(check=False, root=ROOT):
    "Dress every chapter; the names of those that were not in form."
    changed, cfg = [], settings(root)
    for file in chapters(root):
        nb = json.loads(file.read_text(encoding='utf-8'))
        cells = dressed(nb['cells'], file.name, cfg)
        if cells == nb['cells']:
            continue
        changed.append(file.name)
        if not check:
            text = json.dumps(nb | {'cells': cells}, indent=1, ensure_ascii=False, sort_keys=True)
            file.write_text(text + '\n', encoding='utf-8')
    return changed


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true',
                   help='fail where a chapter is not in form, and change nothing')
    a = p.parse_args()
    changed = main(a.check)
    print(*changed, sep='\n')
    if a.check and changed:
        sys.exit('Not in form; run: python tools/badges.py')
