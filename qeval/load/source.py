"""Where a model's files are, and which files exactly: identities computed without torch."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from qeval.base import contents, reading
from qeval.base.errors import QevalError, did_you_mean
from qeval.base.nearby import nearest
from qeval.base.places import at_home

DEMO = "demo"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
READ_SUFFIXES = (
    *WEIGHT_SUFFIXES,
    ".json",
    ".txt",
    ".model",
    ".jinja",
    ".py",
    ".tiktoken",
    ".spm",
    ".bpe",
    ".codes",
    ".vocab",
)
"""What loading a model can read: weights, configurations, tokenizer, remote code. A model card or a
training log beside them changes no number."""
CONFIGS = ("config.json", "adapter_config.json")
"""Every model has the first, every adapter the second."""
TOKENIZER = "tokenizer.json"
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""The JSON files that say which tensor lies in which file."""
DOCUMENTS = (
    *CONFIGS,
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""The JSON files of a model that libraries read, and say nothing of use where they are no objects."""


@dataclass(frozen=True)
class Source:
    """Where a model's files are: `path` is a local directory or a Hub id, `revision` a Hub revision."""

    path: str
    revision: str | None = None

    @property
    def local(self) -> bool:
        """Whether `path` is a directory here."""
        return at_home(self.path).is_dir()

    @property
    def place(self) -> str:
        """What from_pretrained is given: the directory with `~` resolved, or the Hub id."""
        return str(at_home(self.path)) if self.local else self.path


def model_identity(model: str, revision: str | None, cache_dir: Path) -> dict[str, Any]:
    """What makes a model this one and no other, for the key of a stored result.

    A local directory is known by the SHA-256 of its files, a Hub model by its commit, `demo` by the
    version of its package. Raises QevalError where the model does not exist or cannot be reached, and for a
    revision of what has none.
    """
    source = Source(model, revision)
    refuse_revision(source)
    if model == DEMO:
        from qeval.load.demo import package_version  # here, since the demo is one model of many

        return {"model": DEMO, "package": package_version()}
    if source.local:
        return {"files": fingerprint(Path(source.place), cache_dir)}
    return {"model": model, "commit": resolve_commit(model, revision)}


def refuse_revision(source: Source) -> None:
    """Raise QevalError for a revision of a directory or of `demo`: it would be recorded and never read."""
    if source.revision is not None and (source.path == DEMO or source.local):
        what = "the demo model" if source.path == DEMO else "a directory here"
        raise QevalError(
            f"{source.path} is {what}, so there is no revision {source.revision!r} of it.",
            "Leave the revision out, or name a model on the Hub.",
        )


def fingerprint(directory: Path, cache_dir: Path) -> str:
    """SHA-256 over names and contents of the files that loading reads, in the order of their names.

    A file is read once and remembered for as long as it cannot have changed; see `contents.hashes`. Raises
    QevalError where there is no config.json or a file cannot be read.
    """
    if not any((directory / name).is_file() for name in CONFIGS) and not any(directory.glob("*.gguf")):
        raise QevalError(
            f"{directory} holds no model: it has no config.json.", "Name a directory made by save_pretrained."
        )
    check_documents(Source(str(directory)))
    files, whole = list(model_files(directory)), hashlib.sha256()
    for path, held in zip(files, contents.hashes(files, cache_dir), strict=True):
        whole.update(f"{path.relative_to(directory).as_posix()}\0{held}\n".encode())
    return whole.hexdigest()


def check_documents(source: Source) -> None:
    """Raises QevalError for a JSON file of a model here that is damaged or holds no object, and for an index
    that names files elsewhere; of what is on the Hub nothing is fetched for it."""
    if not source.local:
        return
    for name in DOCUMENTS:
        read_json(source, name)
    for name in INDEXES:
        _check_index(name, read_json(source, name), source)
    path = locate(source, TOKENIZER)
    try:
        if path is not None:
            reading.check_object(path)
    except OSError as error:
        raise _damaged(TOKENIZER, source, error) from error


def _check_index(name: str, index: dict[str, Any] | None, source: Source) -> None:
    files = {} if index is None else index.get("weight_map")
    if not isinstance(files, dict):
        raise QevalError(f"{name} of {source.path} has no weight_map.", "Download or save the model again.")
    for file in files.values():
        place = PurePosixPath(file) if isinstance(file, str) else PurePosixPath("/")
        if place.is_absolute() or ".." in place.parts:
            raise QevalError(
                f"{name} of {source.path} names a file outside the model: {str(file)[:60]!r}.",
                "Do not use a checkpoint that does so; download the model from its original source.",
            )


def _damaged(name: str, source: Source, error: OSError) -> QevalError:
    return QevalError(
        f"{name} of {source.path} is damaged: {reading.told(error)}.", "Download or save the model again."
    )


def model_files(directory: Path) -> Iterator[Path]:
    """The files of a model's directory that loading can read, in the order of their names."""
    for path in sorted(directory.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.is_file() and path.suffix in READ_SUFFIXES and not hidden:
            yield path


def resolve_commit(model: str, revision: str | None) -> str:
    """The commit that a Hub model's revision (a branch, tag or commit; None is main) stands for.

    Asks the Hub, and where it cannot be reached reads the snapshot in its cache. Raises QevalError for a
    model or revision that does not exist, a gated one without a token, no network and no cache.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError

    if constants.is_offline_mode():
        return _cached_commit(model, revision)
    try:
        info = HfApi().model_info(model, revision=revision, timeout=20)
    except HFValidationError as error:
        raise _no_such_model(model) from error
    except Exception as error:
        refusal = hub_refusal(model, revision, error)
        if refusal is not None:
            raise refusal from error
        return _cached_commit(model, revision)
    return str(info.sha)


OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Variables that forbid huggingface_hub the network."""


def offline_by() -> str | None:
    """The variable by which the Hub is not asked; None where it is."""
    from huggingface_hub import constants

    return next(filter(os.environ.get, OFFLINE), OFFLINE[0]) if constants.is_offline_mode() else None


def check_name(model: str) -> None:
    """Raise QevalError for what is neither a directory or file here nor can be an id of the Hub, which is not
    asked."""
    if at_home(model).exists() or find_spec("huggingface_hub") is None:
        return
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise _no_such_model(model) from error


def _no_such_model(model: str) -> QevalError:
    return QevalError(
        f"There is no model {model!r}: it is neither a directory here nor a Hub id.",
        _meant(model)
        or "Check the spelling; a Hub id looks like org/name, and demo and toy need no network.",
    )


def _beside(model: str) -> str:
    """The directory of a model whose path is nearly this one, as it is typed; "" where there is none."""
    path = at_home(model)
    found = nearest(path, lambda one: any((one / name).is_file() for name in CONFIGS))
    return "" if found is None else f"{'' if found.is_absolute() else './'}{found}"


def _meant(model: str) -> str:
    """Whether a directory or one of the models that are no Hub id is meant, or nearly named; "" where none
    is."""
    from difflib import get_close_matches  # takes 10 ms, and is needed only before an error

    if beside := _beside(model):
        return f"Did you mean {beside}?"
    own, word = (DEMO, "toy"), model.lower()
    near = [] if "/" in word else get_close_matches(word, own, n=1, cutoff=_ALIKE)
    return did_you_mean(near[0], own) if near else ""


_ALIKE = 0.75


def hub_refusal(
    repo: str, revision: str | None, error: BaseException, kind: str = "model"
) -> QevalError | None:
    """What the Hub said of a model (or a "dataset"), as a sentence and a remedy; None where `error` is not
    its refusal."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    what = "data set" if kind == "dataset" else "model"
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repo}"
    if isinstance(error, GatedRepoError):
        token = "the token that is set has no access to it" if get_token() else "no token is set"
        return QevalError(
            f"{repo} is gated, and {token}.",
            f"Ask for access at {page}, then run hf auth login, or set HF_TOKEN to a token of that account.",
        )
    if isinstance(error, RevisionNotFoundError):
        return QevalError(f"{repo} has no revision {revision!r}.", f"See {page}/tree/main for its branches.")
    if isinstance(error, RepositoryNotFoundError):
        return QevalError(
            f"There is no {what} {repo} on the Hub, or it is private.",
            _meant(repo) or f"Check the spelling; for a private {what} run hf auth login, or set HF_TOKEN.",
        )
    return None


def _cached_commit(model: str, revision: str | None) -> str:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        answers = [try_to_load_from_cache(model, name, revision=revision) for name in CONFIGS]
    except HFValidationError as error:
        raise _no_such_model(model) from error
    found = [answer for answer in answers if isinstance(answer, str)]
    if found:
        return Path(found[0]).parent.name
    if revision is None and "/" in model and at_home(model).parent.is_dir():
        raise QevalError(
            f"There is no directory {model}, though {at_home(model).parent} is one, and the local cache of"
            " the Hub holds nothing of that name.",
            _meant(model) or "Check the spelling, or make it first.",
        )
    at = f" at revision {revision}" if revision else ""
    variable = offline_by()
    where = "neither a directory here nor" if _beside(model) else "not"
    raise QevalError(
        f"{model}{at} is {where} in the local cache, and"
        f" {f'{variable} is set' if variable else 'the Hub cannot be reached'}.",
        _meant(model)
        or f"{f'Unset {variable}' if variable else 'Check the network'}, or fetch it where there is a network"
        f" with: hf download {model}{f' --revision {revision}' if revision else ''}",
    )


def read_config(source: Source) -> dict[str, Any]:
    """A model's config.json, without loading the model. Raises QevalError as resolve_commit does."""
    return read_json(source, "config.json") or {}


def read_json(source: Source, name: str) -> dict[str, Any] | None:
    """One JSON file of a model, or None where it has none of that name. Raises QevalError where it is damaged
    or holds something else than an object."""
    path = locate(source, name)
    if path is None:
        return None
    try:
        return reading.json_table(path)
    except OSError as error:
        raise _damaged(name, source, error) from error


def locate(source: Source, name: str) -> Path | None:
    """One file of a model on disk, fetched from the Hub if need be; None where the model lacks it."""
    if source.local:
        path = Path(source.place) / name
        return path if path.is_file() else None
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    cached = constants.is_offline_mode() or not hub_answers(source.path)
    try:
        return Path(hf_hub_download(source.path, name, revision=source.revision, local_files_only=cached))
    except LocalEntryNotFoundError:
        _cached_commit(source.path, source.revision)  # says what is missing where the whole model is
        return None
    except EntryNotFoundError:
        return None
    except HFValidationError as error:
        raise _no_such_model(source.path) from error
    except Exception as error:
        raise hub_refusal(source.path, source.revision, error) or error from error


def hub_answers(repo: str, kind: str = "model") -> bool:
    """Whether the Hub says anything of a model (or a "dataset"), be it a refusal, within a few seconds; the
    Hub is asked once a process. Its library would go on asking for half a minute, file by file, and print
    each attempt."""
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT
    if endpoint not in _ANSWERED:
        _ANSWERED[endpoint] = _answers(endpoint, repo, kind)
    return _ANSWERED[endpoint]


_ANSWERED: dict[str, bool] = {}
"""Hubs that were asked by this process, and whether they answered."""


def _answers(endpoint: str, repo: str, kind: str) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    for pause in _PAUSES:
        time.sleep(pause)
        try:
            HfApi(endpoint=endpoint).repo_info(repo, repo_type=kind, timeout=_PATIENCE)
        except HFValidationError:
            return True
        except HfHubHTTPError as error:
            if getattr(getattr(error, "response", None), "status_code", None) not in _DOWN:
                return True
        except Exception:  # noqa: BLE001, S112 - whatever keeps a connection from being made
            continue
        else:
            return True
    return False


_PATIENCE = 4.0
_PAUSES = (0.0, 1.0)
"""Seconds that one answer is waited for, and before each time that the Hub is asked."""
_DOWN = (500, 502, 503, 504)
"""What a Hub or a proxy before it answers while it cannot answer."""


def weight_files_bytes(source: Source, file: str = "") -> int | None:
    """Bytes of a model's weight files, or of the one named; None where they cannot be told without fetching
    them."""
    if source.local:
        directory = Path(source.place)
        patterns = [file] if file else ["*.safetensors", "*.bin"]
        sizes = [sum(found.stat().st_size for found in directory.glob(pattern)) for pattern in patterns]
        return next(filter(None, sizes), None)
    if file:
        return _hub_bytes(source, file)
    index = read_json(source, "model.safetensors.index.json") or {}
    total = index.get("metadata", {}).get("total_size")
    return int(total) if total else _hub_bytes(source, "model.safetensors", "pytorch_model.bin")


def _hub_bytes(source: Source, *names: str) -> int | None:
    """Bytes of the first of these files that a Hub model has; None where the Hub does not tell."""
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode():
        return None
    try:
        info = HfApi().model_info(source.path, revision=source.revision, files_metadata=True, timeout=20)
    except Exception:  # noqa: BLE001 - why the Hub refuses is said where the files themselves are fetched
        return None
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or ()}
    return next((sizes[name] for name in names if sizes.get(name)), None)
