"""Compare AdamW and Muon: `python tools/optimizers.py`.

Network, data and steps are those of tools/schedules.py, with its one-cycle schedule. Runs differ
in optimiser and seed alone, and are measured on val, never on test. results/optimizers_toy.json is
written after each run, so that an interrupted comparison goes on where it was."""
import argparse
import json
import logging
import warnings
from pathlib import Path

from schedules import ROOT, SETTINGS, record, train

OPTIMIZERS = ('muon', 'adamw')

def main(out, seeds):
    from yolov3_nb.files import write_json
    logging.getLogger('pytorch_lightning').setLevel(logging.ERROR)
    warnings.filterwarnings('ignore')
    runs = json.loads(out.read_text(encoding='utf-8'))['runs'] if out.exists() else []
    for seed in seeds:
        for optimizer in OPTIMIZERS:
            if any((r['optimizer'], r['seed']) == (optimizer, seed) for r in runs):
                continue
            found = train(SETTINGS | dict(optimizer=optimizer), 'one_cycle', seed)
            runs.append(dict(optimizer=optimizer, seed=seed, **found))
            write_json(out, record(out, 'python tools/optimizers.py', SETTINGS, runs))
            print(f"{optimizer} {seed}: mAP {found['plain']['map50']:.3f}, averaged "
                  f"{found['averaged']['map50']:.3f}, {found['cpu_seconds']} s", flush=True)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, metavar='FILE',
                        default=ROOT/'results'/'optimizers_toy.json')
    parser.add_argument('--seeds', default='0,1,2', help='with commas between (default: 0,1,2)')
    args = parser.parse_args()
    main(args.out, [int(n) for n in args.seeds.split(',')])
