"""Compare rules of assignment, or forms of the loss, in training.

`python tools/rules.py assignment` writes results/rules_toy.json, `python tools/rules.py loss`
results/forms_toy.json. Network, data and steps are those of tools/schedules.py with its one-cycle
schedule and the optimiser of the presets. The runs differ in the rule or the form, and in the seed,
and are measured on val, never on test. The file is written after each run, so that an interrupted
comparison goes on where it was. `--rule NAME`, as often as wanted, makes the runs of single rows,
for instance longer ones (with `--epochs` and an --out of their own).

The rules are compared with anchors by k-means on these boxes. With COCO's, squeezed to 96 pixels,
the rules that look for the best of the nine leave the finest grid without an object.

A rule of assignment decides which slots an object makes positive and which it closes. The rules
that the library has not are written here, plainly, object by object; the loss, the coding of the
boxes and all else stay the course's, so that a row differs from the first one in its rule alone."""
import argparse
import shlex
from pathlib import Path

import torch
from schedules import ROOT, SETTINGS, compare, train

from yolov3_nb.anchors import STRIDES, encode
from yolov3_nb.boxes import wh_iou, xyxy_to_cxcywh
from yolov3_nb.loss import YOLO_LAMBDAS
from yolov3_nb.training import LitYOLOv3


# ---- rules of assignment: of the nine anchors (9, 2), which are positive, which are ignored

def paper(wh, anchors, iou):
    "YOLOv3, section 2.1: the best of the nine; others that overlap by more than 0.5 are ignored."
    positive = iou == iou.max()
    return positive, (iou > .5) & ~positive


def darknet(wh, anchors, iou):
    "The best of the nine; what is ignored, the loss decides by predicted boxes."
    return iou == iou.max(), torch.zeros(9, dtype=torch.bool)


def yolov4(wh, anchors, iou):
    "All above 0.213, as in yolov4.cfg, and the best; ignoring by predicted boxes."
    return (iou > .213) | (iou == iou.max()), torch.zeros(9, dtype=torch.bool)


def yolov5(wh, anchors, iou):
    "Anchors whose sides differ by less than a factor of 4, in the object's own cell; none ignored."
    ratio = wh / anchors
    worst = torch.maximum(ratio, 1 / ratio).amax(1)
    return worst < 4, torch.zeros(9, dtype=torch.bool)


