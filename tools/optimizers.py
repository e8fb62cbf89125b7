"""Compare AdamW and Muon: `python tools/optimizers.py`.

Network, data and steps are those of tools/schedules.py, with its one-cycle schedule. Runs differ
in optimiser and seed alone, and are measured on val, never on test. results/optimizers_toy.json is
written after each run, so that an interrupted comparison goes on where it was."""
import argparse
from pathlib import Path

from schedules import ROOT, SETTINGS, compare, train

def run(optimizer, seed):
    return train(SETTINGS | dict(optimizer=optimizer), 'one_cycle', seed)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, metavar='FILE',
                        default=ROOT/'results'/'optimizers_toy.json')
    parser.add_argument('--seeds', default='0,1,2', help='with commas between (default: 0,1,2)')
    args = parser.parse_args()
    seeds = [int(n) for n in args.seeds.split(',')]
    compare(args.out, 'python tools/optimizers.py', 'optimizer', ('muon', 'adamw'), seeds, SETTINGS,
            run)
