"""Which model exactly: fingerprints of directories, commits of the Hub and its cache, refusals in words."""

from __future__ import annotations

import os
import socket

import pytest
from hub_stand_in import asked_by_this_process, serving
from tiny_models import to_hub_cache

from qeval.base.errors import QevalError
from qeval.load.source import Source, fingerprint, locate, model_identity, read_config, resolve_commit


@pytest.fixture
def model(tmp_path):
    place = tmp_path / "model"
    (place / "onnx").mkdir(parents=True)
    (place / "config.json").write_text("{}")
    (place / "model.safetensors").write_bytes(b"12345678")
    return place


def test_a_fingerprint_follows_contents_and_names_only(model, tmp_path) -> None:
    first = fingerprint(model, tmp_path / "c")
    (model / "README.md").write_text("a model card")
    (model / ".cache").mkdir()
    (model / ".cache" / "x.json").write_text("{}")
    assert fingerprint(model, tmp_path / "c") == first
    assert fingerprint(model, tmp_path / "other cache") == first
    (model / "model.safetensors").rename(model / "other.safetensors")
    assert fingerprint(model, tmp_path / "c") != first


def test_weights_of_the_same_size_and_time_are_other_weights(model, tmp_path) -> None:
    first, weights = fingerprint(model, tmp_path), model / "model.safetensors"
    times = weights.stat()
    weights.write_bytes(b"12345679")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint(model, tmp_path) != first


def test_a_directory_without_a_model_is_refused(tmp_path) -> None:
    with pytest.raises(QevalError, match="holds no model"):
        model_identity(str(tmp_path), None, tmp_path)


def test_a_cached_hub_model_is_known_by_its_commit(model, tmp_path, monkeypatch) -> None:
    cache = tmp_path / "hub"
    commits = to_hub_cache(cache, "org/name", {"main": model, "act": model})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    assert resolve_commit("org/name", None) == commits["main"]
    assert resolve_commit("org/name", "act") == commits["act"]
    assert resolve_commit("org/name", commits["act"]) == commits["act"]
    with pytest.raises(QevalError, match="org/name at revision other is not in the local cache") as caught:
        resolve_commit("org/name", "other")
    assert "hf download org/name --revision other" in caught.value.hint


@pytest.mark.parametrize("name", ["not a name", "a/b/c", "/no/such/directory"])
def test_a_word_that_is_no_model_is_refused(name, tmp_path) -> None:
    with pytest.raises(QevalError, match="neither a directory here nor a Hub id"):
        model_identity(name, None, tmp_path)


@pytest.mark.parametrize(
    ("kind", "message", "hint"),
    [
        ("GatedRepoError", "org/name is gated", "hf auth login"),
        ("RevisionNotFoundError", "org/name has no revision 'v9'", "/tree/main"),
        ("RepositoryNotFoundError", "There is no model org/name on the Hub", "Check the spelling"),
    ],
)
def test_what_the_hub_refuses_is_said_in_words(kind, message, hint, monkeypatch) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_args, **_kwargs):
        cls = getattr(errors, kind)
        raise cls.__new__(cls)  # its constructor wants an answer of the HTTP library of the day

    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(QevalError) as caught:
        resolve_commit("org/name", "v9")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_without_network_the_cache_answers(model, tmp_path, monkeypatch) -> None:
    import huggingface_hub

    def fail(*_args, **_kwargs):
        raise ConnectionError("no route")

    cache = tmp_path / "hub"
    commits = to_hub_cache(cache, "org/name", {"main": model})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    assert resolve_commit("org/name", None) == commits["main"]
    with pytest.raises(QevalError, match="the Hub cannot be reached"):
        resolve_commit("org/absent", None)


def test_where_the_hub_is_forbidden_the_variable_is_named(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(QevalError, match="HF_HUB_OFFLINE is set") as caught:
        resolve_commit("org/absent", None)
    assert caught.value.hint.startswith("Unset HF_HUB_OFFLINE, or fetch it")
    with pytest.raises(QevalError) as caught:
        resolve_commit("Demo", None)
    assert caught.value.hint == "Did you mean 'demo'?"


def test_a_damaged_configuration_is_said_so(model) -> None:
    (model / "config.json").write_text("{")
    with pytest.raises(QevalError, match=r"config.json of .* is damaged"):
        read_config(Source(str(model)))


@pytest.mark.parametrize(
    ("word", "near"), [("toyy", "toy"), ("Demo", "demo"), ("dmeo", "demo"), ("gpt2", "")]
)
def test_a_model_that_is_nearly_one_of_ours_is_told_so(word: str, near: str) -> None:
    with pytest.raises(QevalError, match="is not in the local cache") as caught:
        resolve_commit(word, None)
    assert (caught.value.hint == f"Did you mean {near!r}?") == bool(near)


@pytest.fixture
def refusing():
    """The address of a port of our own that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("status", [None, 503])
def test_a_hub_that_does_not_answer_is_asked_twice_and_not_file_by_file(
    status: int | None, refusing: str, model, tmp_path, monkeypatch
) -> None:
    cache = tmp_path / "hub"
    to_hub_cache(cache, "org/name", {"main": model})
    with serving() as hub:
        monkeypatch.setattr("hub_stand_in._Answers._api", lambda self, *_: self._send(status or 404))
        hub.address = hub.address if status else refusing
        asked_by_this_process(monkeypatch, hub, cache)
        waited: list[float] = []
        monkeypatch.setattr("time.sleep", waited.append)
        with pytest.raises(QevalError, match="the Hub cannot be reached") as caught:
            read_config(Source("org/absent"))
        assert "hf download org/absent" in caught.value.hint
        assert read_config(Source("org/name")) == {}
        assert locate(Source("org/name"), "quantize_config.json") is None
        assert hub.asked == ["GET /api/models/org/absent"] * (2 if status else 0)
        assert sum(waited) <= 2  # its library waits for 23 seconds


def test_what_a_hub_that_answers_does_not_have_is_its_own_refusal(tmp_path, monkeypatch) -> None:
    with serving() as hub:
        asked_by_this_process(monkeypatch, hub, tmp_path / "hub")
        hub.add("model", "org/name", {"config.json": b'{"model_type": "llama"}'})
        assert read_config(Source("org/name")) == {"model_type": "llama"}
        assert locate(Source("org/name"), "quantize_config.json") is None
        with pytest.raises(QevalError, match="There is no model org/other on the Hub"):
            read_config(Source("org/other"))
        assert sum(one.startswith("GET /api/") for one in hub.asked) == 1  # it is asked once, and answers
