"A run that was stopped, at whatever step and by whatever means, and resumed ends with the very weights of a run that nobody stopped."
import json, os, random, subprocess, sys
from pathlib import Path
import pytest
import torch

# Forks a process a run, so that the imports are paid for once. A run kills itself, after a given step, with a signal that nothing can catch.
SCRIPT = '''
import json, os, resource, signal, sys, time, traceback
from pathlib import Path
import torch
from yolov3_nb import cli, evaluation, training
from yolov3_nb.learner import Learner
from yolov3_nb.toyvoc import make_toyvoc

torch.set_num_threads(1)
flags = ['--size', '64', '--width', '0.0625', '--epochs', '3', '--batch', '4', '--workers', '1', '--val_every', '1', '--no-progress']
flags += ['--precision', '32-true', '--accelerator', 'cpu', '--data', str(make_toyvoc('toy', n_trainval=20, n_test=4, workers=1, progress=False))]

def finish(self): # what follows the training is not what may be lost here
    (self.run/'spent').write_text(str(time.time() - self.start))
    sys.exit(0)
Learner.keep_weights = finish

def older(file): # as if it had trained an hour longer
    checkpoint = torch.load(file, weights_only=True)
    checkpoint['callbacks']['Interruptible']['seconds'] += 3600
    torch.save(checkpoint, file)

def run(*argv, die_at=None, by=signal.SIGKILL, minutes=10., full=False):
    "Exit status of the command, as the shell would see it"
    pid = os.fork()
    if pid: return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        os.setpgrp()
        init = training.Interruptible.__init__
        training.Interruptible.__init__ = lambda self, folder, seconds: init(self, folder, 0. if by == 'time' else seconds, minutes)
        if full: resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))  # no file may grow larger: a full disk, as far as a process can tell
        if die_at:
            def on_train_batch_end(self, outputs, batch, batch_idx):
                if self.global_step == die_at: os.kill(os.getpid(), by) if by == signal.SIGKILL else os.killpg(os.getpgrp(), by)  # what asks reaches the data workers, too
            training.LitYOLOv3.on_train_batch_end = on_train_batch_end
        with open(f'{argv[-1]}.log', 'a') as log: os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
        cli.train(list(argv))
    except SystemExit as e: code = e.code or 0
    except BaseException: traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)

codes = {'whole': [run(*flags, '--out', 'whole')]}
for step in map(int, sys.argv[1:]):  # one of them saves after each step, the others after each epoch
    name = f'killed{step}'
    codes[name] = [run(*flags, '--out', name, die_at=step, minutes=0. if step == int(sys.argv[1]) else 10.), run('--resume', name)]
for name, step, by in (('stopped', 6, signal.SIGINT), ('terminated', 10, signal.SIGTERM)):
    codes[name] = [run(*flags, '--out', name, die_at=step, by=by), run('--resume', name)]
codes['late'] = [run(*flags, '--out', 'late', by='time'), older('late/last.ckpt') or run('--resume', 'late')]
codes['full'] = [run(*flags, '--out', 'full', full=True), run('--resume', 'full')]
print(json.dumps(codes))
'''
STEPS = random.sample(range(1, 12), 3)  # of 12, four an epoch

@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    done = subprocess.run([sys.executable, '-c', SCRIPT, *map(str, STEPS)], cwd=folder, capture_output=True, text=True, timeout=600,
                          env=os.environ | {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads(done.stdout.splitlines()[-1])

def state(run): return torch.load(Path(run)/'last.ckpt', weights_only=True)

def same(a, b, where):
    "Bitwise, through dicts and lists"
    if isinstance(a, torch.Tensor): assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for k in a: same(a[k], b[k], f'{where}.{k}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)): same(x, y, f'{where}[{i}]')
    else: assert a == b, where

@pytest.mark.parametrize('name', [*(f'killed{step}' for step in STEPS), 'stopped', 'terminated', 'late', 'full'])
def test_resumed_is_bitwise_the_uninterrupted_run(runs, name):
    folder, codes = runs
    first = -9 if name.startswith('killed') else 2 if name == 'full' else 1
    assert codes['whole'] == [0] and codes[name] == [first, 0], (codes, (folder/f'{name}.log').read_text()[-2000:])
    whole, resumed = state(folder/'whole'), state(folder/name)
    for part in ('state_dict', 'current_model_state', 'averaging_state', 'optimizer_states', 'lr_schedulers', 'global_step', 'epoch'):
        same(whole[part], resumed[part], part)  # the averages, the weights under them, and all that the optimiser remembers

@pytest.mark.parametrize('name, says', [('stopped', 'Stopped in epoch 1, at step 7.'), ('terminated', 'Stopped in epoch 2, at step 11.'),
                                        ('late', 'Stopped in epoch 0, at step 1.'), ('full', 'full takes no more (File too large): make room.')])
def test_a_run_that_stops_says_where_and_how_to_go_on(runs, name, says):
    log = (runs[0]/f'{name}.log').read_text()
    assert says in log and f'yolov3_train --resume {name}' in log and 'Traceback' not in log, log[-2000:]

def test_each_epoch_is_in_the_log_once(runs):
    for name in ('stopped', 'terminated', 'late'):
        log = (runs[0]/f'{name}.log').read_text()
        assert [log.count(f'EPOCH: {epoch}, Loss: ') for epoch in range(3)] == [1, 1, 1], log

def test_the_time_of_a_run_is_that_of_all_its_pieces(runs):
    spent = {name: float((runs[0]/name/'spent').read_text()) for name in ('stopped', 'late')}
    assert spent['stopped'] < 3600 < spent['late']
