"""The app as a visitor meets it: its Space is written, started in a process of its own, and driven
by a real browser and by gradio_client; and a second one with short limits, for all that expires.

Needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver); without them
the tests in the browser are skipped, and say so.
`YOLOV3_SCREENSHOTS=nbs/images pytest tests/test_app.py` also writes the figure of chapter 11b."""
import ast
import asyncio
import base64
import csv
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from importlib.metadata import packages_distributions, requires
from pathlib import Path
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('gradio', reason="Gradio, which the app needs, is not installed: "
                                     "pip install -e '.[dev]'")
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from yolov3_nb import app as app_module
from yolov3_nb.app import (METHODS, Worker, box_at, check_upload, enlarge, example_files, find,
                           read_upload, show_found, show_grids, show_meant, show_methods, show_why,
                           shown_share, why_not)
from yolov3_nb.data import InputError
from yolov3_nb.model import YOLOv3
from yolov3_nb.prediction import predict_files
from yolov3_nb.space import make_space

ROOT = Path(__file__).resolve().parent.parent
LOOK = (Path(__file__).parent/'site_look.js').read_text(encoding='utf-8')
LOOK = LOOK.split('const started')[0] + 'overflow(); contrast(); done(bad);'
TABS = {'Boxes': '#table', 'Why?': '#heat', 'Why not?': '#reason', 'Grids': '#grid2',
        'Help': '#last'}   # and something that each of them holds
# What can be touched and is smaller than 40 pixels; a radio button is as large as its label.
SMALL = '''return [...document.querySelectorAll(
        'button, a[href], label:has([type=radio]), input:not([type=radio]), [role=tab]')]
    .filter(e => e.checkVisibility({visibilityProperty: true, opacityProperty: true}))
    .map(e => [e, e.getBoundingClientRect()]).filter(([e, r]) => r.width && !e.closest('p'))
    .filter(([e, r]) => Math.min(r.width, r.height) < 39.5)
    .map(([e, r]) => `${e.id || e.className || e.tagName} ${e.ariaLabel || e.innerText}: ` +
                     `${r.width.toFixed()} x ${r.height.toFixed()}`)'''
PATIENCE = 90  # seconds, on a machine that does other things too
KEEP, IDLE, UPLOAD = 12, 3, 4  # seconds, of the app with short limits
SHORT = f'''from yolov3_nb.app import LIMITS, serve
serve({str(ROOT/'weights'/'toy')!r}, limits=LIMITS | dict(megabytes=1, keep={KEEP},
      idle_seconds={IDLE}, upload_seconds={UPLOAD}))'''


def start(command, folder, **env):
    "A process with an app in it: address, process, what it printed; `folder` is its home."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = os.environ | {'GRADIO_SERVER_PORT': str(port), 'YOLOV3_HOME': str(folder),
                        'PYTHONUNBUFFERED': '1'} | env
    server = subprocess.Popen([sys.executable, *command], cwd=env.pop('cwd', ROOT), env=env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said, ready = [], threading.Event()

    def listen():
        for line in server.stdout:
            said.append(line)
            if 'The app:' in line:
                ready.set()
        ready.set()

    threading.Thread(target=listen, daemon=True).start()
    ready.wait(2*PATIENCE)
    assert server.poll() is None and any('The app:' in line for line in said), ''.join(said)[-2000:]
    return f'http://127.0.0.1:{port}', server, said


def stop(server):
    server.kill()
    server.wait()


@pytest.fixture(scope='module')
def space(tmp_path_factory):
    folder = tmp_path_factory.mktemp('space')
    make_space(folder, ROOT/'weights'/'toy', ROOT/'results'/'toy.json')
    return folder


@pytest.fixture(scope='module')
def app(space, tmp_path_factory):
    "The Space's app.py in a process of its own: its address, its process, what it printed."
    started = start(['app.py'], tmp_path_factory.mktemp('home'), cwd=str(space))
    yield started
    stop(started[1])


@pytest.fixture(scope='module')
def short(tmp_path_factory):
    "An app with short limits: its address, its uploads, and a file that a former process left."
    home = tmp_path_factory.mktemp('short')
    old = home/'uploads'/'a'/'old.png'
    old.parent.mkdir(parents=True)
    old.write_bytes(b'left behind')
    os.utime(old, (1, 1))
    url, server, _ = start(['-c', SHORT], home)
    yield url, home/'uploads', old
    stop(server)


@pytest.fixture(scope='module')
def model():
    return YOLOv3.from_pretrained(ROOT/'weights'/'toy')


def png(w, h):
    "A PNG that is all header: it promises so many columns and rows."
    def chunk(name, data):
        crc = zlib.crc32(name + data)
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', crc)
    head = struct.pack('>IIBBBBB', w, h, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b'\0'*9))


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "Images by name, good ones and bad ones."
    folder = tmp_path_factory.mktemp('images')
    found = {Path(f).stem: f for f in example_files(folder)}
    (folder/'notes.jpg').write_text('This is not an image.')
    (folder/'bomb.png').write_bytes(png(20_000, 20_000))
    (folder/'thread.png').write_bytes(png(1, 39_000_000))
    return found | {name: str(folder/name) for name in ('notes.jpg', 'bomb.png', 'thread.png')}


@pytest.fixture(scope='module')
def small(files):
    "A file of 300 × 200 pixels, which is shown larger than it is."
    path = Path(files['scene_8']).with_name('small.png')
    with Image.open(files['scene_8']) as im:
        im.resize((300, 300)).crop((0, 50, 300, 250)).save(path)
    return str(path)


def as_shown(path):
    "An upload at the size at which the page shows it, without boxes."
    return enlarge(read_upload(path)[0])


BAD = [('notes.jpg', 'notes.jpg is no image that this page can read'),
       ('bomb.png', 'bomb.png has more than the 40 million pixels allowed'),
       ('thread.png', 'no side may have more than 16,384')]


