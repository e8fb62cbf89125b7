"""What pip sees: one settings.ini, commands that exist, and a library that needs no development
package."""
import ast
import importlib
import re
import subprocess
import sys
import tarfile
from configparser import ConfigParser
from pathlib import Path
import pytest

from yolov3_nb.files import InputError
from yolov3_nb.recipe import recipe_from

ROOT = Path(__file__).resolve().parent.parent
cfg = ConfigParser(delimiters=['='])
cfg.read(ROOT/'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']
COMMANDS = [line.strip() for line in cfg['console_scripts'].splitlines() if line.strip()]
MODULES = sorted(f.stem for f in (ROOT/'yolov3_nb').glob('[!_]*.py'))
LIBRARY = sorted(f.relative_to(ROOT).as_posix() for pattern in ('*.py', 'templates/*')
                 for f in (ROOT/'yolov3_nb').glob(pattern))

@pytest.mark.parametrize('command', COMMANDS)
def test_command_leads_to_a_function(command):
    module, function = command.split('=')[1].split(':')
    assert callable(getattr(importlib.import_module(module), function))

def test_library_needs_no_development_package():
    code = '''
import importlib, sys
class Without:
    def __init__(self, finder): self.finder = finder
    def __getattr__(self, name): return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in sys.argv[1].split(','):
            return None
        return self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
for module in sys.argv[2].split(','): importlib.import_module('yolov3_nb.' + module)
'''
    absent = ('nbdev,execnb,ghapi,fastgit,jupyterlab,nbconvert,ipywidgets,IPython,gradio,onnx,'
              'onnxscript,onnxruntime,faster_coco_eval,pycocotools,smalldocs,pytest,selenium')
    done = subprocess.run([sys.executable, '-c', code, absent, ','.join(MODULES)],
                          capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]

def test_source_distribution_is_whole(tmp_path):
    pytest.importorskip('setuptools',
                        reason='setuptools, which packs the library, is not installed')
    tree = tmp_path/'tree'
    (tree/'yolov3_nb').mkdir(parents=True)
    for f in ('settings.ini', 'setup.py', 'MANIFEST.in', 'README.md', 'LICENSE', *LIBRARY):
        (tree/f).parent.mkdir(parents=True, exist_ok=True)
        (tree/f).write_bytes((ROOT/f).read_bytes())
    subprocess.run([sys.executable, 'setup.py', '-q', 'sdist', '--dist-dir', str(tmp_path)],
                   cwd=tree, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob('*.tar.gz'))) as tar:
        names = {n.partition('/')[2] for n in tar.getnames()}
    assert {'settings.ini', 'setup.py', 'README.md', 'LICENSE'} | set(LIBRARY) <= names

def long_functions(file, limit=40):
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if (isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            and (n := node.end_lineno - node.lineno + 1) > limit):
            yield f'{node.name}: {n} lines'

@pytest.mark.parametrize('module', MODULES)
def test_a_function_fits_on_a_screen(module):
    assert list(long_functions(ROOT/'yolov3_nb'/f'{module}.py')) == []

def test_the_library_uses_no_name_that_only_a_notebook_has():
    """A cell that is not exported may import what an exported one uses: the notebook runs, and the
    library raises NameError."""
    pytest.importorskip('ruff', reason="ruff is missing: pip install -e '.[dev]'")
    done = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--isolated', '--select', 'F821',
                           'yolov3_nb'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

def test_an_old_name_of_a_setting_is_read_and_that_of_a_flag_is_not():
    assert recipe_from({'pictures_every': 2}).images_every == 2
    with pytest.raises(InputError, match="'pictures' is no setting"):
        recipe_from({'pictures': True})
    with pytest.raises(InputError, match='pictures_every and images_every are one setting'):
        recipe_from({'pictures_every': 2, 'images_every': 3})

@pytest.mark.parametrize('path', sorted((ROOT/'results').glob('*.json')), ids=lambda p: p.name)
def test_a_record_holds_no_place_of_the_machine_that_made_it(path):
    absolute = re.compile(r'["\s=](/[\w.-]+/|~/|[A-Za-z]:\\)')  # the start of a value or of a word
    assert absolute.findall(path.read_text(encoding='utf-8')) == []