def assign(targets, anchors, size, rule):
    "Targets in the form of `encode`, by a rule; of two objects the first one keeps a slot."
    height, width = size
    grids = [torch.zeros(len(targets), 3, height//s, width//s, 6) for s in STRIDES]
    nine = torch.as_tensor(anchors).reshape(9, 2)
    for image, target in enumerate(targets):
        boxes = xyxy_to_cxcywh(target['boxes'].reshape(-1, 4).float())
        for box, label, iou in zip(boxes, target['labels'], wh_iou(boxes[:, 2:], nine)):
            for slots, mark in zip(rule(box[2:], nine, iou), (1, -1)):
                for slot in slots.nonzero().flatten().tolist():
                    scale, anchor = divmod(slot, 3)
                    write(grids[scale][image, anchor], box, label, STRIDES[scale], mark)
    return grids


def write(grid, box, label, stride, mark):
    "Put a box (4,), or an ignored slot, into its cell of one anchor's grid (rows, cols, 6)."
    rows, cols = grid.shape[:2]
    col = min(int(box[0] / stride), cols - 1)
    row = min(int(box[1] / stride), rows - 1)
    if grid[row, col, 4] == 1 or grid[row, col, 4] == mark:
        return
    if mark == -1:
        grid[row, col, 4] = -1
        return
    place = box[:2] / stride - torch.tensor([col, row])
    grid[row, col] = torch.cat([place, box[2:], torch.tensor([1., float(label)])])


class RuleModule(LitYOLOv3):
    "Trains on targets that `rule` assigns."
    rule = None

    def losses(self, batch):
        xb, targets = batch
        preds = self(xb)
        encoded = assign(targets, self.model.anchors, xb.shape[-2:], type(self).rule)
        return preds, encoded, self.loss(preds, encoded, self.model.anchors)


PREDICTED = dict(loss_options=dict(ignore_iou=.7))
PAPER_LOSS = dict(box='mse', obj_target='one', class_activation='sigmoid')
SAME_FOR_ALL = {'assignment': dict(anchors='toyvoc'), 'loss': {}}
FILES = {'assignment': 'rules_toy', 'loss': 'forms_toy'}
ONE_EACH = dict.fromkeys(YOLO_LAMBDAS, 1.) | dict(box=2.)  # half of the squares of four numbers

# name: (rule, further settings of the run, further arguments of the module)
RUNS = {
    'assignment': {
        'course: each grid': (None, dict(positive_iou=1.), {}),
        'course: each grid, and all above 0.5': (None, {}, {}),
        'paper': (paper, {}, {}),
        'Darknet': (darknet, {}, PREDICTED),
        'YOLOv4': (yolov4, {}, PREDICTED),
        'YOLOv5, own cell only': (yolov5, {}, {})},
    'loss': {
        'course: each grid, and all above 0.5': (None, {}, {}),
        'the original form': (None, {}, dict(loss='original')),
        'box: squared error': (None, {}, dict(loss_options=dict(box='mse'))),
        'objectness: target 1': (None, {}, dict(loss_options=dict(obj_target='one'))),
        'class: a logistic each': (None, {}, dict(loss_options=dict(class_activation='sigmoid'))),
        'ignored: predicted boxes above 0.7': (None, {}, PREDICTED),
        "the paper's: these three, all weights one": (
            None, {}, dict(loss_options=dict(PAPER_LOSS, lambdas=ONE_EACH)))}}


def fit_of_positives(name, settings):
    """Of val's objects: positives for each, their shares on the grids of `STRIDES`, and the share
    of those whose anchor overlaps their object by less than 0.5."""
    from yolov3_nb.anchors import ANCHORS, scale_anchors
    from yolov3_nb.toyvoc import make_toyvoc
    from yolov3_nb.training import DetectionDataModule
    rule, more, _ = every()[name]
    s = settings | more
    data = DetectionDataModule.from_voc(make_toyvoc(progress=False), test=(), limit=s['limit'],
                                        image_size=s['size'])
    data.setup('validate')
    anchors = torch.as_tensor(scale_anchors(ANCHORS[s['anchors']], s['size']))
    objects, fits = 0, [[], [], []]
    for xb, targets in data.val_dataloader():
        size = xb.shape[-2:]
        grids = (assign(targets, anchors, size, rule) if rule else
                 encode(targets, anchors, size, positive_iou=s['positive_iou']))
        objects += sum(len(target['boxes']) for target in targets)
        for grid, three, fits_here in zip(grids, anchors, fits):
            positive = grid[..., 4] == 1
            which = positive.nonzero()[:, 1]
            iou = wh_iou(grid[positive][:, 2:4], three)
            fits_here.append(iou[torch.arange(len(which)), which])
    fits = [torch.cat(fits_here) for fits_here in fits]
    of_all = torch.cat(fits)
    return dict(positives=len(of_all) / objects, poor=float((of_all < .5).float().mean()),
                by_stride=[len(fits_here) / len(of_all) for fits_here in fits])


def every():
    return RUNS['assignment'] | RUNS['loss']


def run(settings, name, seed):
    rule, more, options = every()[name]
    module_class = rule and type('Ruled', (RuleModule,), dict(rule=staticmethod(rule)))
    found = train(settings | more, 'one_cycle', seed, module_class, **options)
    return found | fit_of_positives(name, settings)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=RUNS)
    parser.add_argument('--out', type=Path, metavar='FILE', help='(default: in results/)')
    parser.add_argument('--seeds', default='0,1,2', help='with commas between (default: 0,1,2)')
    parser.add_argument('--rule', action='append', metavar='NAME', help='only this row')
    parser.add_argument('--epochs', type=int, default=SETTINGS['epochs'])
    parser.add_argument('--limit', type=int, help='images of each split, to try it out')
    args = parser.parse_args()
    if unknown := set(args.rule or []) - set(RUNS[args.what]):
        parser.error(f'no such row: {", ".join(unknown)}; there are: {", ".join(RUNS[args.what])}')
    settings = SETTINGS | SAME_FOR_ALL[args.what]
    settings |= dict(optimizer='muon', epochs=args.epochs, limit=args.limit)
    command = ['python', 'tools/rules.py', args.what]
    for rule in args.rule or []:
        command += ['--rule', rule]
    for flag in ('seeds', 'epochs', 'limit'):
        if (value := getattr(args, flag)) != parser.get_default(flag):
            command += [f'--{flag}', str(value)]
    compare(args.out or ROOT/'results'/f'{FILES[args.what]}.json', shlex.join(command), 'rule',
            args.rule or RUNS[args.what], [int(n) for n in args.seeds.split(',')], settings,
            lambda name, seed: run(settings, name, seed))