def timeless(sentence):
    "What `show_found` says, without the milliseconds."
    return re.sub(r'took \d+ ms', 'took some ms', sentence)


# functions

@pytest.mark.parametrize('name, says', BAD)
def test_what_is_too_large_is_refused_by_its_header(files, name, says, monkeypatch):
    monkeypatch.setattr(Image.Image, 'load', lambda *_: pytest.fail(f'{name} was decoded'))
    with pytest.raises(InputError, match=says):
        check_upload(files[name])


def test_waiting_is_not_counted_as_work():
    worker, times = Worker(1), []
    ahead = threading.Thread(target=worker, args=(time.sleep, .9))
    ahead.start()
    time.sleep(.1)
    worker(lambda: times.append(time.sleep(.5)))   # is given up after 1 s, and waits 0.8 s first
    assert times == [None]
    with pytest.raises(InputError, match='more than 1 seconds of work'):
        worker(time.sleep, 1.5)


def test_the_examples_fit_the_weights(files, tmp_path):
    photos = example_files(tmp_path, photographs_first=True)
    assert [Path(f).stem for f in photos[:6]] == [
        'astronaut', 'cameraman', 'cat', 'coffee', 'grace_hopper', 'rocket']
    assert Path(example_files(tmp_path)[0]).stem == 'course'
    folder = ROOT/'nbs'/'images'/'photos'
    sources = (folder/'SOURCES.md').read_text()
    for file in folder.glob('*.jpg'):
        assert file.stat().st_size <= 60_000 and f'`{file.name}`' in sources


@pytest.mark.parametrize('bad', [(7, .25, .45), (-1, 'a', .45), (-1, .25, 2), (-1, None, .45)])
def test_settings_that_no_control_can_give(model, files, bad):
    with pytest.raises(InputError, match='^There is no such grid|^That is no'):
        show_found(model, files['course'], *bad)


def middle(box, share):
    "The middle of a box, in pixels of the image that is shown."
    x1, y1, x2, y2 = (float(edge) for edge in box)
    return (x1 + x2)/2*share, (y1 + y2)/2*share


def test_boxes_are_drawn_where_they_are_in_a_small_upload(model, small):
    drawn = show_found(model, small, -1, .25, .45)[0]
    assert drawn.shape == as_shown(small).shape == (640, 960, 3)
    changed = (drawn != as_shown(small)).any(2)
    for box in find(model, read_upload(small)[0])['boxes']*960/300:
        x1, y1, x2, y2 = (int(edge) for edge in box.round())
        assert changed[y1:y2, x1 - 4:x1 + 5].any(1).mean() > .95   # the left edge
        assert changed[y2 - 4:y2 + 5, x1:x2].any(0).mean() > .95   # the lower one


def test_who_points_at_a_small_upload_points_at_what_is_shown(model, small):
    img = read_upload(small)[0]
    boxes = find(model, img)['boxes']
    settings = model, small, -1, .25, .45, 0, 'layercam', .7
    for box in boxes:
        number, drawn, _ = show_meant(*settings, *middle(box, 3.2))
        assert number == box_at(boxes, *middle(box, 1)) > 0
        assert drawn.shape == (640, 960, 3)
    for x, y in ((5, 5), (955, 10)):   # where there is no box
        number, drawn, said = show_meant(*settings, x, y)
        assert number == 0 and drawn.shape == (640, 960, 3)
        assert said == why_not(model, img, x/3.2, y/3.2)[1]


# what of Gradio, uvicorn and starlette is relied on

def test_nothing_of_gradio_is_replaced(model, files, tmp_path, monkeypatch):
    import gradio
    from gradio.blocks import Block
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path))
    kinds = [gradio.Image, gradio.Blocks, Block, gradio.Examples, gradio.DownloadButton]
    before = [dict(vars(kind)) for kind in kinds]
    demo = app_module.build_app(model, [files['course']], uploads=tmp_path)
    assert [dict(vars(kind)) for kind in kinds] == before, 'a class of Gradio was changed'
    for block in demo.blocks.values():
        changed = {name for name, value in vars(block).items()
                   if callable(value) and callable(getattr(type(block), name, None))}
        listeners = {str(e) for e in getattr(block, 'EVENTS', [])}
        assert changed <= listeners, f'methods of {type(block).__name__} were replaced: {changed}'


def test_gradio_takes_uploads_where_it_is_told(tmp_path, monkeypatch):
    from gradio.utils import get_upload_folder
    folder = app_module.upload_folder(tmp_path/'uploads')
    assert get_upload_folder() == str(folder), (
        'Gradio no longer keeps uploads in GRADIO_TEMP_DIR: the sweep looks at the wrong folder')
    assert (folder.stat().st_mode & 0o777) == 0o700


def test_gradio_still_names_a_file_by_its_path():
    from gradio.data_classes import FileData
    assert 'path' in FileData.model_fields, (
        'Gradio no longer sends a file as a dict with `path`: OnlyUploads and _Answers.path '
        'look at the wrong place')


def test_uvicorn_still_takes_a_protocol_class():
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol
    watched = app_module.IdleLimit(None, 1).protocol(AutoHTTPProtocol)
    config = uvicorn.Config(lambda: None, http=watched)
    config.load()
    assert config.http_protocol_class is watched and issubclass(watched, asyncio.Protocol), (
        'uvicorn no longer serves with the protocol that it is given: idle connections stay open')


# what expires

def left(folder):
    return [p for p in folder.rglob('*') if p.is_file()]


def gone(folder, seconds):
    "Wait until the folder holds no file; how long that took, None if it never happened."
    begin = time.time()
    while time.time() < begin + seconds:
        if not left(folder):
            return time.time() - begin
        time.sleep(.2)


