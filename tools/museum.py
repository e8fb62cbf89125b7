"""Price the faults of chapter 13 that touch training: `python tools/museum.py [--seconds 150]`.

One short setting: the course's network gets fresh heads, which learn together with its neck on
ToyVOC's train split, above a backbone that stays as it is. It is measured on val, never on test. As
the backbone does not learn, what it says of each image and of its mirror image is computed once and
kept in the folder of temporary files. Each run has one fault, or none, and is made with each of
three seeds. What is measured goes to results/museum.json after every run, so that an interrupted
pricing goes on where it was. `--seconds` begins no further run after so long; `--only` takes names
of runs."""
import argparse
import copy
import datetime
import json
import math
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = dict(size=96, batch=8, steps=100, lr=5e-3, warmup=0.2, weight_decay=0.05, clip=10.,
                positive_iou=0.5, anchors='toyvoc', ema=0.9, score_threshold=0.05, n_val=200)
SEEDS = (0, 1, 2)


# ---- data, network, measurement -----------------------------------------------------------------
class Split:
    "A split in memory: targets, and what the backbone says of the images and their mirror images."
    def __init__(self, size, targets, maps, mirror_maps):
        self.size = size                # of the letterboxed images
        self.targets = targets
        self.maps = maps                # three tensors (N, C, S/s, S/s), float16
        self.mirror_maps = mirror_maps

    def first(self, n):
        "The first n images alone."
        return Split(self.size, self.targets[:n], [m[:n] for m in self.maps],
                     [m[:n] for m in self.mirror_maps])

    def maps_of(self, rows, mirror=False):
        return [m[rows].float() for m in (self.mirror_maps if mirror else self.maps)]

    def batches(self, n, seed):
        "Random batches without end, every other one in the mirror: maps and targets."
        g = torch.Generator().manual_seed(seed)
        while True:
            for rows in torch.randperm(len(self.targets), generator=g).split(n)[:-1]:
                mirror = bool(torch.rand((), generator=g) < .5)
                targets = [self.targets[i] for i in rows.tolist()]
                if mirror:
                    targets = [mirrored(target, self.size) for target in targets]
                yield self.maps_of(rows, mirror), targets


def mirrored(target, side):
    x1, y1, x2, y2 = target['boxes'].unbind(1)
    return target | {'boxes': torch.stack([side - x2, y1, side - x1, y2], 1)}


@torch.no_grad()
def make_split(name, size, n=None):
    from yolov3_nb.augment import DetectionDataset, test_transform
    from yolov3_nb.data import VOCDataset
    from yolov3_nb.model import YOLOv3
    from yolov3_nb.toyvoc import make_toyvoc
    ds = VOCDataset(make_toyvoc(progress=False), (('2007', name),))
    samples = DetectionDataset(ds.select(range(n or len(ds))), test_transform(size), size)
    pairs = [samples[i] for i in range(len(samples))]
    x = torch.stack([(x*255).round().byte() for x, _ in pairs])
    backbone = YOLOv3.from_pretrained(ROOT/'weights'/'toy').backbone.eval()

    def maps(images):
        parts = [backbone(part.float()/255) for part in images.split(50)]
        return [torch.cat(scale).half() for scale in zip(*parts)]
    return Split(size, [target for _, target in pairs], maps(x), maps(x.flip(3)))


def load_data(s):
    "Both splits, from the folder of temporary files where they have been made."
    kept = Path(tempfile.gettempdir())/f"yolov3_nb_museum_{s['size']}_{s['n_val']}.pt"
    if not kept.exists():
        data = dict(train=make_split('train', s['size']),
                    val=make_split('val', s['size'], s['n_val']))
        torch.save({name: vars(split) for name, split in data.items()}, kept)
    loaded = torch.load(kept, weights_only=False)
    return {name: Split(**parts) for name, parts in loaded.items()}


def fresh(s):
    "The course's neck under heads that know nothing yet; it is given the backbone's maps."
    from yolov3_nb.anchors import ANCHORS, scale_anchors
    from yolov3_nb.model import YOLOv3

    class NeckAndHeads(YOLOv3):
        def forward(self, maps):
            c5, c4, c3 = maps
            p5 = self.set5(c5)
            p4 = self.set4(self.route4(p5, c4))
            p3 = self.set3(self.route3(p4, c3))
            return [self.head5(p5), self.head4(p4), self.head3(p3)]

    anchors = scale_anchors(ANCHORS[s['anchors']], s.get('anchor_size', s['size'])).tolist()
    model = NeckAndHeads(width=0.25, anchors=anchors, image_size=s['size'])
    model.backbone = nn.Identity()
    trained = YOLOv3.from_pretrained(ROOT/'weights'/'toy').state_dict()
    neck = {k: v for k, v in trained.items() if k.startswith(('set', 'route'))}
    model.load_state_dict(neck, strict=False)
    return model


