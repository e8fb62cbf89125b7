"What several tests share: the tools of tools/ as modules, and a browser."
import importlib.util
import os
import tempfile
import zlib
from pathlib import Path

import pytest
from browser import BROWSER, DRIVER

# Many tests start commands that train. One thread each is faster on few cores than two that wait
# for each other; a value that is set already is kept. Before anything imports torch.
os.environ.setdefault('OMP_NUM_THREADS', '1')

ROOT = Path(__file__).resolve().parent.parent
NO_SELENIUM = "selenium, which drives the browser, is not installed: pip install -e '.[dev]'"
NO_BROWSER = ('chromium and chromedriver are not installed: '
              'apt-get install chromium chromium-driver')
FLAGS = ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
         '--no-first-run')


@pytest.fixture(scope='module')
def site_lock():
    "Modules that build or read the site's folder take turns, also where pytest has processes."
    import fcntl
    with open(Path(tempfile.gettempdir())/f'site-{zlib.crc32(str(ROOT).encode())}.lock', 'w') as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope='session')
def tool():
    "tool('site') is tools/site.py, under a name that hides nothing of the standard library."
    def load(name):
        path = ROOT/'tools'/f'{name}.py'
        spec = importlib.util.spec_from_file_location(f'tools_{name}', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return load


@pytest.fixture(scope='module')
def chrome():
    """chrome('--a-flag', log=('browser',)) starts a headless browser.

    Where there is none, tests are skipped and say what is missing."""
    webdriver = pytest.importorskip('selenium.webdriver', reason=NO_SELENIUM)
    if not (BROWSER and DRIVER):
        pytest.skip(NO_BROWSER)
    started = []

    def start(*flags, log=('browser',)):
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for flag in (*FLAGS, *flags):
            options.add_argument(flag)
        options.set_capability('goog:loggingPrefs', dict.fromkeys(log, 'ALL'))
        service = webdriver.ChromeService(DRIVER)
        started.append(webdriver.Chrome(options=options, service=service))
        return started[-1]

    yield start
    for driver in started:
        driver.quit()
