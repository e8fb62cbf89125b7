"The library without a command: its front door, ten lines that use it, a command that is killed."
import inspect
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yolov3_nb
from yolov3_nb import Recipe
from yolov3_nb.learner import make_callbacks

ROOT = Path(__file__).resolve().parent.parent

README = (ROOT/'README.md').read_text(encoding='utf-8')
TEN_LINES = re.search(r'^```python\n(.*?)^```', README, re.M | re.S)[1]
TINY = {  # the same lines on twenty images, at the size of a stamp
    "make_toyvoc('toyvoc')": "make_toyvoc('toyvoc', n_trainval=20, n_test=6, progress=False)",
    'Learner, PRESETS,': 'Learner, Recipe,',
    "PRESETS['toy']": "Recipe(epochs=1, size=64, width=.0625, batch=4, workers=0, anchors='coco', "
                      'progress=False)',
    'explain(img)': 'explain(img, score_threshold=0.)',
}

def test_ten_lines_train_evaluate_explain_and_save(tmp_path):
    assert len([line for line in TEN_LINES.strip().splitlines() if line.strip()]) <= 11
    code = TEN_LINES
    for long, short in TINY.items():
        assert long in code
        code = code.replace(long, short)
    env = os.environ | {'MPLBACKEND': 'Agg', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path/'toy-weights'/'model.safetensors').exists()
    assert (tmp_path/'runs'/'run-1'/'report.html').exists()

@pytest.mark.parametrize('name', yolov3_nb.__all__)
def test_the_front_door_leads_somewhere(name):
    value = getattr(yolov3_nb, name)
    assert name in dir(yolov3_nb)
    assert inspect.getdoc(value)

@pytest.mark.parametrize('name, says', [
    ('Learner', 'data: data module'), ('Recipe', 'size: side of the square input in pixels'),
    ('detect_images', 'imgs: images (H, W, 3) uint8'), ('evaluate', 'dataset: '),
    ('YOLOv3', 'x: '), ('VOCDataset', 'root: '), ('make_toyvoc', 'n_trainval: ')])
def test_help_says_what_the_arguments_are(name, says):
    import pydoc
    assert says in pydoc.render_doc(getattr(yolov3_nb, name), renderer=pydoc.plaintext)

def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match='no_such_name'):
        _ = yolov3_nb.no_such_name

def test_map_is_taken_with_the_batch_and_workers_of_the_run(tmp_path):
    from yolov3_nb.evaluation import MAPCallback
    callbacks = make_callbacks(Recipe(map_every=2, batch=5, workers=3), tmp_path)
    found = next(c for c in callbacks if isinstance(c, MAPCallback))
    assert found.every == 2 and found.kwargs['batch_size'] == 5 and found.kwargs['workers'] == 3

def test_the_schedules_are_those_of_training():
    from yolov3_nb.recipe import fields
    from yolov3_nb.training import SCHEDULES
    known = next(f.metadata['choices'] for f in fields(Recipe) if f.name == 'schedule')
    assert set(known) == set(SCHEDULES)

def test_every_setting_reaches_something():
    "A field that nothing reads would be a flag without an effect."
    from yolov3_nb import learner, recipe
    code = inspect.getsource(learner) + inspect.getsource(recipe.Recipe)
    assert 'recipe.sets(split)' in code  # train, val and test
    for name in Recipe.__dataclass_fields__.keys() - {'train', 'val', 'test'}:
        reads = re.findall(rf"(?:recipe|self\.recipe|r|self)\.{name}\b|sets\('{name}'\)", code)
        assert reads, name

SLOW = """
import sys, time
from yolov3_nb import cli, prediction
read = prediction.read_image
def slowly(file):
    if file.name == 'c.jpg':
        print('waiting', flush=True)
        time.sleep(60)
    return read(file)
prediction.read_image = slowly
cli.predict(sys.argv[1:])
"""

def test_a_prediction_that_is_terminated_leaves_tables_of_what_was_done(tmp_path):
    from PIL import Image
    for name in 'abc':  # b waits for c, which says whether its batch is full
        Image.new('RGB', (64, 48)).save(tmp_path/f'{name}.jpg')
    args = [sys.executable, '-c', SLOW, *(str(tmp_path/f'{name}.jpg') for name in 'abc'),
            '--batch', '1', '--no-progress', '--weights', str(ROOT/'weights'/'toy'),
            '--out', str(tmp_path/'out')]
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout.readline() == 'waiting\n'
    deadline = time.time() + 60
    while not (tmp_path/'out'/'a.jpg').exists() and time.time() < deadline:
        time.sleep(.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert sorted(os.listdir(tmp_path/'out')) == [  # the same command goes on
        'a.jpg', 'detections.csv', 'detections.json', 'unfinished.jsonl']

def learner_of(*line):
    from yolov3_nb import cli
    from yolov3_nb.flags import train_parser
    return cli._make_learner(train_parser().parse_args([str(word) for word in line]))

def test_the_preset_goes_by_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'pens').mkdir()
    (tmp_path/'voc'/'VOCdevkit'/'VOC2007'/'Annotations').mkdir(parents=True)
    own = learner_of('--data', 'pens')
    assert own.recipe.schedule == 'wsd' and own.folder.name == 'own-1'
    assert learner_of('--data', 'voc').folder.name == 'toy-1' == learner_of().folder.name
    assert learner_of('--data', 'pens', '--preset', 'voc_cpu').folder.name == 'voc_cpu-1'

def test_the_width_is_that_of_the_start_unless_asked_for(tmp_path, monkeypatch):
    from yolov3_nb.files import InputError
    from yolov3_nb.model import YOLOv3
    from yolov3_nb.networks import save_weights
    monkeypatch.chdir(tmp_path)
    save_weights(YOLOv3(2, 0.0625, image_size=64).eval(), 'narrow')
    for preset in ('own', 'toy', 'voc'):
        assert learner_of('--preset', preset, '--start', 'narrow').recipe.width == 0.0625
    assert learner_of('--start', 'narrow', '--width', '0.0625').recipe.width == 0.0625
    for width in ('0.25', '1'):  # 0.25 is the default, and was asked for here
        with pytest.raises(InputError, match='leave --width out'):
            learner_of('--start', 'narrow', '--width', width)
    assert learner_of('--preset', 'voc').recipe.width == 1
