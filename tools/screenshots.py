"""Photograph the site, the app and a report, on a desk and a phone, by light and in the dark:
`python tools/screenshots.py --out DIR [--only NAME…] [--report FILE] [--app URL]`.

Needs a built site in _docs/ (tools/site.py), chromium and its driver. A page that is longer than
a screen is cut into strips that stand side by side in one PNG. For eyes, not for a test: what a
test can judge is in tests/test_site_look.py."""
import argparse
import base64
import functools
import http.server
import io
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT/'tools'), str(ROOT/'tests')]
VIEWS = {'desk': (1440, 1000, 2), 'phone': (390, 1150, 6)}  # width, height of a strip, strips
PAGES = {'home': 'index.html', 'chapter': 'boxes.html', 'api': 'boxes.html#box_iou',
         'learner': 'learner.html', 'detector': 'detector.html'}


def open_browser():
    "A headless Chromium that loads nothing from elsewhere."
    from browser import BROWSER, DRIVER
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
                 '--hide-scrollbars', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))

def show(driver, url, width, height, scheme):
    "Open an address at this width, in this colour scheme."
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(
        width=width, height=height, deviceScaleFactor=1, mobile=width < 500))
    driver.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(
        features=[dict(name='prefers-color-scheme', value=scheme)]))
    driver.get('about:blank')
    driver.get(url)

def shoot(driver, width, height, strips):
    "What can be seen from the current place on, as one image of several strips."
    from PIL import Image
    top = int(driver.execute_script('return scrollY'))
    whole = int(driver.execute_script('return document.documentElement.scrollHeight'))
    images = []
    for i in range(strips):
        y = top + i*height
        if y >= whole:
            break
        clip = dict(x=0, y=y, width=width, height=min(height, whole - y), scale=1)
        data = driver.execute_cdp_cmd('Page.captureScreenshot', dict(
            captureBeyondViewport=True, clip=clip))['data']
        images.append(Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB'))
    sheet = Image.new('RGB', (len(images)*(width + 12) - 12, height), '#ff00ff')
    for i, image in enumerate(images):
        sheet.paste(image, (i*(width + 12), 0))
    return sheet

def serve():
    "The built site on a free port: its address."
    import site_tool
    cfg = site_tool.config()
    site_tool.Handler.base = cfg.doc_baseurl
    handler = functools.partial(site_tool.Handler, directory=str(cfg.doc_path))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f'http://127.0.0.1:{server.server_port}{cfg.doc_baseurl}/'

def load_site_tool():
    "tools/site.py under a name that hides nothing of the standard library."
    import importlib.util
    spec = importlib.util.spec_from_file_location('site_tool', ROOT/'tools'/'site.py')
    sys.modules['site_tool'] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, required=True)
    p.add_argument('--only', nargs='*', help=f'of {", ".join(PAGES)}, app, report')
    p.add_argument('--page', nargs='*', default=[], help='other pages of the site: boxes.html#nms')
    p.add_argument('--report', type=Path, help='a report.html')
    p.add_argument('--app', help='the address of a running app')
    a = p.parse_args()
    load_site_tool()
    base = serve()
    pages = {name: base + page for name, page in PAGES.items()}
    for page in a.page:
        pages[page.replace('/', '-').replace('.html', '').replace('#', '-')] = base + page
    if a.report:
        pages['report'] = a.report.resolve().as_uri()
    if a.app:
        pages['app'] = a.app
    a.out.mkdir(parents=True, exist_ok=True)
    driver = open_browser()
    for name, url in pages.items():
        if a.only is not None and name not in a.only:
            continue
        for view, (width, height, strips) in VIEWS.items():
            for scheme in ('light', 'dark'):
                themed = f'{url}?__theme={scheme}' if name == 'app' else url
                show(driver, themed, width, height, scheme)
                time.sleep(12 if name in ('app', 'detector') else 2)
                file = a.out/f'{name}-{view}-{scheme}.png'
                shoot(driver, width, height, strips).save(file)
                print(file)
    driver.quit()

if __name__ == '__main__':
    main()
