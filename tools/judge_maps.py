"""Judge heat maps on a test set: `python tools/judge_maps.py WEIGHTS DATA --results NAME`.

A seeded sample of the correct detections is drawn, and their images are taken in random order until
all are done or the time is up. Each detection gets LayerCAM and the baselines; pointing game,
energy in the object's box, and the areas under deletion and insertion (over the side of a square
with as many pixels as were changed, from 0 to 1) are written to `results/NAME.json`, with the mean
difference from the cell blob and its standard error."""
import argparse
import datetime
import shlex
import sys
import time
from pathlib import Path

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from yolov3_nb.augment import DetectionDataset, test_transform  # noqa: E402
from yolov3_nb.data import VOCDataset  # noqa: E402
from yolov3_nb.files import write_json  # noqa: E402
from yolov3_nb.gradcam import (SHARES, _true_detections, baseline_maps, cam_maps,  # noqa: E402
                               deletion_insertion, feature_maps, map_scores, unletterbox_map)
from yolov3_nb.networks import processor_name  # noqa: E402
from yolov3_nb.model import YOLOv3  # noqa: E402
from yolov3_nb.runs import commit_used, versions_used  # noqa: E402

MEASURES = ['pointing', 'energy', 'deletion', 'insertion']
SIDE = torch.tensor([0, *SHARES, 1])**.5  # of a square with as many pixels: the axis of the areas


def judged_image(model, ds, squares, dets, image, seed):
    "One row for each detection of an image and each map."
    part = {k: v[dets['image'] == image] for k, v in dets.items()}
    hw = ds.annotation(image)['size']
    xb = squares[image][0][None]
    part['image'] = torch.zeros_like(part['image'])
    maps = {'layercam': cam_maps(model, xb, part, 'layercam', kept=feature_maps(model, xb))}
    maps |= baseline_maps(part, model.image_size, seed + image)
    curves = deletion_insertion(model, xb, part, maps)
    rows = []
    for i in range(len(part['scores'])):
        heats = unletterbox_map(torch.stack([m[i] for m in maps.values()]), hw, model.image_size)
        pointing, energy = map_scores(heats, part['truth'][i])
        for j, (name, curve) in enumerate(curves.items()):
            deletion, insertion = torch.trapezoid(curve[i], SIDE).tolist()
            rows.append((f'{image}-{i}', name, float(pointing[j]), float(energy[j]), deletion,
                         insertion))
    return rows


def judge(model, ds, n, end, seed):
    "A table with a row for each detection and map; images in random order until time is up."
    squares = DetectionDataset(ds, test_transform(model.image_size), model.image_size)
    dets = _true_detections(model, ds, squares, n, 32, seed)
    images = dets['image'].unique()
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))]
    rows = []
    for image in images.tolist():
        if time.time() > end:
            break
        rows += judged_image(model, ds, squares, dets, image, seed)
    return pd.DataFrame(rows, columns=['det', 'map', *MEASURES])


def against_blob(table):
    "Map -> measure -> the mean difference from the cell blob, box by box, and its standard error."
    found = {}
    for measure in MEASURES:
        wide = table.pivot(index='det', columns='map', values=measure)
        for name in wide.columns.drop('cell blob'):
            gain = wide[name] - wide['cell blob']
            entry = [round(gain.mean(), 4), round(gain.std()/len(gain)**.5, 4)]
            found.setdefault(name, {})[measure] = entry
    return found


def command_of(a):
    "The command, without the place of the data."
    words = ['python', 'tools/judge_maps.py', str(a.weights), 'DIR', '--detections',
             str(a.detections)]
    words += ['--images', str(a.images)] if a.images else []
    words += ['--seconds', f'{a.seconds:g}'] if a.seconds < 1e9 else []
    return shlex.join([*words, '--seed', str(a.seed), '--results', a.results])


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('weights', type=Path)
    p.add_argument('data', type=Path, help='the folder that holds VOCdevkit')
    p.add_argument('--detections', type=int, default=500)
    p.add_argument('--images', type=int, help='only the first images of the split')
    p.add_argument('--seconds', type=float, default=1e9, help='when to stop, from the start on')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--results', required=True, help='written to results/NAME.json')
    a = p.parse_args(argv)
    start = time.time()
    model = YOLOv3.from_pretrained(a.weights).eval()
    ds = VOCDataset(a.data, (('2007', 'test'),), model.class_names)
    if a.images:
        ds = ds.select(range(a.images))
    table = judge(model, ds, a.detections, start + a.seconds, a.seed)
    means = table.groupby('map', sort=False)[MEASURES].mean().round(4)
    result = {
        'name': a.results, 'command': command_of(a),
        'seed': a.seed, 'commit': commit_used(), 'date': datetime.date.today().isoformat(),
        'versions': versions_used(),
        'device': f'{torch.get_num_threads()} threads, {processor_name()}',
        'minutes': round((time.time() - start)/60, 2), 'weights': a.weights.name,
        'n_test': len(ds), 'detections': int(table.det.nunique()), 'shares': list(SHARES),
        'maps': means.T.to_dict(), 'against_blob': against_blob(table)}
    write_json(ROOT/'results'/f'{a.results}.json', result)
    print(means, f"\n{result['detections']} detections, {result['minutes']} minutes")


if __name__ == '__main__':
    main()
