"""Where the browser is that the tests drive. `python tests/browser.py` says so; exit status 1 where
there is none."""
import shutil
import sys

def find(*names):
    return next(filter(None, map(shutil.which, names)), None)

BROWSER = find('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
DRIVER = find('chromedriver')

if __name__ == '__main__':
    print(BROWSER, DRIVER)
    sys.exit(not (BROWSER and DRIVER))
