"""Make the Space, install its requirements.txt in a fresh environment, start its app.py there and
look at it with a headless Chromium: `python tools/try_space.py --out DIR [--weights voc]`.

DIR/space is the Space, DIR/env the environment (kept and used again with --keep; it takes
gigabytes, so DIR stands outside the project). Nothing of this project's own environment is visible
to the Space: no PYTHONPATH, a home of its own, another working folder. Prints what was seen and
ends with exit status 1 where a box, a heat map or a file was missing."""
import argparse
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT/'tests'), str(ROOT/'tools')]
PATIENCE = 120  # seconds for an answer


def make(out, weights):
    "The Space, by the command that a user would type."
    code = 'from yolov3_nb.cli import run_app; run_app()'
    command = [sys.executable, '-c', code, '--make_space', str(out/'space'), '--weights', weights]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

def install(out, extra):
    "A fresh environment with what requirements.txt names, and nothing else."
    began = time.time()
    subprocess.run([sys.executable, '-m', 'venv', '--clear', out/'env'], check=True)
    pip = [out/'env'/'bin'/'pip', 'install', '-q', *extra, '-r', out/'space'/'requirements.txt']
    subprocess.run(pip, check=True, env=alone(out), cwd=out)
    size = sum(f.lstat().st_size for f in (out/'env').rglob('*'))
    print(f'installed in {time.time() - began:.0f} s, {size/1e9:.1f} GB', flush=True)

def alone(out, **more):
    "The variables that the Space's process sees."
    hidden = 'PYTHONPATH', 'VIRTUAL_ENV', 'YOLOV3_HOME', 'YOLOV3_VOC'
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | {'HOME': str(out/'home'), 'YOLOV3_HOME': str(out/'home'/'yolov3')} | more

@contextlib.contextmanager
def running(out):
    "The Space's app.py: its address and what it prints."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    log = out/'app.log'
    with log.open('w') as file:
        server = subprocess.Popen(
            [out/'env'/'bin'/'python', 'app.py'], cwd=out/'space', stdout=file,
            stderr=subprocess.STDOUT,
            env=alone(out, GRADIO_SERVER_PORT=str(port), PYTHONUNBUFFERED='1'))
        try:
            began = time.time()
            while 'The app:' not in log.read_text():
                if server.poll() is not None or time.time() - began > 2*PATIENCE:
                    sys.exit(f'The app did not start:\n{log.read_text()[-2000:]}')
                time.sleep(.5)
            print(f'app.py listens after {time.time() - began:.1f} s', flush=True)
            yield f'http://127.0.0.1:{port}', log
        finally:
            server.terminate()
            server.wait(20)

def until(what, why):
    "What a function returns as soon as it is something."
    end = time.time() + PATIENCE
    while time.time() < end:
        with contextlib.suppress(Exception):  # the page is being redrawn
            if found := what():
                return found
        time.sleep(.3)
    sys.exit(f'{why}: not within {PATIENCE} s')

def image(driver, css):
    "The image that a component of the page shows, as it was sent."
    import numpy as np
    from PIL import Image
    address = driver.find_element('css selector', f'{css} img').get_attribute('src')
    with urllib.request.urlopen(address) as f:
        return np.array(Image.open(io.BytesIO(f.read())).convert('RGB')).astype(int)

def look(driver, url, out):
    "Go through the page as a visitor does, and say what is there."
    began = time.time()
    driver.get(url)
    sentence = until(lambda: (text := driver.find_element('css selector', '#sentence').text)
                     and 'The detector took' in text and text, 'a sentence on what was found')
    until(lambda: driver.find_elements('css selector', '#found img'), 'the image with boxes')
    print(f'first answer {time.time() - began:.1f} s after the page was asked for')
    print('title:', driver.find_element('css selector', '#title').text.replace('\n', ' · '))
    print('sentence:', sentence)
    tabs = driver.find_elements('css selector', '[role=tab]')
    next(tab for tab in tabs if tab.text == 'Why?').click()
    until(lambda: driver.find_elements('css selector', '#heat img'), 'a heat map')
    until(lambda: driver.find_element('css selector', '#caption').text, 'its caption')
    print('caption:', driver.find_element('css selector', '#caption').text)
    found, heat = image(driver, '#found'), image(driver, '#heat')
    colour = abs(heat - heat.mean(2, keepdims=True)).max(2)
    print(f'image {found.shape}, heat map {heat.shape}, {100*(colour > 40).mean():.0f} % of it '
          'in colour')
    tabs[0].click()   # the boxes, and the files
    saved = out/'saved'
    shutil.rmtree(saved, ignore_errors=True)
    driver.execute_cdp_cmd('Browser.setDownloadBehavior', dict(behavior='allow',
                                                               downloadPath=str(saved)))
    driver.find_element('css selector', '#file-json').click()
    answer = until(lambda: json.loads(next(saved.glob('*.json')).read_text()), 'the saved answer')
    for o in answer['objects']:
        print(f"box: {o['label']} {o['score']:.2f} {o['box']} of stride {o['stride']}")
    examples = driver.find_elements('css selector', '#examples img')
    print(f'{len(examples)} examples; the first: {answer["image"]}')
    driver.save_screenshot(str(out/'space.png'))
    return bool(answer['objects']) and (colour > 40).mean() > .01

def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, required=True)
    p.add_argument('--weights', default='voc')
    p.add_argument('--keep', action='store_true', help='use the environment that is there')
    p.add_argument('--pip', nargs='*', default=[], help='further arguments of pip install')
    a = p.parse_args()
    out = a.out.resolve()
    if out.is_relative_to(ROOT):
        sys.exit('Give a folder outside the project.')
    shutil.rmtree(out/'space', ignore_errors=True)
    (out/'home').mkdir(parents=True, exist_ok=True)
    make(out, a.weights)
    print('the Space:', *sorted(f.name for f in (out/'space').iterdir()))
    if not (a.keep and (out/'env').is_dir()):
        install(out, a.pip)
    from screenshots import open_browser
    with running(out) as (url, log):
        driver = open_browser()
        driver.set_window_size(1440, 1000)
        good = look(driver, url, out)
        severe = [e['message'] for e in driver.get_log('browser') if e['level'] == 'SEVERE']
        driver.quit()
        traced = 'Traceback' in log.read_text()
    print('console:', severe or 'no error', '· log:', 'a traceback' if traced else 'no traceback')
    sys.exit(not good or bool(severe) or traced)

if __name__ == '__main__':
    main()
