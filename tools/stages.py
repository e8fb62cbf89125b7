"""Write down what came before a run: `python tools/stages.py NAME --run RUN [--before RUN=IMAGES]`.

A training may be made in stages: each run begins with the weights of the one before (`--start`).
The last one writes results/NAME.json (`yolov3_train --results NAME`), which knows of its own images
and minutes only. This adds `stages`, the settings and the images of each run, and sets
`images_seen` to their sum. The minutes of the whole are not known, because the runs shared their
processor with other work: they are null.

    python tools/stages.py voc0712 --point 233600 --before runs/long=80000 --run runs/branch

`--point` takes the first stages from a branch of results/voc0712_curve.json: the run that it left,
and itself."""
import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT/'tools'))
from curve import seen_by, settings_of  # noqa: E402
from yolov3_nb.files import write_json  # noqa: E402

# what makes one stage another one than the next
TOLD = ('size', 'batch', 'optimizer', 'lr', 'schedule', 'decay', 'ema', 'precision')


def stage(images, settings):
    "One run: how many images it saw, and with which settings."
    return {'images': images} | {key: settings[key] for key in TOLD}


def stages_of_point(curve, images_seen):
    "The two stages behind a branch of a curve: the run that it left, and itself."
    points = {(p['left_at'] is None, p['images_seen']): p for p in curve['points']}
    branch = points[False, images_seen]
    milestone = points[True, branch['left_at']]
    # its inputs were to grow; this is how large they were
    before = curve['settings'] | {'size': milestone['size']}
    return [stage(milestone['images_seen'], before),
            stage(images_seen - milestone['images_seen'], branch['settings'])]


def main(args):
    file = ROOT/'results'/f'{args.name}.json'
    result = json.loads(file.read_text(encoding='utf-8'))
    stages = []
    if args.point:
        curve = ROOT/'results'/'voc0712_curve.json'
        stages += stages_of_point(json.loads(curve.read_text(encoding='utf-8')), args.point)
    for run in args.before:
        folder, images = run.rsplit('=', 1)
        stages.append(stage(int(images), settings_of(Path(folder))))
    stages.append(stage(seen_by(args.run), settings_of(args.run)))
    result |= {'stages': stages, 'images_seen': sum(s['images'] for s in stages), 'minutes': None}
    write_json(file, result)
    print(f"{result['images_seen']:,} images in {len(stages)} stages.")


def parser():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('name', help='of the file in results/')
    p.add_argument('--point', type=int, metavar='N', help='images seen by a branch of the curve')
    p.add_argument('--before', action='append', default=[], metavar='RUN=IMAGES',
                   help='a run that came before, and how many of its images count')
    p.add_argument('--run', type=Path, required=True, help='folder of the last run')
    return p


if __name__ == '__main__':
    main(parser().parse_args())