def connect(url):
    host, port = url.removeprefix('http://').split(':')
    sock = socket.create_connection((host, int(port)), timeout=PATIENCE)
    return sock


def head(n, boundary='x'):
    return (f'POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/'
            f'form-data; boundary={boundary}\r\nContent-Length: {n}\r\n\r\n').encode()


PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'


def post(url, body):
    kind = {'Content-Type': 'multipart/form-data; boundary=x'}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, kind), timeout=PATIENCE) as r:
            return r.status
    except urllib.error.HTTPError as e:
        return e.code
    except (urllib.error.URLError, ConnectionError):
        return 413  # refused while it was still sending


def test_files_of_a_former_process_are_gone(short):
    end = time.time() + PATIENCE
    while short[2].exists() and time.time() < end:
        time.sleep(.1)
    assert not short[2].exists(), 'a file that a former process left behind is still there'


def test_an_abandoned_upload_is_gone_in_time(short):
    for _ in range(10):
        sock = connect(short[0])
        sock.sendall(head(900_000) + PART + bytes(300_000))
        sock.close()   # the visitor leaves
    end = time.time() + UPLOAD
    while not left(short[1]) and time.time() < end:
        time.sleep(.05)
    assert gone(short[1], KEEP + 5) is not None, f'{len(left(short[1]))} of 10 are still there'


def test_a_refused_upload_is_gone_in_time(short):
    assert post(f'{short[0]}/gradio_api/upload', PART + bytes(3*2**20) + b'\r\n--x--\r\n') == 413
    assert gone(short[1], KEEP + 5) is not None


def test_a_used_upload_is_kept_and_then_gone_and_examples_stay(short, files):
    client = Client(short[0], verbose=False, download_files=False)
    asked = time.time()
    client.predict(handle_file(files['course']), -1, .25, .45, api_name='/detect')
    assert left(short[1]), 'an upload is not where the sweep looks for it'
    assert gone(short[1], KEEP + 5) is not None
    assert time.time() - asked > KEEP/2, 'it was deleted before anybody could use it'
    example = short[1].parent/'examples'/'course.jpg'
    with urllib.request.urlopen(f'{short[0]}/gradio_api/file={example}', timeout=PATIENCE) as r:
        assert r.status == 200


HALF_OPEN = {
    'nothing is sent': (b'', IDLE),
    'half a head': (b'GET / HTTP/1.1\r\nHost: loc', IDLE),
    'half a body': (head(900) + PART, UPLOAD + IDLE),
    'a request and half of the next': (b'GET /robots.txt HTTP/1.1\r\nHost: localhost\r\n\r\nGET /',
                                       IDLE),
    'a body that never comes': (b'GET /robots.txt HTTP/1.1\r\nHost: localhost\r\n'
                                b'Content-Length: 9\r\n\r\n', IDLE)}


@pytest.mark.parametrize('kind', HALF_OPEN)
def test_half_open_connections_are_dropped(short, kind):
    sent, seconds = HALF_OPEN[kind]
    socks = [connect(short[0]) for _ in range(12)]
    began = time.time()
    for sock in socks:
        sock.sendall(sent)
        sock.settimeout(seconds + 10)
    for sock in socks:
        try:
            while sock.recv(65536):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            pytest.fail(f'{kind}: held after {time.time() - began:.0f} s')
        sock.close()


def test_a_connection_that_is_being_answered_stays(short):
    sock = connect(short[0])
    sock.sendall(b'GET /gradio_api/heartbeat/abc HTTP/1.1\r\nHost: localhost\r\n\r\n')
    sock.settimeout(.5)
    end, data = time.time() + 3*IDLE, b''
    while time.time() < end:
        try:
            got = sock.recv(65536)
            assert got, f'the stream was cut: {data[-200:]}'
            data += got
        except TimeoutError:
            pass
    assert b' 200 ' in data.split(b'\r\n')[0]
    sock.close()


# the Space

def test_the_space_in_the_repository_is_what_the_command_writes(space):
    for name in ('app.py', 'requirements.txt', 'README.md'):
        assert (space/name).read_text() == (ROOT/'spaces'/name).read_text(), (
            f'spaces/{name} is out of date; run: yolov3_app --make_space')


def test_the_space_holds_this_library_and_these_weights(space):
    with zipfile.ZipFile(next(space.glob('*.whl'))) as wheel:
        packed = {n: wheel.read(n) for n in wheel.namelist() if n.startswith('yolov3_nb/')}
    library = [f for pattern in ('*.py', 'templates/*') for f in (ROOT/'yolov3_nb').glob(pattern)]
    assert packed == {f.relative_to(ROOT).as_posix(): f.read_bytes() for f in library}
    for name in ('config.json', 'model.safetensors'):
        ours = (ROOT/'weights'/'toy'/name).read_bytes()
        assert (space/'weights'/name).read_bytes() == ours
    photographs = {f.name for f in (ROOT/'nbs'/'images'/'photos').iterdir() if f.is_file()}
    assert {f.name for f in (space/'photographs').iterdir()} == photographs
    assert {'cat.jpg', 'SOURCES.md'} <= photographs


EXPORT_ONLY = {'onnxruntime', 'onnxscript'}  # the app writes no ONNX file


def imports_of(module, seen):
    "The packages that a module of the library imports anywhere, and those that come with it."
    seen.add(module)
    names, tree = set(), ast.parse((ROOT/'yolov3_nb'/f'{module}.py').read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split('.')[0])
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level and node.module not in seen:
            names |= imports_of(node.module, seen)
    return names


