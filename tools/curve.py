"""Measure what a run had learnt at its milestones: `python tools/curve.py RUN --data DIR`.

RUN is the folder of a run with `--milestones`. The weights of each milestone are measured once on
the test split, and selected by nothing. Such weights are on the way: the rate of the run was still
high. What a budget buys at its end is the figure of a branch, a run of its own that begins with
the weights of a milestone and lets the rate fall. Name each branch and the milestone it left:

    python tools/curve.py runs/long --data ~/VOC --branch 100000=runs/branch-100

A run that goes on from trained weights (`--start`) says with `--since` how many images those had
seen; its own images, milestones and branches count from there, and its settings are kept with each
of its points:

    python tools/curve.py runs/second --data ~/VOC --since 233600 --branch 80000=runs/branch-80

A run whose inputs grow is measured at the size of its inputs at the time (`--size`): larger ones
it has not met yet, and finds less in them.

The file (results/voc0712_curve.json) is written after each measurement and what it holds is not
measured again, so that an interrupted call goes on where it was, and a longer run adds to it."""
import argparse
import datetime
import json
import shlex
from pathlib import Path

from yolov3_nb.durable import images_after
from yolov3_nb.files import write_json
from yolov3_nb.measurement import Measurement, measure
from yolov3_nb.runs import commit_used, versions_used

ROOT = Path(__file__).resolve().parent.parent
PLACES = 'data', 'out', 'start'  # settings that say where files were, and nothing of the run
FIGURES = ('class_acc', 'noobj_acc', 'obj_acc', 'map50', 'map50_11pt', 'map_coco', 'test_loss',
           'ap50')


def settings_of(run):
    "What a run was asked for, without the places of its files."
    settings = json.loads((run/'settings.json').read_text(encoding='utf-8'))
    return {key: value for key, value in settings.items() if key not in PLACES}


def milestones(run):
    "{images seen: weights folder} of a run."
    found = sorted(run.glob('images_*/weights'))
    return {int(folder.parent.name.removeprefix('images_')): folder for folder in found}


def devices_of(settings):
    "How many devices a run had; one where its settings leave the number open."
    devices = str(settings['devices'])
    return int(devices) if devices.isdigit() else 1


def seen_by(run, n_train=None):
    "Images that a branch has seen itself; its report says how many it learnt from."
    import torch
    settings = settings_of(run)
    checkpoint = torch.load(run/'last.ckpt', map_location='cpu', weights_only=True)
    if n_train is None:
        report = json.loads((run/'metrics.json').read_text(encoding='utf-8'))
        n_train = report['data']['n_train']
    return images_after(checkpoint['global_step'], n_train, settings['batch'],
                        settings['accumulate'], devices_of(settings))


def point(weights, args, **what):
    "The figures of some weights on the test images."
    m = Measurement(weights=str(weights), data=args.data, split=args.split, size=args.size)
    result, _ = measure(m)
    metrics = {key: result['metrics'][key] for key in FIGURES}
    model = result['model']
    return dict(what, size=args.size or model['image_size'], n_test=result['data']['n_test'],
                minutes=result['minutes'], processor=result['processor'], model=model,
                metrics=metrics)


def main(args):
    "Measure what the file does not hold yet."
    out = args.out
    if args.since and not out.exists():
        raise SystemExit(f'--since goes on with a curve, and {out} is none: measure the first run '
                         'first.')
    result = json.loads(out.read_text(encoding='utf-8')) if out.exists() else dict(points=[])
    settings = settings_of(args.run)
    if not args.since and result.setdefault('settings', settings) != settings:
        raise SystemExit(f'{out} was measured on a run with other settings: give another --out.')
    known = {(p['left_at'], p['images_seen']) for p in result['points']}
    own = settings if args.since else None
    wanted = [(None, args.since + seen, weights, own)
              for seen, weights in milestones(args.run).items()]
    for text in args.branch:
        milestone, _, folder = text.partition('=')
        left_at = args.since + int(milestone)
        branch = Path(folder)
        wanted.append((left_at, left_at + seen_by(branch, args.n_train), branch/'weights',
                       settings_of(branch)))
    for left_at, seen, weights, own in wanted:
        if (left_at, seen) in known:
            continue
        print(f'{seen:,} images seen, {"branch" if left_at else "on the way"}', flush=True)
        result['points'].append(point(weights, args, images_seen=seen, left_at=left_at,
                                      settings=own))
        result['points'].sort(key=lambda p: (p['images_seen'], p['left_at'] or 0))
        command = ['python', 'tools/curve.py', 'RUN', '--data', 'DIR']
        result.update(name=out.stem, command=shlex.join(command), commit=commit_used(),
                      date=datetime.date.today().isoformat(), versions=versions_used())
        write_json(out, result)
    for p in result['points']:
        m = p['metrics']
        how = 'rate fallen' if p['left_at'] else 'on the way'
        print(f"{p['images_seen']:9,} {how:12} class {m['class_acc']:.1f} "
              f"no-object {m['noobj_acc']:.1f} object {m['obj_acc']:.1f} mAP {m['map50']:.3f}")


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('run', type=Path, metavar='RUN', help='folder of a run with milestones')
    p.add_argument('--data', required=True, help='folder that holds VOCdevkit')
    p.add_argument('--split', default='2007_test', help='what is measured (default: 2007_test)')
    p.add_argument('--size', type=int, help='side of the input, pixels: the one with which the run '
                   "trained at the milestone (default: the model's own)")
    p.add_argument('--since', type=int, default=0, metavar='N',
                   help='images that the weights had seen with which the run began')
    p.add_argument('--branch', action='append', default=[], metavar='N=RUN',
                   help='a run from the milestone of N images whose rate has fallen')
    p.add_argument('--n-train', type=int, metavar='N',
                   help='training images, of a branch that was ended before its report')
    p.add_argument('--out', type=Path, default=ROOT/'results'/'voc0712_curve.json', metavar='FILE')
    main(p.parse_args())
