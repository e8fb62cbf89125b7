"Weights folders: what is read, what is refused at once in one sentence, what a model keeps."
import copy
import json
import random
import shutil
import signal
import time

import pytest
import torch
from damage import damaged_bytes
from safetensors.torch import load_file, save_file

from yolov3_nb.data import InputError
from yolov3_nb.evaluation import evaluate, ground_truths, predict
from yolov3_nb.darknet import load_darknet, save_darknet
from yolov3_nb.export import detect_images, transfer_backbone
from yolov3_nb.gradcam import feature_maps, heat_map
from yolov3_nb.model import YOLOv3, check_finite_outputs, eval_mode

NAMES = ['cat', 'dog', 'Zürich ☂']
LIMIT = 20  # seconds for a case; each takes a fraction of one


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "A weights folder of the narrowest network."
    folder = tmp_path_factory.mktemp('weights')/'tiny'
    torch.manual_seed(0)
    YOLOv3(3, .0625, image_size=64, class_names=NAMES).eval().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def in_time():
    "A case that hangs fails."
    def out_of_time(*_):
        raise TimeoutError(f'more than {LIMIT} s')
    before = signal.signal(signal.SIGALRM, out_of_time)
    yield lambda: signal.alarm(LIMIT)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refusal(f, *args, **kwargs):
    "The sentence with which `f` refuses; it is one line and no novel."
    with pytest.raises(InputError) as raised:
        f(*args, **kwargs)
    said = str(raised.value)
    assert said and '\n' not in said and len(said.splitlines()) == 1 and len(said) < 800, said
    said.encode('utf-8')
    return said


def copy_with(tiny, folder, config=None, text=None, tensors=None):
    "A copy of the folder: another config, another text in its place, or a change to its tensors."
    shutil.copytree(tiny, folder)
    if config is not None:
        text = json.dumps(config)
    if text is not None:
        (folder/'config.json').write_bytes(text if isinstance(text, bytes) else text.encode())
    if tensors is not None:
        stored = load_file(folder/'model.safetensors')
        tensors(stored)
        save_file(stored, folder/'model.safetensors', {'format': 'pt'})
    return folder


WRONG_FIELDS = {
    'names are ints': {'class_names': [1, 2, 3]},
    'names are nulls': {'class_names': [None]*3},
    'names are lists': {'class_names': [['a'], ['b'], ['c']]},
    'names are a dict': {'class_names': {'a': 0, 'b': 1, 'c': 2}},
    'names are a string': {'class_names': 'abc'},
    'names are null': {'class_names': None},
    'a name twice': {'class_names': ['cat', 'dog', 'cat']},
    'an empty name': {'class_names': ['cat', '', 'dog']},
    'a name of spaces': {'class_names': ['cat', '  ', 'dog']},
    'a lone surrogate': {'class_names': ['cat', '\ud83d', 'dog']},
    'a line break in a name': {'class_names': ['cat', 'a\nb', 'dog']},
    'a line separator in a name': {'class_names': ['cat', 'a\u2028b', 'dog']},
    'a name without end': {'class_names': ['cat', 'x'*1_000_000, 'dog']},
    'too few names': {'class_names': ['cat']},
    'image_size 4096': {'image_size': 4096},
    'image_size 10**300': {'image_size': 10**300},
    'image_size true': {'image_size': True},
    'image_size a string': {'image_size': '64'},
    'image_size odd': {'image_size': 65},
    'image_size 0': {'image_size': 0},
    'image_size negative': {'image_size': -64},
    'image_size a float': {'image_size': 64.5},
    'image_size a list': {'image_size': [64, 64]},
    'num_classes a string': {'num_classes': '3'},
    'num_classes a float': {'num_classes': 3.5},
    'num_classes null': {'num_classes': None},
    'num_classes a list': {'num_classes': [3]},
    'num_classes true': {'num_classes': True, 'class_names': ['cat']},
    'num_classes a million': {'num_classes': 1_000_000},
    'num_classes negative': {'num_classes': -3},
    'width NaN': {'width': float('nan')},
    'width infinite': {'width': float('inf')},
    'width 0': {'width': 0},
    'width a string': {'width': '0.0625'},
    'width another one': {'width': 0.25},
    'width the largest': {'width': 4},
    'prior 1': {'prior': 1},
    'prior a list': {'prior': []},
    'prior NaN': {'prior': float('nan')},
    'anchors null': {'anchors': None},
    'anchors a string': {'anchors': 'voc'},
    'anchors strings': {'anchors': [[['1', '2']]*3]*3},
    'anchors ragged': {'anchors': [[[1, 2]], [[1, 2], [3, 4]]]},
    'anchors negative': {'anchors': [[[-1, 2]]*3]*3},
    'anchors infinite': {'anchors': [[[float('inf'), 2]]*3]*3},
    'anchors NaN': {'anchors': [[[float('nan'), 2]]*3]*3},
    'anchors too many': {'anchors': [[[1, 2]]*4]*3},
    'anchors a dict': {'anchors': {'coco': 1}},
    'anchors nulls': {'anchors': [[[None, None]]*3]*3},
    'activation unknown': {'class_activation': 'relu'},
    'activation a list': {'class_activation': ['softmax']},
    'a field too many': {'colour': 'red'},
}


