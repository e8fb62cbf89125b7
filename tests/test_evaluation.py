"Half a million boxes, as VOC's test pictures give, are judged within bounds."
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

def test_all_figures_of_half_a_million_boxes_fit_in_two_gigabytes():
    env = {k: v for k, v in os.environ.items()
           if k != 'YOLOV3_VOC'}   # objects drawn by lot: nothing to read
    done = subprocess.run([sys.executable, 'tools/bench_evaluation.py'], cwd=ROOT,
                          capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found['pictures'] == 4952 and found['detections'] >= 490_000
    assert found['memory_mb'] < 2048
    assert set(found['seconds']) == {'VOC AP, area', 'VOC AP, 11 points', 'COCO AP, all sizes',
                                     'error types', 'confusion matrix', 'reliability'}
