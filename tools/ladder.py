"""Measure a recipe step by step: `python tools/ladder.py toy|voc [--data DIR] [--seeds 0,1,2]`.

Each rung of a ladder changes one thing of the recipe that has been kept so far. On the ladder `toy`
a rung is kept if it wins: if its mean mAP over the seeds is higher than that of the recipe before
it. On the ladder `voc` every rung is kept but those marked "aside". All are trained on train for
the same few epochs, and measured on val, never on test. What is measured goes to
results/ladder_NAME.json, or --out, after every run, so an interrupted ladder goes on where it was:
a rung that has been measured is not run again, and a file that was measured with other settings is
left alone."""
import argparse
import datetime
import json
import os
import shlex
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ('map50', 'class_acc', 'noobj_acc', 'obj_acc', 'loss')
ORIGINAL = dict(loss='original', anchors='coco', mosaic=.67, strength=1., ema=0., test='',
                val_every=100, train_every=0, images_every=0)

FIRST = ('the original: its loss, COCO anchors, mosaic at 0.67', {})
LOSS = ('loss: sums over cells, CIoU, λ chosen on val', dict(loss='yolo'))
MILD = ('milder augmentation, no mosaic', dict(strength=.3, mosaic=0.))
EMA = ('moving average of the weights', dict(ema=.998))

# name: settings of the first rung, whether a rung is kept only if it wins, the rungs
LADDERS = {
    'toy': (ORIGINAL | dict(epochs=6, size=96, optimizer='adamw', lr=4e-3, workers=0), True, [
        FIRST,
        LOSS,
        ('anchors by k-means on these boxes', dict(anchors='toyvoc')),
        MILD,
        EMA,
        ('all anchors that fit, not the best alone', dict(positive_iou=.5)),
        ('Muon, not AdamW', dict(optimizer='muon')),
        ('twice the learning rate', dict(lr=8e-3)),
        ('hardly any augmentation', dict(strength=.1)),
        ('λ of objectness 1.2, not 1.4', dict(lambdas='obj=1.2')),
        ('batches without their empty margins', dict(rect=True))]),
    'voc': (ORIGINAL | dict(epochs=4, size=128), False, [
        FIRST,
        LOSS,
        ('anchors of these boxes', dict(anchors='auto')),
        MILD,
        EMA,
        ('aside: inputs that grow', dict(grow=.8))])}


def rungs(name, file, seeds, **more):
    """(name, what it changes, all settings) of each rung, on the changes before it that were kept.

    What is kept may hang on what the rung reached: the file is read after each rung."""
    from yolov3_nb.recipe import Recipe
    base, only_if_it_wins, steps = LADDERS[name]
    s = asdict(Recipe()) | base | more
    for title, change in steps:
        yield title, change, s | change
        if not change or title.startswith('aside'):
            continue
        if not only_if_it_wins or mean_map(file, s | change, seeds) > mean_map(file, s, seeds):
            s = s | change


def mean_map(file, s, seeds):
    "Mean mAP of a rung over these seeds; `SystemExit` where one of them has not been measured."
    row = find(file, s)
    missing = [seed for seed in seeds if not row or seed not in row['seeds']]
    if missing:
        sys.exit(f'What comes next hangs on a rung that is not measured with seed {missing[0]}.')
    return sum(row['map50'][row['seeds'].index(seed)] for seed in seeds) / len(seeds)


def plain(s):
    "What decides the figures; a setting that a file does not know yet had its usual value."
    from yolov3_nb.recipe import recipe_from
    unimportant = ('data', 'progress', 'seed', 'workers')
    return {k: v for k, v in asdict(recipe_from(s)).items() if k not in unimportant}


def find(file, s):
    "The rung of a file that was measured with these settings, or None."
    rungs = json.loads(file.read_text(encoding='utf-8'))['rungs'] if file.exists() else []
    return next((r for r in rungs if plain(r['settings']) == plain(s)), None)


def cpu_minutes():
    return sum(os.times()[:4]) / 60