@pytest.mark.parametrize('fields', WRONG_FIELDS.values(), ids=WRONG_FIELDS.keys())
def test_a_wrong_field_is_refused_at_once(tiny, tmp_path, fields, in_time):
    config = json.loads((tiny/'config.json').read_text()) | fields
    folder = copy_with(tiny, tmp_path/'copy', config)
    in_time()
    started = time.monotonic()
    refusal(YOLOv3.from_pretrained, folder)
    assert time.monotonic() - started < LIMIT/2


@pytest.mark.parametrize('text', [
    b'', b'{', b'[]', b'null', b'3', b'"abc"', b'\xff\xfe', b'{}',
    b'[' * 100_000, b'{"a":' * 100_000,
    b'{"num_classes": ' + b'9'*10_000 + b'}', b'{"num_classes": 3}', b'\x00'*100,
    b'{"anchors": ' + b'['*500 + b']'*500 + b'}', b' '*17_000_000 + b'{}'],
    ids=['empty', 'cut', 'list', 'null', 'number', 'string', 'no UTF-8', 'object', 'deep lists',
         'deep objects',
         'a number of 10,000 digits', 'one field', 'zeros', '500 lists', '17 MB'])
def test_a_config_that_is_none_is_refused(tiny, tmp_path, text, in_time):
    folder = copy_with(tiny, tmp_path/'copy', text=text)
    in_time()
    refusal(YOLOv3.from_pretrained, folder)


def test_500_lists_among_right_fields(tiny, tmp_path, in_time):
    text = (tiny/'config.json').read_text().replace('"cat"', '['*500 + '"cat"' + ']'*500)
    in_time()
    refusal(YOLOv3.from_pretrained, copy_with(tiny, tmp_path/'copy', text=text))


def set_value(name, value):
    def change(tensors):
        tensors[name].flatten()[0] = value
    return change


def set_dtype(name, dtype):
    def change(tensors):
        tensors[name] = tensors[name].to(dtype)
    return change


KERNEL = 'backbone.stem.conv.weight'
BIAS = 'head5.pred.bias'
VARIANCE = 'backbone.stem.norm.running_var'
DAMAGED = {
    'a NaN bias': set_value(BIAS, float('nan')),
    'an infinite kernel': set_value(KERNEL, float('inf')),
    'minus infinity': set_value(KERNEL, -float('inf')),
    'a kernel of 1e30': set_value(KERNEL, 1e30),
    'a kernel of -1e30': set_value(KERNEL, -1e30),
    'a NaN mean': set_value('set5.0.norm.running_mean', float('nan')),
    'a variance of 1e30': set_value(VARIANCE, 1e30),
    'a negative variance': set_value(VARIANCE, -1.),
    'a complex variance': set_dtype(VARIANCE, torch.complex64),
    'a variance in whole numbers': set_dtype(VARIANCE, torch.int64),
    'a variance in bools': set_dtype(VARIANCE, torch.bool),
    'a kernel in bytes': set_dtype(KERNEL, torch.uint8),
    'a counter in floats': set_dtype('backbone.stem.norm.num_batches_tracked', torch.float32),
    'a tensor too few': lambda tensors: tensors.pop(BIAS),
    'a tensor too many': lambda tensors: tensors.update(extra=torch.zeros(1)),
    'another shape': lambda tensors: tensors.update({BIAS: torch.zeros(3)}),
}


@pytest.mark.parametrize('change', DAMAGED.values(), ids=DAMAGED.keys())
def test_weights_that_no_training_leaves_are_refused(tiny, tmp_path, change, in_time):
    folder = copy_with(tiny, tmp_path/'copy', tensors=change)
    in_time()
    refusal(YOLOv3.from_pretrained, folder)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 1e30, -1e30])
def test_darknet_weights_that_no_training_leaves_are_refused(tmp_path, value):
    torch.manual_seed(0)
    model = YOLOv3(3, .0625, image_size=64, class_activation='sigmoid').eval()
    model.head3.pred.bias.data[0] = value
    save_darknet(model, tmp_path/'net.weights')
    said = refusal(load_darknet, tmp_path/'net.weights', model.class_names, model.anchors, 64,
                   .0625)
    assert 'head3.pred.bias' in said


