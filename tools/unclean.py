"""Renew the list of files in ruff.toml that are not clean yet: `python tools/unclean.py`.

The list is meant to shrink: a file that has become clean loses its line, and a code of pyflakes
that no longer occurs goes. New files and new faults are not taken in, unless `--all` asks."""
import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = '[lint.per-file-ignores]\n'
STYLE = 'E', 'W', 'SIM', 'B', 'UP'


def found(head):
    "{file: codes} of all that ruff finds where nothing is excused."
    with tempfile.NamedTemporaryFile('w', suffix='.toml') as config:
        config.write(head)
        config.flush()
        command = ['ruff', 'check', '--config', config.name, '--output-format', 'json']
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    codes = {}
    for fault in json.loads(done.stdout):
        name = Path(fault['filename']).relative_to(ROOT).as_posix()
        codes.setdefault(name, set()).add(fault['code'])
    return codes


def main(everything=False):
    path = ROOT/'ruff.toml'
    head, old = path.read_text(encoding='utf-8').split(MARK)
    known = {name: set(re.findall(r'"(\w+)"', codes))
             for name, codes in re.findall(r'^"([^"]+)" = \[(.*)\]$', old, re.M)}
    lines = []
    for name, codes in sorted(found(head).items()):
        flakes = {code for code in codes if code.startswith('F')}
        if not everything:
            flakes &= known.get(name, set())
        if everything or name in known:
            listed = ', '.join(f'"{code}"' for code in (*STYLE, *sorted(flakes)))
            lines.append(f'"{name}" = [{listed}]\n')
    path.write_text(head + MARK + ''.join(lines), encoding='utf-8')
    print(f'{len(known)} files before, {len(lines)} now')
    return subprocess.call(['ruff', 'check', '--quiet'], cwd=ROOT)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--all', action='store_true', help='take in what is new, too')
    sys.exit(main(p.parse_args().all))
