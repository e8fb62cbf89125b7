"""Make README.md from nbs/index.ipynb, without Quarto: `python tools/readme.py [--check]`.

Runs the notebook, so that its tables show what stands in results/ now, keeps what it prints, and
writes it as the README, with links that lead to the files of the clone. `--check` writes nothing
and fails where README.md or the notebook's outputs are out of date."""
import argparse
import difflib
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INDEX, README = ROOT/'nbs'/'index.ipynb', ROOT/'README.md'
NOTE = '<!-- Made by tools/readme.py from nbs/index.ipynb: edit that. -->\n\n'


def joined(text):
    return text if isinstance(text, str) else ''.join(text)


def blob_url():
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    return f"{cfg['DEFAULT']['git_url']}/blob/{cfg['DEFAULT']['branch']}/"


def cell_text(cell):
    "What a reader sees of a cell: prose, what it printed; code only where it is not hidden."
    src = joined(cell['source'])
    if cell['cell_type'] == 'markdown':
        return src
    if cell['cell_type'] != 'code' or re.search(r'^#\|\s*hide\b', src, re.M):
        return ''
    parts = [] if re.search(r'^#\|\s*echo:\s*false', src, re.M) else [f'```python\n{src}\n```']
    for output in cell['outputs']:
        data = output.get('data', {})
        if 'text/markdown' in data:
            parts.append(joined(data['text/markdown']))
        elif text := joined(output.get('text', data.get('text/plain', ''))):
            parts.append(f'```\n{text.rstrip()}\n```')
    return '\n\n'.join(parts)


def readme(nb):
    text = '\n\n'.join(filter(None, (cell_text(c).strip() for c in nb['cells'])))
    text = re.sub(r'(\]\()(?![a-z]+:)([^)\s]*\.(?:ipynb|jpg))', r'\1nbs/\2', text)
    return NOTE + text.replace(blob_url(), '') + '\n'


def run_index(keep):
    "The notebook before and after a run, as text; the file is put back unless it is to be kept."
    before = INDEX.read_text(encoding='utf-8')
    runner = ROOT/'tools'/'run_notebooks.py'
    try:
        failed = subprocess.call([sys.executable, str(runner), str(INDEX)])
        return before, None if failed else INDEX.read_text(encoding='utf-8')
    finally:
        if not keep:
            INDEX.write_text(before, encoding='utf-8')


def main(check):
    before, after = run_index(keep=not check)
    if after is None:
        return 1
    new = readme(json.loads(after))
    print(*re.findall(r'not measured yet: .*missing', new), sep='\n')
    if not check:
        README.write_text(new, encoding='utf-8')
        return 0
    old = README.read_text(encoding='utf-8') if README.exists() else ''
    changes = list(difflib.unified_diff(old.splitlines(), new.splitlines(), 'README.md',
                                        'nbs/index.ipynb', lineterm='', n=0))
    if json.loads(before) != json.loads(after):
        changes.append('nbs/index.ipynb: the outputs kept in it are not those of a run')
    if changes:
        print(*changes, 'Out of date; run: python tools/readme.py', sep='\n')
    return bool(changes)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true',
                   help='fail where README.md is out of date, and change nothing')
    sys.exit(main(p.parse_args().check))