def test_the_requirements_cover_each_import_of_the_app():
    "What the app's modules import is in requirements.txt, or comes with Gradio, which is."
    def plain(name):
        return re.split('[^a-z0-9-]', name.lower().replace('_', '-'))[0]
    seen = set()
    foreign = imports_of('app', seen) - set(sys.stdlib_module_names) - {'yolov3_nb'} - EXPORT_ONLY
    assert {'model', 'augment', 'gradcam', 'guards'} <= seen
    assert {'torch', 'cv2', 'PIL', 'pytorch_grad_cam', 'gradio', 'uvicorn', 'fastapi'} <= foreign
    told = {plain(line) for line in (ROOT/'spaces'/'requirements.txt').read_text().splitlines()}
    told |= {plain(need) for need in requires('gradio') if 'extra ==' not in need}
    owners = packages_distributions()
    missing = {name for name in foreign if not {plain(d) for d in owners[name]} & told}
    assert not missing, f'spaces/requirements.txt lacks {missing}'


def test_what_was_not_measured_is_not_said(model):
    data = dict(train=None, n_train=None, test='voc07-test', n_test=4952)
    said = app_module.describe(model, dict(data=data, metrics=dict(map50=.5)))
    assert 'trained on' not in said and '4,952 others' in said
    assert 'not measured' in app_module.describe(model, dict(data=data, metrics=dict(map50=None)))
    own = dict(train='pens-train', n_train=9, test=None, n_test=0, val='pens-val', n_val=3)
    said = app_module.describe(model, dict(data=own, metrics=dict(map50=.5)))
    assert 'On 3 others (`pens-val`)' in said

def test_without_gradio_the_command_says_so():
    code = ("import sys; sys.modules['gradio'] = None\n"
            'from yolov3_nb.cli import run_app\nrun_app([])')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "pip install 'yolov3_nb[app]'" in done.stderr
    assert 'Traceback' not in done.stderr


# by gradio_client

@pytest.fixture(scope='module')
def client(app, tmp_path_factory):
    return Client(app[0], verbose=False, download_files=str(tmp_path_factory.mktemp('down')))


def pixels(answer):
    return np.array(Image.open(answer).convert('RGB'))


def test_the_client_gets_what_the_functions_give(client, files, model):
    f = files['scene_8']
    img, said, table, *_ = client.predict(handle_file(f), -1, .25, .45, api_name='/detect')
    mine = show_found(model, f, -1, .25, .45)
    assert table['data'] == mine[2] and len(mine[2]) > 3
    assert timeless(said) == timeless(mine[1]) and np.array_equal(pixels(img), mine[0])
    assert re.search(r'The detector took \d+ ms', said)
    heat, caption = client.predict(handle_file(f), -1, .25, .45, 3, 'gradcam', .5,
                                   api_name='/explain')
    mine = show_why(model, f, -1, .25, .45, 3, 'gradcam', .5)
    assert caption == mine[1] and np.abs(pixels(heat).astype(int) - mine[0]).max() <= 1


def test_the_answer_as_files(client, files, model):
    f = files['cat']   # shown larger than it is
    shown = client.predict(handle_file(f), -1, .1, .45, api_name='/detect')
    as_json, as_csv, as_image = shown[4:7]
    answer = json.loads(Path(as_json).read_text())
    with open(as_csv, newline='') as table:
        rows = list(csv.DictReader(table))
    with Image.open(f) as im:
        assert (answer['width'], answer['height']) == im.size
    mine = show_found(model, f, -1, .1, .45)[2]
    assert len(answer['objects']) == len(rows) == len(mine) > 0
    for got, row, (_, name, score, _, box) in zip(answer['objects'], rows, mine):
        corners = [float(row[k]) for k in ('left', 'top', 'right', 'bottom')]
        assert got['label'] == row['label'] == name and f"{got['score']:.2f}" == score
        assert got['box'] == corners
        assert np.abs(np.array(corners) - [int(v) for v in box.split(', ')]).max() <= .56
    assert pixels(as_image).shape == show_found(model, f, -1, .1, .45)[0].shape


def test_a_small_upload_gets_the_boxes_of_the_command(client, small, model, tmp_path):
    found = predict_files(model, [Path(small)], tmp_path/'out', annotated=False, progress=False)[0]
    drawn, _, table, _, as_json, *_ = client.predict(handle_file(small), -1, .25, .45,
                                                     api_name='/detect')
    answer = json.loads(Path(as_json).read_text())
    assert (answer['width'], answer['height']) == (300, 200) and max(pixels(drawn).shape) == 960
    assert len(found) == len(answer['objects']) == len(table['data']) > 3
    for want, got, row in zip(found, answer['objects'], table['data']):
        corners = [want[k] for k in ('x1', 'y1', 'x2', 'y2')]
        assert got['label'] == row[1] == want['label']
        assert abs(got['score'] - want['score']) <= 1e-4
        assert np.abs(np.subtract(got['box'], corners)).max() <= 1
        assert np.abs(np.subtract([int(v) for v in row[4].split(', ')], corners)).max() <= 1


@pytest.mark.parametrize('name, says', BAD)
def test_the_client_is_told_what_is_wrong(client, files, name, says):
    with pytest.raises(AppError, match=says) as e:
        client.predict(handle_file(files[name]), -1, .25, .45, api_name='/detect')
    assert '/' not in str(e.value)


def test_no_image_is_no_error(client):
    img, said, table, *_ = client.predict(None, -1, .25, .45, api_name='/detect')
    assert img is None and said.startswith('There is no image yet')
    assert not any(map(any, table['data']))


@pytest.mark.parametrize('path', ['/etc/hostname', 'app.py', 'http://127.0.0.1/x.png'])
def test_only_what_was_uploaded_is_read_and_no_path_is_told(client, path):
    with pytest.raises(Exception) as e:
        client.predict({'path': path, 'meta': {'_type': 'gradio.FileData'}}, -1, .25, .45,
                       api_name='/detect')
    assert not any(word in str(e.value) for word in ('/tmp', '/etc', str(ROOT), 'Traceback'))


