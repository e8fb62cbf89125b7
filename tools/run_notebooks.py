"""Run notebooks and keep what they print and draw: `python tools/run_notebooks.py [NB ...]`.

The same cells are skipped as by `nbdev_test` (`#| eval: false`, and those flagged `slow` or `cuda`
unless asked for by `--flags slow`); a skipped cell keeps the output that it has. Stops at the first
error and then leaves that notebook as it was."""
import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def skipper(path, flags):
    "skip(cell): whether a cell of the notebook is left out."
    from nbdev.config import get_config
    from nbdev.process import NBProcessor
    skip_flags = set(get_config().tst_flags.split()) - set(flags.split())
    processed = NBProcessor(path, process=True).nb  # a second reading, only for its directives

    def skip(cell):
        if cell.cell_type != 'code':
            return True
        directives = getattr(processed.cells[cell.idx_], 'directives_', None) or {}
        if directives.get('eval:', [''])[0].lower() == 'false':
            return True
        return bool(skip_flags & directives.keys())
    return skip


def as_on_screen(text):
    "What a terminal shows in the end: a progress bar is written over until its last state is left."
    rows, at = [''], 0
    for part in re.split(r'(\n|\r|\x1b\[A)', text):
        if part == '\n':
            at += 1
            rows += [''] * (at == len(rows))
        elif part == '\x1b[A':
            at = max(0, at - 1)
        elif part == '\r':
            rows[at] = _Rewound(rows[at])
        else:
            rows[at] = _write(rows[at], part)
    return '\n'.join(str(row).rstrip(' ') for row in rows)


class _Rewound(str):
    "A row whose next letters replace its first ones."


def _write(row, part):
    return part + row[len(part):] if isinstance(row, _Rewound) else row + part


def keep_outputs(path, nb):
    "Write the outputs of a run into the notebook's file, as nbdev_clean leaves them."
    from nbdev.clean import clean_nb
    from nbdev.config import get_config
    raw = json.loads(path.read_text(encoding='utf-8'))
    for old, new in zip(raw['cells'], nb.cells):
        if old['cell_type'] != 'code':
            continue
        old['outputs'] = json.loads(json.dumps(new.get('outputs', []), default=str))
        for output in old['outputs']:
            if output.get('output_type') in ('display_data', 'execute_result'):
                output['metadata'] = {}
            if output.get('output_type') == 'stream' and '\r' in ''.join(output['text']):
                output['text'] = as_on_screen(''.join(output['text'])).splitlines(keepends=True)
    clean_nb(raw, clean_ids=get_config().clean_ids)
    text = json.dumps(raw, sort_keys=True, indent=1, ensure_ascii=False) + '\n'
    path.write_text(text, encoding='utf-8')


def run(path, flags):
    os.environ.update(IN_TEST='1', NO_ALBUMENTATIONS_UPDATE='1')
    from execnb.nbio import read_nb
    from execnb.shell import CaptureShell
    skip, nb = skipper(path, flags), read_nb(path)
    shell = CaptureShell(path, mpl_format='png')
    sys.path.insert(0, str(ROOT))
    os.chdir(path.parent)
    for cell in nb.cells:
        if not skip(cell):
            cell['outputs'] = []  # what a cell printed once and no longer does is gone
    start = time.time()
    try:
        shell.run_all(nb, exc_stop=True, preproc=skip)
    except BaseException:
        print(shell.prettytb(fname=path), file=sys.stderr)
        return 1
    keep_outputs(path, nb)
    print(f'{path.name}: {time.time() - start:.0f} s, {path.stat().st_size / 1024:.0f} kB')
    return 0


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', nargs='*', type=Path, help='all of nbs/ when none is named')
    p.add_argument('--flags', default='', help="cell flags to run too, e.g. 'slow cuda'")
    a = p.parse_args()
    todo = a.notebooks or sorted((ROOT/'nbs').glob('**/*.ipynb'))
    if len(todo) == 1:
        sys.exit(run(todo[0].resolve(), a.flags))
    command = [sys.executable, __file__, '--flags', a.flags]
    sys.exit(max(subprocess.call([*command, str(f)]) for f in todo))
