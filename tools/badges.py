"""Keep the badges and the runtime cell of every chapter in one form: `python tools/badges.py [--check]`.

Each chapter opens on Colab and Kaggle by its badges. There its second cell (the one with `default_exp`) fetches the course, installs
what the chapter needs and goes to its folder; anywhere else it does nothing, and the site hides it. Packages that only some chapters
import are found in their cells. `--check` changes nothing and fails where a chapter is not in this form."""
import argparse, ast, json, re, sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_WORKSHOP = '18'  # from here on no badges: nobody opens them on Colab to learn from
OLD_BADGES = re.compile(r'^(?:\[!\[Open in \w+\]\([^)]*\)\]\([^)]*\)\s*)+', re.I)
RUNTIME = re.compile(r'^#\| hide\n# On Colab and Kaggle.*', re.M | re.S)
TOOLS = {'nbdev', 'execnb', 'ghapi', 'fastgit', 'jupyterlab', 'nbconvert', 'smalldocs', 'pytest', 'selenium'}  # of maintainers
WITH = {'onnx': ['onnxscript']}  # what torch needs to write ONNX

def settings(root):
    cfg = ConfigParser(delimiters=['='])
    cfg.read(root/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']

def source(cell): return ''.join(cell['source'])

def badges(cfg, name):
    path = f"{cfg['user']}/{cfg['repo']}/blob/{cfg['branch']}/nbs/{name}"
    return ('[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/' + path + ')\n'
            '[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)](https://kaggle.com/kernels/welcome?src=https://github.com/' + path + ')')

def extras(cells, cfg):
    "Requirements of `[dev]` that the cells import and a plain install lacks."
    name = lambda spec: re.match(r'[\w.-]+', spec)[0]
    more = {name(s).replace('-', '_'): s.partition(';')[0] for s in cfg['dev_requirements'].split() if name(s) not in TOOLS}
    found = set()
    for text in (source(c) for c in cells if c['cell_type'] == 'code'):
        try: tree = ast.parse('\n'.join('' if l.lstrip()[:1] in ('%', '!') else l for l in text.splitlines()))
        except SyntaxError: continue
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ''] if isinstance(node, ast.ImportFrom) else []
            found.update(n.split('.')[0] for n in names)
    found |= {w for n in found for w in WITH.get(n, ())}
    return [more[n] for n in sorted(found & more.keys())]

def runtime(cells, cfg):
    "Source of the runtime cell: five lines, and no import statement, for which nbdev would run the cell when it builds the site."
    packages = ''.join(f" '{s}'" for s in extras(cells, cfg))
    return f'''#| hide
# On Colab and Kaggle (there with Internet switched on): fetch the course, install what this chapter needs, go to its folder.
if {{'COLAB_RELEASE_TAG', 'KAGGLE_KERNEL_RUN_TYPE'}} & (os := __import__('os')).environ.keys() and not os.path.exists('../settings.ini'):
    get_ipython().system("[ -d {cfg['repo']} ] || git clone -q --depth 1 {cfg['git_url'].replace('%(user)s', cfg['user'])}"
                         " && pip install -q ./{cfg['repo']}{packages}")
    os.chdir('{cfg['repo']}/nbs')'''

def dressed(cells, name, cfg):
    "The cells of a chapter, with badges and runtime cell as they should be; all other cells as they are."
    cells = [dict(c) for c in cells]
    at = next((i for i, c in enumerate(cells) if c['cell_type'] == 'code' and '#| default_exp' in source(c) and '#| export' not in source(c)), None)
    if at is None:
        at = next((i for i, c in enumerate(cells) if c['id'] == 'runtime'), 1)
        if at == len(cells) or cells[at]['id'] != 'runtime':
            cells.insert(at, dict(cell_type='code', execution_count=None, id='runtime', metadata={}, outputs=[], source=[]))
    kept = RUNTIME.sub('', source(cells[at])).strip('\n')
    cells[at]['source'] = '\n'.join(filter(None, [kept, runtime(cells[:at] + cells[at + 1:], cfg)])).splitlines(keepends=True)
    intro = next((c for c in cells[1:] if c['cell_type'] == 'markdown' and OLD_BADGES.match(source(c))), None)
    intro = intro or next((c for c in cells[1:] if c['cell_type'] == 'markdown'), None)
    if not intro: cells.insert(at + 1, intro := dict(cell_type='markdown', id='badges', metadata={}, source=[]))
    intro['source'] = (badges(cfg, name) + '\n\n' + OLD_BADGES.sub('', source(intro)).lstrip()).strip().splitlines(keepends=True)
    return cells

def chapters(root): return [f for f in sorted((root/'nbs').glob('[0-9][0-9]*_*.ipynb')) if f.name[:2] < FIRST_WORKSHOP]

def main(check=False, root=ROOT):
    "Dress every chapter; the names of those that were not in form."
    changed, cfg = [], settings(root)
    for file in chapters(root):
        nb = json.loads(file.read_text(encoding='utf-8'))
        cells = dressed(nb['cells'], file.name, cfg)
        if cells == nb['cells']: continue
        changed.append(file.name)
        if not check: file.write_text(json.dumps(nb | {'cells': cells}, indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8')
    return changed

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true', help='fail where a chapter is not in form, and change nothing')
    a = p.parse_args()
    changed = main(a.check)
    print(*changed, sep='\n')
    if a.check and changed: sys.exit('Not in form; run: python tools/badges.py')
