"""Fine-tune on public photographs: `python tools/public_sets.py FOLDER SET START ...`.

FOLDER holds clones of three repositories, each under its short name:

    git clone https://github.com/experiencor/raccoon_dataset FOLDER/raccoon
    git clone https://github.com/Shenggan/BCCD_Dataset FOLDER/cells
    git clone https://github.com/7130-7th/cone_cube_detect_test_1.0 FOLDER/cones

SET is one of them, START is scratch, toy, voc07 or voc; of the last three also with `-frozen`. Each
run makes the same number of steps with the same settings and seed, and its figures are added to
results/own_public.json, or --out; a run that stands there already is not made again. The
photographs stay where they are."""
import argparse
import json
import shlex
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETS = {
    'raccoon': dict(folder='.', title='raccoons', layout='VOC XML in a folder of its own',
                    source='experiencor/raccoon_dataset', licence='MIT'),
    'cells': dict(folder='BCCD', title='blood cells', layout='a VOC devkit',
                  source='Shenggan/BCCD_Dataset', licence='MIT'),
    'cones': dict(folder='.', title='cones and cubes', layout='YOLO text by Roboflow',
                  source='7130-7th/cone_cube_detect_test_1.0', licence='CC BY 4.0'),
}
STARTS = {'scratch': (None, False)}
for weights in ('toy', 'voc07', 'voc'):
    STARTS |= {weights: (weights, False), f'{weights}-frozen': (weights, True)}
SAME = dict(size=160, width=.25, batch=8, lr=4e-3, strength=.3, ema=.99, workers=0, val_every=1000,
            train_every=0, images_every=0, checkpoint='last', skip_bad=True, progress=False)


def first_copies(ds):
    "One version of each source image: Roboflow's exports hold several, each a little changed."
    source = [name.partition('.rf.')[0] for name in ds.ids]
    return ds.select([i for i, name in enumerate(source) if name not in source[:i]])


def figures_of(learner, minutes):
    "What the table of the chapter needs of one run."
    test = learner.figures['test']
    return dict(map50=test['map50'], map_coco=test['map_coco'], ap50=test['ap50'],
                steps=learner.trainer.global_step, epochs=learner.recipe.epochs,
                minutes=round(minutes, 2))


def one_run(dm, start, steps):
    "Train and measure one set from one start."
    from yolov3_nb import Learner, Recipe
    network, freeze = STARTS[start]
    batches = max(1, len(dm.train_ds) // SAME['batch'])
    recipe = replace(Recipe(), start=network, freeze=freeze, epochs=max(1, round(steps/batches)),
                     **SAME)
    begin = time.time()
    with tempfile.TemporaryDirectory() as tmp:
        learner = Learner(dm, recipe, Path(tmp)/'run')
        learner.fit()
        learner.evaluate('test')
        return figures_of(learner, (time.time() - begin)/60)


def describe(name, data):
    "What the table says of a set."
    counts = Counter(n for a in data.train._annotations for n in a['labels'].tolist())
    sizes = {split: len(getattr(data, split)) for split in ('train', 'val', 'test')}
    classes = {data.classes[k]: n for k, n in sorted(counts.items())}
    return SETS[name] | dict(images=sizes, classes=classes)


def main():
    from yolov3_nb import Recipe, from_folder
    from yolov3_nb.files import write_json
    from yolov3_nb.learner import make_data
    from yolov3_nb.networks import processor_name
    from yolov3_nb.runs import commit_used, versions_used
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('folder')
    p.add_argument('set', choices=SETS)
    p.add_argument('starts', nargs='+', choices=STARTS, metavar='START')
    p.add_argument('--steps', type=int, default=48)
    p.add_argument('--out', default=ROOT/'results'/'own_public.json', type=Path)
    args = p.parse_args()
    data = from_folder(Path(args.folder)/args.set/SETS[args.set]['folder'])
    data.train = first_copies(data.train)
    dm = make_data(Recipe(**SAME), data)  # images are read once for all runs
    for start in args.starts:
        found = json.loads(args.out.read_text('utf-8')) if args.out.exists() else {}
        if start in found.get('sets', {}).get(args.set, {}).get('runs', {}):
            continue
        figures = one_run(dm, start, args.steps)
        command = ['python', 'tools/public_sets.py', 'FOLDER', args.set, start]
        if args.steps != p.get_default('steps'):
            command.append(f'--steps={args.steps}')
        figures['command'] = shlex.join(command)
        found = json.loads(args.out.read_text('utf-8')) if args.out.exists() else {}
        found |= dict(name='own_public', commit=commit_used(), date=time.strftime('%Y-%m-%d'),
                      versions=versions_used(), device='1 CPU core', seed=0, settings=SAME,
                      processor=processor_name())
        about = found.setdefault('sets', {}).setdefault(args.set, {})
        about.update(describe(args.set, data))
        about.setdefault('runs', {})[start] = figures
        write_json(args.out, found)
        print(args.set, start, json.dumps(figures), file=sys.stderr)


if __name__ == '__main__':
    main()
