"""What a scheme is made of: its options, needs and loader. Plain records, importing no heavy library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qeval.base.records import Option, Scheme
from qeval.load.source import Source

Ready = Literal["no", "optional", "required"]
"""Whether a scheme reads a checkpoint somebody has already quantised: never, where one is named after
`@`, or nothing but such checkpoints."""
Progress = Callable[[str], None]


def say_nothing(_: str) -> None:
    """The progress callback of callers that show none."""


@dataclass(frozen=True)
class OptionSpec:
    """One option of a scheme: `type` is bool, int, float or str; `choices` is empty where any value of the
    type is taken; `low` is the least number allowed. An empty string default means "not given". `acts` tells
    whether it shapes the weights that are made here, or how any checkpoint is read. `on_gpu` are the choices
    that run on NVIDIA GPUs only. A `late` option joined a scheme whose results were stored before: keys hold
    it only where it is not the default. `needs` are other options with their values, one of which must hold
    for this option to act."""

    name: str
    type: type[bool | int | float | str]
    default: Option
    help: str
    choices: tuple[Option, ...] = ()
    low: float | None = None
    acts: Literal["making", "reading"] = "making"
    on_gpu: tuple[Option, ...] = ()
    needs: tuple[tuple[str, Option], ...] = ()
    late: bool = False


@dataclass(frozen=True)
class Package:
    """A distribution that a scheme needs, the module that it installs, the least version, and the first one
    that is too new. `kernel` packages are not needed where a checkpoint is unpacked into plain weights;
    `isolated` is False where one builds against the torch that is installed."""

    distribution: str
    module: str
    version: str = "0"
    below: str = ""
    kernel: bool = False
    isolated: bool = True


@dataclass(frozen=True)
class Recipe:
    """What a scheme's loader is told.

    `model` is what the user called the model. `source` holds the weights to read: the model itself, or a
    quantised checkpoint of it where `ready`. `base` is the unquantised model. `options` are complete,
    defaults filled in. `store` and
    `compute` are torch dtype names: what plain weights are rounded to, and what is calculated in.
    `device` is a torch device name. `allow_unused` are globs of the tensors that a checkpoint may hold in
    vain. What a loader wants a reader to know it appends to `notes`, what a gate must print as well to
    `warnings`; what the
    loaded modules cannot tell themselves (a file's types, since unpacked) it puts into `evidence` under the
    name of a field of Provenance. `made` is the checkpoint that was made here of the source, None where
    none was. `streamed` models are left in host memory, to reach the device block by block. `fast` asks for
    the library's own kernels; without it the weights are to be scored, mostly dequantised, and layers are
    those that run everywhere and build nothing.
    """

    model: str
    source: Source
    base: Source
    ready: bool
    options: Mapping[str, Any]
    store: str
    compute: str
    device: str
    cache_dir: Path
    trust_remote_code: bool = False
    datasets_dir: Path | None = None
    progress: Progress = say_nothing
    allow_unused: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)
    made: Source | None = None
    fast: bool = False
    streamed: bool = False

    @property
    def held(self) -> str:
        """The device that the weights are left on."""
        return "cpu" if self.streamed else self.device

    @property
    def weights(self) -> Source:
        """What is read: the checkpoint that was made here, else the source."""
        return self.made or self.source


@dataclass(frozen=True)
class SchemeSpec:
    """One way to hold weights. Only the first three fields have no default.

    For people: `summary` is a line of every table, `doc` more Markdown for the documentation, `verified` on
    what the scheme truly ran, and `place` sorts the tables, the least first.

    To load: `load` takes a Recipe and returns a transformers model in evaluation mode. `options` are what a
    user may write in brackets, `packages` must be installed, `extra` of pyproject.toml installs them.
    `device` is "cuda" where the library has no CPU kernels, and `capability` the least compute capability of
    such a GPU. `make` quantises and saves a checkpoint, or returns the cached one; None where quantising
    happens while loading.

    What is held: `quantised` is False for the plain dtypes. `dtype` is what plain weights are rounded to
    where `--dtype` asks for nothing; a plain scheme is never in another. `weight_bits` is about what a weight
    takes in memory, None for the compute type. `unpacked` schemes, simulated ones among them, hold plain
    weights once they are loaded; those with an option `unpack` do so where it is true, on any device and
    without kernels. `streams` tells whether weights that are left in host memory are those of the device to
    the last bit, and plain, or in layers that scoring unpacks. `beside` gives the tensors, with their names,
    that a module of the library keeps elsewhere than among its own parameters and buffers, for their bits
    count as well.

    `kernels` tells that a Recipe's `fast` loads other layers.

    Ready checkpoints: `checkpoint` tells whether they are read, `methods` are the `quant_method` values that
    they carry, and `recognise` knows one that names none: it takes the checkpoint and its
    quantization_config, which may be empty. `config_keys` maps an option to the key of the
    quantization_config that must hold the same value. `files` is the pattern of weight files of another kind
    than transformers' own, of which an option `file` may name one. `known` gives a published checkpoint of a
    model, under the options that the user wrote, which is then read rather than made. `settle` turns a scheme
    as it was written into the one that is meant.
    """

    name: str
    summary: str
    load: Callable[[Recipe], Any]
    options: tuple[OptionSpec, ...] = ()
    packages: tuple[Package, ...] = ()
    extra: str | None = None
    doc: str = ""
    verified: str = "not run"
    place: int = 1000
    device: Literal["any", "cuda"] = "any"
    capability: tuple[int, int] | None = None
    make: Callable[[Recipe], Path] | None = None
    quantised: bool = True
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    weight_bits: float | None = None
    unpacked: bool = False
    streams: bool = False
    beside: Callable[[Any], Iterator[tuple[str, Any]]] | None = None
    kernels: bool = False
    checkpoint: Ready = "no"
    methods: tuple[str, ...] = ()
    recognise: Callable[[Source, Mapping[str, Any]], bool] | None = None
    config_keys: Mapping[str, str] = field(default_factory=dict)
    files: str = ""
    known: Callable[[str, Mapping[str, Option]], Source | None] | None = None
    settle: Callable[[Scheme], Scheme] | None = None

    @property
    def defaults(self) -> dict[str, Option]:
        """Every option with its default."""
        return {option.name: option.default for option in self.options}

    @property
    def gpu(self) -> str:
        """The GPU that a scheme needs, in words; empty where it runs on any device."""
        if self.device != "cuda":
            return ""
        least = f" of compute capability {'.'.join(map(str, self.capability))}" if self.capability else ""
        return f"an NVIDIA GPU{least}"

    @property
    def calibrated(self) -> bool:
        """Whether weights that are made here depend on calibration text."""
        return "calibration" in self.defaults

    @property
    def seeded(self) -> bool:
        """Whether weights that are made here depend on a seed."""
        return self.make is not None and "seed" in self.defaults

    def complete(self, options: Mapping[str, Option]) -> dict[str, Any]:
        """`options` with the defaults filled in."""
        return {**self.defaults, **options}

    def in_key(self, options: Mapping[str, Option]) -> dict[str, Any]:
        """`options` with the defaults filled in, as keys hold them."""
        late = {option.name: option.default for option in self.options if option.late}
        found = self.complete(options)
        return {name: value for name, value in found.items() if name not in late or value != late[name]}

    def shaping(self, options: Mapping[str, Option]) -> dict[str, Option]:
        """Those of `options` that shape weights which are made here, not how a checkpoint is read."""
        reading = {option.name for option in self.options if option.acts == "reading"}
        late = {option.name: option.default for option in self.options if option.late}
        return {
            name: value
            for name, value in options.items()
            if name not in reading and (name not in late or value != late[name])
        }

    def unpacks(self, options: Mapping[str, Any]) -> bool:
        """Whether a checkpoint is held in plain weights under these options."""
        return self.unpacked or bool(options.get("unpack"))
