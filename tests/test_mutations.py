"""Commands on settings, checkpoints, flags and paths that are damaged, odd or hostile.

None ends in a traceback, takes long, or leaves half a file: each works, or is one sentence and exit
status 2. Seeded; the mutated weights folders are in test_weights.py."""
import contextlib
import copy
import io
import json
import os
import random
import shutil
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from damage import damaged_bytes

from yolov3_nb import cli, learner, training
from yolov3_nb.download import download_voc
from yolov3_nb.model import YOLOv3
from yolov3_nb.toyvoc import make_toyvoc

LIMIT = 30  # seconds for a case; nearly all take a small part of one
FLAGS = ('--size 64 --width 0.0625 --epochs 2 --val_every 2 --batch 4 --workers 0 --anchors coco '
         '--images_every 0 --no-progress --precision 32-true --accelerator cpu')


class Done(BaseException):
    "Raised where training would begin: everything before it went well."


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with a data set, weights, and a run that was stopped after its first epoch."
    folder = tmp_path_factory.mktemp('place')
    make_toyvoc(folder/'toy', n_trainval=8, n_test=2, workers=1, progress=False)
    torch.manual_seed(0)
    YOLOv3(20, .0625, image_size=64).eval().save_pretrained(folder/'weights')

    def stop(self):
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('YOLOV3_RUN', '')
        patch.setattr(training.LitYOLOv3, 'on_train_epoch_start', stop)
        with pytest.raises(SystemExit) as ended:
            cli.train([*FLAGS.split(), '--data', str(folder/'toy'), '--out', str(folder/'run')])
    assert ended.value.code == 130 and (folder/'run'/'last.ckpt').exists()
    return folder


@pytest.fixture(autouse=True)
def no_long_work(monkeypatch, tmp_path):
    "Training ends where it would begin, ToyVOC is small, nothing is fetched; a hang is a failure."
    def begin(self):
        raise Done

    def out_of_time(*_):
        raise TimeoutError(f'more than {LIMIT} s')

    monkeypatch.setattr(training.LitYOLOv3, 'on_train_start', begin)
    monkeypatch.setattr(cli, 'make_toyvoc', partial(make_toyvoc, n_trainval=4, n_test=1, workers=1,
                                                    progress=False))
    monkeypatch.setattr(cli, 'download_voc', partial(download_voc, progress=False, patience=0))
    monkeypatch.setattr(cli, 'VOC_MIRRORS', ())
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setenv('YOLOV3_RUN', '')
    monkeypatch.setattr(sys, 'stdin', io.StringIO())
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def outcome(main, argv):
    "'works' or 'refused'; anything but that or a part done, and a sentence, is a failure."
    signal.alarm(LIMIT)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            main(argv)
        status = 0
    except Done:
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    text = said.getvalue()
    lines = [line for line in text.splitlines() if line.strip()]
    about = f'{argv!r:.300} → {status}: {text[-1500:]}'
    assert status in (0, 1, 2) and 'Traceback' not in text and 'A fault of' not in text, about
    if status == 2:
        assert lines and len(lines[-1]) < 1200 and lines[-1].rstrip()[-1] in '.?', about
        lines[-1].encode('utf-8')
    return 'refused' if status == 2 else 'works'


def count(outcomes):
    return {word: outcomes.count(word) for word in ('works', 'refused')}


# ---- settings.json and last.ckpt -----------------------------------------------------------------

ODD = [None, True, -1, 0, 3, 10**30, 1e308, .5, '', 'x', '0', [], [[]], {}, {'a': []}, '\ud800',
       [None]*3, '0'*5000, 'a\nb', '\0', '../..', '-1']
TEXTS = [b'', b'{', b'[]', b'null', b'3', b'"abc"', b'\xff\xfe', b'{}', b'['*100_000,
         b'{"a":'*100_000, b'{"seed": ' + b'9'*10_000 + b'}', b'\0'*100, b'{"seed": NaN}',
         b'{"seed": 1e999}', b'\xef\xbb\xbf{}']


