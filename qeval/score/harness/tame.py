"""Keeps lm-eval quiet and quick while it builds prompts, and puts everything back afterwards."""

from __future__ import annotations

import functools
import logging
import os
import random
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from qeval.base import contents


@contextmanager
def lm_eval_tamed(load_dataset: Callable[..., Any] | None = None) -> Iterator[None]:
    """Within it lm-eval prints nothing, compiles each Jinja template once, starts from the random seeds of
    `lm_eval.simple_evaluate`, and loads data sets through `load_dataset` if given."""
    import datasets
    from lm_eval import utils
    from lm_eval.api import task

    with ExitStack() as stack:
        stack.enter_context(_errors_only("lm_eval"))
        stack.enter_context(_no_progress_bars())
        stack.enter_context(_seeded())
        stack.enter_context(replaced(utils, "apply_template", _remembering(utils.env)))
        stack.enter_context(replaced(task, "tqdm", _bare))
        if load_dataset is not None:
            card = datasets.load.DatasetCard
            stack.enter_context(replaced(card, "load", _each_once(card.load)))
            stack.enter_context(replaced(datasets, "load_dataset", load_dataset))
        yield


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within it `owner.name` is `value`."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


_CARDS: dict[tuple[str, str], Any] = {}


def _each_once(load: Callable[..., Any]) -> Callable[..., Any]:
    """A loader of data sets' READMEs that parses each once: MMLU's mirror has one for 57 subjects, and its
    list of files takes a tenth of a second."""

    def load_once(path: str, **options: Any) -> Any:
        key = (str(path), contents.stamp(Path(path)))
        if key not in _CARDS:
            _CARDS[key] = load(path, **options)
        return _CARDS[key]

    return load_once


def _bare(iterable: Any, **_: Any) -> Any:
    """What is left of tqdm without its bar."""
    return iterable


def _remembering(env: Any) -> Callable[[str, dict[str, Any]], str]:
    """lm-eval's apply_template with each template compiled once and each rendering of a document kept.

    lm-eval compiles on every call, which is nine tenths of the time it takes to build a prompt; and it
    renders the same few-shot example anew for every question. A document is held as long as its
    rendering is, so that its id cannot be reused.
    """
    templates: dict[str, Any] = {}
    rendered: dict[tuple[str, int], tuple[Any, str]] = {}

    def apply_template(template: str, doc: dict[str, Any]) -> str:
        found = rendered.get((template, id(doc)))
        if found is not None:
            return found[1]
        if template not in templates:
            templates[template] = env.from_string(template)
        text: str = templates[template].render(**doc)
        rendered[template, id(doc)] = (doc, text)
        return text

    return apply_template


@contextmanager
def _errors_only(name: str) -> Iterator[None]:
    """Within it a logger prints errors alone; who listens hears its warnings all the same."""
    logger = logging.getLogger(name)
    before, led_on, printer = logger.level, logger.propagate, logging.StreamHandler()
    printer.setLevel(logging.ERROR)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(printer)
    try:
        yield
    finally:
        logger.removeHandler(printer)
        logger.propagate = led_on
        logger.setLevel(before)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    import datasets

    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _seeded() -> Iterator[None]:
    """Some tasks shuffle their choices with the global generators, which simple_evaluate seeds thus."""
    import numpy as np

    # The global generators are what those tasks use, so they are what must be set and given back.
    before, np_before = random.getstate(), np.random.get_state()  # noqa: NPY002 - see above
    random.seed(0)
    np.random.seed(1234)  # noqa: NPY002 - see above
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(np_before)  # noqa: NPY002 - see above


@contextmanager
def code_from_source(folder: Path | None) -> Iterator[None]:
    """Within it Python files are read themselves, those below `folder` even if they were imported before:
    Python and lm-eval know compiled code by the file's size and time, which do not tell a change. Installed
    libraries, which are told by their versions, are imported as ever; lm-eval's tasks are not among them."""
    below = () if folder is None else tuple(_modules_below(folder))
    for name in below:
        del sys.modules[name]
    known = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, name: str) -> CodeType | None:
        path = self.get_filename(name)
        return known(self, name) if _installed(path) else self.source_to_code(self.get_data(path), path)

    with replaced(SourceFileLoader, "get_code", get_code):
        yield


_LIBRARIES = tuple(sysconfig.get_paths()[name] + os.sep for name in ("stdlib", "purelib", "platlib"))
_TASKS = str(Path("/lm_eval/tasks")) + os.sep


def _installed(path: str) -> bool:
    """Whether a file is an installed library's, and none of lm-eval's tasks."""
    return path.startswith(_LIBRARIES) and _TASKS not in path


def _modules_below(folder: Path) -> Iterator[str]:
    place, real = f"{folder.resolve()}{os.sep}", functools.cache(os.path.realpath)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and _real(file, real).startswith(place):
            yield name


def _real(file: str, real: Callable[[str], str]) -> str:
    """Where a file truly lies. Thousands of modules share few folders, of which `real` remembers as much."""
    parent, name = os.path.split(file)
    path = os.path.join(real(parent), name)  # noqa: PTH118 - thousands of modules
    return os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114 - as above
