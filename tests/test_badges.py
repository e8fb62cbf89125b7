"""Badges and runtime cells: one form for all chapters, and a cell that does nothing where it should
not."""
import json
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent
def cell(kind, id, text):
    return {'cell_type': kind, 'id': id, 'metadata': {},
            'source': text.splitlines(keepends=True)} | (
    {'outputs': [], 'execution_count': None} if kind == 'code' else {})

def test_every_chapter_is_in_form(tool):
    assert tool('badges').main(check=True) == [], 'run: python tools/badges.py'

@pytest.fixture
def course(tool, tmp_path):
    "A course of one chapter; dress it and get its cells."
    (tmp_path/'nbs').mkdir()
    (tmp_path/'settings.ini').write_text((ROOT/'settings.ini').read_text(encoding='utf-8'),
                                         encoding='utf-8')
    def dress(*cells, name='03_boxes.ipynb'):
        nb = {'cells': list(cells), 'nbformat': 4, 'nbformat_minor': 5, 'metadata': {}}
        (tmp_path/'nbs'/name).write_text(json.dumps(nb))
        changed = tool('badges').main(root=tmp_path)
        return changed, [''.join(c['source'])
                         for c in json.loads((tmp_path/'nbs'/name).read_text())['cells']]
    return dress

TITLE = cell('markdown', 't', '# Boxes\n\n> one line')
INTRO = cell('markdown', 'i', 'After this chapter you can')
EXP = cell('code', 'e', '#| default_exp boxes')

def test_badges_come_once_and_in_one_form(course, tool):
    old = cell('markdown', 'i',
               '[![Open In Colab](a.svg)](b) [![Open in Kaggle](c.svg)](d)\n\nAfter this '
               'chapter you can')
    (_, plain), (_, bare) = course(TITLE, EXP, old), course(TITLE, EXP, INTRO)
    assert plain == bare
    assert plain[2].count('colab.research.google.com/github') == 1
    assert plain[2].endswith(')\n\nAfter this chapter you can')
    assert ('/blob/main/nbs/03_boxes.ipynb' in plain[2]
            and plain[1].startswith('#| default_exp boxes\n#| hide\n'))
    kinds = ('markdown', 't'), ('code', 'e'), ('markdown', 'i')
    changed, again = course(*(cell(k, i, s) for (k, i), s in zip(kinds, plain)))
    assert changed == [] and again == plain

def test_a_chapter_without_a_module_gets_a_cell(course):
    assert course(TITLE, INTRO)[1][1].startswith('#| hide\n# On Colab')

def test_nothing_of_it_gets_into_the_library(course):
    both = cell('code', 'e', '#| default_exp boxes\n#| export\nimport torch')
    said = course(TITLE, both, INTRO)[1]
    assert (said[1].startswith('#| hide\n# On Colab') and said[2]
            == '#| default_exp boxes\n#| export\nimport torch')

def test_it_installs_what_the_chapter_imports(course):
    imports = cell('code', 'x',
                   '%time\nimport onnx, torch\nfrom pycocotools.coco import COCO\nimport pytest')
    said = course(TITLE, EXP, INTRO, imports)[1][1]
    assert "'onnx>=" in said
    assert "'onnxscript>=" in said
    assert "'pycocotools>=" in said
    assert 'pytest' not in said
    assert 'torch' not in said
    assert course(TITLE, EXP, INTRO)[1][1].count("'") == said.count("'") - 6

@pytest.mark.parametrize('where, fetches', [
    ({}, False), ({'COLAB_RELEASE_TAG': 'x'}, True),
    ({'KAGGLE_KERNEL_RUN_TYPE': 'Interactive'}, True)])
def test_the_cell_acts_there_and_nowhere_else(course, where, fetches, tmp_path, monkeypatch):
    code, said = compile(course(TITLE, EXP, INTRO)[1][1], 'cell', 'exec'), []
    for name in ('COLAB_RELEASE_TAG', 'KAGGLE_KERNEL_RUN_TYPE'):
        monkeypatch.delenv(name, raising=False)
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    class Shell:
        def system(self, line):
            said.append(line)
            Path('yolov3_nb/nbs').mkdir(parents=True)
    home = tmp_path/'somewhere'/'else'
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    exec(code, {'get_ipython': Shell})
    assert bool(said) == fetches and (Path.cwd() == home/'yolov3_nb'/'nbs') == fetches
    if fetches:
        assert 'git clone' in said[0] and 'pip install' in said[0]
    (tmp_path/'clone'/'nbs').mkdir(parents=True)
    (tmp_path/'clone'/'settings.ini').write_text('')
    monkeypatch.chdir(tmp_path/'clone'/'nbs')  # in a clone already, on Colab too
    exec(code, {'get_ipython': Shell})
    assert len(said) == fetches
