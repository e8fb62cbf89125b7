"""Time every figure for the 4,952 test pictures of VOC 2007: `python tools/bench_evaluation.py
[--boxes 100] [--threads 1] [--results NAME]`.

The objects are VOC's own where the environment variable YOLOV3_VOC names the folder that holds
VOCdevkit, else about as many are drawn by lot. The detections are made up, from one seed: boxes
near the objects, off by little or much, a tenth of them of another class, and noise up to the
number asked for, all of them with scores above 0.05. Memory is counted from before they exist: all
that it takes beside a model."""
import argparse
import contextlib
import datetime
import json
import re
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

def memory(peak=False):
    "Megabytes that this process holds, or ever held."
    status = Path('/proc/self/status')
    if status.exists():  # getrusage begins with what the process that started this one held
        found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status.read_text())
        return int(found[1]) / 1024
    unit = 1024 if sys.platform != 'darwin' else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

def objects(n):
    """Ground truths of `n` test pictures of VOC 2007, or about as many by lot; and where they come
    from."""
    import torch
    from yolov3_nb.data import VOCDataset, real_voc
    from yolov3_nb.evaluation import flatten
    if voc := real_voc():
        ds = VOCDataset(voc, (('2007', 'test'),))
        return flatten([ds.annotation(i) for i in range(min(n, len(ds)))]), 'voc07-test'
    g = torch.Generator().manual_seed(1)
    m = 3*n
    corner = torch.rand(m, 2, generator=g)*torch.tensor([350., 250])
    return {'image': torch.arange(n).repeat_interleave(3),
            'boxes': torch.cat([corner, corner + 20 + 130*torch.rand(m, 2, generator=g)], 1),
            'labels': torch.randint(20, (m,), generator=g),
            'difficult': torch.rand(m, generator=g) < .2}, 'drawn by lot'

def detections(gts, n, boxes, seed=0):
    "`boxes` detections for each of `n` pictures: six near each object, the rest anywhere."
    import torch
    g = torch.Generator().manual_seed(seed)
    def U(*shape):
        return torch.rand(*shape, generator=g)
    i = torch.arange(len(gts['labels'])).repeat_interleave(6)
    side = (gts['boxes'][i, 2:] - gts['boxes'][i, :2]).repeat(1, 2)
    near = gts['boxes'][i] + .35*U(len(i), 1)*torch.randn(len(i), 4, generator=g)*side
    labels = torch.where(U(len(i)) < .9, gts['labels'][i],
                         torch.randint(20, (len(i),), generator=g))
    spare = (boxes - torch.bincount(gts['image'][i], minlength=n)).clamp(min=0)
    m = int(spare.sum())
    corner = U(m, 2)*torch.tensor([400., 300])
    parts = {'image': (gts['image'][i], torch.arange(n).repeat_interleave(spare)),
             'labels': (labels, torch.randint(20, (m,), generator=g)),
             'boxes': (torch.cat([near[:, :2].minimum(near[:, 2:]),
                                  near[:, :2].maximum(near[:, 2:])], 1),
                       torch.cat([corner, corner + 10 + 150*U(m, 2)], 1)),
             'scores': (.05 + .95*U(len(i)).sqrt(), .05 + .5*U(m)**3)}
    return {k: torch.cat(v) for k, v in parts.items()}

def measure(n=4952, boxes=100, threads=1):
    "Seconds of each figure, and the megabytes above those before there were detections."
    import torch
    from yolov3_nb.errors import confusion_matrix, diagnose, reliability, tide
    from yolov3_nb.evaluation import coco_ap, voc_ap
    from yolov3_nb.toyvoc import VOC_CLASSES
    torch.set_num_threads(threads)
    gts, source = objects(n)
    before = memory()
    dets, seconds, found = detections(gts, n, boxes), {}, {}
    for name, f in {'VOC AP, area': lambda: voc_ap(dets, gts, 20),
                    'VOC AP, 11 points': lambda: voc_ap(dets, gts, 20, method='11pt'),
                    'COCO AP, all sizes': lambda: coco_ap(dets, gts, 20),
                    'error types': lambda: tide(dets, gts, 20),
                    'confusion matrix': lambda: confusion_matrix(dets, gts, 20),
                    'reliability': lambda: reliability(dets, gts)}.items():
        start = time.perf_counter()
        found[name] = f()
        seconds[name] = time.perf_counter() - start
    start, cpu = time.perf_counter(), time.process_time()
    together = diagnose(dets, gts, VOC_CLASSES)
    assert together['map50'] == found['VOC AP, area']['map']
    assert together['tide']['gain'] == found['error types']['gain']
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {'data': source, 'pictures': n, 'objects': len(gts['labels']),
            'detections': len(dets['labels']), 'threads': threads,
            'seconds': {k: round(v, 2) for k, v in seconds.items()},
            'seconds_in_all': round(sum(seconds.values()), 2),
            'seconds_in_one_call': round(wall, 2), 'core_seconds_in_one_call': round(cpu, 2),
            'memory_mb': round(memory(peak=True) - before),
            'figures': {k: together[k] for k in ('map50', 'map50_11pt', 'map_coco')}}

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--pictures', type=int, default=4952)
    p.add_argument('--boxes', type=int, default=100, help='detections a picture')
    p.add_argument('--threads', type=int, default=1, help='of PyTorch; more gain little here')
    p.add_argument('--results', metavar='NAME', help='also write results/NAME.json')
    a = p.parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        found = measure(a.pictures, a.boxes, a.threads)   # what is missing is said there
    if a.results:
        from yolov3_nb.files import write_json
        from yolov3_nb.networks import device_name
        from yolov3_nb.runs import commit_used, versions_used
        write_json(ROOT/'results'/f'{a.results}.json',
                   {'name': a.results,
                    'command': ' '.join(['python', 'tools/bench_evaluation.py', *sys.argv[1:]]),
                    'seed': 0, 'commit': commit_used(),
                    'date': datetime.date.today().isoformat(), 'versions': versions_used(),
                    'device': device_name('cpu'), **found})
    print(json.dumps(found, indent=1))
