"What short runs can prove of chapter 08: averages, decay, warm-up, resumed schedules."
import copy
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import pytorch_lightning as L
import torch

from yolov3_nb.data import InputError
from yolov3_nb.training import (
    EMA,
    SCHEDULES,
    DetectionDataModule,
    LitYOLOv3,
    Milestones,
    PredictionImages,
    VOCDataModule,
    checkpoints,
    decay_groups,
    final_model,
    make_schedule,
)

SIZE = 64


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def items(n=12, seed=0):
    "Random images with one box each, as a list: the plainest data set there is."
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 48, SIZE, 3), dtype=np.uint8)
    corners = rng.integers(0, 20, (n, 2))
    return [(image, {'boxes': [[x, y, x + 24, y + 24]], 'labels': [i % 2]})
            for i, (image, (x, y)) in enumerate(zip(images, corners))]


def data_module(**more):
    return DetectionDataModule(items(), items(4, seed=1), classes=('cat', 'dog'), image_size=SIZE,
                               batch_size=4, strength=0.3, **more)


def fit(*callbacks, epochs=2, ckpt=None, module=None, data=None, seed=0, **options):
    "A run of three steps an epoch; gives the trainer and the module."
    torch.manual_seed(seed)
    module = module or LitYOLOv3(2, 0.0625, SIZE, class_names=['cat', 'dog'], **options)
    saves = any(isinstance(c, L.callbacks.Checkpoint) for c in callbacks)
    trainer = L.Trainer(max_epochs=epochs, callbacks=list(callbacks), accelerator='cpu',
                        gradient_clip_val=10., logger=False, enable_checkpointing=saves,
                        enable_progress_bar=False, enable_model_summary=False,
                        num_sanity_val_steps=0, use_distributed_sampler=False)
    trainer.fit(module, datamodule=data or data_module(), ckpt_path=ckpt, weights_only=True)
    return trainer, module


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def read(file):
    return torch.load(file, weights_only=True)


# ---- the moving average -------------------------------------------------------------------------

def test_a_finished_run_that_is_resumed_ends_with_the_average(tmp_path):
    _, first = fit(EMA(.5), *checkpoints(tmp_path))
    kept = read(tmp_path/'last.ckpt')
    assert same(first.state_dict(), kept['state_dict'])
    assert not same(kept['state_dict'], kept['current_model_state'])
    _, again = fit(EMA(.5), *checkpoints(tmp_path), ckpt=tmp_path/'last.ckpt', seed=1)
    assert same(again.state_dict(), first.state_dict())


def test_a_checkpoint_after_the_end_holds_average_and_weights(tmp_path):
    trainer, module = fit(EMA(.5), *checkpoints(tmp_path), schedule='constant')
    trainer.save_checkpoint(tmp_path/'after.ckpt')
    last, after = read(tmp_path/'last.ckpt'), read(tmp_path/'after.ckpt')
    for part in ('state_dict', 'current_model_state', 'averaging_state'):
        assert same(last[part], after[part]), part
    _, once = fit(EMA(.5), epochs=3, ckpt=tmp_path/'last.ckpt', schedule='constant')
    _, again = fit(EMA(.5), epochs=3, ckpt=tmp_path/'after.ckpt', schedule='constant', seed=1)
    assert same(once.state_dict(), again.state_dict())


def test_evaluation_after_the_end_measures_the_average():
    ema = EMA(.5)
    trainer, module = fit(ema)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    figures = trainer.validate(module, data_module(), verbose=False)[0]
    assert same(before, module.state_dict())
    plain = LitYOLOv3(2, 0.0625, SIZE)
    plain.load_state_dict(module.state_dict())
    fresh = L.Trainer(accelerator='cpu', logger=False, enable_progress_bar=False)
    assert fresh.validate(plain, data_module(), verbose=False)[0] == pytest.approx(figures)


def test_a_broken_validation_gives_the_weights_back():
    class Broken(LitYOLOv3):
        def on_train_batch_end(self, *_):
            self.left = {k: v.clone() for k, v in self.state_dict().items()}
        def validation_step(self, batch, batch_idx):
            raise RuntimeError('broken off')
    module = Broken(2, 0.0625, SIZE)
    ema = EMA(.5)
    with pytest.raises(RuntimeError, match='broken off'):
        fit(ema, module=module)
    assert same(module.state_dict(), module.left) and not ema.lent


