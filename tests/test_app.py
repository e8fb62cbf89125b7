"""The app as a visitor meets it: its Space is written, started in a process of its own, and driven by a real browser and by gradio_client.

Needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver); without them the tests in the browser are skipped, and say so.
`YOLOV3_SCREENSHOTS=nbs/images pytest tests/test_app.py` also writes the figure of chapter 11b."""
import io, json, os, socket, subprocess, sys, threading, time, urllib.error, urllib.request, zipfile
from pathlib import Path
import numpy as np, pytest
from PIL import Image

pytest.importorskip('gradio', reason="Gradio, which the app needs, is not installed: pip install -e '.[dev]'")
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from yolov3_nb.app import example_files, read_upload, show_found, show_why, find
from yolov3_nb.model import YOLOv3
from yolov3_nb.space import make_space

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 90  # seconds, on a machine that does other things too

@pytest.fixture(scope='module')
def space(tmp_path_factory):
    folder = tmp_path_factory.mktemp('space')
    make_space(folder, ROOT/'weights'/'toy', ROOT/'results'/'toy.json')
    return folder

@pytest.fixture(scope='module')
def app(space, tmp_path_factory):
    "The Space's app.py in a process of its own: its address, its process, what it printed."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = os.environ | {'GRADIO_SERVER_PORT': str(port), 'YOLOV3_HOME': str(tmp_path_factory.mktemp('home')), 'GRADIO_TEMP_DIR': str(tmp_path_factory.mktemp('up')),
                        'PYTHONUNBUFFERED': '1'}
    server = subprocess.Popen([sys.executable, 'app.py'], cwd=space, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said, ready = [], threading.Event()
    def listen():
        for line in server.stdout:
            said.append(line)
            if 'The app:' in line: ready.set()
        ready.set()
    threading.Thread(target=listen, daemon=True).start()
    ready.wait(2*PATIENCE)
    assert server.poll() is None and any('The app:' in line for line in said), ''.join(said)[-2000:]
    yield f'http://127.0.0.1:{port}', server, said
    server.kill()
    server.wait()

@pytest.fixture(scope='module')
def model(): return YOLOv3.from_pretrained(ROOT/'weights'/'toy')

@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "Pictures by name, good ones and bad ones."
    folder = tmp_path_factory.mktemp('pictures')
    found = {Path(f).stem: f for f in example_files(folder)}
    (folder/'notes.jpg').write_text('This is not a picture.')
    Image.new('1', (20_000, 20_000), 1).save(folder/'bomb.png')
    return found | {name: str(folder/name) for name in ('notes.jpg', 'bomb.png')}

BAD = [('notes.jpg', 'notes.jpg is no picture that this page can read'), ('bomb.png', 'bomb.png has more than the 40 million pixels allowed')]


# the Space

def test_the_space_in_the_repository_is_what_the_command_writes(space):
    for name in ('app.py', 'requirements.txt', 'README.md'):
        assert (space/name).read_text() == (ROOT/'spaces'/name).read_text(), f'spaces/{name} is out of date; run: yolov3_app --make_space'

def test_the_space_holds_this_library_and_these_weights(space):
    with zipfile.ZipFile(next(space.glob('*.whl'))) as wheel:
        packed = {n: wheel.read(n) for n in wheel.namelist() if n.startswith('yolov3_nb/')}
    assert packed == {f'yolov3_nb/{f.name}': f.read_bytes() for f in (ROOT/'yolov3_nb').glob('*.py')}
    for name in ('config.json', 'model.safetensors'): assert (space/'weights'/name).read_bytes() == (ROOT/'weights'/'toy'/name).read_bytes()

def test_without_gradio_the_command_says_so():
    code = "import sys; sys.modules['gradio'] = None\nfrom yolov3_nb.cli import run_app\nrun_app([])"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "pip install 'yolov3_nb[app]'" in done.stderr and 'Traceback' not in done.stderr


# by gradio_client

@pytest.fixture(scope='module')
def client(app, tmp_path_factory): return Client(app[0], verbose=False, download_files=str(tmp_path_factory.mktemp('down')))

def picture(answer): return np.array(Image.open(answer).convert('RGB'))

def test_the_client_gets_what_the_functions_give(client, files, model):
    f = files['scene_8']
    img, sentence, table, _ = client.predict(handle_file(f), -1, .25, .45, api_name='/detect')
    mine = show_found(model, f, -1, .25, .45)
    assert table['data'] == mine[2] and len(mine[2]) > 3 and sentence == mine[1] and np.array_equal(picture(img), mine[0])
    heat, caption = client.predict(handle_file(f), -1, .25, .45, 3, 'gradcam', .5, api_name='/explain')
    mine = show_why(model, f, -1, .25, .45, 3, 'gradcam', .5)
    assert caption == mine[1] and np.abs(picture(heat).astype(int) - mine[0]).max() <= 1

@pytest.mark.parametrize('name, says', BAD)
def test_the_client_is_told_what_is_wrong(client, files, name, says):
    with pytest.raises(AppError, match=says) as e: client.predict(handle_file(files[name]), -1, .25, .45, api_name='/detect')
    assert '/' not in str(e.value)

def test_no_picture(client):
    with pytest.raises(AppError, match='There is no picture yet'): client.predict(None, -1, .25, .45, api_name='/detect')

@pytest.mark.parametrize('path', ['/etc/hostname', 'app.py', 'http://127.0.0.1/x.png'])
def test_only_what_was_uploaded_is_read_and_no_path_is_told(client, path):
    with pytest.raises(Exception) as e: client.predict({'path': path, 'meta': {'_type': 'gradio.FileData'}}, -1, .25, .45, api_name='/detect')
    assert not any(word in str(e.value) for word in ('/tmp', '/etc', str(ROOT), 'Traceback'))

def post(url, body):
    request = urllib.request.Request(url, body, {'Content-Type': 'multipart/form-data; boundary=x'})
    try: return urllib.request.urlopen(request, timeout=PATIENCE).status
    except urllib.error.HTTPError as e: return e.code
    except (urllib.error.URLError, ConnectionError): return 413  # refused while it was still sending

def test_uploads_are_limited(app):
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(6*2**20) + b'\r\n'
    assert [post(f'{app[0]}/gradio_api/upload', part*n + b'--x--\r\n') for n in (1, 6)] == [200, 413]

def memory(pid, what): return int(next(l.split()[1] for l in Path(f'/proc/{pid}/status').read_text().splitlines() if l.startswith(what)))/1024

@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='memory is read from /proc, which this system does not have')
def test_twenty_at_once(app, files, model, tmp_path):
    names = [f for f in ('course', 'scene_2', 'scene_8', 'scene_11')]*5
    large = {n: tmp_path/f'{n}.jpg' for n in names}
    for n, f in large.items(): Image.open(files[n]).resize((2400, 1800)).save(f)          # 13 MB each when decoded
    right, before = {n: show_found(model, str(f), -1, .25, .45)[2] for n, f in large.items()}, memory(app[1].pid, 'VmRSS')
    clients = [Client(app[0], verbose=False, download_files=False) for _ in names]
    jobs = [c.submit(handle_file(large[n]), -1, .25, .45, api_name='/detect') for c, n in zip(clients, names)]
    answers = [job.result(timeout=2*PATIENCE)[2]['data'] for job in jobs]
    assert answers == [right[n] for n in names] and len({str(r) for r in right.values()}) == 4
    assert memory(app[1].pid, 'VmHWM') - before < 400