def copy_of(place, folder):
    "A copy of the run whose settings name what they named."
    shutil.copytree(place/'run', folder, ignore=shutil.ignore_patterns('best*', 'tensorboard'))
    return folder


def test_78_mutated_settings(place, tmp_path, monkeypatch):
    def begin(*args):
        raise Done

    monkeypatch.setattr(learner, 'train_epochs', begin)
    rng = random.Random(1)
    run = copy_of(place, tmp_path/'run')
    whole = (run/'settings.json').read_bytes()
    last = (run/'last.ckpt').read_bytes()
    settings = json.loads(whole)
    texts = list(TEXTS)
    for _ in range(35):
        odd = settings | {rng.choice(list(settings)): rng.choice(ODD)}
        texts.append(json.dumps(odd).encode())
    texts += [damaged_bytes(whole, rng) for _ in range(20)]
    for name, value in dict(seed=3, val_every=1, half=True, max_time='00:00:01:00', test='',
                            images_every=1, train_every=0, workers=1).items():
        texts.append(json.dumps(settings | {name: value}).encode())
    outcomes = []
    for text in texts:
        (run/'settings.json').write_bytes(text)
        outcomes.append(outcome(cli.train, ['--resume', 'run']))
        if outcomes[-1] == 'refused':
            assert (run/'settings.json').read_bytes() == text
        assert (run/'last.ckpt').read_bytes() == last and not list(run.glob('.*'))
    assert set(outcomes[-8:]) == {'works'} and count(outcomes)['refused'] > 40, outcomes


def parts(value, path=()):
    "Paths to all values within nested dicts and lists."
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(
        value, list) else ()
    for key, item in items:
        yield from parts(item, (*path, key))


def odd_checkpoint(checkpoint, rng):
    "A copy in which one value is another, or gone; values near the top more often."
    checkpoint = copy.deepcopy(checkpoint)
    places = sorted((path for path in parts(checkpoint) if path), key=len)
    path = places[int(len(places) * rng.random()**3)]
    holder = checkpoint
    for key in path[:-1]:
        holder = holder[key]
    if rng.random() < .4:
        del holder[path[-1]]
    else:
        odd = [value for value in ODD if value != 10**30]
        holder[path[-1]] = rng.choice([*odd, torch.zeros(3), torch.zeros(1, 2)])
    return checkpoint


def test_60_mutated_checkpoints(place, tmp_path):
    "Up to the first step, which is where a checkpoint has been restored."
    rng = random.Random(2)
    run = copy_of(place, tmp_path/'run')
    whole = (run/'last.ckpt').read_bytes()
    checkpoint = torch.load(run/'last.ckpt', weights_only=True)
    outcomes = []
    for n in range(60):
        if n < 20:
            (run/'last.ckpt').write_bytes(damaged_bytes(whole, rng))
        else:
            torch.save(odd_checkpoint(checkpoint, rng), run/'last.ckpt')
        before = (run/'last.ckpt').read_bytes()
        outcomes.append(outcome(cli.train, ['--resume', 'run']))
        assert (run/'last.ckpt').read_bytes() == before and not list(run.glob('.*'))
    assert count(outcomes)['refused'] > 20, count(outcomes)


def without(*path):
    "A change to a checkpoint: the last of the keys is gone."
    def change(checkpoint):
        for key in path[:-1]:
            checkpoint = checkpoint[key]
        del checkpoint[path[-1]]
    return change


def with_value(value, *path):
    "A change to a checkpoint: what the keys lead to is another value."
    def change(checkpoint):
        for key in path[:-1]:
            checkpoint = checkpoint[key]
        checkpoint[path[-1]] = value
    return change