def run(s):
    "Figures on val, and minutes of processor time, of one training."
    import pytorch_lightning as L
    from yolov3_nb.evaluation import evaluate
    from yolov3_nb.learner import make_data, make_module, make_trainer
    from yolov3_nb.recipe import recipe_from
    from yolov3_nb.training import whole_epoch
    start = cpu_minutes()
    folder = Path(tempfile.mkdtemp())
    try:
        L.seed_everything(s['seed'], workers=True, verbose=False)
        recipe = recipe_from(s)
        dm = make_data(recipe)
        module = make_module(recipe, dm)
        trainer = make_trainer(recipe, folder)
        trainer.fit(module, datamodule=dm)
        if trainer.current_epoch < trainer.max_epochs or not whole_epoch(trainer):
            sys.exit(130)  # stopped, so not measured
        figures = evaluate(module.model.eval(), dm.val_ds, batch_size=32, progress=False)
        return {k: figures[k] for k in FIGURES} | {'cpu_minutes': round(cpu_minutes() - start, 2)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_file(file, base):
    "Leave a file alone that was measured with other settings."
    if not file.exists():
        return
    other = plain(json.loads(file.read_text(encoding='utf-8'))['base'])
    changed = ', '.join(f'{k} {other.get(k)}' for k in base if other.get(k) != base[k])
    if changed:
        sys.exit(f'{file} was measured with other settings ({changed}): give another --out.')


def note(file, ladder, seed, found, command):
    "Add the figures of a run of the last rung to the file."
    from yolov3_nb.files import locked, write_json
    from yolov3_nb.networks import device_name, processor_name
    from yolov3_nb.runs import commit_used, versions_used
    empty = {k: [] for k in ('seeds', *FIGURES, 'cpu_minutes')}
    with locked(Path(tempfile.gettempdir())/f'{file.stem}.lock'):
        rows = []
        for title, change, s in ladder:
            row = find(file, s) or {k: [] for k in empty}
            rows.append(row | dict(name=title, change=change, settings=plain(s)))
        for k, v in (found | dict(seeds=seed)).items():
            rows[-1][k].append(v)
        write_json(file, dict(name=file.stem, command=command, commit=commit_used(),
                              date=datetime.date.today().isoformat(), device=device_name('cpu'),
                              processor=processor_name(), versions=versions_used(),
                              base=plain(ladder[0][2]), rungs=[r for r in rows if r['seeds']]))


def main(name, seeds, file, more):
    check_file(file, plain(next(rungs(name, file, seeds, **more))[2]))
    flags = [f'--{k}={v}' for k, v in more.items() if k not in ('data', 'progress')]
    if more['data']:
        flags.append('--data=DIR')
    command = shlex.join(['python', 'tools/ladder.py', name, *flags])
    ladder = []
    for rung in rungs(name, file, seeds, **more):
        ladder.append(rung)
        title, _, s = rung
        for seed in seeds:
            measured = find(file, s)
            if measured and seed in measured['seeds']:
                continue
            found = run(s | dict(seed=seed))
            note(file, ladder, seed, found, command)
            print(title, seed, found, flush=True)


def numbers(text):
    return [int(n) for n in text.split(',') if n]


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('name', choices=LADDERS)
    p.add_argument('--data', help='folder that holds VOCdevkit; ToyVOC unless given')
    p.add_argument('--seeds', type=numbers, default='0,1,2',
                   help='with commas between (default: 0,1,2)')
    p.add_argument('--out', type=Path, metavar='FILE',
                   help='where to (default: results/ladder_NAME.json)')
    p.add_argument('--epochs', type=int, default=argparse.SUPPRESS)
    p.add_argument('--workers', type=int, default=argparse.SUPPRESS)
    p.add_argument('--precision', default=argparse.SUPPRESS)
    p.add_argument('--limit', type=int, default=argparse.SUPPRESS,
                   help='images of each split, to try it out')
    a = vars(p.parse_args())
    name = a.pop('name')
    out = a.pop('out') or ROOT/'results'/f'ladder_{name}.json'
    seeds = a.pop('seeds')
    main(name, seeds, out, dict(a, progress=False))
