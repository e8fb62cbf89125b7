"The export against other people's programs, and damaged pictures and weights by the hundred."
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
sys.path.insert(0, str(Path(__file__).parent))
import darknet
from damage import damaged_bytes
from yolov3_nb.data import InputError, VOC_CLASSES, read_image
from yolov3_nb.darknet import COCO_CLASSES, load_darknet
from yolov3_nb.export import detect_images, export_onnx, largest_difference, write_beside
from yolov3_nb.model import YOLOv3

ROOT = Path(__file__).resolve().parent.parent

@pytest.fixture(scope='module')
def picture():
    "A drawn picture that compresses badly enough to have bytes worth damaging."
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 255, (60, 80, 3), np.uint8), (0, 0), 2)

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "A weights folder of the narrowest network."
    folder = tmp_path_factory.mktemp('tiny')/'weights'
    torch.manual_seed(0)
    YOLOv3(20, .0625, image_size=64, class_activation='sigmoid',
           prior=.6).eval().save_pretrained(folder)
    return folder

@pytest.mark.parametrize('classes, names', [(80, COCO_CLASSES), (20, VOC_CLASSES)])
def test_darknet_as_opencv_reads_it(tmp_path, classes, names):
    cfg, weights, before = darknet.write(tmp_path, classes)
    assert before == ['conv_81', 'conv_93', 'conv_105']
    x = torch.rand(1, 3, 416, 416, generator=torch.Generator().manual_seed(0))
    net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    net.setInput(x.numpy())
    theirs = [torch.from_numpy(o).unflatten(1, (3, -1)).permute(0, 1, 3, 4, 2)
              for o in net.forward(before)]
    model = load_darknet(weights)
    with torch.no_grad():
        ours = model(x)
    for a, b in zip(ours, theirs):
        assert a.shape == b.shape and b.std() > .1 and (a - b).abs().max() < 1e-4*b.abs().max()
    assert (model.num_classes, tuple(model.class_names), model.class_activation,
            model.image_size) == (classes, tuple(names), 'sigmoid', 416)
    assert model.anchors[0, 0].tolist() == [116, 90] and model.anchors[2, 0].tolist() == [10, 13]
    weights.write_bytes(weights.read_bytes()[:-4000])
    with pytest.raises(InputError, match='cut off or of another network'):
        load_darknet(weights)
    weights.unlink()

def test_a_hub_repository_holds_all(tiny, monkeypatch):
    sent = {}
    class Hub:
        def __init__(self, token=None):
            pass
        def create_repo(self, repo_id, **kwargs):
            return type('Url', (), {'repo_id': repo_id})
        def upload_folder(self, repo_id, folder_path, **kwargs):
            shutil.copytree(folder_path, tiny.parent/'hub')
            sent.update(repo=repo_id)
            return 'sent'
    monkeypatch.setattr('huggingface_hub.hub_mixin.HfApi', Hub)
    model = YOLOv3.from_pretrained(tiny)
    assert model.push_to_hub('you/detector') == 'sent' and sent['repo'] == 'you/detector'
    back = YOLOv3.from_pretrained(tiny.parent/'hub')
    assert back.config() == model.config()
    numbers = model.state_dict()
    assert all(torch.equal(tensor, numbers[name]) for name, tensor in back.state_dict().items())

def test_every_kind_of_picture(tmp_path, picture):
    deep, rgb = picture.astype(np.uint16)*257, picture[..., ::-1]
    for name in ('a.jpg', 'a.png', 'a.webp', 'a.bmp', 'a.tif', 'a.ppm'):
        cv2.imwrite(str(tmp_path/name), picture)
        assert read_image(tmp_path/name).shape == (60, 80, 3), name
    Image.fromarray(rgb).save(tmp_path/'a.gif')
    assert read_image(tmp_path/'a.gif').shape == (60, 80, 3)
    # kinds that hardly a camera writes are refused by name
    for name in ('a.tga', 'a.sgi', 'a.pcx', 'a.ico', 'a.hdr', 'a.ras'):
        if name in ('a.hdr', 'a.ras'):
            cv2.imwrite(str(tmp_path/name), picture/np.float32(255) if name == 'a.hdr' else picture)
        else:
            Image.fromarray(rgb).save(tmp_path/name)
        with pytest.raises(InputError, match=f'{name}.*none of the known formats'):
            read_image(tmp_path/name)
    cv2.imwrite(str(tmp_path/'deep.tif'), deep)
    cv2.imwrite(str(tmp_path/'deep.png'), deep)
    for name in ('deep.tif', 'deep.png', 'a.png', 'a.ppm', 'a.bmp'):
        assert (read_image(tmp_path/name) == rgb).all(), name