@pytest.mark.parametrize('where', ['queue/join', 'call/detect', 'run/detect'])
def test_an_address_is_not_fetched(app, where):
    file = {'path': 'https://example.com/x.png', 'meta': {'_type': 'gradio.FileData'}}
    body = json.dumps(dict(data=[file, -1, .25, .45], fn_index=0, session_hash='x')).encode()
    request = urllib.request.Request(f'{app[0]}/gradio_api/{where}', body,
                                     {'Content-Type': 'application/json'})
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(request, timeout=PATIENCE)
    assert e.value.code == 400 and b'not an address' in e.value.read()


def test_uploads_are_limited(app):
    part = PART + bytes(6*2**20) + b'\r\n'
    sent = [post(f'{app[0]}/gradio_api/upload', part*n + b'--x--\r\n') for n in (1, 6)]
    assert sent == [200, 413]


def memory(pid, what):
    lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what)))/1024


@pytest.mark.skipif(not Path('/proc/self/status').exists(),
                    reason='memory is read from /proc, which this system does not have')
def test_twenty_at_once(app, files, model, tmp_path):
    names = [f for f in ('course', 'scene_2', 'scene_8', 'scene_11')]*5
    large = {n: tmp_path/f'{n}.jpg' for n in names}
    for n, f in large.items():
        Image.open(files[n]).resize((2400, 1800)).save(f)          # 13 MB each when decoded
    right = {n: show_found(model, str(f), -1, .25, .45)[2] for n, f in large.items()}
    before = memory(app[1].pid, 'VmRSS')
    clients = [Client(app[0], verbose=False, download_files=False) for _ in names]
    jobs = [c.submit(handle_file(large[n]), -1, .25, .45, api_name='/detect')
            for c, n in zip(clients, names)]
    answers = [job.result(timeout=2*PATIENCE)[2]['data'] for job in jobs]
    assert answers == [right[n] for n in names] and len({str(r) for r in right.values()}) == 4
    assert memory(app[1].pid, 'VmHWM') - before < 400


def test_the_log_has_no_traceback(app):
    assert 'Something went wrong' not in ''.join(app[2])


# by a browser

@pytest.fixture(scope='module')
def page(chrome, app):
    driver = chrome('--hide-scrollbars', '--use-fake-device-for-media-stream',
                    '--use-fake-ui-for-media-stream', log=('performance', 'browser'))
    return Page(driver, app[0])


class Page:
    "What a visitor does and sees."

    def __init__(self, driver, url):
        self.driver, self.url = driver, url

    def one(self, css):
        return self.driver.find_element('css selector', css)

    def all(self, css):
        return self.driver.find_elements('css selector', css)

    def script(self, code, *args):
        return self.driver.execute_script(code, *args)

    def open(self, width=1280, height=900, theme='light'):
        self.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600))
        self.driver.get(f'{self.url}/?__theme={theme}')
        self.until(lambda: self.all('#found img') and self.all('#table [role=gridcell]'))

    def until(self, what, why=''):
        end = time.time() + PATIENCE
        while time.time() < end:
            try:
                if found := what():
                    return found
            except Exception:
                pass  # the page is being redrawn
            time.sleep(.2)
        raise AssertionError(f'{why or what} within {PATIENCE} s; the page says: '
                             f'{self.one("body").text[:1500]}')

    def pixels(self, css):
        "The image in a component, as it was sent."
        with urllib.request.urlopen(self.one(f'{css} img').get_attribute('src')) as f:
            return np.array(Image.open(io.BytesIO(f.read())).convert('RGB'))

    def shows(self, css, want):
        def right():
            got = self.pixels(css)
            return got.shape == want.shape and np.abs(got.astype(int) - want).max() <= 1
        self.until(right, f'{css} shows the right image')

    def remove(self):
        if self.all('#picture img'):
            self.one('#picture button[aria-label="Remove Image"]').click()

    def upload(self, path):
        self.remove()
        self.until(lambda: self.all('#picture input[type=file]')).pop().send_keys(path)

    def keys(self, css, *keys):
        for key in keys:
            self.one(css).send_keys(key)
            time.sleep(.3)  # a list opens, or its mark moves on

    def point(self, css, x, y, shape):
        "Click at a place of the image in a component, in its own pixels."
        from selenium.webdriver import ActionChains
        img = self.one(f'{css} img')
        self.script('arguments[0].scrollIntoView({block: "center"})', img)
        h, w = shape[:2]
        share = min(img.size['width']/w, img.size['height']/h)
        ActionChains(self.driver).move_to_element_with_offset(
            img, (x - w/2)*share, (y - h/2)*share).click().perform()

    def tab(self, name):
        "Open a tab; what it holds is in the page from then on, and what the others hold is not."
        tab = self.until(lambda: next(t for t in self.all('[role=tab]') if t.text == name))
        self.script('arguments[0].click()', tab)
        self.until(lambda: self.one(TABS[name]).is_displayed(), f'the tab {name} is open')

    def box(self, css):
        "Left, top, right, bottom of an element in the window."
        return self.script('const r = document.querySelector(arguments[0]).getBoundingClientRect();'
                           'return [r.left, r.top, r.right, r.bottom]', css)

    def toasts(self):
        return [t.text for t in self.all('.toast-body')]

    def shot(self):
        clip = dict(x=0, y=0, scale=1, width=self.script('return innerWidth'),
                    height=self.script('return document.documentElement.scrollHeight'))
        data = self.driver.execute_cdp_cmd('Page.captureScreenshot', dict(
            captureBeyondViewport=True, clip=clip))['data']
        return Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB')


