"""How many images does fine-tuning need? `python tools/own_curve.py [START:N ...]`.

Draws the desk of chapter 12 with the chapter's own cells, trains on the first N of its training
images from START (scratch, toy or voc), and measures on val and test. Each run makes the same
number of steps. The figures are added to results/own_learning_curve.json, or --out; a run that
stands there already is not made again."""
import argparse
import json
import os
import shlex
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = [f'toy:{n}' for n in (10, 20, 40, 80)]
RUNS += ['scratch:80', 'voc:80']
NEEDED = {'imports-export', 'imports-page', 'folder', 'pencil', 'marker', 'key', 'desk',
          'desk-scenes', 'scene-sample', 'write-desk', 'read-desk', 'trial'}


def chapter():
    "What the cells of the chapter define, as a dict of names."
    from yolov3_nb import formats
    names = dict(vars(formats))
    nb = json.loads((ROOT/'nbs'/'12_own_images.ipynb').read_text(encoding='utf-8'))
    for cell in nb['cells']:
        if cell['cell_type'] == 'code' and cell['id'] in NEEDED:
            exec(compile(''.join(cell['source']), cell['id'], 'exec'), names)
    return names


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('runs', nargs='*', default=RUNS, metavar='START:N')
    p.add_argument('--out', default=ROOT/'results'/'own_learning_curve.json', type=Path)
    args = p.parse_args()
    os.environ.pop('YOLOV3_OWN', None)  # the drawn set
    names = chapter()
    from yolov3_nb.files import write_json
    from yolov3_nb.networks import processor_name
    from yolov3_nb.runs import commit_used, versions_used
    for run in args.runs:
        start, n = run.split(':')
        found = json.loads(args.out.read_text('utf-8')) if args.out.exists() else {}
        if n in found.get('runs', {}).get(start, {}):
            continue
        begin = time.time()
        learner = names['trial'](names['data'], None if start == 'scratch' else start, int(n))
        figures = {split: {key: learner.figures[split][key] for key in ('map50', 'ap50')}
                   for split in ('val', 'test')}
        figures |= dict(steps=learner.trainer.global_step, epochs=learner.recipe.epochs,
                        minutes=round((time.time() - begin)/60, 2))
        found = json.loads(args.out.read_text('utf-8')) if args.out.exists() else {}
        found |= dict(name='own_learning_curve', seed=0, commit=commit_used(),
                      date=time.strftime('%Y-%m-%d'), versions=versions_used(),
                      command=shlex.join(['python', 'tools/own_curve.py']),
                      device='1 CPU core', processor=processor_name())
        found.setdefault('runs', {}).setdefault(start, {})[n] = figures
        write_json(args.out, found)
        print(run, json.dumps(figures), file=sys.stderr)


if __name__ == '__main__':
    main()
