"""Run all tests, quickly on few cores: `python tools/test.py [notebooks] [tests]`; both by default.

`notebooks` is `nbdev_test` on every notebook, `tests` is pytest on tests/. Both start a process a
core, eight at most, and each would compute with as many threads as there are cores: on two cores,
four threads that wait for each other. So each process gets one thread, by OMP_NUM_THREADS; a value
that is set already is kept. pytest needs pytest-xdist for several processes, and takes one without
it. Both parts run, whatever the first one finds; the exit status is 1 where one of them failed."""
import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 8  # nbdev_test's own limit


def environment(given):
    "The environment of the commands: one thread a process, unless a number is given."
    return {'OMP_NUM_THREADS': '1'} | dict(given)


def several(cores):
    "Arguments with which pytest runs files side by side; tests of one file stay together."
    if importlib.util.find_spec('xdist') is None or cores < 2:
        return []
    return ['-n', str(min(cores, WORKERS)), '--dist', 'loadfile']


def commands():
    "{part: its command}, of the environment that runs this script."
    here = str(Path(sys.executable).parent)
    nbdev_test = shutil.which('nbdev_test', path=here) or 'nbdev_test'
    pytest = [sys.executable, '-m', 'pytest', '-q', 'tests', *several(os.cpu_count() or 1)]
    return dict(notebooks=[nbdev_test], tests=pytest)


def main(parts):
    env, failed = environment(os.environ), False
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