def test_the_log_has_no_traceback(app):
    assert 'Something went wrong' not in ''.join(app[2])


# by a browser

@pytest.fixture(scope='module')
def page(chrome, app): return Page(chrome('--hide-scrollbars', log=('performance', 'browser')), app[0])

class Page:
    "What a visitor does and sees."
    def __init__(self, driver, url): self.driver, self.url = driver, url
    def one(self, css): return self.driver.find_element('css selector', css)
    def all(self, css): return self.driver.find_elements('css selector', css)

    def open(self, width=1280, height=900, theme='light'):
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600))
        self.driver.get(f'{self.url}/?__theme={theme}')

    def until(self, what, why=''):
        end = time.time() + PATIENCE
        while time.time() < end:
            try:
                if found := what(): return found
            except Exception: pass  # the page is being redrawn
            time.sleep(.2)
        raise AssertionError(f'{why or what} within {PATIENCE} s; the page says: {self.one("body").text[:1500]}')

    def pixels(self, css):
        "The picture in a component, as it was sent."
        with urllib.request.urlopen(self.one(f'{css} img').get_attribute('src')) as f: return np.array(Image.open(io.BytesIO(f.read())).convert('RGB'))

    def shows(self, css, want):
        self.until(lambda: (got := self.pixels(css)).shape == want.shape and np.abs(got.astype(int) - want).max() <= 1, f'{css} shows the right picture')

    def upload(self, path):
        if self.all('#picture img'): self.one('#picture button[aria-label="Remove Image"]').click()
        self.until(lambda: self.all('#picture input[type=file]')).pop().send_keys(path)

    def keys(self, css, *keys):
        for key in keys:
            self.one(css).send_keys(key)
            time.sleep(.3)  # a list opens, or its mark moves on

    def shot(self):
        clip = dict(x=0, y=0, scale=1, width=self.driver.execute_script('return innerWidth'), height=self.driver.execute_script('return document.documentElement.scrollHeight'))
        data = self.driver.execute_cdp_cmd('Page.captureScreenshot', dict(captureBeyondViewport=True, clip=clip))['data']
        import base64
        return Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB')

def test_the_page_begins_with_an_answer_and_asks_nobody_else(page, files, model, tmp_path):
    page.open()
    page.shows('#found', show_found(model, files['course'], -1, .25, .45)[0])
    page.shows('#heat', show_why(model, files['course'], -1, .25, .45, 0, 'layercam', .7)[0])
    sent = (json.loads(e['message'])['message'] for e in page.driver.get_log('performance'))
    asked = {m['params']['request']['url'] for m in sent if m['method'] == 'Network.requestWillBeSent'}
    assert [u for u in asked if not u.startswith((page.url, 'data:', 'blob:'))] == []
    assert [e for e in page.driver.get_log('browser') if e['level'] == 'SEVERE'] == []

