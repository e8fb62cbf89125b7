"""Run all tests, quickly on few cores: `python tools/test.py [notebooks] [tests]`; both by default.

`notebooks` is `nbdev_test` on every notebook, `tests` is pytest on tests/. nbdev_test starts one
process a core, eight at most, and each would compute with as many threads as there are cores: on
two cores, four threads that wait for each other. So each process gets its share of the cores, by
OMP_NUM_THREADS; a value that is set already is kept. Both parts run, whatever the first one finds;
the exit status is 1 where one of them failed."""
import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 8  # nbdev_test's own limit


def threads(cores):
    "How many threads each of nbdev_test's processes gets."
    return max(1, cores // min(cores, WORKERS))


def commands():
    "{part: its command}, of the environment that runs this script."
    here = str(Path(sys.executable).parent)
    nbdev_test = shutil.which('nbdev_test', path=here) or 'nbdev_test'
    return dict(notebooks=[nbdev_test], tests=[sys.executable, '-m', 'pytest', '-q', 'tests'])


def main(parts):
    env = {'OMP_NUM_THREADS': str(threads(os.cpu_count() or 1))} | os.environ
    failed = False
    for part in parts:
        start = time.time()
        status = subprocess.call(commands()[part], cwd=ROOT, env=env)
        failed |= status != 0
        print(f'{part}: {(time.time() - start) / 60:.1f} minutes, status {status}', flush=True)
    return int(failed)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('parts', nargs='*', help='notebooks, tests')
    parts = p.parse_args().parts or list(commands())
    if unknown := set(parts) - set(commands()):
        p.error(f'there is no part {", ".join(sorted(unknown))}: say notebooks, tests, or nothing')
    sys.exit(main(parts))