BIAS = 'model.head5.pred.bias'
DIFFERENT = {
    f'{BIAS} in its state_dict is (5,), and here (75,)': with_value(
        torch.zeros(5), 'state_dict', BIAS),
    f'its state_dict lacks {BIAS}': without('state_dict', BIAS),
    "its state_dict has 'more', which this run has not": with_value(
        torch.zeros(1), 'state_dict', 'more'),
    'its current_model_state is missing': without('current_model_state'),
    'exp_avg of parameter 0 in its optimiser is (1,)': with_value(
        torch.zeros(1), 'optimizer_states', 0, 'state', 0, 'exp_avg'),
    'its loops.fit_loop.epoch_loop.batch_progress.is_last_batch is missing': without(
        'loops', 'fit_loop', 'epoch_loop.batch_progress'),
    'its callbacks.Interruptible.seconds is a str': with_value(
        'x', 'callbacks', 'Interruptible', 'seconds'),
}


@pytest.mark.parametrize('words', DIFFERENT)
def test_what_differs_is_named(place, tmp_path, capsys, words):
    run = copy_of(place, tmp_path/'run')
    checkpoint = torch.load(run/'last.ckpt', weights_only=True)
    DIFFERENT[words](checkpoint)
    torch.save(checkpoint, run/'last.ckpt')
    with pytest.raises(SystemExit):
        cli.train(['--resume', str(run)])
    said = capsys.readouterr().err
    assert f'last.ckpt does not fit this run ({words}' in said, said


# ---- flags ---------------------------------------------------------------------------------------

TEXT_ODD = ['', ' ', '-1', '0', '1e999', 'nan', 'inf', 'x', '\0', 'a\nb', '--', '=', '0'*5000,
            'ü☂', '\udcff', '[]', '{}', '1,2', '%s', '2007_test', '../..', '9'*400, '1.5', 'None']
COMMANDS = {
    'train': (cli.train, 'train', ['--data', 'nowhere']),
    'eval': (cli.evaluate_weights, 'eval', ['--data', 'nowhere']),
    'predict': (cli.predict, 'predict', ['nothing.jpg', '--no-progress']),
    'export': (cli.export_weights, 'export', ['--format', 'folder', '--weights', 'nowhere']),
}
PARSERS = {'train': cli.train_parser, 'eval': cli.eval_parser, 'predict': cli.predict_parser,
           'export': cli._export_parser}


@pytest.mark.parametrize('name', COMMANDS)
def test_odd_values_of_every_flag(name, tmp_path):
    "Each flag of a command with three odd values, by lot."
    main, _, rest = COMMANDS[name]
    rng = random.Random(name)
    flags = [f for action in PARSERS[name]()._actions for f in action.option_strings]
    outcomes = []
    for flag in flags:
        if flag in ('-h', '--help'):
            continue
        for value in rng.sample(TEXT_ODD, 3):
            outcomes.append(outcome(main, [*rest, f'{flag}={value}']))
    assert 'refused' in outcomes and not [p for p in tmp_path.rglob('*') if p.is_file()]


# ---- paths ---------------------------------------------------------------------------------------

def odd_paths(place, folder):
    "{kind: a path}, made in a folder; of each kind that a file system knows."
    folder = os.fsencode(folder)
    join = partial(os.path.join, folder)
    for name in (b'file', b'-dash', b'\xff\xfe', 'ü ☂.json'.encode()):
        Path(os.fsdecode(join(name))).write_bytes(b'nothing that anybody reads')
    for name in (b'folder', b'-folder', b'\xfffolder'):
        os.mkdir(join(name))
    os.symlink(b'loop', join(b'loop'))
    os.symlink(b'gone', join(b'dangling'))
    os.mkfifo(join(b'pipe'))
    server = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(OSError):  # its path may be too long
        server.bind(os.fsdecode(join(b'socket')))
    server.close()
    os.mkdir(join(b'locked'))
    os.chmod(join(b'locked'), 0)
    names = [b'', b'missing', b'missing/below', b'file', b'file/below', b'folder', b'-dash',
             b'-folder', b'\xff\xfe', b'\xfffolder', b'\xffmissing', 'ü ☂.json'.encode(), b'loop',
             b'loop/below', b'dangling', b'pipe', b'locked', b'locked/below', b'a\0b', b'x'*300,
             b'y/'*3000, b'a\nb']
    return {repr(name[:20]): os.fsdecode(name) for name in names}


