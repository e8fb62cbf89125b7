"""Measure weights of a training in stages: `python tools/stages.py NAME --weights W --data DIR`.

A training may be made in stages: each run begins with the weights of the one before (`--start`).
This measures the weights of the last one on its training images and on the test images, and writes
results/NAME.json. It has the figures that `yolov3_train --results` has, and `stages`: the settings
and the images of each run. `precision` is that of the last one. The minutes of the whole are not
known, because the runs shared their processor with other work: they are null.

    python tools/stages.py voc0712 --weights weights/voc --data DIR --point 233600 \\
        --stage runs/second=50000 --stage runs/branch=33600

`--point` takes the first stages from a branch of results/voc0712_curve.json: the run that it left,
and itself. The side of the input is the one that the weights folder names."""
import argparse
import json
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT/'tools'))
from curve import devices_of, settings_of  # noqa: E402
from yolov3_nb.files import write_json  # noqa: E402
from yolov3_nb.measurement import Measurement, measure  # noqa: E402

# what makes one stage another one than the next
TOLD = ('size', 'batch', 'devices', 'optimizer', 'lr', 'schedule', 'decay', 'ema', 'mosaic', 'rect',
        'precision')


def stage(images, settings):
    "One run: how many images it saw, and with which settings."
    return {'images': images} | {key: settings[key] for key in TOLD}


def stages_of_point(curve, images_seen):
    "The two stages behind a branch of a curve: the run that it left, and itself."
    points = {(p['left_at'] is None, p['images_seen']): p for p in curve['points']}
    branch = points[False, images_seen]
    milestone = points[True, branch['left_at']]
    if milestone['settings']:
        sys.exit(f"The milestone of {milestone['images_seen']:,} images belongs to a run that went "
                 'on from other weights: name its runs with --stage.')
    # its inputs were to grow; this is how large they were
    before = curve['settings'] | {'size': milestone['size']}
    return [stage(milestone['images_seen'], before),
            stage(images_seen - milestone['images_seen'], branch['settings'])]


def check_images(run, images):
    "A run has seen so many images: a milestone says so, or its checkpoint stands beyond them."
    import torch
    if (run/f'images_{images:07d}').is_dir():
        return
    settings = settings_of(run)
    step = torch.load(run/'last.ckpt', map_location='cpu', weights_only=True)['global_step']
    most = step * settings['batch'] * settings['accumulate'] * devices_of(settings)
    if images != most:
        sys.exit(f'{run} has no milestone of {images:,} images, and ended after {most:,}.')


def all_stages(point, runs):
    "Every stage, and the settings of the last one; a run is FOLDER=IMAGES."
    stages = []
    if point:
        curve = ROOT/'results'/'voc0712_curve.json'
        stages += stages_of_point(json.loads(curve.read_text(encoding='utf-8')), point)
    for run in runs:
        folder, images = run.rsplit('=', 1)
        settings = settings_of(Path(folder))
        check_images(Path(folder), int(images))
        stages.append(stage(int(images), settings))
    return stages, settings


def measured(args, split):
    "The record of the weights on some splits."
    return measure(Measurement(weights=args.weights, data=args.data, split=split))[0]


def command_of(args):
    "The command, without the places of the machine."
    command = ['python', 'tools/stages.py', args.name, '--weights', args.weights, '--data', 'DIR']
    command += ['--point', str(args.point)] if args.point else []
    for run in args.stage:
        command += ['--stage', f"RUN={run.rsplit('=', 1)[1]}"]
    return shlex.join(command)


def main(args):
    stages, settings = all_stages(args.point, args.stage)
    train = measured(args, args.train)
    result = measured(args, args.test)
    result['metrics']['train_loss'] = train['metrics']['test_loss']
    result['data'] |= {'train': train['data']['test'], 'n_train': train['data']['n_test']}
    result |= {'name': args.name, 'command': command_of(args), 'settings': settings,
               'seed': settings['seed'], 'precision': settings['precision'],
               'stages': stages, 'images_seen': sum(s['images'] for s in stages),
               'minutes': None}
    result.pop('errors', None)
    write_json(ROOT/'results'/f'{args.name}.json', result)
    print(f"{result['images_seen']:,} images in {len(stages)} stages; "
          f"mAP {result['metrics']['map50']:.4f}")


def parser():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('name', help='of the file in results/')
    p.add_argument('--weights', required=True, help='folder')
    p.add_argument('--data', required=True, help='folder that holds VOCdevkit')
    p.add_argument('--train', default='2007_trainval,2012_fit', help='splits it learnt from')
    p.add_argument('--test', default='2007_test', help='splits for the figures')
    p.add_argument('--point', type=int, metavar='N', help='images seen by a branch of the curve')
    p.add_argument('--stage', action='append', required=True, metavar='RUN=IMAGES',
                   help='the folder of a run, and how many of its images count; in order')
    return p


if __name__ == '__main__':
    main(parser().parse_args())
