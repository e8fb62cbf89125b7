"Two processes on one machine evaluate and train as one does."
import json
import os
import random
import subprocess
import sys

import pytest
import torch

from yolov3_nb.data import InputError
from yolov3_nb.durable import images_after
from yolov3_nb.training import GridAccuracies, OriginalLoss, deal_batches

ONE_THREAD = os.environ | {'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}

SCRIPT = '''
import json, logging, os, sys, warnings
from pathlib import Path
import torch
import pytorch_lightning as L
from yolov3_nb.augment import collate
from yolov3_nb.toyvoc import make_toyvoc
from yolov3_nb.training import EpochSampler, LitYOLOv3, VOCDataModule

torch.set_num_threads(1)
warnings.simplefilter('ignore')
logging.getLogger('pytorch_lightning').setLevel(logging.ERROR)
root = make_toyvoc('toy', n_trainval=46, n_test=4, workers=1, progress=False)
quiet = dict(accelerator='cpu', logger=False, enable_checkpointing=False,
             enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False)

class Watch(L.Callback):
    "Freezes batch norms, and notes each batch: the loss, and which pictures"
    def __init__(self, name):
        self.name = name
    def note(self, trainer, **what):
        with open(f'{self.name}.{trainer.global_rank}', 'a') as f:
            print(json.dumps(what), file=f)
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        for m in module.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.eval()
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        # Lightning has divided the loss by the accumulated batches
        self.note(trainer, loss=outputs['loss'].item() * trainer.accumulate_grad_batches)
    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.note(trainer, ids=[t['image_id'] for t in batch[1]])

def both(name, **kwargs):
    torch.manual_seed(0)
    dm = VOCDataModule(root, image_size=64, batch_size=4, mosaic=0., strength=0.3)
    trainer = L.Trainer(max_epochs=1, limit_val_batches=None, callbacks=[Watch(name)], **quiet,
                        **kwargs)
    return LitYOLOv3(20, 0.0625, 64), dm, trainer

two = dict(devices=2, strategy='ddp_fork')
for name, kwargs in (('one', {}), ('two', two)):
    lit, dm, trainer = both(f'val_{name}', **kwargs)
    figures = trainer.validate(lit, dm, verbose=False)[0]
    Path(f'{name}.json').write_text(json.dumps(figures))

def train(name, data, **kwargs):
    lit, dm, trainer = both(name, limit_train_batches=None, num_sanity_val_steps=0,
                            gradient_clip_val=10., **kwargs)
    dm.val_dataloader = lambda: []
    if data is None:
        trainer.fit(lit, datamodule=dm)
    else:
        trainer.fit(lit, train_dataloaders=data)
    torch.save(lit.state_dict(), f'{name}.pt')

dm = both('x')[1]
dm.setup()
loaders = []
for rank in (0, 1):
    sampler = EpochSampler(dm.train_set, 2, rank, seed=0, drop_last=True)
    loaders.append(torch.utils.data.DataLoader(dm.train_set, 4, sampler=sampler,
                                               collate_fn=collate, drop_last=True))
turns = [batch for pair in zip(*loaders) for batch in pair]  # what the two processes see, in turn
train('train_one', torch.utils.data.DataLoader(turns, batch_size=None), accumulate_grad_batches=2)
train('train_two', None, **two)
'''

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ddp')
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=folder, capture_output=True,
                          text=True, timeout=300, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder

def notes(folder, name, rank, key):
    lines = (folder/f'{name}.{rank}').read_text().splitlines()
    return [json.loads(line)[key] for line in lines]

def test_evaluation_of_the_same_weights_is_the_same(folder):
    one, two = (json.loads((folder/f'{name}.json').read_text()) for name in ('one', 'two'))
    assert set(one) == {'val_class_acc', 'val_noobj_acc', 'val_obj_acc', 'val_loss'}
    assert one == pytest.approx(two, rel=1e-4)

def test_no_image_is_evaluated_twice(folder):
    seen = []
    for name, rank in (('val_one', 0), ('val_two', 0), ('val_two', 1)):
        seen.append([i for ids in notes(folder, name, rank, 'ids') for i in ids])
    one, first, second = seen
    assert len(one) % 2 and first and second  # an odd number, so the shares differ
    assert sorted(one) == sorted(first + second) and len(set(one)) == len(one)

def test_training_losses_are_the_same_with_frozen_batch_norms(folder):
    one = notes(folder, 'train_one', 0, 'loss')
    two = zip(notes(folder, 'train_two', 0, 'loss'), notes(folder, 'train_two', 1, 'loss'))
    assert len(one) >= 8
    assert one == pytest.approx([loss for pair in two for loss in pair], rel=1e-4)
    a, b = (torch.load(folder/f'train_{n}.pt', weights_only=True) for n in ('one', 'two'))
    assert all(torch.allclose(a[k], b[k], atol=1e-4) for k in a)

def test_fewer_images_than_devices_is_a_sentence():
    for n, world in ((3, 4), (4, 5), (1, 9)):
        for rank in range(world):
            with pytest.raises(InputError, match=f'^{n} images cannot be shared out among {world}'):
                deal_batches(n, 16, world, rank)

def test_metrics_hold_no_float64_where_the_gpu_knows_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    metrics = GridAccuracies(), OriginalLoss()
    states = [state for metric in metrics for state in metric.metric_state.values()]
    assert len(states) == 3
    assert all(state.dtype in (torch.float32, torch.int64) for state in states)

def test_the_command_on_two_devices_writes_one_run(folder):
    flags = ['--data', 'toy', '--size', '64', '--width', '0.0625', '--epochs', '1', '--batch', '4',
             '--workers', '0', '--val_every', '1', '--no-progress', '--precision', '32-true',
             '--out', 'run', '--accelerator', 'cpu', '--devices', '2', '--strategy', 'ddp']
    done = subprocess.run(['yolov3_train', *flags], cwd=folder, capture_output=True, text=True,
                          timeout=300, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((folder/'run'/'metrics.json').read_text())['metrics']
    assert figures['noobj_acc'] > 0
    assert done.stdout.count('EPOCH: 0') == 1 and not list(folder.glob('run*/run*'))

LEARNER = '''
from yolov3_nb import DetectionDataModule, Learner, Recipe, make_toyvoc
data = DetectionDataModule.from_voc(make_toyvoc(), image_size=64, batch_size=4, limit=16)
recipe = Recipe(size=64, width=.0625, epochs=1, batch=4, workers=0, progress=False,
                precision='32-true', accelerator='cpu', devices=2, strategy='ddp')
learner = Learner(data, recipe)
learner.fit()
print('measured', learner.evaluate('val')['noobj_acc'] > 0, learner.run)
'''

def test_a_script_on_two_devices_makes_one_run_and_goes_on_once(tmp_path):
    (tmp_path/'script.py').write_text(LEARNER)
    done = subprocess.run([sys.executable, 'script.py'], cwd=tmp_path, capture_output=True,
                          text=True, timeout=300, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('measured True runs/run-1') == done.stdout.count('measured') == 1
    assert [folder.name for folder in (tmp_path/'runs').iterdir()] == ['run-1']

def seen_by_a_loop(steps, n, batch, accumulate, world):
    "Images that so many steps used, batch by batch."
    share = n // world
    sizes = [batch] * (share // batch) or [share]
    seen, waiting, done = 0, 0, 0
    while done < steps:
        for i, size in enumerate(sizes, 1):
            waiting += size * world
            if i % accumulate == 0 or i == len(sizes):
                done, seen, waiting = done + 1, seen + waiting, 0
            if done == steps:
                break
    return seen

def test_images_seen_are_those_of_the_batches():
    rng = random.Random(0)
    for _ in range(500):
        world = rng.randrange(1, 4)
        case = rng.randrange(world, 60), rng.randrange(1, 20), rng.randrange(1, 5), world
        steps = rng.randrange(30)
        assert images_after(steps, *case) == seen_by_a_loop(steps, *case), (steps, *case)