def uses(place):
    "{what: (command, arguments in which PATH is replaced)}."
    toy, weights = str(place/'toy'), str(place/'weights')
    train = [*FLAGS.split(), '--data', toy]
    measured = ['--data', toy, '--weights', weights]
    images = f'{toy}/VOCdevkit/VOC2007/JPEGImages/000001.jpg'
    seen = ['--weights', weights, '--no-progress']
    return {
        'train data': (cli.train, ['--data', 'PATH', '--out', 'out']),
        'train out': (cli.train, [*train, '--out', 'PATH']),
        'train resume': (cli.train, ['--resume', 'PATH']),
        'train classes': (cli.train, [*train, '--classes', 'PATH', '--out', 'out']),
        'train start': (cli.train, [*train, '--start', 'PATH', '--out', 'out']),
        'eval weights': (cli.evaluate_weights, ['--data', toy, '--weights', 'PATH']),
        'eval data': (cli.evaluate_weights, ['--weights', weights, '--data', 'PATH']),
        'eval detections': (cli.evaluate_weights, ['--data', toy, '--detections', 'PATH']),
        'eval results': (cli.evaluate_weights, [*measured, '--results', 'PATH']),
        'eval save': (cli.evaluate_weights, [*measured, '--save_detections', 'PATH']),
        'predict image': (cli.predict, [*seen, 'PATH', '--out', 'out']),
        'predict weights': (cli.predict, ['--weights', 'PATH', images, '--no-progress']),
        'predict out': (cli.predict, [*seen, images, '--out', 'PATH']),
        'export weights': (cli.export_weights, ['--weights', 'PATH', '--format', 'folder',
                                                '--out', 'out']),
        'export out': (cli.export_weights, ['--weights', weights, '--format', 'folder',
                                            '--out', 'PATH']),
        'export darknet': (cli.export_weights, ['--weights', 'PATH.weights', '--out', 'out']),
        'data toy': (cli.data, ['toy', '--out', 'PATH']),
        'data download': (cli.data, ['download', '--out', 'PATH', '--years', '2007']),
        'data mirror': (cli.data, ['download', '--out', 'out', '--mirror', 'PATH']),
        'data inspect': (cli.data, ['inspect', 'PATH']),
        'data page': (cli.data, ['inspect', toy, '--page', 'PATH']),
        'data import': (cli.data, ['import', 'PATH', 'out']),
        'data import out': (cli.data, ['import', toy, 'PATH']),
        'check': (cli.check_exercises, ['PATH']),
        'app weights': (cli.run_app, ['--make_space', 'out', '--weights', 'PATH']),
        'app results': (cli.run_app, ['--make_space', 'out', '--results', 'PATH', '--weights',
                                      weights]),
    }


@pytest.mark.skipif(os.name != 'posix', reason='names, pipes and devices as POSIX has them')
@pytest.mark.parametrize('what', uses(Path('x')))
def test_odd_paths(what, place, tmp_path, tool):
    folder = tmp_path/'in'
    folder.mkdir()
    paths = odd_paths(place, folder)
    os.chdir(folder)
    main, words = uses(place)[what]
    outcomes = []
    for path in paths.values():
        outcomes.append(outcome(main, [word.replace('PATH', path) for word in words]))
        for made in (folder/'out', *folder.glob('predictions-*')):
            if made.is_dir():
                assert not tool('kills').faults_of(made)
                shutil.rmtree(made)
            else:
                made.unlink(missing_ok=True)
        left = [file.name for file in folder.rglob('.*') if file.name != '.lock']
        assert not left, (path, left)
        assert (folder/'file').read_bytes() == b'nothing that anybody reads', path
    assert 'refused' in outcomes
