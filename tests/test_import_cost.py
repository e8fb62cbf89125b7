"""`import yolov3_nb.model` is what an app or a server pays for at its start: little time, and
nothing that only training or drawing needs."""
import json
import statistics
import subprocess
import sys

HEAVY = ('matplotlib', 'albumentations', 'gradio', 'pytorch_lightning', 'torchvision', 'pandas',
         'IPython', 'nbdev')
CODE = """
import json, sys, time
import torch
before = set(sys.modules)
start = time.process_time()  # the clock's time would count what else the machine does
import yolov3_nb.model
spent = time.process_time() - start
print(json.dumps([spent, sorted({m.split('.')[0] for m in set(sys.modules) - before})]))
"""

def imported():
    """Seconds that the model's import takes beyond torch's own, in a fresh process, and the
    packages that it brings along."""
    return json.loads(subprocess.check_output([sys.executable, '-c', CODE],
                                              text=True).splitlines()[-1])

def test_model_costs_little_more_than_torch():
    # the first also reads the files from disk and compiles them
    runs = [imported() for _ in range(4)][1:]
    assert [p for p in HEAVY if p in runs[0][1]] == []
    assert statistics.median(seconds for seconds, _ in runs) < 1.5, runs

FRONT_DOOR = """
import json, sys, time
before, start = set(sys.modules), time.process_time()
import yolov3_nb
spent = time.process_time() - start
heavy = ('torch', 'yolov3_nb.', 'numpy')
print(json.dumps([spent, sorted(m for m in set(sys.modules) - before if m.startswith(heavy))]))
"""

def test_the_front_door_costs_nothing_until_it_is_used():
    runs = [json.loads(subprocess.check_output([sys.executable, '-c', FRONT_DOOR], text=True))
            for _ in range(3)]
    assert runs[0][1] == []
    assert min(seconds for seconds, _ in runs) < .2, runs
