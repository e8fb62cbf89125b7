"""From a folder of images and labels to the app: `python tools/own_to_app.py FOLDER [flags]`.

Runs one command for each of three steps in a new folder, as somebody would type them, and takes
the time of each: `yolov3_data import`, `yolov3_train` (with what follows FOLDER as its flags) and
`yolov3_app`. The app is asked for the boxes of a test image and for the heat map of one of them,
as the page asks for them. The figures go to results/own_to_app.json, or --out."""
import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCORE = .25 # below it, the page shows no box


def run(command, where):
    "Run a command in a folder; seconds."
    begin = time.time()
    subprocess.run(command, cwd=where, check=True)
    return time.time() - begin


def test_image(clean):
    "The first test image of a devkit that was imported."
    devkit = next((clean/'VOCdevkit').iterdir())
    name = (devkit/'ImageSets'/'Main'/'test.txt').read_text(encoding='utf-8').split('\n')[0]
    return next((devkit/'JPEGImages').glob(f'{name}.*'))


def ask(address, image, score=SCORE):
    "Ask the app for the boxes of an image and for the heat map of the surest one."
    from gradio_client import Client, handle_file
    client = Client(address, verbose=False)
    shown, said, table, *_ = client.predict(handle_file(image), -1, score, .45,
                                            api_name='/detect')
    rows = table['data']
    heat = None
    if rows:
        heat, said = client.predict(handle_file(image), -1, score, .45, 1, 'layercam', .5,
                                    api_name='/explain')
    return dict(shown=shown, rows=rows, heat=heat, said=said)


def open_app(command, where, image, score=SCORE):
    "Start the app, ask it, and end it; its answer, and seconds from the start to the answer."
    begin = time.time()
    app = subprocess.Popen(command, cwd=where, stdout=subprocess.PIPE, text=True)
    try:
        for line in app.stdout:
            if line.startswith('The app: '):
                answer = ask(line.split()[2], image, score)
                return answer, time.time() - begin
        raise RuntimeError(f'{shlex.join(command)} ended with status {app.wait()}.')
    finally:
        app.terminate()
        app.wait()


def go(folder, where, flags=(), importing=(), score=SCORE):
    "The three commands, one after the other; (commands, seconds of each, the app's answer)."
    where = Path(where)
    bring = ['yolov3_data', 'import', str(Path(folder).resolve()), 'clean', *importing]
    train = ['yolov3_train', '--data', 'clean', *flags]
    show = ['yolov3_app', '--weights', 'runs/own-1/weights']
    seconds = [run(bring, where), run(train, where)]
    answer, took = open_app(show, where, test_image(where/'clean'), score)
    return [bring, train, show], [*seconds, took], answer


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('folder')
    p.add_argument('--title', help='what it holds, for the table of the chapter')
    p.add_argument('--out', default=ROOT/'results'/'own_to_app.json', type=Path)
    args, flags = p.parse_known_args()
    with tempfile.TemporaryDirectory() as where:
        commands, seconds, answer = go(args.folder, where, flags)
        run_folder = Path(where)/'runs'/'own-1'
        record = json.loads((run_folder/'metrics.json').read_text(encoding='utf-8'))
        report = run_folder/'report.html'
        found = {key: record[key] for key in ('seed', 'commit', 'date', 'versions', 'device',
                                              'processor', 'data', 'model')}
        found['report_kb'] = round(report.stat().st_size/1024)
    folder = Path(args.folder).name
    said = [shlex.join(folder if part == commands[0][2] else part for part in command)
            for command in commands]
    splits = record['splits']
    found |= dict(name='own_to_app', title=args.title or folder, threads=1,
                  command=shlex.join(['python', 'tools/own_to_app.py', folder, *flags]),
                  commands=said, minutes=[round(s/60, 2) for s in seconds],
                  map50={split: splits[split]['map50'] for split in ('val', 'test')},
                  boxes=len(answer['rows']), heat_map=bool(answer['heat']))
    from yolov3_nb.files import write_json
    write_json(args.out, found)
    print(json.dumps(found, indent=1), file=sys.stderr)


if __name__ == '__main__':
    os.environ['OMP_NUM_THREADS'] = '1'  # for the commands, too: it is what the record says
    main()