def test_final_model_is_the_average_before_and_after_the_end():
    class Watch(L.Callback):
        def on_train_epoch_end(self, trainer, module):
            self.seen = copy.deepcopy(final_model(trainer, module).state_dict())
            self.plain = copy.deepcopy(module.model.state_dict())
    watch = Watch()
    trainer, module = fit(EMA(.5), watch)
    assert not same(watch.plain, watch.seen)
    assert final_model(trainer, module) is module.model


@pytest.mark.parametrize('every', [1, 3])
def test_the_average_is_the_one_computed_by_hand(every):
    class ByHand(L.Callback):
        updates = 0
        def on_train_batch_end(self, trainer, module, *_):
            if trainer.global_step % every:
                return
            bias = module.model.head5.pred.bias.detach()
            keep = min(.8**every, (1 + self.updates) / (10 + self.updates))
            self.average = self.average.lerp(bias, 1 - keep) if self.updates else bias.clone()
            self.updates += 1
    hand = ByHand()
    _, module = fit(hand, EMA(.8, every), epochs=20)
    assert hand.updates == 60 // every
    assert (1 + hand.updates) / (10 + hand.updates) > .8**every  # the warm-up is over
    torch.testing.assert_close(module.model.head5.pred.bias.detach(), hand.average)


# ---- optimiser and schedule ---------------------------------------------------------------------

def test_decay_shrinks_kernels_and_nothing_else():
    model = LitYOLOv3(2, 0.0625, SIZE).model
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    optimizer = torch.optim.AdamW(decay_groups(model, .5), lr=.1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        kernel = p.ndim == 4
        torch.testing.assert_close(p.detach(), before[name] * (.95 if kernel else 1.), msg=name)


class Rates(L.Callback):
    "The rate with which each step is made."
    def __init__(self):
        self.seen = []
    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.seen.append(optimizer.param_groups[0]['lr'])


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('warmup', [.25, .5])
def test_the_climb_takes_its_share_of_the_steps(schedule, warmup):
    rates = Rates()
    fit(rates, epochs=4, schedule=schedule, warmup=warmup, lr=1e-3, decay=.25)
    assert len(rates.seen) == 12
    peak = int(12 * warmup) - 1
    assert rates.seen[:peak + 1] == sorted(set(rates.seen[:peak + 1]))
    assert rates.seen[peak] == pytest.approx(1e-3) and max(rates.seen) == pytest.approx(1e-3)
    assert rates.seen[-1] < 1e-3 if schedule != 'constant' else rates.seen[-1] == 1e-3


def test_a_schedule_that_is_not_known_is_a_sentence():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.)
    with pytest.raises(InputError, match="^schedule='two_cycle' is not known: take one_cycle, wsd"):
        make_schedule(optimizer, 'two_cycle', 1., 10, .1)


def test_wsd_with_the_same_epochs_goes_on_to_the_bit(tmp_path):
    options = dict(schedule='wsd', decay=.5)
    _, whole = fit(EMA(.5), epochs=4, **options)
    fit(EMA(.5), Milestones(tmp_path, (8,)), epochs=4, **options)  # after two steps of three
    branch = tmp_path/'images_0000008'/'last.ckpt'
    assert read(branch)['global_step'] == 2
    _, resumed = fit(EMA(.5), epochs=4, ckpt=branch, seed=1, **options)
    assert same(whole.state_dict(), resumed.state_dict())


def test_wsd_with_fewer_epochs_decays_from_the_branch(tmp_path):
    options = dict(schedule='wsd', decay=.5, warmup=.1, lr=1e-3)
    whole = Rates()
    fit(whole, Milestones(tmp_path, (32,)), epochs=8, **options)  # 8 of 24 steps
    short = Rates()
    branch = tmp_path/'images_0000032'/'last.ckpt'
    fit(short, epochs=5, ckpt=branch, **options)
    assert len(short.seen) == 15 - 8
    assert whole.seen[8:12] == [1e-3] * 4  # the long run stays up there
    assert short.seen == sorted(set(short.seen), reverse=True)
    assert short.seen[-1] == pytest.approx(1e-3 * (1 - math.sqrt(6.5 / 7.5)))


@pytest.mark.parametrize('schedule', ['one_cycle', 'cosine'])
@pytest.mark.parametrize('epochs', [2, 5])
def test_a_schedule_of_fixed_length_refuses_another_in_one_sentence(tmp_path, schedule, epochs):
    fit(Milestones(tmp_path, (8,)), epochs=4, schedule=schedule)
    with pytest.raises(InputError) as e:
        fit(epochs=epochs, ckpt=tmp_path/'images_0000008'/'last.ckpt', schedule=schedule)
    said = str(e.value)
    assert f'{schedule} of this run was built for 12 steps and cannot end after' in said
    assert '\n' not in said and said.count('. ') == 0