@torch.no_grad()
def mean_ap(model, split, s):
    "mAP@0.5 of a network on a split."
    from yolov3_nb.evaluation import flatten, voc_ap
    from yolov3_nb.model import detect, eval_mode
    if not all(p.isfinite().all() for p in model.state_dict().values()):
        return 0.
    found = []
    with eval_mode(model):
        for rows in torch.arange(len(split.targets)).split(50):
            preds = [p.nan_to_num(0., 0., 0.) for p in model(split.maps_of(rows))]
            found += detect(preds, model, s['score_threshold'])
    return voc_ap(flatten(found), flatten(split.targets), 20)['map']


# ---- the faults ---------------------------------------------------------------------------------
@torch.no_grad()
def log_that_writes(preds, targets, anchors):
    "A loss for the log that works in place: predictions and targets are changed when it is done."
    for pred, target, three in zip(preds, targets, anchors):
        pred[..., :2] = pred[..., :2].sigmoid()
        positive = target[..., 4] == 1
        wanted = target[..., 2:4]/three[:, None, None]
        target[..., 2:4] = wanted.clamp(min=1e-9).log()
        error = (pred[..., :4] - target[..., :4])[positive].square().mean()
    return error


@torch.no_grad()
def decode_that_writes(preds, targets, anchors):
    "Boxes for the log, decoded through a view of the raw output."
    for pred, three in zip(preds, anchors):
        boxes = pred[..., :4]
        boxes[..., :2].sigmoid_()
        boxes[..., 2:] = three[:, None, None]*boxes[..., 2:].clamp(max=4.).exp()


# ---- training -----------------------------------------------------------------------------------
def schedule(opt, s):
    "One cycle over `cycle` steps, which should be the steps of the run; or a constant rate."
    steps = s.get('cycle', s['steps'])
    if s.get('constant'):
        return torch.optim.lr_scheduler.ConstantLR(opt, 1.)
    return torch.optim.lr_scheduler.OneCycleLR(opt, s['lr'], total_steps=steps,
                                               pct_start=s['warmup'])


def loss_of(s, before_loss=None):
    "loss(model, batch), which may have a look at what it is given first."
    from yolov3_nb.anchors import encode
    from yolov3_nb.loss import yolo_loss

    def loss(model, batch):
        xb, targets = batch
        preds = model(xb)
        encoded = encode(targets, model.anchors, s['size'], positive_iou=s['positive_iou'])
        if before_loss:
            before_loss(preds, encoded, model.anchors)
        return yolo_loss(preds, encoded, model.anchors)['loss']
    return loss


def fit(model, batches, s, before_loss=None, after_step=None):
    "Train; the step at which the loss was not finite, or None."
    from yolov3_nb.training import decay_groups
    opt = torch.optim.AdamW(decay_groups(model, s['weight_decay']), lr=s['lr'], fused=True)
    rates = schedule(opt, s)
    loss = loss_of(s, before_loss)
    model.train()
    for step, batch in zip(range(s['steps']), batches):
        value = loss(model, batch)
        if not math.isfinite(value.item()):
            return step
        opt.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), s['clip'])
        opt.step()
        if step + 1 < s.get('cycle', s['steps']):  # a cycle that is over stays where it ended
            rates.step()
        if after_step:
            after_step(step)
    return None


def averaged(model, decay):
    "A moving average of a model, and the function that moves it."
    average = copy.deepcopy(model)

    def move(step):
        keep = min(decay, (1 + step)/(10 + step))
        for kept, now in zip(average.state_dict().values(), model.state_dict().values()):
            if kept.is_floating_point():
                kept.lerp_(now, 1 - keep)
    return average, move


def train(data, s, seed, before_loss=None, more=False):
    """Figures of one run.

    With `more`, also those of its averaged weights and on what it learned from, and the largest
    logit of a width or height that its loss saw: beyond log(64) the clamp would act."""
    torch.manual_seed(seed)
    largest = [0.]

    def look(preds, targets, anchors):
        for pred, target in zip(preds, targets):
            logits = pred[target[..., 4] == 1][:, 2:4]
            largest.append(logits.max().item() if len(logits) else 0.)
    model = fresh(s)
    average, move = averaged(model, s['ema'])
    images = data['train'].first(s.get('n_train'))
    batches = images.batches(s['batch'], seed)
    if more:
        before_loss = look
    broke = fit(model, batches, s, before_loss, move if more else None)
    found = dict(map50=mean_ap(model, data['val'], s))
    if more:
        found['averaged'] = mean_ap(average, data['val'], s)
        found['largest_logit'] = max(largest)
        found['on_train'] = mean_ap(model, images.first(s['n_val']), s)
    return found if broke is None else found | dict(not_finite_at=broke)