def test_upload_move_thresholds_choose_boxes(page, files, model):
    from selenium.webdriver import ActionChains, Keys
    f = files['scene_8']
    page.upload(f)
    page.shows('#found', show_found(model, f, -1, .25, .45)[0])
    page.keys('#score input[type=range]', Keys.ARROW_LEFT, Keys.ARROW_LEFT)                     # by the keyboard: 0.15
    picture, sentence, rows, _ = show_found(model, f, -1, .15, .45)
    page.shows('#found', picture)
    page.until(lambda: rows[-1][1] in page.one('#table').text and sentence.split('**')[1] in page.one('#sentence').text)
    page.shows('#heat', show_why(model, f, -1, .15, .45, 0, 'layercam', .7)[0])
    page.keys('#which input', *[Keys.ARROW_DOWN]*3, Keys.ENTER)                      # from the strongest: all together, box 1, box 2
    page.shows('#heat', show_why(model, f, -1, .15, .45, 2, 'layercam', .7)[0])
    page.keys('#method input', Keys.ARROW_DOWN, Keys.ENTER)
    page.shows('#heat', show_why(model, f, -1, .15, .45, 2, 'gradcam', .7)[0])
    page.keys('#strength input[type=range]', Keys.ARROW_LEFT)
    page.shows('#heat', show_why(model, f, -1, .15, .45, 2, 'gradcam', .65)[0])
    img = page.one('#found img')                                                                 # by pointing: the smallest box is nobody else's
    boxes, (h, w) = find(model, read_upload(f)[0], -1, .15, .45)['boxes'], picture.shape[:2]
    n = int((boxes[:, 2:] - boxes[:, :2]).prod(1).argmin())
    x, y = (boxes[n, :2] + boxes[n, 2:]).tolist()
    share = img.size['width']/w
    page.driver.execute_script('arguments[0].scrollIntoView({block: "center"})', img)
    ActionChains(page.driver).move_to_element_with_offset(img, (x/2 - w/2)*share, (y/2 - h/2)*share).click().perform()
    page.shows('#heat', show_why(model, f, -1, .15, .45, n + 1, 'gradcam', .65)[0])
    page.until(lambda: page.all('#table [role=gridcell]'))[5].click()         # the second row of the table
    page.shows('#heat', show_why(model, f, -1, .15, .45, 2, 'gradcam', .65)[0])
    page.all('#scale input')[3].click()                                                          # the fine grid only
    page.shows('#found', show_found(model, f, 2, .15, .45)[0])

def test_an_example_is_taken_by_a_click(page, files, model):
    page.open()
    page.until(lambda: page.all('#heat img'))
    page.until(lambda: page.all('.gallery-item'))[1].click()
    page.shows('#found', show_found(model, files['scene_2'], -1, .25, .45)[0])

@pytest.mark.parametrize('name, says', BAD)
def test_the_page_says_what_is_wrong(page, files, name, says):
    page.open()
    page.until(lambda: page.all('#heat img'))
    page.upload(files[name])
    page.until(lambda: says in page.one('body').text)
    page.until(lambda: not page.all('#found img') and not page.all('#heat img'), 'what was found before is cleared away')

def test_the_page_without_a_picture(page):
    from selenium.webdriver import Keys
    page.open()
    page.until(lambda: page.all('#heat img'))
    page.one('#picture button[aria-label="Remove Image"]').click()
    page.until(lambda: 'There is no picture yet' in page.one('body').text)
    page.until(lambda: not page.all('#found img'))
    page.keys('#score input[type=range]', Keys.ARROW_LEFT)
    page.until(lambda: len([1 for t in page.all('.toast-body') if 'There is no picture yet' in t.text]) >= 1)

def test_desk_and_telephone(page, tmp_path):
    shots = {}
    for name, width, theme in (('desk', 1280, 'light'), ('dark', 1280, 'dark'), ('phone', 390, 'light')):
        page.open(width, 900, theme)
        page.until(lambda: page.all('#heat img') and page.all('#table [role=gridcell]'))
        time.sleep(1)
        shots[name] = page.shot()
        shots[name].save(tmp_path/f'{name}.png')
        assert page.driver.execute_script('return document.documentElement.scrollWidth <= document.documentElement.clientWidth'), f'{name}: the page is too wide'
    assert np.mean(shots['dark']) < 110 < np.mean(shots['desk'])
    if folder := os.environ.get('YOLOV3_SCREENSHOTS'):
        desk, phone = shots['desk'], shots['phone'].resize((240, round(240*shots['phone'].height/390)), Image.Resampling.LANCZOS)
        both = Image.new('RGB', (desk.width + 20 + phone.width, desk.height), 'white')
        both.paste(desk, (0, 0))
        both.paste(phone, (desk.width + 10, 16))
        both = both.resize((1100, round(1100*both.height/both.width)), Image.Resampling.LANCZOS)
        both.quantize(256, Image.Quantize.MAXCOVERAGE).save(Path(folder)/'app.png', optimize=True)