def test_the_page_begins_with_an_answer_and_asks_nobody_else(page, files, model):
    page.open()
    page.shows('#found', show_found(model, files['course'], -1, .25, .45)[0])
    page.tab('Why?')
    page.shows('#heat', show_why(model, files['course'], -1, .25, .45, 0, 'layercam', .7)[0])
    sent = (json.loads(e['message'])['message'] for e in page.driver.get_log('performance'))
    asked = {m['params']['request']['url'] for m in sent
             if m['method'] == 'Network.requestWillBeSent'}
    assert [u for u in asked if not u.startswith((page.url, 'data:', 'blob:', 'chrome:'))] == []
    assert [e for e in page.driver.get_log('browser') if e['level'] == 'SEVERE'] == []


def test_upload_move_thresholds_choose_boxes(page, files, model):
    from selenium.webdriver import Keys
    f = files['scene_8']
    page.open()
    page.upload(f)
    page.shows('#found', show_found(model, f, -1, .25, .45)[0])
    page.keys('#score input[type=range]', Keys.ARROW_LEFT, Keys.ARROW_LEFT)   # by keyboard: 0.15
    drawn, sentence, rows, _ = show_found(model, f, -1, .15, .45)
    page.shows('#found', drawn)
    page.until(lambda: rows[-1][1] in page.one('#table').text
               and sentence.split('**')[1] in page.one('#sentence').text)
    page.tab('Why?')
    page.shows('#heat', show_why(model, f, -1, .15, .45, 0, 'layercam', .7)[0])
    page.keys('#which input', *[Keys.ARROW_DOWN]*3, Keys.ENTER)   # the strongest, all, box 1, box 2
    page.shows('#heat', show_why(model, f, -1, .15, .45, 2, 'layercam', .7)[0])
    page.keys('#method input', Keys.ARROW_DOWN, Keys.ENTER)
    page.shows('#heat', show_why(model, f, -1, .15, .45, 2, 'gradcam', .7)[0])
    page.keys('#strength input[type=range]', Keys.ARROW_LEFT)
    page.shows('#heat', show_why(model, f, -1, .15, .45, 2, 'gradcam', .65)[0])
    img = read_upload(f)[0]
    boxes = find(model, img, -1, .15, .45)['boxes']   # the smallest is nobody else's
    n = int((boxes[:, 2:] - boxes[:, :2]).prod(1).argmin())
    page.point('#found', *middle(boxes[n], shown_share(img)), drawn.shape)
    page.shows('#heat', show_why(model, f, -1, .15, .45, n + 1, 'gradcam', .65)[0])
    page.tab('Boxes')
    page.until(lambda: page.all('#table [role=gridcell]'))[5].click()   # the table's second row
    page.shows('#heat', show_why(model, f, -1, .15, .45, 2, 'gradcam', .65)[0])
    page.all('#scale input')[3].click()                                 # the fine grid only
    page.shows('#found', show_found(model, f, 2, .15, .45)[0])


def test_pointing_where_nothing_was_found_says_why(page, files, model):
    page.open()
    f = files['course']
    x, y = 400, 185   # in the horse, which the network misses
    assert box_at(find(model, read_upload(f)[0])['boxes'], x, y) == 0
    x, y = 2*x, 2*y   # the image is shown twice as large
    page.point('#found', x, y, as_shown(f).shape)
    page.until(lambda: 'No box here.' in page.one('#reason').text)
    rows = [[c.text for c in row.find_elements('css selector', 'td')]
            for row in page.all('#reason tbody tr')]
    assert len(rows) == 3 and [row[0] for row in rows] == ['5 × 5', '10 × 10', '20 × 20']
    assert all(0 <= float(row[1]) <= 1 and row[4] for row in rows)
    _, drawn, _ = show_meant(model, f, -1, .25, .45, 0, 'layercam', .7, x, y)
    page.until(lambda: page.all('#cells img'))
    got = page.pixels('#cells').astype(int)
    assert got.shape == drawn.shape and np.mean(np.abs(got - drawn) > 8) < .02   # within a pixel
    page.until(lambda: page.box('#tabs')[1] < 450, 'the page moves to the answer')
    assert page.toasts() == []
    page.all('.gallery-item')[1].click()
    page.until(lambda: 'Point at a place' in page.one('#reason').text, 'another image, no answer')


def test_pointing_at_a_box_opens_its_reason(page, files, model):
    page.open(1440, 900)
    img = read_upload(files['course'])[0]
    box = find(model, img)['boxes'][1]
    page.point('#found', *middle(box, shown_share(img)), enlarge(img).shape)
    page.until(lambda: page.one('#heat').is_displayed())
    page.shows('#heat', show_why(model, files['course'], -1, .25, .45, 2, 'layercam', .7)[0])
    page.until(lambda: page.one('#which input').get_attribute('value').startswith('2 dog'))


def test_grids_and_methods_side_by_side(page, files, model):
    page.open()
    page.tab('Grids')
    for i, (drawn, said) in enumerate(show_grids(model, files['course'], .25, .45)):
        page.shows(f'#grid{i}', drawn)
        assert page.one(f'#grid{i}-said').text == said.replace('**', '')
    page.tab('Why?')
    shown, verdict = show_methods(model, files['course'], -1, .25, .45, 0, .7)
    assert len(shown) == len(METHODS) == 6
    for i, (drawn, said) in enumerate(shown):
        caption = page.until(lambda i=i: page.one(f'#method{i}-said').text)
        if 'would take about' in caption + said:   # occlusion, where this machine is busy
            continue
        page.until(lambda i=i: page.all(f'#method{i} img'))
        got = page.pixels(f'#method{i}').astype(int)
        assert got.shape == drawn.shape and np.mean(np.abs(got - drawn) > 8) < .02, caption
        assert caption.split(':')[0] == said.replace('**', '').split(':')[0]
    said = page.until(lambda: 'LayerCAM' in page.one('#verdict').text and page.one('#verdict').text)
    assert said.split(' has ')[0] == verdict.split(' has ')[0]


