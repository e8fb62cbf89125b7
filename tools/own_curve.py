"""How many images, and how many steps? `python tools/own_curve.py [START:N:STEPS ...]`.

Draws the desk of chapter 12 with the chapter's own cells, trains from START (scratch, toy, voc07
or voc) on the first N of its training images for STEPS steps, or for as long as the preset `own`
says (STEPS is `preset`), and measures on val and test. The figures are added to
results/own_learning_curve.json, or --out; a run that stands there already is not made again."""
import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = [f'toy:{n}:{steps}' for steps in (60, 240) for n in (10, 20, 40, 80)]
RUNS += [f'{start}:80:{steps}' for steps in (60, 240) for start in ('scratch', 'voc07')]
RUNS += ['toy:80:preset']
NEEDED = {'imports-export', 'imports-page', 'folder', 'pencil', 'marker', 'key', 'lying', 'desk',
          'desk-scenes', 'scene-sample', 'yolo-lines', 'desk-split', 'write-desk', 'read-desk',
          'input-size', 'epochs-for', 'trial', 'first-images', 'whole-run'}


def chapter():
    "What the cells of the chapter define, as a dict of names."
    names = {}
    nb = json.loads((ROOT/'nbs'/'12_own_images.ipynb').read_text(encoding='utf-8'))
    for cell in nb['cells']:
        if cell['cell_type'] == 'code' and cell['id'] in NEEDED:
            exec(compile(''.join(cell['source']), cell['id'], 'exec'), names)
    return names


def one_run(names, start, n, steps):
    "Train and measure, as the chapter does."
    begin = time.time()
    data = names['first_images'](names['data'], n)
    weights = None if start == 'scratch' else start
    if steps == 'preset':
        learner = names['whole_run'](data, weights, names['scratch']/'run')
    else:
        learner = names['trial'](data, weights, int(steps))
    figures = {split: figures_of(learner, split) for split in ('val', 'test')}
    return figures | dict(steps=learner.trainer.global_step, epochs=learner.recipe.epochs,
                          minutes=round((time.time() - begin)/60, 2))


def figures_of(learner, split):
    "mAP and AP of each class, at an IoU of 0.5."
    measured = learner.evaluate(split)
    return {key: measured[key] for key in ('map50', 'ap50')}


def read(path):
    "What was measured so far."
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}


def keep(path, steps, start, n, figures):
    "Add the figures of one run to the file."
    from yolov3_nb.files import write_json
    from yolov3_nb.networks import processor_name
    from yolov3_nb.runs import commit_used, versions_used
    found = read(path) | dict(
        name='own_learning_curve', seed=0, commit=commit_used(), date=time.strftime('%Y-%m-%d'),
        versions=versions_used(), command=shlex.join(['python', 'tools/own_curve.py']),
        device='1 CPU core', processor=processor_name())
    same_steps = found.setdefault('steps', {}).setdefault(steps, {})
    same_steps.setdefault(start, {})[n] = figures
    write_json(path, found)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('runs', nargs='*', default=RUNS, metavar='START:N:STEPS')
    p.add_argument('--out', default=ROOT/'results'/'own_learning_curve.json', type=Path)
    args = p.parse_args()
    os.environ.pop('YOLOV3_OWN', None)  # the drawn set
    names = chapter()
    for run in args.runs:
        start, n, steps = run.split(':')
        if n in read(args.out).get('steps', {}).get(steps, {}).get(start, {}):
            continue
        figures = one_run(names, start, int(n), steps)
        keep(args.out, steps, start, n, figures)
        print(run, json.dumps(figures), file=sys.stderr)


if __name__ == '__main__':
    os.environ['OMP_NUM_THREADS'] = '1'  # read when torch is imported: one core, as the record says
    main()
