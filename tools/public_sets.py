"""Fine-tune on three public sets of photographs: `python tools/public_sets.py FOLDER SET START`.

FOLDER holds clones of three repositories, each under its short name:

    git clone https://github.com/experiencor/raccoon_dataset FOLDER/raccoon
    git clone https://github.com/Shenggan/BCCD_Dataset FOLDER/cells
    git clone https://github.com/7130-7th/cone_cube_detect_test_1.0 FOLDER/cones

SET is one of them, START is scratch, toy, voc, toy-frozen or voc-frozen. Each run makes the same
number of steps with the same settings and seed, and its figures are added to
results/own_public.json, or --out. The photographs stay where they are."""
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
STARTS = {'scratch': (None, False), 'toy': ('toy', False), 'voc': ('voc', False),
          'toy-frozen': ('toy', True), 'voc-frozen': ('voc', True)}
SAME = dict(size=160, width=.25, batch=8, lr=4e-3, strength=.3, ema=.99, workers=0, val_every=1000,
            train_every=0, images_every=0, checkpoint='last', progress=False)


def first_copies(ds):
    "One version of each source image: Roboflow's exports hold several, each a little changed."
    source = [name.partition('.rf.')[0] for name in ds.ids]
    return ds.select([i for i, name in enumerate(source) if name not in source[:i]])


def figures_of(learner, minutes):
    "What the table of the chapter needs of one run."
    test = learner.figures['test']
    return dict(map50=test['map50'], map_coco=test['map_coco'], ap50=test['ap50'],
                val_map50=learner.figures['val']['map50'], steps=learner.trainer.global_step,
                epochs=learner.recipe.epochs, minutes=round(minutes, 2))


def one_run(folder, name, start, steps):
    "Train and measure one set from one start."
    from yolov3_nb import Learner, Recipe, from_folder
    data = from_folder(Path(folder)/name/SETS[name]['folder'])
    data.train = first_copies(data.train)
    network, freeze = STARTS[start]
    batches = max(1, len(data.train) // SAME['batch'])
    recipe = replace(Recipe(), start=network, freeze=freeze, epochs=max(1, round(steps/batches)),
                     **SAME)
    begin = time.time()
    with tempfile.TemporaryDirectory() as tmp:
        learner = Learner(data, recipe, Path(tmp)/'run')
        learner.fit()
        for split in ('val', 'test'):
            learner.evaluate(split)
        counts = Counter(n for a in data.train._annotations for n in a['labels'].tolist())
        sizes = {split: len(getattr(data, split)) for split in ('train', 'val', 'test')}
        about = SETS[name] | dict(images=sizes, classes={
            data.classes[k]: n for k, n in sorted(counts.items())})
        return about, figures_of(learner, (time.time() - begin)/60)


def main():
    from yolov3_nb.files import write_json
    from yolov3_nb.networks import processor_name
    from yolov3_nb.runs import commit_used, versions_used
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('folder')
    p.add_argument('set', choices=SETS)
    p.add_argument('start', choices=STARTS)
    p.add_argument('--steps', type=int, default=240)
    p.add_argument('--out', default=ROOT/'results'/'own_public.json', type=Path)
    args = p.parse_args()
    about, figures = one_run(args.folder, args.set, args.start, args.steps)
    found = json.loads(args.out.read_text('utf-8')) if args.out.exists() else {}
    command = ['python', 'tools/public_sets.py', 'FOLDER', args.set, args.start]
    if args.steps != p.get_default('steps'):
        command.append(f'--steps={args.steps}')
    figures['command'] = shlex.join(command)
    found |= dict(name='own_public', commit=commit_used(), date=time.strftime('%Y-%m-%d'),
                  versions=versions_used(), device='1 CPU core', processor=processor_name(),
                  seed=0, settings=SAME)
    found.setdefault('sets', {}).setdefault(args.set, {}).update(about)
    found['sets'][args.set].setdefault('runs', {})[args.start] = figures
    write_json(args.out, found)
    print(args.set, args.start, json.dumps(figures), file=sys.stderr)


if __name__ == '__main__':
    main()
