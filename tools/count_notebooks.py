"""Count how the chapters read: `python tools/count_notebooks.py [--seconds] [NB ...]`.

One row a notebook: code cells, lines a code cell (median and 90th percentile), words of prose a
code cell, the longest run of code cells without prose, figures, asserting cells, exercises,
kilobytes; with `--seconds` each is run and timed too, and `--save FILE` keeps the seconds of one
core that they took, which other work on the machine hardly changes, for the page for teachers. The
first row holds what a chapter aims at; workshops (00, 18 and later) and the index are no lesson."""
import argparse
import datetime
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECK = re.compile(r'\b(assert\b|test_\w+\(|expect_fail\()')

AIMS = {'notebook': 'aim', 'code': '20-45', 'median': '≤5', 'p90': '≤18', 'words/cell': '40-100',
        'in a row': '≤3', 'figures': '≥6', 'checks': '≥8',
        'exercises': '', 'kB': '<2000', 'seconds': '', 'of one core': ''}

def source(cell):
    return ''.join(cell['source'])

def code_lines(src):
    return sum(1 for line in src.splitlines()
               if line.strip() and not line.lstrip().startswith('#|'))

def count(path):
    cells = [c for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if source(c).strip()]
    code = [c for c in cells if c['cell_type'] == 'code']
    lines = sorted(code_lines(source(c)) for c in code) or [0]
    words = sum(len(source(c).split()) for c in cells if c['cell_type'] == 'markdown')
    run = longest = 0
    for c in cells:
        run = run + 1 if c['cell_type'] == 'code' else 0
        longest = max(longest, run)
    figures = sum(any(k.startswith('image/') for k in o.get('data', {})) for c in code
                  for o in c['outputs'])
    return {'code': len(code), 'median': f'{statistics.median(lines):.0f}',
            'p90': lines[int(.9 * (len(lines) - 1))],
            'words/cell': f'{words / max(1, len(code)):.0f}', 'in a row': longest,
            'figures': figures,
            'checks': sum(bool(CHECK.search(source(c))) for c in code),
            'exercises': sum(bool(re.search(r'^#+ .*Exercise', source(c), re.M)) for c in cells
                             if c['cell_type'] == 'markdown'),
            'kB': f'{path.stat().st_size / 1024:.0f}'}

def seconds(path):
    def spent():
        return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    start, before = time.time(), spent()
    ok = subprocess.run(['nbdev_test', '--path', str(path), '--n_workers', '0'],
                        capture_output=True, text=True, cwd=ROOT)
    if 'Success.' not in ok.stdout + ok.stderr:
        return {'seconds': 'failed', 'of one core': ''}
    return {'seconds': f'{time.time() - start:.0f}', 'of one core': f'{spent() - before:.0f}'}

def save(file, rows, argv):
    """Keep the seconds of one core that each notebook took, beside those that the file holds
    already."""
    old = json.loads(file.read_text(encoding='utf-8'))['seconds'] if file.exists() else {}
    new = {r['notebook'] + '.ipynb': int(r['of one core']) for r in rows
           if r.get('of one core', '').isdigit()}
    kept = {'name': file.stem, 'command': ' '.join(['python tools/count_notebooks.py', *argv]),
            'date': str(datetime.date.today()),
            'device': 'one CPU core', 'seconds': dict(sorted((old | new).items()))}
    file.write_text(json.dumps(kept, indent=1) + '\n', encoding='utf-8')

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', nargs='*', type=Path)
    p.add_argument('--seconds', action='store_true',
                   help='run each notebook by nbdev_test, and time it')
    p.add_argument('--save', type=Path, metavar='FILE',
                   help='keep the seconds in this file, such as results/chapters.json')
    a = p.parse_args()
    a.seconds = a.seconds or bool(a.save)
    rows = [{k: v for k, v in AIMS.items() if k not in ('seconds', 'of one core') or a.seconds}]
    for f in a.notebooks or sorted((ROOT/'nbs').glob('*.ipynb')):
        rows.append({'notebook': f.stem} | count(f) | (seconds(f) if a.seconds else {}))
    if len(rows) == 1:
        sys.exit('No notebooks found.')
    if a.save:
        save(a.save, rows[1:], sys.argv[1:])
    width = {k: max(len(k), *(len(str(r[k])) for r in rows)) for k in rows[0]}
    for r in [dict.fromkeys(rows[0])] + rows:
        print('  '.join(str(k if r[k] is None else r[k]).ljust(width[k]) for k in width))
