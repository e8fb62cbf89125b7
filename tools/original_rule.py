"""Judge detectors by the original's rule of mAP: `python tools/original_rule.py DIR`.

The figures of the original (0.43 on VOC 2007 test) were computed by a rule of its own, as its
program shows (github.com/Madhur-1/ERA-v1 at f96a752, S13/Utilities/utils.py): boxes are ranked, cut
at 0.05 and suppressed by their objectness alone, the AP of a class is the area of the trapezoids
under its raw points, from precision 1 at recall 0 on, and difficult objects count like others. Here
that rule is applied to weights of the course, beside the rule of the course. (One thing is left
out: the original reads the true boxes back from one grid of its targets, so that a box that found
no free anchor there is not in its truth.)

DIR holds VOCdevkit, with the test split of 2007. results/original_rule.json gets a row for each of
the weights."""
import argparse
import datetime
import json
import shlex
import sys
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from yolov3_nb.augment import DetectionDataset, collate, test_transform
from yolov3_nb.data import VOCDataset
from yolov3_nb.evaluation import ground_truths, match, pr_curve, predict, voc_ap
from yolov3_nb.files import write_json
from yolov3_nb.model import YOLOv3
from yolov3_nb.networks import device_name, processor_name
from yolov3_nb.runs import commit_used, versions_used
from yolov3_nb.toyvoc import make_toyvoc

ROOT = Path(__file__).resolve().parent.parent


def score_by_objectness(model):
    "Let the model's likeliest class have a probability of 1, so that objectness is the score."
    def one_class(module, inputs, preds):
        sure = []
        for pred in preds:
            best = F.one_hot(pred[..., 5:].argmax(-1), pred.shape[-1] - 5)
            sure.append(torch.cat([pred[..., :5], 100. * best - 50.], -1))
        return sure
    return model.register_forward_hook(one_class)


def trapezoids(recall, precision):
    "Area under the raw points, from precision 1 at recall 0 on."
    recall = torch.cat([recall.new_zeros(1), recall])
    precision = torch.cat([precision.new_ones(1), precision])
    return torch.trapezoid(precision, recall).item()


def mean_ap(dets, truth, num_classes):
    "Mean over the classes that have objects of the area of their trapezoids."
    verdict = match(dets, truth)['verdict']
    aps = []
    for label in range(num_classes):
        if (truth['labels'] == label).any():
            recall, precision, _ = pr_curve(dets, verdict, truth, label)
            aps.append(trapezoids(recall, precision))
    return sum(aps) / len(aps)


def judge(weights, dataset, batch=32):
    "mAPs of a detector by each part of the original's rule."
    model = YOLOv3.from_pretrained(weights).eval()
    n = len(model.class_names)
    size = model.image_size
    loader = DataLoader(DetectionDataset(dataset, test_transform(size), size), batch,
                        collate_fn=collate)
    truth = ground_truths(dataset)
    none_difficult = truth | dict(difficult=torch.zeros_like(truth['difficult']))
    ours = predict(model, loader, progress=False)['dets']
    hook = score_by_objectness(model)
    theirs = predict(model, loader, progress=False)['dets']
    hook.remove()
    return dict(n_test=len(dataset), size=size, ours=voc_ap(ours, truth, n)['map'],
                trapezoids=mean_ap(ours, truth, n), objectness=voc_ap(theirs, truth, n)['map'],
                difficult=voc_ap(ours, none_difficult, n)['map'],
                original=mean_ap(theirs, none_difficult, n))


def main(data, names, limit, out):
    command = shlex.join(['python', 'tools/original_rule.py', 'DIR', *names])
    rows = json.loads(out.read_text(encoding='utf-8'))['rows'] if out.exists() else {}
    for name in names:
        if name in rows:
            continue
        place = make_toyvoc(progress=False) if name == 'toy' else data
        classes = YOLOv3.from_pretrained(ROOT/'weights'/name).class_names
        dataset = VOCDataset(place, (('2007', 'test'),), classes)
        if limit:
            dataset = dataset.select(range(limit))
        rows[name] = judge(ROOT/'weights'/name, dataset)
        print(name, rows[name], flush=True)
        write_json(out, dict(name=out.stem, command=command, commit=commit_used(),
                             date=datetime.date.today().isoformat(), device=device_name('cpu'),
                             processor=processor_name(), versions=versions_used(), rows=rows))


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', type=Path, help='the folder that holds VOCdevkit')
    p.add_argument('names', nargs='*', default=['toy', 'voc'], help='of weights/')
    p.add_argument('--limit', type=int, help='only the first images, to try it out')
    p.add_argument('--out', type=Path, default=ROOT/'results'/'original_rule.json')
    a = p.parse_args()
    sys.exit(main(a.data, a.names, a.limit, a.out))
