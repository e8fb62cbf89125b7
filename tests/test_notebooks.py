"The notebooks as files, and the tools that count, run and publish them."
import ast
import base64
import json
import re
import subprocess
import sys
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT/'nbs').rglob('*.ipynb'))

def cell(kind, source, **more):
    outputs = ({'outputs': more.pop('outputs', []), 'execution_count': None} if kind
               == 'code' else {})
    return {'cell_type': kind, 'id': f'c{abs(hash(source))}', 'metadata': {},
            'source': source.splitlines(keepends=True), **outputs, **more}

def notebook(path, cells):
    kernel = {'display_name': 'python3', 'language': 'python', 'name': 'python3'}
    path.write_text(json.dumps({'cells': cells, 'metadata': {'kernelspec': kernel}, 'nbformat': 4,
                                'nbformat_minor': 5}), encoding='utf-8')
    return path

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.name)
def test_size_and_form(path):
    nb = json.loads(path.read_text(encoding='utf-8'))
    assert path.stat().st_size < 2e6
    ids = [c['id'] for c in nb['cells']]
    assert len(ids) == len(set(ids))
    pictures = [data for c in nb['cells'] for o in c.get('outputs', [])
                for kind, data in o.get('data', {}).items() if kind.startswith('image/')]
    assert [n for p in pictures if (n := len(base64.b64decode(''.join(p)))
                                    if not ''.join(p).lstrip().startswith('<') else len(''.join(p)))
            > 200_000] == []
    first = ''.join(nb['cells'][0]['source']).strip().splitlines()
    # nbdev keeps no more of a title cell
    assert first[0].startswith('# ') and first[-1].startswith('> ') and len(first) <= 3

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.name)
def test_imports_stand_in_cells_of_their_own(path):
    def mixed(source):
        if 'eval: false' in source or '#| export' in source:
            return False  # exported cells run anyway
        nodes = [type(n)
                 for n in ast.parse('\n'.join('' if line.lstrip()[:1] in ('%', '!') else line
                                              for line in source.splitlines())).body]
        imports = [n for n in nodes if n in (ast.Import, ast.ImportFrom)]
        return imports and any(n in (ast.Expr, ast.Assign) for n in nodes)
    nb = json.loads(path.read_text(encoding='utf-8'))
    sources = [''.join(c['source']) for c in nb['cells'] if c['cell_type'] == 'code']
    # nbdev runs every cell with an import when it builds the site
    assert [s for s in sources if mixed(s)] == []

LESSONS = [p for p in NOTEBOOKS if p.parent.name == 'nbs' and '01' <= p.name[:2] < '18']

def renamed_words(source):
    "Names with an underscore that a cell assigns, inside of sentences: a renaming went too far."
    tree = ast.parse('\n'.join('' if line.lstrip()[:1] in ('%', '!') else line
                               for line in source.splitlines()))
    assigned = {n.id for n in ast.walk(tree)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and '_' in n.id}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            plain = re.sub(r'`[^`]*`', '', node.value)
            if plain.count(' ') >= 3:
                found += [w for w in re.findall(r'\b[a-z]+_[a-z_]+\b', plain) if w in assigned]
    return found

@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.name)
def test_no_variable_stands_in_a_sentence(path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    found = {c['id']: renamed_words(''.join(c['source']))
             for c in cells if c['cell_type'] == 'code'}
    assert {i: words for i, words in found.items() if words} == {}

def test_a_variable_in_a_sentence_is_found():
    damaged = "for maps_there in x:\n    print(f'The {x}, maps_there with a score of {1:.2f}.')"
    assert renamed_words(damaged) == ['maps_there']
    assert renamed_words(damaged.replace('{x}, maps_there', '{x}, found')) == []

@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.name)
def test_exercises_are_left_to_the_student(path):
    sources = [''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells']
               if c['cell_type'] == 'code']
    tasks = [s for s in sources if re.search(r"^check\('", s, re.M)]
    assert [s for s in tasks if 'raise NotImplementedError' not in s] == []

