"""Where weights will lie: by the sizes of files and of memory, before anything is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qeval.base.records import Scheme, Variant
from qeval.load.placement import LEAST_WORK, ROOM, WORK, Placement, Room, Sizes, place, sizes_of
from qeval.load.schemes import SCHEMES

GIB = 2**30
SIZES = Sizes(13 * 10**9, 26 * 10**9, 28 * 10**9, 655 * 10**6, 633 * 10**6)
PACKED = replace(SIZES, packed=9 * 10**9)
PLENTY = 128 * GIB


def variant(kind: str, **more: object) -> Variant:
    return Variant(kind, "m", Scheme(kind), **more)


def placed(kind: str, gpu: float, sizes: Sizes = SIZES, host: int = PLENTY, **more: object) -> Placement:
    return place(variant(kind), sizes, Room(int(gpu * GIB), host), **more)


def test_what_fits_lies_on_the_device() -> None:
    for kind, sizes in (("fp16", SIZES), ("bnb4", PACKED), ("hqq", PACKED)):
        assert placed(kind, 80, sizes) == Placement(False, SIZES.plain)


@pytest.mark.parametrize(
    ("kind", "sizes"), [("fp16", SIZES), ("bnb4", PACKED), ("gptq", PACKED), ("rtn", SIZES)]
)
def test_what_does_not_fit_is_streamed_and_that_is_said(kind: str, sizes: Sizes) -> None:
    found = placed(kind, 24, sizes)
    assert found.streamed
    assert found.on_device == SIZES.ends + 3 * SIZES.block
    assert found.refused is None
    assert found.sentence == (
        "The weights, 24.2 GiB unpacked, do not fit into 24.0 GiB of GPU memory with what scoring takes: they"
        " are streamed from host memory layer by layer."
    )


def test_seventy_billion_weights_on_80_gib_as_host_memory_permits() -> None:
    each, count, kinds = 2, 69 * 10**9, {"fp16": 16.0, "bnb4": 5.0}
    plain, ends = count * each, 2 * 2 * 8192 * 32000
    sizes = {
        kind: Sizes(count, plain, int(count * bits / 8 * 1.1), ends, (plain - ends) // 80)
        for kind, bits in kinds.items()
    }
    room = [Room(80 * GIB, host * GIB) for host in (256, 64)]
    assert all(place(variant(kind), sizes[kind], room[0]).streamed for kind in kinds)
    assert place(variant("fp16"), sizes["fp16"], room[1]).refused is not None
    assert place(variant("bnb4"), sizes["bnb4"], room[1]).streamed


def test_the_border_leaves_room_to_work() -> None:
    least = (SIZES.plain * ROOM + WORK) / GIB
    assert not placed("fp16", least + 0.01).streamed
    assert placed("fp16", least - 0.01).streamed


def test_layers_of_their_own_stay_on_the_device_packed() -> None:
    found = placed("hqq", 24, PACKED)
    assert found == Placement(False, PACKED.packed)
    found = place(variant("bnb4"), PACKED, Room(24 * GIB, PLENTY), materialize=False)
    assert found == Placement(False, PACKED.packed)


def test_packed_layers_stay_on_the_device_where_host_memory_is_short() -> None:
    assert placed("bnb4", 24, PACKED, host=GIB) == Placement(False, PACKED.packed)


def test_a_wish_is_heeded() -> None:
    found = placed("fp16", 80, asked="streamed")
    assert found.streamed
    assert found.sentence.endswith("as asked.")
    assert placed("fp16", 24, asked="resident") == Placement(False, SIZES.plain)
    assert placed("bnb4", 24, PACKED, asked="resident") == Placement(False, PACKED.packed)
    assert place(variant("fp16"), SIZES, Room(None, PLENTY), "streamed").streamed
    assert place(variant("fp16"), None, Room(GIB, PLENTY), "streamed").streamed
    assert not place(variant("fp16"), None, Room(GIB, PLENTY)).streamed


def test_what_cannot_be_streamed_names_what_can() -> None:
    refused = placed("hqq", 80, asked="streamed").refused
    assert refused is not None
    assert "hqq cannot be streamed" in refused.message
    assert all(name in refused.hint for name in ("fp16", "bnb4", "gptq", "awq", "rtn"))
    adapted = place(variant("fp16", adapter="a"), SIZES, Room(80 * GIB, PLENTY), "streamed").refused
    assert adapted is not None
    assert "adapter" in adapted.message
    kept = place(variant("bnb4"), PACKED, Room(80 * GIB, PLENTY), "streamed", materialize=False).refused
    assert kept is not None
    assert "--no-materialize" in kept.hint
    plain = place(variant("fp16"), SIZES, Room(80 * GIB, PLENTY), "streamed", materialize=False)
    assert plain.refused is None


def test_what_fits_nowhere_is_refused_with_what_would() -> None:
    refused = placed("fp16", 24, host=16 * GIB).refused
    assert refused is not None
    assert refused.message == (
        "m as fp16 takes 25.7 GiB of GPU memory, and there are 24.0 GiB; streamed, it takes 2.75 GiB there"
        " and 26.1 GiB of host memory, and there are 16.0 GiB."
    )
    assert refused.hint.startswith("Use a machine with 26.1 GiB of memory, or a smaller model.")
    assert "these would fit: bnb4, gptq" in refused.hint
    small = placed("bnb4", 2, PACKED).refused
    assert small is not None
    assert "at least 2.75 GiB" in small.hint
    adapted = place(variant("fp16", adapter="a"), SIZES, Room(24 * GIB, PLENTY)).refused
    assert adapted is not None
    assert "takes 25.7 GiB of GPU memory" in adapted.message
    assert "adapter" in adapted.message
    cpu = place(variant("fp16"), SIZES, Room(None, 16 * GIB)).refused
    assert cpu is not None
    assert cpu.message == "m as fp16 takes 26.1 GiB of memory, and there are 16.0 GiB."
    assert "bnb4" in cpu.hint


def test_little_room_is_used_slowly_before_anything_is_refused() -> None:
    tight = (SIZES.streamed * ROOM + LEAST_WORK) / GIB + 0.01
    assert placed("fp16", tight).streamed
    assert placed("fp16", tight).refused is None


def a_model(place: Path, **config: object) -> Path:
    """The files of a model of 2^30 weights in float16, which take no room on the disk."""
    place.mkdir()
    with (place / "model.safetensors").open("wb") as file:
        file.truncate(2 * GIB)
    shape = {"hidden_size": 2048, "num_hidden_layers": 8, "vocab_size": 32768, "dtype": "float16"}
    (place / "config.json").write_text(json.dumps({**shape, **config}))
    return place


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    model = a_model(tmp_path / "m")
    ends = 2 * 2 * 2048 * 32768
    found = sizes_of(Variant("fp16", str(model), Scheme("fp16")), "auto", "cuda", tmp_path)
    assert found == Sizes(GIB, 2 * GIB, int(2.2 * GIB), ends, (2 * GIB - ends) // 8)
    four = sizes_of(Variant("bnb4", str(model), Scheme("bnb4")), "auto", "cuda", tmp_path)
    assert four is not None
    assert (four.plain, four.packed) == (2 * GIB, int(GIB * 5 / 8 * 1.1))
    made = sizes_of(Variant("gptq", str(model), Scheme("gptq")), "auto", "cuda", tmp_path)
    assert made is not None
    assert made.packed == int(GIB * 4.5 / 8 * 1.1)
    wide = sizes_of(Variant("fp16", str(model), Scheme("fp16")), "auto", "cpu", tmp_path)
    assert wide is not None
    assert wide.plain == 4 * GIB
    tied = a_model(tmp_path / "tied", tie_word_embeddings=True)
    found = sizes_of(Variant("fp16", str(tied), Scheme("fp16")), "auto", "cuda", tmp_path)
    assert found is not None
    assert found.ends == ends // 2
    (model / "model.safetensors").unlink()
    assert sizes_of(Variant("fp16", str(model), Scheme("fp16")), "auto", "cuda", tmp_path) is None


def test_every_scheme_that_is_streamed_is_plain_or_unpacked_by_scoring() -> None:
    assert {name for name, spec in SCHEMES.items() if spec.streams} == {
        *("fp32", "bf16", "fp16", "bnb4", "gptq", "awq", "rtn"),
    }


def test_several_gpus_hold_a_part_each() -> None:
    found = placed("fp16", 24, gpus=2)
    assert (found.streamed, found.gpus, found.name, found.refused) == (False, 2, "2 GPUs", None)
    assert found.on_device == SIZES.plain // 2 + SIZES.block
    assert found.sentence == "The weights lie on 2 GPUs, a run of layers on each, as asked."
    assert placed("bnb4", 24, PACKED, gpus=2).on_device == found.on_device
    assert placed("fp16", 24).streamed  # as ever


def test_what_several_gpus_do_not_hold_is_refused_with_what_would() -> None:
    small = placed("fp16", 12, gpus=2).refused
    assert small is not None
    assert "of each of 2 GPUs, and they have 12.0 GiB" in small.message
    assert "--gpus-per-variant" in small.hint
    assert placed("fp16", 12, gpus=3).refused is None
    kind = placed("hqq", 80, PACKED, gpus=2).refused
    assert kind is not None
    assert "hqq cannot be spread over several GPUs" in kind.message
    assert kind.hint == "Leave out --gpus-per-variant for it."
    poor = placed("fp16", 80, host=GIB, gpus=2).refused
    assert poor is not None
    assert "memory" in poor.message
