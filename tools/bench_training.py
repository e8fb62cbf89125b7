"""Time the first steps of a recipe: `python tools/bench_training.py --preset voc --data DIR
[--batch 2] [--steps 200] [--results NAME]`.

The run is that of `yolov3_train`, its schedule as long as the recipe says, and ends after so many
steps. Reported are the median step, pictures a second, the share of the step that waited for
pictures, and the rate of arithmetic as a share of what this device reaches in one large product of
matrices, in the same precision and within the same run."""
import argparse
import datetime
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
import torch
import pytorch_lightning as L

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from yolov3_nb.files import write_json  # noqa: E402
from yolov3_nb.learner import make_data, make_module, make_trainer  # noqa: E402
from yolov3_nb.networks import device_name, processor_name  # noqa: E402
from yolov3_nb.recipe import PRESETS  # noqa: E402
from yolov3_nb.runs import commit_used, versions_used  # noqa: E402
from yolov3_nb.model import count_parameters, layer_table  # noqa: E402

class Clock(L.Callback):
    """When steps began, when their pictures had come, and what they lost; stops the run after
    `steps`"""
    def __init__(self, steps):
        self.steps = steps
        self.begun = []
        self.ended = []
        self.losses = []
    def now(self):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.begun.append(self.now())
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.ended.append(self.now())
        self.losses.append(float(outputs['loss']))
        trainer.should_stop = trainer.should_stop or len(self.ended) >= self.steps

def matmul_rate(device, dtype, n):
    "Operations a second in a product of two (n, n) matrices: the best of ten"
    a = torch.rand(n, n, device=device, dtype=dtype)
    def once():
        if device.type == 'cuda':
            torch.cuda.synchronize()
        start = time.perf_counter()
        a @ a
        if device.type == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - start
    return 2 * n**3 / min(once() for _ in range(10))

def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--preset', choices=PRESETS, default='voc')
    p.add_argument('--data', help='folder that holds VOCdevkit; ToyVOC unless given')
    p.add_argument('--steps', type=int, default=200)
    p.add_argument('--results', default='bench_training', help='written to results/NAME.json')
    for name, kind in (('batch', int), ('width', float), ('size', int), ('workers', int),
                       ('limit', int), ('precision', str)):
        p.add_argument(f'--{name}', type=kind, default=argparse.SUPPRESS)
    a, start = vars(p.parse_args()), time.time()
    preset, steps, name = a.pop('preset'), a.pop('steps'), a.pop('results')
    recipe = replace(PRESETS[preset], **dict(test='', val='', cache=False, progress=False,
                                             train_every=0, images_every=0, compile=False) | a)
    clock = Clock(steps)
    with tempfile.TemporaryDirectory() as folder:
        L.seed_everything(recipe.seed, workers=True, verbose=False)
        dm = make_data(recipe)
        module, trainer = make_module(recipe, dm), make_trainer(recipe, Path(folder))
        trainer.callbacks = [clock] + [c for c in trainer.callbacks
                                       if not isinstance(c, L.callbacks.ModelCheckpoint)]
        trainer.fit(module, datamodule=dm)
    if len(clock.ended) < steps:
        sys.exit(f'Only {len(clock.ended)} of {steps} steps were made: give more pictures, or '
                 f'fewer --steps.')
    # from the end of a step to the end of the next
    seconds = [b - a for a, b in zip(clock.ended, clock.ended[1:])]
    waited = [b - a for a, b in zip(clock.ended, clock.begun[1:])]
    step, on_gpu = statistics.median(seconds), module.device.type == 'cuda'
    bf16 = trainer.precision == 'bf16-mixed'
    # backward: one product for inputs, one for weights
    work = 3 * int(layer_table(module.model.cpu(), recipe.size).flops.sum()) * recipe.batch
    peak = matmul_rate(torch.device('cuda' if on_gpu else 'cpu'),
                       torch.bfloat16 if bf16 else torch.float32, 8192 if on_gpu else 2048)
    write_json(ROOT/'results'/f'{name}.json',
               dict(name=name,
                    command=shlex.join(['python', 'tools/bench_training.py',
                                        *sys.argv[1:]]).replace(str(recipe.data), 'DIR'),
                    seed=recipe.seed, commit=commit_used(), date=datetime.date.today().isoformat(),
                    versions=versions_used(), device=device_name('cuda' if on_gpu else 'cpu'),
                    processor=processor_name(),
                    precision=trainer.precision, threads=torch.get_num_threads(),
                    minutes=round((time.time() - start) / 60, 2), steps=steps, batch=recipe.batch,
                    model=dict(width=recipe.width, image_size=recipe.size,
                               parameters=count_parameters(module.model)),
                    median_step_s=round(step, 4), fastest_step_s=round(min(seconds), 4),
                    pictures_per_s=round(recipe.batch / step, 2),
                    waited_share=round(sum(waited) / sum(seconds), 4), operations_per_step=work,
                    operations_per_s=round(work / step), matmul_per_s=round(peak),
                    share_of_matmul=round(work / step / peak, 3),
                    loss_first=round(statistics.fmean(clock.losses[:10]), 3),
                    loss_last=round(statistics.fmean(clock.losses[-10:]), 3)))
    print(f"{steps} steps of {recipe.batch}: {step:.3f} s each, {recipe.batch / step:.2f} pictures "
          f"a second, {100 * work / step / peak:.0f} % of a matrix product's rate.")

if __name__ == '__main__':
    main()
