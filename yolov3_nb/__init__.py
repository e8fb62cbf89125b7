"""YOLOv3 from scratch on PyTorch Lightning: what a notebook needs most, imported when it is first asked for

This file is kept by hand; nbdev writes only the line of the version."""
__version__ = "0.1.0"

_MODULES = {
    'DetectionDataModule': 'training',
    'InputError': 'files',
    'Learner': 'learner',
    'PRESETS': 'recipe',
    'Recipe': 'recipe',
    'VOCDataset': 'data',
    'YOLOv3': 'model',
    'detect_images': 'export',
    'evaluate': 'evaluation',
    'from_folder': 'formats',
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
    _describe(value)
    globals()[name] = value  # asked for once
    return value


def _describe(value):
    """Put the comments that stand beside the arguments into the docstrings, where help() shows them"""
    from inspect import isclass, isfunction
    try:
        from fastcore.docments import docments
    except ImportError:  # the app runs without it
        return
    parts = [value]
    if isclass(value):
        parts += [f for name, f in vars(value).items() if isfunction(f) and name[0] != '_']
    for part in parts:
        if not (isclass(part) or isfunction(part)):
            continue
        settings = getattr(part, '__dataclass_fields__', {})
        notes = {name: f.metadata.get('help') for name, f in settings.items()} or docments(part)
        lines = [f'    {name}: {note}' for name, note in notes.items() if note and name != 'return']
        if notes.get('return'):
            lines.append(f"    returns {notes['return']}")
        if lines:
            part.__doc__ = '\n'.join([part.__doc__ or '', '', *lines])


def __dir__():
    return sorted({*globals(), *__all__})