# ---- what lies beside ---------------------------------------------------------------------------

def test_the_place_in_the_data_is_found_under_the_older_name(tmp_path):
    fit(Milestones(tmp_path, (8,)))
    file = tmp_path/'images_0000008'/'last.ckpt'
    checkpoint = read(file)
    checkpoint['VOCDataModule'] = checkpoint.pop('DetectionDataModule')
    torch.save(checkpoint, tmp_path/'old.ckpt')
    data = data_module()
    positions = []
    data.load_state_dict = positions.append
    fit(ckpt=tmp_path/'old.ckpt', data=data)
    assert positions == [dict(epoch=0, batches=2)]
    assert issubclass(VOCDataModule, DetectionDataModule)


def test_a_milestone_holds_the_average(tmp_path):
    trainer, module = fit(EMA(.5), Milestones(tmp_path, (24, 10**6)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ['images_0000024']
    kept = type(module.model).from_pretrained(tmp_path/'images_0000024'/'weights')
    for name, value in module.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(kept.state_dict()[name], value, rtol=1e-3, atol=1e-5,
                                       msg=name)


def test_drawing_predictions_leaves_every_mode(tmp_path):
    data = data_module()
    data.setup()
    model = LitYOLOv3(2, 0.0625, SIZE, class_names=['cat', 'dog']).model.train()
    model.backbone.eval()
    before = [m.training for m in model.modules()]
    sheet = PredictionImages(tmp_path, n=2).sheet(model, data.watched)
    assert sheet.shape == (SIZE, 4 * SIZE, 3)
    assert [m.training for m in model.modules()] == before


WORKERS = '''
import os, signal, torch
from torch.utils.data import DataLoader
from yolov3_nb.durable import start_worker
data = DataLoader(torch.arange(99), num_workers=2, worker_init_fn=start_worker)
loader = iter(data)
next(loader), next(loader)
print(*[w.pid for w in loader._workers], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
'''


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f'/proc/{pid}/stat') as f:  # a zombie waits for its new parent, and runs no more
            return f.read().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='Windows has no SIGKILL')
def test_workers_end_with_a_parent_that_was_killed():
    run = subprocess.Popen([sys.executable, '-c', WORKERS], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in run.stdout.readline().split()]
    assert run.wait(timeout=60) == -signal.SIGKILL and len(pids) == 2
    start = time.monotonic()
    while any(map(alive, pids)) and time.monotonic() - start < 3:  # torch's own watch takes up to 5
        time.sleep(.02)
    assert not any(map(alive, pids))


# the optimiser that steps along the directions of a kernel

def test_muon_and_adamw_share_the_parameters_of_a_frozen_network_too():
    module = LitYOLOv3(20, .0625, 64, optimizer='muon')
    for name, p in module.model.named_parameters():
        p.requires_grad = '.pred.' in name
    optimizer = module.make_optimizer()
    sizes = [len(group['params']) for group in optimizer.param_groups]
    assert sizes == [3, 3, 0]  # three kernels of predictions, three biases, and nothing between
    for group in optimizer.param_groups:
        for p in group['params']:
            p.grad = torch.ones_like(p)
    optimizer.step()

def test_muon_moves_each_kernel_by_the_length_that_it_promises():
    module = LitYOLOv3(20, .0625, 64, optimizer='muon', lr=.01, weight_decay=0.)
    optimizer = module.make_optimizer()
    kernels = optimizer.param_groups[2]['params']
    before = [p.detach().clone() for p in kernels]
    for p in module.parameters():
        p.grad = torch.randn_like(p) * 1e3  # whatever the size of the gradient
    optimizer.step()
    for old, new in zip(before, kernels):
        step = (new.detach() - old).flatten(1)
        values = torch.linalg.svdvals(step) / (.01 * .2 * max(step.shape) ** .5)
        assert values.min() > .3 and values.max() < 1.5, step.shape

def test_muon_makes_no_step_along_a_gradient_that_a_scaler_refuses():
    module = LitYOLOv3(20, .0625, 64, optimizer='muon')
    optimizer = module.make_optimizer('32-true')
    scaler = torch.amp.GradScaler('cpu')
    scaler.scale(torch.zeros(1))  # which makes its factor
    before = [p.detach().clone() for p in module.parameters()]
    for p in module.parameters():
        p.grad = torch.full_like(p, torch.inf)
    scaler.step(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters()))

def test_an_optimiser_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="optimizer='sgd' is not known: take adamw or muon"):
        LitYOLOv3(20, .0625, 64, optimizer='sgd').make_optimizer()