def test_files_can_be_saved(page, files, model, tmp_path):
    page.open()
    page.driver.execute_cdp_cmd('Browser.setDownloadBehavior', dict(
        behavior='allow', downloadPath=str(tmp_path/'saved')))
    for key in ('json', 'csv', 'image'):
        page.one(f'#file-{key}').click()
    names = 'course.json', 'course.csv', 'course_boxes.jpg'
    page.until(lambda: all((tmp_path/'saved'/name).exists() for name in names))
    answer = json.loads((tmp_path/'saved'/'course.json').read_text())
    assert [o['label'] for o in answer['objects']] == [
        row[1] for row in show_found(model, files['course'], -1, .25, .45)[2]]


def test_an_example_is_taken_by_a_click(page, files, model):
    page.open()
    page.until(lambda: page.all('.gallery-item'))[1].click()
    page.shows('#found', show_found(model, files['scene_2'], -1, .25, .45)[0])


def test_a_photograph_by_webcam(page):
    page.open()
    page.remove()
    page.until(lambda: page.all('#picture button[aria-label="Capture from camera"]'))[0].click()
    page.until(lambda: page.all('#picture [title="grant webcam access"], #picture .access-icon, '
                                '#picture .wrap button'))[0].click()
    page.until(lambda: page.all('#picture video'))
    capture = page.until(lambda: page.all('#picture button[aria-label="capture photo"], '
                                          '#picture .button-wrap button'))
    time.sleep(2)   # the camera starts
    capture[0].click()
    page.until(lambda: page.all('#picture img'), 'the photograph is the image')
    page.until(lambda: 'The detector took' in page.one('#sentence').text)
    page.until(lambda: page.all('#found img'))


def test_an_image_is_pasted(page, files, model):
    page.open()
    page.driver.execute_cdp_cmd('Browser.grantPermissions', dict(
        permissions=['clipboardReadWrite', 'clipboardSanitizedWrite'], origin=page.url))
    page.remove()
    img = Image.open(files['scene_2'])
    png = io.BytesIO()
    img.save(png, 'PNG')
    done = page.driver.execute_async_script('''
        const [data, done] = arguments
        fetch('data:image/png;base64,' + data).then(r => r.blob())
            .then(blob => navigator.clipboard.write([new ClipboardItem({'image/png': blob})]))
            .then(() => done('written'), e => done(String(e)))''',
        base64.b64encode(png.getvalue()).decode())
    assert done == 'written'
    page.until(lambda: page.all('#picture button[aria-label="Paste from clipboard"]'))[0].click()
    page.until(lambda: page.all('#picture img'), 'what was pasted is the image')
    page.until(lambda: page.pixels('#found').shape == as_shown(files['scene_2']).shape)
    page.until(lambda: 'The detector took' in page.one('#sentence').text)


@pytest.mark.parametrize('name, says', BAD)
def test_the_page_says_what_is_wrong(page, files, name, says):
    page.open()
    page.tab('Why?')
    page.until(lambda: page.all('#heat img'))
    page.upload(files[name])
    page.until(lambda: any(says in t for t in page.toasts()))
    page.until(lambda: not page.all('#found img') and not page.all('#heat img'),
               'what was found before is cleared away')


def test_removing_the_image_is_no_error(page):
    from selenium.webdriver import Keys
    page.open()
    page.tab('Why?')
    page.until(lambda: 'cell blob' in page.one('#verdict').text)
    page.remove()
    page.until(lambda: 'There is no image yet' in page.one('#sentence').text)
    page.until(lambda: not page.all('#found img') and not page.all('#heat img'))
    page.keys('#score input[type=range]', Keys.ARROW_LEFT)
    time.sleep(2)
    captions = ['#caption', '#verdict', *(f'#method{i}-said' for i in range(6))]
    assert [page.one(css).text for css in captions if page.all(css)] == ['']*8
    assert not page.one('#hint').is_displayed()
    page.tab('Grids')
    time.sleep(1)
    assert [page.one(f'#grid{i}-said').text for i in range(3)] == ['']*3
    assert page.toasts() == []


def test_a_visitor_who_waits_sees_the_place_in_the_queue(page, app, files):
    from selenium.webdriver import Keys
    page.open()
    clients = [Client(app[0], verbose=False, download_files=False) for _ in range(6)]
    jobs = [c.submit(handle_file(files['scene_8']), -1, .25, .45, 0, 'occlusion', .7,
                     api_name='/explain') for c in clients]
    time.sleep(1)
    page.keys('#score input[type=range]', Keys.ARROW_LEFT)
    page.until(lambda: re.search(r'queue: [2-7]/[2-7]', page.one('#found, #answer').text),
               'the page shows the place in the queue')
    for job in jobs:
        assert 'Occlusion' in job.result(timeout=2*PATIENCE)[1]
    page.until(lambda: 'The detector took' in page.one('#sentence').text)


def test_nothing_covers_the_tags_of_boxes(page):
    page.open()
    page.tab('Why?')
    page.until(lambda: page.all('#heat img'))
    for name in ('found', 'heat'):
        page.script('document.querySelector(arguments[0]).scrollIntoView({block: "center"})',
                    f'#{name} img')
        top = page.script('''const r = document.querySelector(arguments[0]).getBoundingClientRect()
            const at = x => document.elementFromPoint(r.left + x, r.top + 8)
            return [4, 30, 80, r.width - 8].map(x => at(x).tagName)''',
                          f'#{name} img')
        assert top == ['IMG']*4, f'{name}: {top}'


