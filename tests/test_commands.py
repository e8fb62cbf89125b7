"The console scripts as a shell sees them: exit status and one sentence, and no traceback."
import subprocess
import pytest

def run(*args): return subprocess.run(args, capture_output=True, text=True, timeout=120)

@pytest.mark.parametrize('command', ['yolov3_train', 'yolov3_eval', 'yolov3_predict', 'yolov3_export', 'yolov3_app', 'yolov3_data', 'yolov3_check'])
def test_help(command):
    done = run(command, '--help')
    assert done.returncode == 0 and done.stdout.startswith(f'usage: {command}')

@pytest.mark.parametrize('args, says', [
    (['yolov3_train', '--size', '100'], 'multiple of 32'),
    (['yolov3_train', '--resume', 'no-such-run'], 'no run folder'),
    (['yolov3_eval', '--weights', 'no-such-weights'], 'There are no weights'),
    (['yolov3_eval', '--detections', 'no-such-file.json'], 'There are no detections'),
    (['yolov3_eval', '--nms', '45'], 'give a number from 0 to 1'),
    (['yolov3_predict', 'a.jpg', '--weights', 'no-such-weights'], 'There are no weights'),
    (['yolov3_export', '--weights', 'no-such.weights'], 'cannot be read'),
    (['yolov3_data', 'inspect', 'no-such-folder'], 'No devkit found'),
    (['yolov3_check', 'no-such-folder'], 'holds no notebook with exercises')])
def test_bad_input_is_one_sentence(args, says, tmp_path):
    done = subprocess.run(args, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and 'Traceback' not in done.stderr
    assert not list(tmp_path.iterdir())  # nothing half-written
