"The tools of tools/ as modules, for the tests of them."
import importlib.util
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture(scope='session')
def tool():
    "tool('site') is tools/site.py, under a name that hides nothing of the standard library."
    def load(name):
        spec = importlib.util.spec_from_file_location(f'tools_{name}', ROOT/'tools'/f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return load