def test_16_bits_and_a_dead_channel_are_fine(tiny, tmp_path):
    model = YOLOv3.from_pretrained(tiny)
    model.save_pretrained(tmp_path/'half', half=True)
    assert YOLOv3.from_pretrained(tmp_path/'half').head5.pred.weight.dtype == torch.float32
    # a variance of 0, stored for a program that adds less to it than PyTorch does
    folder = copy_with(tiny, tmp_path/'dead', tensors=set_value(VARIANCE, 1e-6 - 1e-5))
    with torch.no_grad():
        outputs = YOLOv3.from_pretrained(folder)(torch.rand(1, 3, 64, 64))
    assert all(p.isfinite().all() for p in outputs)


@pytest.mark.parametrize('source', ['', 'no/such', '\0', 'a\nb/c'])
def test_sources_that_are_no_folder(source, tmp_path, monkeypatch, in_time):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    (tmp_path/'no').mkdir()
    in_time()
    with pytest.raises(InputError):
        YOLOv3.from_pretrained(source)


ODD = [None, True, -1, 0, 10**30, 1e308, float('nan'), '', 'x', [], [[]], {}, {'a': []}, '\ud800',
       [None]*3, '0'*5000]


def odd_config(config, rng):
    "A config with a value, an element, or a key that should not be."
    config = copy.deepcopy(config)
    key = rng.choice(list(config))
    kind = rng.randrange(4)
    if kind == 0:
        config[key] = rng.choice(ODD)
    elif kind == 1 and isinstance(config[key], list):
        config[key][rng.randrange(len(config[key]))] = rng.choice(ODD)
    elif kind == 2:
        config[rng.choice(['', 'Width', 'x'*300])] = config.pop(key)
    else:
        config[key] = [config[key]]
    return json.dumps(config).encode()


def test_180_mutated_folders_open_or_are_refused(tiny, tmp_path, in_time):
    "What opens gives finite outputs, or is refused when it predicts; nothing else is raised."
    rng = random.Random(0)
    whole = {name: (tiny/name).read_bytes() for name in ('config.json', 'model.safetensors')}
    config = json.loads(whole['config.json'])
    image = torch.randint(0, 255, (40, 60, 3), dtype=torch.uint8).numpy()
    outcomes = []
    for n in range(180):
        folder = tmp_path/str(n)
        folder.mkdir()
        content = dict(whole)
        if n % 3 == 0:
            content['config.json'] = odd_config(config, rng)
        else:
            name = ('config.json', 'model.safetensors')[n % 3 - 1]
            content[name] = damaged_bytes(whole[name], rng)
        for name, data in content.items():
            (folder/name).write_bytes(data)
        in_time()
        try:
            detect_images(YOLOv3.from_pretrained(folder), [image], max_detections=3)
            outcomes.append('works')
        except InputError as e:
            assert len(str(e).splitlines()) == 1 and len(str(e)) < 800, str(e)
            outcomes.append('refused')
        shutil.rmtree(folder)
    assert min(outcomes.count('works'), outcomes.count('refused')) > 5


# What a model keeps

class Images:
    "A data set of noise with one object an image; it has `annotation` and no `target`."
    classes, ids = tuple(NAMES), ['a', 'b', 'c']

    def __len__(self):
        return 3

    def annotation(self, i):
        return {'boxes': torch.tensor([[10., 10, 40, 40]]), 'labels': torch.tensor([i]),
                'difficult': torch.tensor([False]), 'size': (48, 64)}

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        image = torch.randint(0, 255, (48, 64, 3), generator=g, dtype=torch.uint8).numpy()
        return image, self.annotation(i) | {'image_id': self.ids[i]}


def state(model):
    "Mode, gradients and hooks of each part."
    modes = {name: (m.training, len(m._forward_hooks), len(m._backward_hooks)) for name,
             m in model.named_modules()}
    return modes, {name: (p.requires_grad, p.grad is None) for name, p in model.named_parameters()}


def mixed(tiny):
    "A model in training mode, but for the backbone and one batch norm; a part has no gradients."
    model = YOLOv3.from_pretrained(tiny).train()
    model.backbone.eval()
    model.head4.conv.norm.eval()
    model.set5.requires_grad_(False)
    return model


def loader():
    from torch.utils.data import DataLoader
    from yolov3_nb.augment import DetectionDataset, collate, test_transform
    return DataLoader(DetectionDataset(Images(), test_transform(64), 64), 2, collate_fn=collate)


