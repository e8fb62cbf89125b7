"What several tests share: the tools of tools/ as modules, and a browser."
import importlib.util
from pathlib import Path
import pytest
from browser import BROWSER, DRIVER

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

@pytest.fixture(scope='module')
def chrome():
    "chrome('--a-flag', log=('browser',)) starts a headless browser; where there is none, tests are skipped and say what is missing."
    webdriver = pytest.importorskip('selenium.webdriver', reason="selenium, which drives the browser, is not installed: pip install -e '.[dev]'")
    if not (BROWSER and DRIVER): pytest.skip('chromium and chromedriver are not installed: apt-get install chromium chromium-driver')
    started = []
    def start(*flags, log=('browser',)):
        options = webdriver.ChromeOptions()
        options.binary_location = BROWSER
        for flag in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', *flags): options.add_argument(flag)
        options.set_capability('goog:loggingPrefs', dict.fromkeys(log, 'ALL'))
        started.append(webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)))
        return started[-1]
    yield start
    for driver in started: driver.quit()
