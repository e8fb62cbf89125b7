"""How long one picture takes, by five runtimes in turn: `python tools/bench_inference.py [--threads
2] [--rounds 15] [--results NAME]`.

Batch 1, width 1.0, 416 pixels, random weights: the time does not depend on what was learned. In
each round every runtime has one turn, so that whatever else the machine does falls on all of them
alike; the figures are medians, and ratios of medians."""
import argparse
import datetime
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
import cv2
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from yolov3_nb.files import write_json  # noqa: E402
from yolov3_nb.networks import processor_name  # noqa: E402
from yolov3_nb.runs import commit_used, versions_used  # noqa: E402
from yolov3_nb.darknet import save_darknet  # noqa: E402
from yolov3_nb.export import export_onnx, fold_batch_norm, largest_difference  # noqa: E402
from yolov3_nb.model import YOLOv3, count_parameters  # noqa: E402

def runtimes(model, x, folder, threads):
    "Name -> a function that runs the network once and gives its three raw outputs."
    folded = fold_batch_norm(model)
    # with channels first it is much slower where the processor does not compute in bfloat16
    last = dict(dtype=torch.bfloat16, memory_format=torch.channels_last)
    half, x16 = fold_batch_norm(model).to(**last), x.to(**last)
    export_onnx(model, folder/'net.onnx', decode=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder/'net.onnx', options,
                                           providers=['CPUExecutionProvider'])
    save_darknet(model, folder/'net.weights')
    net = cv2.dnn.readNetFromDarknet(str(folder/'net.cfg'), str(folder/'net.weights'))
    # the layer before yolo_82, …
    before = [f"conv_{int(name.split('_')[1]) - 1}" for name in net.getUnconnectedOutLayersNames()]
    def opencv():
        net.setInput(x.numpy())
        return [torch.from_numpy(o).unflatten(1, (3, -1)).permute(0, 1, 3, 4, 2)
                for o in net.forward(before)]
    return {'PyTorch': lambda: model(x), 'PyTorch, folded': lambda: folded(x),
            'PyTorch, folded, bfloat16': lambda: half(x16),
            'ONNX Runtime': lambda: session.run(None, {'images': x.numpy()}), 'OpenCV DNN': opencv}

@torch.inference_mode()
def measure(runs, rounds):
    """Seconds a turn of every runtime in every round, after one turn that does not count; and how
    far each is from the first."""
    first = next(iter(runs.values()))()
    scale = max(float(p.abs().max()) for p in first)
    gaps = {name: largest_difference([torch.as_tensor(p).float()/scale for p in run()],
                                     [p/scale for p in first]) for name, run in runs.items()}
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds, gaps

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--rounds', type=int, default=15)
    p.add_argument('--size', type=int, default=416)
    p.add_argument('--width', type=float, default=1.)
    p.add_argument('--results', default='bench_inference', help='written to results/NAME.json')
    a, start = p.parse_args(argv), time.time()
    torch.set_num_threads(a.threads)
    cv2.setNumThreads(a.threads)
    torch.manual_seed(0)
    model = YOLOv3(20, a.width, image_size=a.size, class_activation='sigmoid').eval()
    with tempfile.TemporaryDirectory() as folder:
        seconds, gaps = measure(runtimes(model, torch.rand(1, 3, a.size, a.size), Path(folder),
                                         a.threads), a.rounds)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    rows = {name: dict(median_s=round(m, 4), fastest_s=round(min(seconds[name]), 4),
                       ratio=round(m/median['PyTorch'], 3),
                       fastest_ratio=round(min(seconds[name])/min(seconds['PyTorch']), 3),
                       difference=gaps[name]) for name, m in median.items()}
    versions = versions_used() | {n: version(n) for n in ('onnx', 'onnxruntime')}
    write_json(ROOT/'results'/f'{a.results}.json',
               dict(name=a.results,
                    command=' '.join(['tools/bench_inference.py',
                                      *(sys.argv[1:] if argv is None else argv)]), seed=0,
                    commit=commit_used(),
                    date=datetime.date.today().isoformat(), versions=versions,
                    device=f'{a.threads} threads, {processor_name()}',
                    minutes=round((time.time() - start)/60, 2), rounds=a.rounds, batch=1,
                    model=dict(width=a.width, image_size=a.size,
                               parameters=count_parameters(model)), runtimes=rows))
    for name, row in rows.items():
        print(f"{name:28} {row['median_s']*1000:8.1f} ms  × {row['ratio']:.2f}  difference "
              f"{row['difference']:.1e}")

if __name__ == '__main__':
    main()
