"A run that was stopped and resumed ends with the very weights of a run that nobody stopped."
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as L
import torch
from PIL import Image

from yolov3_nb import cli, learner, training
from yolov3_nb.durable import Interruptible, Patience, WholeCheckpoints, lost_patience
from yolov3_nb.files import Claim, InputError
from yolov3_nb.learner import Learner
from yolov3_nb.model import YOLOv3
from yolov3_nb.prediction import Journal
from yolov3_nb.recipe import Recipe
from yolov3_nb.runs import write_result
from yolov3_nb.toyvoc import make_toyvoc

# Forks a process a run, so that the imports are paid for once. A run kills itself, after a given
# step, with a signal that nothing can catch.
SCRIPT = '''
import json, os, resource, signal, sys, time, traceback
from pathlib import Path
import torch
from yolov3_nb import cli, evaluation, training
from yolov3_nb.learner import Learner
from yolov3_nb.toyvoc import make_toyvoc

torch.set_num_threads(1)
toy = make_toyvoc('toy', n_trainval=20, n_test=4, workers=1, progress=False)
flags = ['--size', '64', '--width', '0.0625', '--epochs', '3', '--batch', '4', '--workers', '1',
         '--val_every', '1', '--no-progress', '--precision', '32-true', '--accelerator', 'cpu',
         '--data', str(toy), '--optimizer', 'muon']

keep_weights = Learner._keep_weights

def finish(self): # what follows the whole training is not what may be lost here
    if self.stopped: # time is up: what there is is measured
        return keep_weights(self)
    (self.run/'spent').write_text(str(time.time() - self.start))
    sys.exit(0)
Learner._keep_weights = finish

def note_the_open_file(self): # a file that is still mapped must not be written over
    mapped = Path('/proc/self/maps')
    if mapped.exists() and 'last.ckpt' in mapped.read_text():
        (Path(self.trainer.default_root_dir)/'mapped').touch()
training.LitYOLOv3.on_train_start = note_the_open_file

def make_older(file):
    "As if it had trained an hour longer."
    checkpoint = torch.load(file, weights_only=True)
    checkpoint['callbacks']['Interruptible']['seconds'] += 3600
    torch.save(checkpoint, file)

def die_after(step, by):
    "Let the process get a signal after a step; what asks reaches the data workers, too."
    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.global_step != step:
            return
        if by == signal.SIGKILL:
            os.kill(os.getpid(), by)
        else:
            os.killpg(os.getpgrp(), by)
    training.LitYOLOv3.on_train_batch_end = on_train_batch_end

def train(argv, die_at, by, minutes, full):
    os.setpgrp()
    init = training.Interruptible.__init__
    def limited(self, folder, seconds):
        init(self, folder, 0. if by == 'time' else seconds, minutes)
    training.Interruptible.__init__ = limited
    if full:  # no file may grow larger: a full disk, as far as a process can tell
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
    if die_at:
        die_after(die_at, by)
    with open(f'{argv[-1]}.log', 'a') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    cli.train(list(argv))

def run(*argv, die_at=None, by=signal.SIGKILL, minutes=10., full=False):
    "Exit status of the command, as the shell would see it."
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        train(argv, die_at, by, minutes, full)
        code = 0
    except SystemExit as e:
        code = e.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

codes = {'whole': [run(*flags, '--out', 'whole')]}
steps = [int(step) for step in sys.argv[1:]]
for step in steps:  # one of them saves after each step, the others after each epoch
    name = f'killed{step}'
    minutes = 0. if step == steps[0] else 10.
    codes[name] = [run(*flags, '--out', name, die_at=step, minutes=minutes), run('--resume', name)]
for name, step, by in (('stopped', 6, signal.SIGINT), ('terminated', 10, signal.SIGTERM)):
    codes[name] = [run(*flags, '--out', name, die_at=step, by=by), run('--resume', name)]
codes['late'] = [run(*flags, '--out', 'late', by='time')]
make_older('late/last.ckpt')
codes['late'].append(run('--resume', 'late'))
codes['full'] = [run(*flags, '--out', 'full', full=True), run('--resume', 'full')]
print(json.dumps(codes))
'''
STEPS = random.Random(18).sample(range(1, 12), 3)  # of 12, four an epoch
NAMES = [*(f'killed{step}' for step in STEPS), 'stopped', 'terminated', 'late', 'full']


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    done = subprocess.run([sys.executable, '-c', SCRIPT, *map(str, STEPS)], cwd=folder,
                          capture_output=True, text=True, timeout=600,
                          env=os.environ | {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout.splitlines()[-1])


def state(run):
    return torch.load(Path(run)/'last.ckpt', weights_only=True)


def same(a, b, where):
    "Bitwise, through dicts and lists."
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for k in a:
            same(a[k], b[k], f'{where}.{k}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, f'{where}[{i}]')
    else:
        assert a == b, where


@pytest.mark.parametrize('name', NAMES)
def test_resumed_is_bitwise_the_uninterrupted_run(runs, name):
    folder, codes = runs
    first = {'full': 2, 'stopped': 130, 'terminated': 143, 'late': 0}.get(name, -9)
    log = (folder/f'{name}.log').read_text()
    assert codes['whole'] == [0] and codes[name] == [first, 0], (codes, log[-2000:])
    whole, resumed = state(folder/'whole'), state(folder/name)
    for part in ('state_dict', 'current_model_state', 'averaging_state', 'optimizer_states',
                 'lr_schedulers', 'global_step', 'epoch'):
        same(whole[part], resumed[part], part)


@pytest.mark.parametrize('name, says', [
    ('stopped', 'Stopped in epoch 1, at step 7.'),
    ('terminated', 'Stopped in epoch 2, at step 11.'),
    ('late', 'Stopped in epoch 0, at step 1.'),
    ('full', 'full takes no more (File too large): make room.')])
def test_a_run_that_stops_says_where_and_how_to_go_on(runs, name, says):
    log = (runs[0]/f'{name}.log').read_text()
    assert says in log and f'yolov3_train --resume {name}' in log, log[-2000:]
    assert 'Traceback' not in log, log[-2000:]


@pytest.mark.parametrize('name', ['whole', *NAMES])
def test_nothing_is_left_open_or_unfinished(runs, name):
    run = runs[0]/name
    assert not (run/'mapped').exists() and not list(run.rglob('.*'))


def test_each_epoch_is_in_the_log_once(runs):
    for name in ('stopped', 'terminated', 'late'):
        log = (runs[0]/f'{name}.log').read_text()
        assert [log.count(f'EPOCH: {epoch}, Loss: ') for epoch in range(3)] == [1, 1, 1], log


def test_the_time_of_a_run_is_that_of_all_its_pieces(runs):
    spent = {name: float((runs[0]/name/'spent').read_text()) for name in ('stopped', 'late')}
    assert spent['stopped'] < 3600 < spent['late']


# commands that are killed at any moment

def test_kills_and_full_disks_leave_whole_files_and_the_same_command_goes_on(tool, tmp_path):
    "A few of what tools/kills.py tries; `python tools/kills.py` tries more."
    few = ['--kills', '5', '--disks', '2', '--seed', '4']
    only = [word for name in ('train', 'predict', 'download') for word in ('--only', name)]
    done = subprocess.run([sys.executable, learner.__file__.replace('yolov3_nb/learner.py',
                                                                    'tools/kills.py'), *few, *only],
                          cwd=tmp_path, capture_output=True, text=True, timeout=600,
                          env=os.environ | {'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert '0 with a fault' in done.stdout and not list(tmp_path.iterdir())


LOST_SIGNAL = """
import os, signal, sys, time, weakref
from yolov3_nb.flags import command

class Thing:
    pass

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what runs behind a shell

@command
def main(argv):
    thing = Thing()
    gone = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.{name}))
    del thing  # an exception in that function goes nowhere
    for _ in range(100):
        time.sleep(.1)
    print('went on', gone)

main([])
"""

@pytest.mark.parametrize('name, status', [('SIGTERM', 143), ('SIGINT', 130)])
def test_a_signal_whose_exception_is_lost_still_ends_the_command(name, status):
    done = subprocess.run([sys.executable, '-c', LOST_SIGNAL.replace('{name}', name)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    assert 'Traceback' not in done.stderr and 'went on' not in done.stdout


@pytest.mark.parametrize('ending', [KeyboardInterrupt(), SystemExit(143), OSError(28, 'full')])
def test_what_ends_a_run_before_its_first_batch_is_said(tmp_path, monkeypatch, capsys, ending):
    from pytorch_lightning.utilities.combined_loader import CombinedLoader

    def ends(self):
        raise ending

    monkeypatch.setattr(CombinedLoader, '__iter__', ends)
    flags = '--size 64 --width .0625 --batch 4 --workers 0 --limit 8 --epochs 1 --accelerator cpu'
    argv = [*flags.split(), '--no-progress', '--out', str(tmp_path/'run')]
    status = status_of(cli.train, argv)
    said = capsys.readouterr().err
    assert 'combined_loader' not in said and '--resume' in said, said
    assert status == {KeyboardInterrupt: 130, SystemExit: 143, OSError: 2}[type(ending)]


SHORT = """
import resource, sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
"""
DRAWN = SHORT + """
from yolov3_nb.toyvoc import write_image
write_image(folder, '1', np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), [])
"""
IMPORTED = SHORT + """
from yolov3_nb.formats import _write_image
img = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
class One:
    paths = [folder/'given']
    def __getitem__(self, i):
        return img, {}
_write_image(One(), 0, folder/'VOC2007'/'JPEGImages', '1')
"""


@pytest.mark.parametrize('code, given', [(DRAWN, None), (IMPORTED, 'WEBP'), (IMPORTED, 'BMP')])
def test_an_image_that_a_disk_takes_in_part_is_an_error(tmp_path, code, given):
    images = tmp_path/'VOC2007'/'JPEGImages'
    for folder in (images, tmp_path/'VOC2007'/'Annotations'):
        folder.mkdir(parents=True)
    if given:
        Image.new('RGB', (64, 64)).save(tmp_path/'given', given)

    def run(limit):
        return subprocess.run([sys.executable, '-c', code, tmp_path, str(limit)],
                              capture_output=True, text=True, timeout=60)

    whole = run(10**6)
    assert whole.returncode == 0, whole.stderr
    size = next(images.iterdir()).stat().st_size
    assert 'File too large' in run(size - 5).stderr


# a second process, and what must not be mixed or lost

@pytest.fixture
def another(tmp_path):
    "another(file) is a process that claims the file until the test ends."
    started = []

    def claim(file):
        code = (f'from yolov3_nb.files import Claim; c = Claim({str(file)!r}, "no"); '
                'print(flush=True); input()')
        started.append(subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE))
        started[-1].stdout.readline()
    yield claim
    for process in started:
        process.communicate(b'\n', timeout=30)


def status_of(main, argv):
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in argv])
    return ended.value.code


def test_a_run_that_another_process_trains_is_refused(tmp_path, another, capsys):
    (tmp_path/'settings.json').write_text('{"data": "nowhere"}')
    another(tmp_path/'.lock')
    assert status_of(cli.train, ['--resume', tmp_path]) == 2
    assert 'is being trained by another process' in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ['.lock', 'settings.json']


def test_a_folder_that_another_process_predicts_into_is_refused(tmp_path, another, capsys):
    (tmp_path/'out').mkdir()
    (tmp_path/'out'/'unfinished.jsonl').touch()
    another(tmp_path/'out'/'unfinished.jsonl')
    argv = [tmp_path, '--out', tmp_path/'out', '--no-progress']
    (tmp_path/'a.jpg').touch()
    assert status_of(cli.predict, argv) == 2
    assert 'is being written by another process' in capsys.readouterr().err
    assert [file.name for file in (tmp_path/'out').iterdir()] == ['unfinished.jsonl']


def test_a_journal_is_read_up_to_its_last_whole_line_and_goes_on_there(tmp_path):
    line = dict(images=[{'image': 'a'}], detections=[], skipped=[])
    journal = Journal(tmp_path, {'asked': 1})
    journal.keep(['a'], **line)
    journal.close(finished=False)
    for name in ('b', 'c'):  # killed twice, within a line
        with open(tmp_path/'unfinished.jsonl', 'a') as f:
            f.write('{"files": ["half a li')
        journal = Journal(tmp_path, {'asked': 1})
        journal.keep([name], **line)
        journal.close(finished=False)
    journal = Journal(tmp_path, {'asked': 1})
    assert journal.files == {'a', 'b', 'c'} and len(journal.images) == 3
    journal.close(finished=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('text', ['[]\n', '{"asked": 2}\n', '{"asked": 1}\nnull\n', '\0\n',
                                  '{"asked": 1}\n{"files": 1}\n', '{"asked": 1}\n{}\n'])
def test_a_journal_of_something_else_is_refused_and_stays(tmp_path, text):
    (tmp_path/'unfinished.jsonl').write_text(text)
    with pytest.raises(InputError, match='damaged|other images, weights or settings'):
        Journal(tmp_path, {'asked': 1})
    assert (tmp_path/'unfinished.jsonl').read_text() == text


def test_a_claim_ends_with_its_process(tmp_path):
    subprocess.run([sys.executable, '-c', 'import os, signal; from yolov3_nb.files import Claim\n'
                    f'Claim({str(tmp_path/"lock")!r}, "no"); os.kill(os.getpid(), signal.SIGKILL)'])
    assert (tmp_path/'lock').exists()
    Claim(tmp_path/'lock', 'refused').release()
    assert not (tmp_path/'lock').exists()


def with_network(run, **recipe):
    "A learner that has just trained a network, as far as its methods can tell."
    made = Learner(recipe=Recipe(size=64, **recipe), run=run)
    made.module = SimpleNamespace(model=YOLOv3(20, .0625, image_size=64))
    loop = SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=False))
    stopper = Interruptible(run)
    stopper.asked = signal.SIGINT
    made.trainer = SimpleNamespace(
        callbacks=[stopper],
        strategy=SimpleNamespace(root_device='cpu'), current_epoch=1, global_step=3,
        fit_loop=SimpleNamespace(epoch_loop=loop))
    return made


def test_figures_of_other_weights_are_set_aside(tmp_path):
    "A run that trained on, and was stopped before it was measured, is not finished."
    for name in ('metrics.json', 'report.html'):
        (tmp_path/name).write_text('{}')
    made = with_network(tmp_path)
    made._keep_weights()
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ['before_metrics.json', 'before_report.html', 'weights']
    assert not made._is_finished()


def test_the_weights_of_a_finished_run_outlive_its_interrupted_extension(tmp_path, capsys):
    made = with_network(tmp_path)
    made._keep_weights()
    before = (tmp_path/'weights'/'model.safetensors').read_bytes()
    (tmp_path/'metrics.json').write_text('{}')
    torch.nn.init.ones_(made.module.model.head5.pred.weight)
    assert not made._end()
    assert (tmp_path/'weights'/'model.safetensors').read_bytes() == before
    assert (tmp_path/'weights_so_far'/'model.safetensors').read_bytes() != before
    assert 'weights_so_far' in capsys.readouterr().err


def test_best_without_validation_images_says_that_it_is_the_last(tmp_path, capsys):
    with_network(tmp_path, checkpoint='best')._keep_weights()
    assert 'chosen on validation images' in capsys.readouterr().out
    with_network(tmp_path, checkpoint='last')._keep_weights()
    assert capsys.readouterr().out == ''


def test_a_signal_with_the_last_step_ends_the_command_before_it_measures(
        tmp_path, monkeypatch, capsys):
    toy = make_toyvoc(tmp_path/'toy', n_trainval=8, n_test=2, workers=1, progress=False)
    flags = ['--size', '64', '--width', '0.0625', '--epochs', '1', '--batch', '4', '--workers', '0',
             '--anchors', 'coco', '--no-progress', '--images_every', '0', '--accelerator', 'cpu']
    argv = [*flags, '--data', toy, '--out', tmp_path/'run']
    monkeypatch.setenv('YOLOV3_RUN', '')
    with monkeypatch.context() as patch:
        patch.setattr(training.LitYOLOv3, 'on_train_epoch_end',
                      lambda self: os.kill(os.getpid(), signal.SIGINT))
        assert status_of(cli.train, argv) == 130
    said = capsys.readouterr().err
    assert 'Stopped after the last step' in said and '--resume' in said
    weights = (tmp_path/'run'/'weights'/'model.safetensors').read_bytes()
    assert not (tmp_path/'run'/'metrics.json').exists()
    cli.train(['--resume', str(tmp_path/'run')])
    assert (tmp_path/'run'/'metrics.json').exists()
    assert (tmp_path/'run'/'weights'/'model.safetensors').read_bytes() == weights


def test_the_trainer_of_a_run_writes_whole_checkpoints(tmp_path):
    trainer = learner.make_trainer(Recipe(accelerator='cpu', progress=False), tmp_path)
    assert isinstance(trainer.strategy.checkpoint_io, WholeCheckpoints)


def test_half_a_checkpoint_never_takes_the_place_of_a_whole_one(tmp_path, monkeypatch):
    file = tmp_path/'last.ckpt'
    WholeCheckpoints().save_checkpoint({'step': 1}, file)
    whole = file.read_bytes()

    def half(self, data):
        with open(self, 'wb') as f:
            f.write(data[:100])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', half)
    with pytest.raises(OSError):
        WholeCheckpoints().save_checkpoint({'step': 2}, file)
    assert file.read_bytes() == whole and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize('written, kept', [
    (b'step,loss\n1,2.5\n', b'step,loss\n1,2.5\n'),
    (b'step,loss\n1,2.5\n2,2', b'step,loss\n1,2.5\n'),
    (b'step,lo', b''), (b'', b'')])
def test_a_log_that_was_cut_within_a_line_can_be_read(tmp_path, written, kept):
    (tmp_path/'metrics.csv').write_bytes(written)
    learner.keep_log(tmp_path)
    assert (tmp_path/'metrics_000.csv').read_bytes() == kept
    assert len(learner.read_curves(tmp_path)) == kept.count(b'\n1')


def test_a_better_result_is_not_replaced_in_silence(tmp_path, capsys):
    for map50 in (.5, .4):
        metrics = dict(map50=map50, ap50={'dog': map50})
        write_result(tmp_path/'a.json', dict(metrics=metrics, data=dict(test='t'), date='',
                                             command='', commit=''))
    assert json.loads((tmp_path/'a.json').read_text())['metrics']['map50'] == .5
    assert json.loads((tmp_path/'a-1.json').read_text())['metrics']['map50'] == .4
    assert 'a.json holds a result that is better' in capsys.readouterr().out


def test_a_record_of_fewer_images_and_an_unreadable_one_stay(tmp_path, capsys):
    def written(n_test, map50):
        data = dict(test='t', n_test=n_test)
        return write_result(tmp_path/'a.json', dict(
            metrics=dict(map50=map50, ap50={'dog': map50}), data=data, date='', command='',
            commit='')).name

    assert [written(400, .5), written(8, .99), written(400, .6)] == ['a.json', 'a-1.json', 'a.json']
    assert 'on t (400 images)' in capsys.readouterr().out
    (tmp_path/'a.json').write_text('{')
    assert written(400, .7) == 'a-2.json' and (tmp_path/'a.json').read_text() == '{'


def test_a_journal_that_was_read_is_still_ours(tmp_path):
    journal = Journal(tmp_path, {'asked': 1})
    code = ('from yolov3_nb.prediction import Journal; from pathlib import Path; '
            f'Journal(Path({str(tmp_path)!r}), dict(asked=1))')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 1 and 'is being written by another process' in done.stderr
    journal.close(finished=False)


def test_who_waits_longer_or_trains_longer_has_not_ended_early():
    ended = {'Patience': {'stopped_epoch': 3, 'patience': 2, 'epochs': 9}}
    words = 'after epoch 4 of 9, as no validation brought a better loss'
    assert lost_patience(ended, 2, 9) == words
    assert not lost_patience(ended, 5, 9) and not lost_patience(ended, 2, 12)
    older = {'Patience': {'stopped_epoch': 3, 'patience': 2}}  # which does not know its epochs
    assert lost_patience(older, 2, 9, was=9) and not lost_patience(older, 2, 12, was=9)
    assert not lost_patience({'Patience': {'stopped_epoch': 0, 'patience': 2, 'epochs': 9}}, 2, 9)


@pytest.mark.parametrize('losses, words', [
    ([float('nan')], 'after epoch 1 of 9, as the loss of the validation images is not finite'),
    ([3., 4., 5.], 'after epoch 3 of 9, as 2 validations brought no better loss'),
    ([3., 2., 1.], None)])
def test_a_run_knows_when_and_why_it_ended_early(losses, words):
    patience = Patience(2, 9)
    trainer = L.Trainer(max_epochs=9, accelerator='cpu', logger=False, barebones=False,
                        enable_checkpointing=False, enable_progress_bar=False,
                        enable_model_summary=False, callbacks=[patience])
    trainer.state.fn = 'fit'
    for epoch, loss in enumerate(losses):
        trainer.fit_loop.epoch_progress.current.processed = epoch
        trainer.fit_loop.epoch_progress.current.completed = epoch
        trainer.callback_metrics['val_loss'] = torch.tensor(loss)
        patience.on_validation_end(trainer, None)
    states = {'Patience': patience.state_dict()}
    assert patience.ended == words and lost_patience(states, 2, 9) == words


def test_processes_of_a_launcher_are_refused(monkeypatch, tmp_path):
    for name, value in dict(TORCHELASTIC_RUN_ID='1', WORLD_SIZE='2', RANK='0', LOCAL_RANK='0',
                            LOCAL_WORLD_SIZE='2', GROUP_RANK='0').items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match='one of 2 processes that torchrun or Slurm started'):
        Learner(run=tmp_path/'run').prepare()
    assert not list(tmp_path.iterdir())