DET = {'scale': torch.tensor([0]), 'anchor': torch.tensor([1]), 'cell': torch.tensor([[0, 1]]),
       'labels': torch.tensor([2])}
USES = {
    'predict': lambda model: predict(model, loader(), progress=False),
    'evaluate': lambda model: evaluate(model, Images(), progress=False),
    'detect_images': lambda model: detect_images(model, [Images()[0][0]]),
    'feature_maps': lambda model: feature_maps(model, torch.rand(1, 3, 64, 64)),
    'heat_map': lambda model: heat_map(model, Images()[0][0], DET),
    'eval_mode': lambda model: eval_mode(model).__enter__ and None,
}


@pytest.mark.parametrize('use', USES.values(), ids=USES.keys())
def test_a_model_is_left_as_it_was(tiny, use):
    model = mixed(tiny)
    before = state(model)
    numbers = {name: t.clone() for name, t in model.state_dict().items()}
    use(model)
    assert state(model) == before
    assert all(t.equal(numbers[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize('use', USES.values(), ids=USES.keys())
def test_a_model_is_left_as_it_was_by_an_error(tiny, use):
    if use is USES['eval_mode']:
        use = lambda model: inside(model)  # noqa: E731
    model = mixed(tiny)
    model.head3.pred.bias.data[:] = float('nan')
    model.set3[4].conv.weight.data[:] = float('nan')
    before = state(model)
    refusal(use, model)
    assert state(model) == before


def inside(model):
    with eval_mode(model):
        check_finite_outputs(model(torch.rand(1, 3, 64, 64)))


def test_figures_that_are_not_finite_are_never_given(tiny):
    model = YOLOv3.from_pretrained(tiny)
    model.head5.pred.bias.data.view(3, -1)[:, 2] = 1e25  # finite outputs, and a loss that is not
    assert 'loss' in refusal(evaluate, model, Images(), progress=False)
    found = evaluate(YOLOv3.from_pretrained(tiny), Images(), progress=False)
    json.dumps(found, allow_nan=False)


def test_a_split_without_objects_has_no_nan(tiny):
    class Empty(Images):
        def annotation(self, i):
            return {k: v[:0] if torch.is_tensor(v) else v for k, v in super().annotation(i).items()}
    found = evaluate(YOLOv3.from_pretrained(tiny), Empty(), progress=False)
    json.dumps(found, allow_nan=False)
    assert found['class_acc'] is None and found['map50'] is None and found['noobj_acc'] is not None


def test_objects_of_a_data_set_with_annotation_or_with_target():
    class OnlyTarget:
        def __len__(self):
            return 3
        def target(self, i):
            return Images().annotation(i)
    for dataset in (Images(), OnlyTarget()):
        assert ground_truths(dataset)['labels'].tolist() == [0, 1, 2]


def trained_step(net):
    "One step of training, as `fit` would do it: everything is told to train."
    net.train()
    opt = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 1e-3)
    g = torch.Generator().manual_seed(0)
    sum(p.square().mean() for p in net(torch.rand(4, 3, 64, 64, generator=g)*5)).backward()
    opt.step()


@pytest.mark.parametrize('neck', [False, True])
def test_frozen_means_frozen(tiny, neck):
    old = YOLOv3.from_pretrained(tiny)
    net = transfer_backbone(old, ['a', 'b'], neck=neck, freeze=True)
    parts = ('backbone', 'set5', 'set4', 'set3', 'route4', 'route3') if neck else ('backbone',)
    before = {part: copy.deepcopy(net.get_submodule(part).state_dict()) for part in parts}
    heads = copy.deepcopy(net.head5.state_dict())
    for _ in range(2):
        trained_step(net)
    for part, tensors in before.items():
        now = net.get_submodule(part).state_dict()
        assert all(now[name].equal(tensor) for name, tensor in tensors.items()), part
    assert not all(tensor.equal(net.head5.state_dict()[name]) for name, tensor in heads.items())
    assert net.head5.conv.norm.training and not net.backbone.stem.norm.training
    twin = copy.deepcopy(net).train()  # as an average of the weights is made
    assert not twin.backbone.training


def test_frozen_parts_thaw(tiny):
    net = transfer_backbone(YOLOv3.from_pretrained(tiny), ['a', 'b'], freeze=True).train()
    net.freeze()
    assert all(p.requires_grad for p in net.parameters()) and all(m.training for m in net.modules())
    mean = net.backbone.stem.norm.running_mean.clone()
    trained_step(net)
    assert not net.backbone.stem.norm.running_mean.equal(mean)


def test_old_names_still_open_it():
    from yolov3_nb.model import WeightsFolder, YOLOv3, check_size, read_config  # noqa: F401
    assert issubclass(YOLOv3, WeightsFolder)
