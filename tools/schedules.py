"""Compare schedules of the learning rate, and weights with and without averaging.

`python tools/schedules.py` trains the same small network for the same number of steps on ToyVOC's
train split and measures it on val, never on test: once with the weights that the optimiser left and
once with their moving average, which does not influence training. The runs differ in schedule and
seed alone. results/schedules_toy.json is written after each run, so that an interrupted comparison
goes on where it was."""
import argparse
import datetime
import json
import logging
import time
import warnings
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = dict(size=96, width=0.25, batch=16, epochs=6, lr=8e-3, warmup=0.15, decay=0.3,
                weight_decay=0.05, clip=10., ema=0.998, strength=0.1, mosaic=0., anchors='coco',
                positive_iou=0.5, limit=None, precision='bf16-mixed')
FIGURES = ('map50', 'loss', 'class_acc', 'noobj_acc', 'obj_acc')
SCHEDULES = ('constant', 'one_cycle', 'wsd', 'cosine')


def train(settings, schedule, seed, module_class=None, **options):
    """One run: figures on val with plain and with averaged weights, the last loss, and CPU seconds.

    `module_class` takes the place of `LitYOLOv3`, and `options` are further arguments of it."""
    import pytorch_lightning as L
    from yolov3_nb.anchors import ANCHORS, scale_anchors
    from yolov3_nb.evaluation import evaluate
    from yolov3_nb.toyvoc import make_toyvoc
    from yolov3_nb.training import EMA, DetectionDataModule, LitYOLOv3
    start = time.process_time()
    s = settings
    L.seed_everything(seed, verbose=False)
    data = DetectionDataModule.from_voc(make_toyvoc(progress=False), test=(), limit=s['limit'],
                                        image_size=s['size'], batch_size=s['batch'],
                                        mosaic=s['mosaic'], strength=s['strength'], seed=seed,
                                        cache=True)
    anchors = scale_anchors(ANCHORS[s['anchors']], s['size']).tolist()
    make_module = module_class or LitYOLOv3
    module = make_module(20, s['width'], s['size'], anchors, lr=s['lr'], warmup=s['warmup'],
                         weight_decay=s['weight_decay'], schedule=schedule, decay=s['decay'],
                         optimizer=s.get('optimizer', 'adamw'),
                         encode_options=dict(positive_iou=s['positive_iou']), **options)
    ema = EMA(s['ema'])
    trainer = L.Trainer(max_epochs=s['epochs'], gradient_clip_val=s['clip'], callbacks=[ema],
                        accelerator='cpu', precision=s['precision'], logger=False,
                        limit_val_batches=0, enable_checkpointing=False, enable_progress_bar=False,
                        enable_model_summary=False, use_distributed_sampler=False)
    trainer.fit(module, datamodule=data)
    found = {}
    for name in ('averaged', 'plain'):  # at its end, the module holds the average
        figures = evaluate(module.model.eval(), data.val_ds, batch_size=32, progress=False)
        found[name] = {k: figures[k] for k in FIGURES}
        ema.take_back(module)
    losses = trainer.callback_metrics
    found['train_loss'] = float(sum(losses[k] for k in ('box', 'obj', 'noobj', 'class')))
    found['cpu_seconds'] = round(time.process_time() - start, 1)
    return found

def record(out, command, settings, runs):
    "What is written: how and where it was measured, and the runs."
    from yolov3_nb.networks import device_name, processor_name
    from yolov3_nb.runs import commit_used, versions_used
    return dict(name=out.stem, command=command, commit=commit_used(),
                date=datetime.date.today().isoformat(), device=device_name('cpu'),
                processor=processor_name(), versions=versions_used(), settings=settings, runs=runs)

def compare(out, command, kind, names, seeds, settings, run):
    """Make the runs that `out` does not hold yet, and write it after each.

    A run is `run(name, seed)`; its name stands under the key `kind`."""
    from yolov3_nb.files import write_json
    logging.getLogger('pytorch_lightning').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore')
    result = json.loads(out.read_text(encoding='utf-8')) if out.exists() else dict(runs=[])
    if result['runs'] and result['settings'] != settings:
        raise SystemExit(f'{out} was measured with other settings: give another --out.')
    for seed in seeds:
        for name in names:
            if any((r[kind], r['seed']) == (name, seed) for r in result['runs']):
                continue
            found = run(name, seed)
            runs = [*result['runs'], {kind: name, 'seed': seed, **found}]
            result = record(out, command, settings, runs)
            write_json(out, result)
            plain = found['plain']['map50']
            averaged = found['averaged']['map50']
            print(f'{name} {seed}: mAP {plain:.3f}, averaged {averaged:.3f}, '
                  f"{found['cpu_seconds']} s", flush=True)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, metavar='FILE',
                        default=ROOT/'results'/'schedules_toy.json')
    parser.add_argument('--seeds', default='0,1,2', help='with commas between (default: 0,1,2)')
    for name, default in SETTINGS.items():
        kind = int if default is None else type(default)
        parser.add_argument(f'--{name}', type=kind, default=default, help=f'(default: {default})')
    args = vars(parser.parse_args())
    out = args.pop('out')
    seeds = [int(n) for n in args.pop('seeds').split(',')]
    compare(out, 'python tools/schedules.py', 'schedule', SCHEDULES, seeds, args,
            partial(train, args))