# ---- range tests --------------------------------------------------------------------------------
def range_run(data, s, seed, steps):
    "A range test that goes on after the loss has exploded."
    from yolov3_nb.lr_finder import lr_ramp, range_test
    torch.manual_seed(seed)
    batches = data['train'].batches(s['batch'], seed)
    curve = range_test(fresh(s), batches, loss_of(s), lr_ramp(1e-5, 10., steps), stop=1e9,
                       clip=s['clip'])
    return dict(lrs=curve.lrs, raw=curve.raw, losses=curve.losses)


def suggested(curve, whole):
    "The steepest rate of a curve cut where it explodes; or of the whole of it."
    from yolov3_nb.lr_finder import steepest
    losses = curve['losses']
    if whole:
        slope = torch.gradient(torch.tensor(losses, dtype=torch.float64))[0]
        return curve['lrs'][10 + int(slope[10:].argmin())]
    lowest = math.inf
    for end, loss in enumerate(losses):
        lowest = min(lowest, loss)
        if loss > 2*lowest:
            losses = losses[:end]
            break
    return curve['lrs'][steepest(losses)]


# ---- what is run --------------------------------------------------------------------------------
RUNS = {  # what matters most comes first, where the seconds end early
    'sound': dict(more=True),
    'anchors of COCO at 416': dict(settings=dict(anchors='coco', anchor_size=416)),
    'anchors of COCO': dict(settings=dict(anchors='coco')),
    'cycle too long': dict(settings=dict(cycle=400)),
    'constant rate': dict(settings=dict(constant=True), more=True),
    'few images': dict(settings=dict(n_train=100), more=True),
    'loss writes': dict(before_loss=log_that_writes),
    'decode writes': dict(before_loss=decode_that_writes),
}
RATES = {  # which range test the rate is read from, and whether beyond the minimum
    'rate of 40 steps': ('range test 40', False),
    'rate beyond the minimum': ('range test 100', True),
}
NAMES = ['sound', 'range test 100', 'range test 40', *RATES, *RUNS]


def measure(name, seed, data, s, earlier):
    if name.startswith('range test'):
        return range_run(data, s, seed, int(name.split()[-1]))
    if name in RATES:
        test, whole = RATES[name]
        curve = next(r for r in earlier if (r['run'], r['seed']) == (test, seed))
        lr = suggested(curve, whole)
        return dict(lr=lr, **train(data, s | dict(lr=lr), seed))
    how = dict(RUNS[name])
    return train(data, s | how.pop('settings', {}), seed, **how)


def main(out, seconds, only, seeds):
    from yolov3_nb.files import write_json
    from yolov3_nb.networks import device_name, processor_name
    from yolov3_nb.runs import commit_used, versions_used
    start = time.monotonic()
    torch.set_num_threads(1)
    s = SETTINGS
    result = json.loads(out.read_text(encoding='utf-8')) if out.exists() else dict(runs=[])
    if result['runs'] and result['settings'] != s:
        raise SystemExit(f'{out} was measured with other settings: give another --out.')
    done = {(r['run'], r['seed']) for r in result['runs']}
    names = list(dict.fromkeys(only or NAMES))
    todo = [(name, seed) for seed in seeds for name in names if (name, seed) not in done]
    if not todo:
        return
    data = load_data(s)
    for name, seed in todo:
        if time.monotonic() - start > seconds:
            print(f'{len(todo)} runs were to be made; go on with the same command.')
            return
        began = time.process_time()
        found = measure(name, seed, data, s, result['runs'])
        found['cpu_seconds'] = round(time.process_time() - began, 1)
        runs = [*result['runs'], dict(run=name, seed=seed, **found)]
        result = dict(name=out.stem, command='python tools/museum.py', commit=commit_used(),
                      date=datetime.date.today().isoformat(), device=device_name('cpu'),
                      processor=processor_name(), versions=versions_used(), settings=s, runs=runs)
        write_json(out, result)
        shown = {k: round(v, 3) for k, v in found.items() if isinstance(v, float | int)}
        print(name, seed, shown, flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, metavar='FILE', default=ROOT/'results'/'museum.json')
    parser.add_argument('--seconds', type=float, default=math.inf, help='(default: no end)')
    parser.add_argument('--only', action='append', metavar='NAME', help='may be given again')
    parser.add_argument('--seeds', default='0,1,2', help='with commas between (default: 0,1,2)')
    args = parser.parse_args()
    main(args.out, args.seconds, args.only, [int(n) for n in args.seeds.split(',')])
