"A run that was stopped and resumed ends with the very weights of a run that nobody stopped."
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
         '--data', str(toy)]

keep_weights = Learner._keep_weights

def finish(self): # what follows the whole training is not what may be lost here
    if self.stopped: # time is up: what there is is measured
        return keep_weights(self)
    (self.run/'spent').write_text(str(time.time() - self.start))
    sys.exit(0)
Learner._keep_weights = finish

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


def test_each_epoch_is_in_the_log_once(runs):
    for name in ('stopped', 'terminated', 'late'):
        log = (runs[0]/f'{name}.log').read_text()
        assert [log.count(f'EPOCH: {epoch}, Loss: ') for epoch in range(3)] == [1, 1, 1], log


def test_the_time_of_a_run_is_that_of_all_its_pieces(runs):
    spent = {name: float((runs[0]/name/'spent').read_text()) for name in ('stopped', 'late')}
    assert spent['stopped'] < 3600 < spent['late']