def test_counts(tmp_path, tool):
    png = {'output_type': 'display_data', 'data': {'image/png': ''}, 'metadata': {}}
    path = notebook(tmp_path/'01_x.ipynb', [
        cell('markdown', '# Title\n\n> four words of it'),
        cell('code', '#| export\nx = 1\n\ny = 2'), cell('code', 'assert x == 1', outputs=[png]),
        cell('code', ''), cell('code', 'x'), cell('markdown', '### Exercise: do it'),
        cell('code', 'test_eq(x, 1)\n1\n2\n3\n4')])
    row = tool('count_notebooks').count(path)
    assert row == {'code': 4, 'median': '2', 'p90': 2, 'words/cell': '3', 'in a row': 3,
                   'figures': 1, 'checks': 2, 'exercises': 1, 'kB': row['kB']}

def run(path):
    return subprocess.run([sys.executable, 'tools/run_notebooks.py', str(path)], cwd=ROOT,
                          capture_output=True, text=True)

def test_running_keeps_outputs_and_skips_what_the_tests_skip(tmp_path):
    path = notebook(tmp_path/'x.ipynb', [cell('code', '6 * 7'), cell('code', '#| slow\n1 / 0'),
                                         cell('code', '#| eval: false\n1 / 0')])
    assert run(path).returncode == 0
    outputs = [c['outputs'] for c in json.loads(path.read_text())['cells']]
    assert [''.join(o['data']['text/plain']) for o in outputs[0]] == ['42']
    assert outputs[1:] == [[], []]

def test_an_error_leaves_the_notebook_as_it_was(tmp_path):
    path = notebook(tmp_path/'x.ipynb', [cell('code', '6 * 7'), cell('code', '1 / 0')])
    before = path.read_bytes()
    done = run(path)
    assert done.returncode == 1
    assert 'ZeroDivisionError' in done.stderr
    assert path.read_bytes() == before

def test_readme_is_made_from_the_index():
    done = subprocess.run([sys.executable, 'tools/readme.py', '--check'], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

def test_readme_has_the_two_commands():
    readme = (ROOT/'README.md').read_text(encoding='utf-8')
    marked = re.findall(r'<!-- command: (\w+) -->\n```sh\n(.*?)\n```', readme, re.S)
    assert dict(marked) == {'train': 'pip install -e . && yolov3_train',
                            'test': 'pip install -e ".[dev]" && python tools/test.py'}
    assert len(marked) == 2

LESSONS = [p for p in NOTEBOOKS if p.parent.name == 'nbs' and re.match(r'(0[1-9]|1[01])', p.name)]

def glossary_links(path):
    "Each link of a chapter's prose to the glossary, as (line that it stands in, term)."
    cells = (''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells']
             if c['cell_type'] == 'markdown')
    lines = (line for c in cells for line in re.sub(r'```.*?```', '', c, flags=re.S).splitlines())
    return [(line, term) for line in lines
            for term in re.findall(r'\]\(glossary\.ipynb#term-([\w-]+)\)', line)]

@pytest.mark.parametrize('path', LESSONS, ids=lambda p: p.name)
def test_terms_lead_to_the_glossary(path):
    links = glossary_links(path)
    glossary = (ROOT/'nbs'/'glossary.ipynb').read_text(encoding='utf-8')
    terms = [term for _, term in links]
    assert len(set(terms)) >= 12, f'{path.name} leads to {len(set(terms))} terms of the glossary'
    assert [t for t in terms if terms.count(t) > 1] == []
    assert [line for line, _ in links if line.startswith('#')] == []
    assert [t for t in terms if f'id=\\"term-{t}\\"' not in glossary] == []
    mine = re.findall(rf'id=\\"term-([\w-]+)\\"[^\n]*\({path.name}\)', glossary)
    missing = f'The glossary sends these to {path.name}: {sorted(set(mine) - set(terms))}'
    assert len(set(mine) & set(terms)) >= len(mine) / 2, missing
