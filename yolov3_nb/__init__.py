"""YOLOv3 from scratch on PyTorch Lightning: what a notebook needs most, imported when it is first asked for

This file is kept by hand; nbdev writes only the line of the version."""
__version__ = "0.1.0"

_MODULES = {
    'InputError': 'files',
    'Learner': 'learner',
    'PRESETS': 'recipe',
    'Recipe': 'recipe',
    'VOCDataModule': 'training',
    'VOCDataset': 'data',
    'YOLOv3': 'model',
    'detect_images': 'export',
    'evaluate': 'evaluation',
    'heat_map': 'gradcam',
    'make_toyvoc': 'toyvoc',
    'open_weights': 'networks',
    'show_boxes': 'data',
}
__all__ = list(_MODULES)


def __getattr__(name):
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    value = getattr(import_module(f'{__name__}.{_MODULES[name]}'), name)
    globals()[name] = value  # asked for once
    return value


def __dir__():
    return sorted({*globals(), *__all__})
