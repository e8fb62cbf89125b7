"""Measure a recipe step by step: `python tools/ladder.py NAME [--data DIR] [--seeds 0,1,2]`.

Each rung of a ladder changes one thing of the recipe before it. On the ladders `toy` and `voc`
every rung is carried on but those marked "aside". On the ladder `short` (ToyVOC at 96 pixels) a
rung is carried on if it wins: if its mean mAP over the seeds is higher than that of the recipe
before it. All are trained on train for the same few epochs, and measured on val, never on test.
What is measured goes to results/ladder_NAME.json, or --out, after every run, so an interrupted
ladder goes on where it was, and several may work on one: a rung that has been measured is not run
again, and a file that was measured with other settings is left alone."""
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

# name: settings of the first rung, and the rungs
LADDERS = {
    'short': (ORIGINAL | dict(epochs=6, size=96, optimizer='adamw', lr=4e-3, workers=0), [
        FIRST,
        ('no mosaic', dict(mosaic=0.)),
        ('milder augmentation', dict(strength=.3)),
        LOSS,
        ('anchors by k-means on these boxes', dict(anchors='toyvoc')),
        EMA,
        ('all anchors that fit, not the best alone', dict(positive_iou=.5)),
        ('Muon, not AdamW', dict(optimizer='muon')),
        ('twice the learning rate', dict(lr=8e-3)),
        ('hardly any augmentation', dict(strength=.1)),
        ('λ of objectness 1.2, not 1.4', dict(lambdas='obj=1.2')),
        ('batches without their empty margins', dict(rect=True))]),
    'toy': (ORIGINAL | dict(epochs=4), [
        FIRST,
        LOSS,
        ('aside: anchors by k-means on these boxes', dict(anchors='toyvoc')),
        MILD,
        EMA,
        ('aside: with the anchors by k-means', dict(anchors='toyvoc')),
        ("aside: with VOC's anchors", dict(anchors='voc')),
        ('aside: by k-means, and batches of 8', dict(anchors='toyvoc', batch=8)),
        ('all anchors that fit, not the best alone', dict(positive_iou=.5)),
        ('twice the learning rate', dict(lr=8e-3)),
        ('hardly any augmentation', dict(strength=.1)),
        ('aside: λ of objectness 1.2, not 1.4', dict(lambdas='obj=1.2')),
        ('batches without their empty margins', dict(rect=True))]),
    'voc': (ORIGINAL | dict(epochs=4, size=128), [
        FIRST,
        LOSS,
        ('anchors of these boxes', dict(anchors='auto')),
        MILD,
        EMA,
        ('aside: inputs that grow', dict(grow=.8))])}
MUST_WIN = ('short',)  # ladders whose rungs are carried on only if they win


def rungs(name, file, seeds, **more):
    """(name, what it changes, all settings) of each rung, with the changes that were carried on.

    Which these are may depend on what the rung before reached, so it is measured before the next
    one is asked for."""
    from yolov3_nb.recipe import Recipe
    base, steps = LADDERS[name]
    s = asdict(Recipe()) | base | more
    for title, change in steps:
        yield title, change, s | change
        if title.startswith('aside') or s | change == s:
            continue
        if name not in MUST_WIN or mean_map(file, s | change, seeds) > mean_map(file, s, seeds):
            s = s | change


def mean_map(file, s, seeds):
    "Mean mAP of a rung over these seeds; `SystemExit` where one of them has not been measured."
    row = find(file, s)
    for seed in seeds:
        if not row or seed not in row['seeds']:
            sys.exit(f'What comes next depends on a rung that seed {seed} has not measured.')
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


def note(file, name, base, rung, seed, found, command):
    "Add the figures of one run of a rung to the file; what it holds of other rungs stays."
    from yolov3_nb.files import locked, write_json
    from yolov3_nb.networks import device_name, processor_name
    from yolov3_nb.runs import commit_used, versions_used
    title, change, s = rung
    with locked(Path(tempfile.gettempdir())/f'{file.stem}.lock'):
        rows = json.loads(file.read_text(encoding='utf-8'))['rungs'] if file.exists() else []
        row = next((r for r in rows if plain(r['settings']) == plain(s)), None)
        if row is None:
            row = {k: [] for k in ('seeds', *FIGURES, 'cpu_minutes')}
            rows.append(row)
        row |= dict(name=title, change=change, settings=plain(s))
        for k, v in (found | dict(seeds=seed)).items():
            row[k].append(v)
        titles = [title for title, _ in LADDERS[name][1]]
        rows.sort(key=lambda row: titles.index(row['name']))
        write_json(file, dict(name=file.stem, command=command, commit=commit_used(),
                              date=datetime.date.today().isoformat(), device=device_name('cpu'),
                              processor=processor_name(), versions=versions_used(), base=base,
                              rungs=rows))


def main(name, seeds, only, file, more):
    base = plain(next(rungs(name, file, seeds, **more))[2])
    check_file(file, base)
    flags = [f'--{k}={v}' for k, v in more.items() if k not in ('data', 'progress')]
    if seeds != [0]:
        flags.append(f"--seeds={','.join(map(str, seeds))}")
    if more['data']:
        flags.append('--data=DIR')
    command = shlex.join(['python', 'tools/ladder.py', name, *flags])
    for n, rung in enumerate(rungs(name, file, seeds, **more)):
        if only and n not in only:
            continue
        title, _, s = rung
        for seed in seeds:
            measured = find(file, s)
            if measured and seed in measured['seeds']:
                continue
            found = run(s | dict(seed=seed))
            note(file, name, base, rung, seed, found, command)
            print(title, seed, found, flush=True)


def numbers(text):
    return [int(n) for n in text.split(',') if n]


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('name', choices=LADDERS)
    p.add_argument('--data', help='folder that holds VOCdevkit; ToyVOC unless given')
    p.add_argument('--seeds', type=numbers, default='0', help='with commas between (default: 0)')
    p.add_argument('--only', type=numbers, metavar='N,M', help='only these rungs, from 0')
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
    only = a.pop('only')
    main(name, seeds, only, out, dict(a, progress=False))