@pytest.mark.parametrize('theme', ['light', 'dark'])
@pytest.mark.parametrize('width', [1440, 390])
def test_every_word_can_be_read(page, files, width, theme):
    "Contrast of 4.5 to 1 or better, and nothing wider than the window, in every tab."
    page.open(width, 900, theme)
    page.point('#found', 5, 5, as_shown(files['course']).shape)   # fills "Why not?"
    page.until(lambda: page.all('#reason td'))
    page.driver.set_script_timeout(30)
    for name in TABS:
        page.tab(name)
        time.sleep(1)
        bad = page.driver.execute_async_script(LOOK, width, theme, False)
        assert bad == [], f'{name}: {bad}'


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_lines_of_tables_are_fainter_than_words(page, files, theme):
    page.open(1440, 900, theme)
    page.point('#found', 5, 5, as_shown(files['course']).shape)
    page.until(lambda: page.all('#reason td'))
    strong = '''return [...document.querySelectorAll('table, table :is(tr, th, td)')].filter(e => {
        const css = getComputedStyle(e)
        return ['Top', 'Right', 'Bottom', 'Left'].some(side =>
            parseFloat(css[`border${side}Width`]) && css[`border${side}Color`] === css.color)
        }).map(e => e.innerText)'''
    assert page.script(strong) == []
    page.tab('Boxes')
    page.until(lambda: page.all('#table td'))
    assert page.script(strong) == []


@pytest.mark.parametrize('example', [0, 2, 3])   # 4 : 3, a square, upright
def test_the_result_and_the_sliders_stand_above_the_fold(page, example):
    page.open(1440, 900)
    if example:
        before = page.one('#found img').get_attribute('src')
        page.all('.gallery-item')[example].click()
        page.until(lambda: page.one('#found img').get_attribute('src') != before)
        page.until(lambda: 'The detector took' in page.one('#sentence').text)
    page.until(lambda: page.script('return document.querySelector("#found img").complete'))
    left, top, right, bottom = page.box('#found img')
    assert page.box('#picture')[2] < left, 'the result stands right of the image that went in'
    assert bottom - top > 600 and right - left > 800, 'the result is large'
    for css in ('#found img', '#sentence', '#score input[type=range]', '#nms input[type=range]'):
        assert page.box(css)[1] >= 0 and page.box(css)[3] <= 900, f'{css} is below the fold'


@pytest.mark.parametrize('width', [1440, 1280])
def test_no_white_bands_stand_beside_an_image(page, width):
    page.open(width, 900)
    left, _, right, _ = page.box('#found')
    shown = page.script('''const i = document.querySelector('#found img'),
        r = i.getBoundingClientRect(), share = Math.min(r.width/i.naturalWidth,
                                                        r.height/i.naturalHeight, 1)
        return i.naturalWidth*share''')
    assert shown > .9*(right - left), 'an image of 4 : 3 fills the width'
    grounds = page.script('''return ['#picture', '#found', 'body'].map(
        css => getComputedStyle(document.querySelector(css)).backgroundColor)''')
    assert grounds[0] == grounds[1] != 'rgb(255, 255, 255)' and grounds[1] != grounds[2]


@pytest.mark.parametrize('width', [1440, 390])
def test_examples_are_square_tiles_filled_with_drawings(page, files, width):
    page.open(width, 844)
    names = [Path(i.get_attribute('src')).stem for i in page.all('#examples img')]
    assert names == [Path(f).stem for f in list(files.values())[:6]]
    assert not {'astronaut', 'cat', 'coffee'} & set(names), 'weights of drawings get drawings'
    tiles = page.script('''return [...document.querySelectorAll('.gallery-item')].map(tile => {
        const [a, b] = [tile, tile.querySelector('img')].map(e => e.getBoundingClientRect())
        return [a.width, a.height, b.width, b.height, a.top,
                getComputedStyle(tile.querySelector('img')).objectFit]})''')
    for w, h, img_w, img_h, top, fit in tiles:
        assert min(w, h) >= 40 and .9 < w/h < 1.1, f'a tile of {w:.0f} x {h:.0f}'
        assert abs(img_w - w) < 4 and abs(img_h - h) < 4 and fit == 'cover', 'cut, and not squeezed'
        assert top == tiles[0][4], 'all in one row'


def test_a_telephone(page):
    "One column, the result under the upload, nothing to scroll sideways, room for a finger."
    page.open(390, 844)
    assert 0 <= page.box('#found')[1] - page.box('#picture')[3] < 60
    assert page.box('#found')[1] < 500, 'the result begins in the first view'
    order = [page.box(css)[1] for css in ('#picture', '#answer', '#settings', '#examples', '#tabs')]
    assert order == sorted(order)
    for name in TABS:
        page.tab(name)
        time.sleep(1)
        assert page.script('return document.scrollingElement.scrollWidth') <= 390, name
        small = page.script(SMALL)
        assert small == [], f'{name}: {small}'


def test_desk_and_telephone(page, tmp_path):
    shots = {}
    for name, width, height, theme in (('desk', 1440, 900, 'light'), ('dark', 1440, 900, 'dark'),
                                       ('phone', 390, 844, 'light')):
        page.open(width, height, theme)
        time.sleep(1)
        shots[name] = page.shot()
        shots[name].save(tmp_path/f'{name}.png')
    assert np.mean(shots['dark']) < 130 < np.mean(shots['desk'])
    if folder := os.environ.get('YOLOV3_SCREENSHOTS'):
        write_figure(shots['desk'], shots['phone'], Path(folder)/'app.png')


def write_figure(desk, phone, file):
    "The page at both widths side by side."
    phone = phone.resize((240, round(240*phone.height/390)), Image.Resampling.LANCZOS)
    height = max(desk.height, phone.height + 16)
    both = Image.new('RGB', (desk.width + 20 + phone.width, height), 'white')
    both.paste(desk, (0, 0))
    both.paste(phone, (desk.width + 10, 16))
    size = 1000, round(1000*both.height/both.width)
    both = both.resize(size, Image.Resampling.LANCZOS)
    colours = both.quantize(256, Image.Quantize.MEDIANCUT)
    both.quantize(palette=colours).save(file, optimize=True)   # dithered: no bands in the sky
