"""Measure a recipe step by step: `python tools/ladder.py toy|voc [--data DIR] [--seeds 0,1,2] [--only N]`.

Each rung of a ladder changes one thing of the rung before it; all are trained on train for the same few epochs, and measured on val,
never on test. What is measured goes to results/ladder_NAME.json after every run, so an interrupted ladder goes on where it was; a rung
that has been measured with the same settings is not run again."""
import argparse, datetime, json, shlex, shutil, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ('map50', 'class_acc', 'noobj_acc', 'obj_acc', 'loss')
ORIGINAL = dict(loss='original', anchors='coco', mosaic=.67, strength=1., ema=0., test='', val_every=100, train_every=0, pictures_every=0)

LADDERS = {
    'toy': (ORIGINAL | dict(train='2007_train', val='2007_val', epochs=5), [
        ('the original: its loss, COCO anchors, mosaic at 0.67', {}),
        ('loss: sums over cells, CIoU, λ chosen on val', dict(loss='yolo')),
        ('anchors of ToyVOC', dict(anchors='toyvoc')),
        ('milder augmentation', dict(strength=.3)),
        ('no mosaic', dict(mosaic=0.)),
        ('moving average of the weights', dict(ema=.998))]),
    'voc': (ORIGINAL | dict(train='2007_train', val='2007_val', epochs=8), [
        ('the original: its loss, COCO anchors, mosaic at 0.67', {}),
        ('loss: sums over cells, CIoU, λ chosen on val', dict(loss='yolo')),
        ('anchors of VOC', dict(anchors='voc')),
        ('milder augmentation', dict(strength=.3)),
        ('no mosaic', dict(mosaic=0.)),
        ('moving average of the weights', dict(ema=.998)),
        ('twice the rate', dict(lr=8e-3))])}


def rungs(name, **more):
    "(name, what it changes, all settings) of each rung; every one keeps the changes of those before it."
    from yolov3_nb.cli import BASE
    base, steps = LADDERS[name]
    s = BASE | base | more
    for title, change in steps:
        s = s | change
        yield title, change, s

def run(s):
    "Figures on val, and minutes, of one training."
    import pytorch_lightning as L
    from yolov3_nb.cli import make_data, make_module, make_trainer
    from yolov3_nb.evaluation import evaluate
    from yolov3_nb.training import whole_epoch
    start, folder = time.time(), Path(tempfile.mkdtemp())
    try:
        L.seed_everything(s['seed'], workers=True, verbose=False)
        dm = make_data(s)
        module, trainer = make_module(s, dm), make_trainer(s, folder)
        trainer.fit(module, datamodule=dm)
        if trainer.current_epoch < trainer.max_epochs or not whole_epoch(trainer): sys.exit(130)  # stopped, so not measured
        figures = evaluate(module.model.eval(), dm.val_ds, batch_size=32, progress=False)
        return {k: figures[k] for k in FIGURES} | dict(minutes=round((time.time() - start) / 60, 2))
    finally: shutil.rmtree(folder, ignore_errors=True)

def main(name, seeds, only, more):
    from yolov3_nb.cli import commit_used, device_name, versions_used, write_json
    file = ROOT/'results'/f'ladder_{name}.json'
    done = json.loads(file.read_text(encoding='utf-8'))['rungs'] if file.exists() else []
    settings = next(iter(rungs(name, **more)))[2]
    table = []
    for n, (title, change, s) in enumerate(rungs(name, **more)):
        row = next((r for r in done if r['settings'] == {k: v for k, v in s.items() if k not in ('data', 'progress')}), None)
        row = dict(row or dict(seeds=[], **{k: [] for k in (*FIGURES, 'minutes')}), name=title, change=change,
                   settings={k: v for k, v in s.items() if k not in ('data', 'progress')})
        table.append(row)
        for seed in [seed for seed in seeds if seed not in row['seeds'] and only in (None, n)]:
            found = run(s | dict(seed=seed))
            row['seeds'].append(seed)
            for k, v in found.items(): row[k].append(v)
            kept = table + [r for r in done if r['settings'] not in [t['settings'] for t in table]]
            write_json(dict(name=f'ladder_{name}', command=shlex.join(['python', 'tools/ladder.py', *sys.argv[1:]]).replace(str(s['data']), 'DIR'),
                            commit=commit_used(), date=datetime.date.today().isoformat(), device=device_name('cpu'), versions=versions_used(),
                            base={k: v for k, v in settings.items() if k not in ('data', 'progress')}, rungs=kept), file)
            print(title, seed, found, flush=True)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('name', choices=LADDERS)
    p.add_argument('--data', help='folder that holds VOCdevkit; ToyVOC unless given')
    p.add_argument('--seeds', default='0', help='with commas between (default: 0)')
    p.add_argument('--only', type=int, metavar='N', help='only the Nth rung, from 0')
    p.add_argument('--epochs', type=int, default=argparse.SUPPRESS)
    p.add_argument('--limit', type=int, default=argparse.SUPPRESS, help='pictures of each split, to try it out')
    a = vars(p.parse_args())
    main(a.pop('name'), [int(n) for n in a.pop('seeds').split(',')], a.pop('only'), dict(a, progress=False))
