"""Move the course to another owner or name: `python tools/repository.py OWNER/NAME`.

settings.ini is where both stand. This writes them there and into each link of the notebooks, the
README, the site's settings and the cards of the weights; a fork's site then links to the fork. What
is named so already stays as it is."""
import argparse
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ('.ipynb', '.md', '.yml', '.qmd')


def settings(root):
    cfg = ConfigParser(delimiters=['='])
    cfg.read(root/'settings.ini', encoding='utf-8')
    return cfg['DEFAULT']


def tracked(root):
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=root, capture_output=True, check=True)
    names = listed.stdout.decode().split('\0')
    return [root/name for name in names if name.endswith(KINDS) and (root/name).is_file()]


def move(root, owner, name):
    "Write owner and name wherever they stand; the files that changed."
    old_owner, old_name = settings(root)['user'], settings(root)['repo']
    pairs = ((f'{old_owner}/{old_name}', f'{owner}/{name}'),
             (f'{old_owner}.github.io/{old_name}', f'{owner}.github.io/{name}'))
    changed = []
    for path in tracked(root):
        before = after = path.read_text(encoding='utf-8')
        for old, new in pairs:
            after = re.sub(re.escape(old) + r'(?![\w-])', new, after)
        if after != before:
            path.write_text(after, encoding='utf-8')
            changed.append(path)
    ini = root/'settings.ini'
    before = ini.read_text(encoding='utf-8')
    after = re.sub(r'^user = .*$', f'user = {owner}', before, flags=re.M)
    after = re.sub(r'^repo = .*$', f'repo = {name}', after, flags=re.M)
    if after != before:
        ini.write_text(after, encoding='utf-8')
        changed.append(ini)
    return changed


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('repository', metavar='OWNER/NAME')
    parts = p.parse_args().repository.split('/')
    if len(parts) != 2 or not all(re.fullmatch(r'[\w.-]+', part) for part in parts):
        p.error('say OWNER/NAME, as in the address of the repository')
    print(*(path.relative_to(ROOT) for path in move(ROOT, *parts)), sep='\n')
    if parts[1] != 'yolov3_nb':  # the folder that the chapters' first cell makes is called so, too
        sys.exit(subprocess.call([sys.executable, str(ROOT/'tools'/'badges.py')]))