@pytest.mark.parametrize('name, head', [
    ('a.ppm', b'P6 90000 90000 255\n'), ('a.pfm', b'Pf\n90000 90000\n-1.0\n')])
def test_a_bomb_is_refused_by_its_header(tmp_path, name, head):
    (tmp_path/name).write_bytes(head + bytes(1000))
    with pytest.raises(InputError, match='allowed'):
        read_image(tmp_path/name)

MUTATED = '''import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
from yolov3_nb.cli import predict
sys.argv[0] = 'yolov3_predict'
predict(sys.argv[1:])'''

def test_300_mutated_pictures(tmp_path, picture, tiny):
    rng, whole, folder = random.Random(0), [], tmp_path/'in'
    folder.mkdir()
    for i, name in enumerate(('a.jpg', 'a.png', 'a.gif', 'a.tif', 'a.webp', 'a.bmp', 'a.ppm',
                              'a.jpeg', 'deep.png', 'deep.tif')):
        if name == 'a.gif':
            Image.fromarray(picture).save(tmp_path/name)
        else:
            cv2.imwrite(str(tmp_path/name), picture.astype(np.uint16)*257 if name.startswith('deep')
                        else picture)
        whole.append((tmp_path/name).read_bytes())
        for n in range(30):
            (folder/f'{i}-{n}{Path(name).suffix}').write_bytes(damaged_bytes(whole[i], rng))
    done = subprocess.run([sys.executable, '-c', MUTATED, str(folder), '--weights', str(tiny),
                           '--out', str(tmp_path/'out'), '--no-progress', '--max', '3'],
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr[-2000:]
    found = json.loads((tmp_path/'out'/'detections.json').read_text())
    counts = len(found['images']), len(found['skipped'])
    assert sum(counts) == 300 and min(counts) > 30
    assert all('\n' not in s['why'] and len(s['why']) < 600 for s in found['skipped'])
    out = {p.name for p in (tmp_path/'out').iterdir()}
    assert out == {'detections.json', 'detections.csv'} | {i['annotated'] for i in found['images']}
    for i in found['images']:
        assert read_image(tmp_path/'out'/i['annotated']).shape[:2] == (i['height'], i['width'])
    assert (len((tmp_path/'out'/'detections.csv').read_text().splitlines()) == 1
            + len(found['detections']))

def test_100_mutated_weights(tmp_path, tiny, picture):
    from yolov3_nb.darknet import save_darknet
    rng, model, outcomes = random.Random(1), YOLOv3.from_pretrained(tiny), []
    save_darknet(model, tmp_path/'net.weights')
    sources = {'model.safetensors': (tiny/'model.safetensors').read_bytes(),
               'config.json': (tiny/'config.json').read_bytes(),
               'net.weights': (tmp_path/'net.weights').read_bytes()}
    for n in range(102):
        name, folder = list(sources)[n % 3], tmp_path/f'{n}'
        shutil.copytree(tiny, folder)
        (folder/name).write_bytes(damaged_bytes(sources[name], rng))
        try:
            if name == 'net.weights':
                m = load_darknet(folder/name, model.class_names, model.anchors, 64, .0625)
            else:
                m = YOLOv3.from_pretrained(folder)
            detect_images(m, [picture], max_detections=3)
            outcomes.append('works')
        except InputError as e:
            assert '\n' not in str(e) and len(str(e)) < 800, str(e)
            outcomes.append('refused')
        shutil.rmtree(folder)
    assert min(outcomes.count('works'), outcomes.count('refused')) > 10

def test_export_onnx_by_its_command(tmp_path, tiny, monkeypatch):
    command = ['yolov3_export', '--weights', str(tiny), '--out', 'net.onnx', '--no-decode']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and 'ONNX Runtime differs' in done.stdout, done.stderr
    assert os.listdir(tmp_path) == ['net.onnx']
    import onnxruntime
    x = torch.rand(2, 3, 64, 64)
    session = onnxruntime.InferenceSession(tmp_path/'net.onnx', providers=['CPUExecutionProvider'])
    out = session.run(None, {'images': x.numpy()})
    with torch.no_grad():
        assert largest_difference(out, YOLOv3.from_pretrained(tiny)(x)) < 1e-4
    class Wrong:   # what an exporter with a fault would give: the file of another network
        model = type('Model', (), dict(metadata_props={}))
        def save(self, file, **kwargs):
            shutil.copy(tmp_path/'net.onnx', file)
    monkeypatch.setattr(torch.onnx, 'export', lambda *args, **kwargs: Wrong())
    other = YOLOv3.from_pretrained(tiny)
    export_onnx(other, tmp_path/'same.onnx', decode=False)
    other.head3.pred.bias.data += .01
    with pytest.raises(InputError, match='nothing was written'):
        export_onnx(other, tmp_path/'other.onnx', decode=False)
    assert sorted(os.listdir(tmp_path)) == ['net.onnx', 'same.onnx']

def test_what_fails_leaves_what_was_there(tmp_path):
    (tmp_path/'net.onnx').write_text('old')
    refused = pytest.raises(InputError, match='cannot be written')
    with refused, write_beside(tmp_path/'net.onnx') as folder:
        (folder/'net.onnx').write_text('half')
        raise OSError(28, 'No space left on device')
    assert os.listdir(tmp_path) == ['net.onnx'] and (tmp_path/'net.onnx').read_text() == 'old'

def test_predict_takes_names_from_standard_input(tmp_path, tiny, picture):
    for sub in ('a', 'b'):
        (tmp_path/sub).mkdir()
        cv2.imwrite(str(tmp_path/sub/'x.png'), picture)
    command = ['yolov3_predict', '-', '--weights', str(tiny), '--out', 'out']
    done = subprocess.run(command, input='a/x.png\nb\n', cwd=tmp_path, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    written = sorted(os.listdir(tmp_path/'out'))
    assert written == ['detections.csv', 'detections.json', 'x-2.jpg', 'x.jpg']

def test_ctrl_c_keeps_what_was_done_and_the_same_command_goes_on(
        tmp_path, tiny, picture, monkeypatch):
    from yolov3_nb import cli, prediction
    for name in 'abc':
        cv2.imwrite(str(tmp_path/f'{name}.png'), picture)
    def read(path):
        if path.name == 'c.png':
            raise KeyboardInterrupt
        return read_image(path)
    images = [str(tmp_path/f'{name}.png') for name in 'abc']
    out = tmp_path/'out'
    argv = [*images, '--weights', str(tiny), '--out', str(out), '--batch', '1', '--no-progress']
    monkeypatch.setattr(prediction, 'read_image', read)
    with pytest.raises(SystemExit, match='130'):
        cli.predict(argv)
    def done():
        return [i['annotated'] for i in json.loads((out/'detections.json').read_text())['images']]
    assert done() == ['a.jpg']   # b was waiting for its batch
    tables = ['detections.csv', 'detections.json']
    assert sorted(os.listdir(out)) == ['a.jpg', *tables, 'unfinished.jsonl']
    with pytest.raises(SystemExit, match='2'):  # of other settings
        cli.predict([*argv, '--score', '.9'])
    monkeypatch.undo()
    read_again, first = [], read_image
    monkeypatch.setattr(prediction, 'read_image',
                        lambda path: read_again.append(path.name) or first(path))
    with open(out/'unfinished.jsonl', 'a') as f:  # as a kill leaves it
        f.write('{"files": ["half a li')
    cli.predict(argv)
    assert done() == ['a.jpg', 'b.jpg', 'c.jpg'] and read_again == ['b.png', 'c.png']
    assert sorted(os.listdir(out)) == ['a.jpg', 'b.jpg', 'c.jpg', *tables]
