"""The grammar of --schemes: what is read, what is refused with which remedy; writing inverts reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qeval.base.errors import UsageError
from qeval.base.names import scheme_text
from qeval.base.records import Scheme
from qeval.load.schemes import CALLED, SCHEMES, parse_schemes


def one(text: str) -> Scheme:
    (named,) = parse_schemes(text)
    return named.scheme


def test_the_words_of_the_front_page() -> None:
    text = (
        "fp16, bnb4[quant_type=fp4, double_quant=true],"
        "gptq@TheBloke/Llama-2-13B-GPTQ:gptq-4bit-128g-actorder_True,ao=gptq[act_order=true]"
    )
    assert parse_schemes(text) == (
        ("fp16", Scheme("fp16")),
        (
            "bnb4[quant_type=fp4,double_quant=true]",
            Scheme("bnb4", {"quant_type": "fp4", "double_quant": True}),
        ),
        (
            "gptq@TheBloke/Llama-2-13B-GPTQ:gptq-4bit-128g-actorder_True",
            Scheme("gptq", {}, "TheBloke/Llama-2-13B-GPTQ", "gptq-4bit-128g-actorder_True"),
        ),
        ("ao", Scheme("gptq", {"act_order": True})),
    )


@pytest.mark.parametrize(
    ("text", "checkpoint", "revision"),
    [
        ("gptq@org/name", "org/name", None),
        ("gptq@org/name:refs/pr/3", "org/name", "refs/pr/3"),
        ("gptq@/models/a:b", "/models/a:b", None),
        ("gptq@./a:b", "./a:b", None),
        ("gptq@../a", "../a", None),
        ("gptq@~/a:b", "~/a:b", None),
        (r"gptq@C:\models\x", r"C:\models\x", None),
        ("gptq@D:/models/x", "D:/models/x", None),
        (r"gptq@\\host\share", r"\\host\share", None),
        ("gptq@/a[1]/b=c@d", "/a[1]/b=c@d", None),
        ('gptq@"a,b:c":main', "a,b:c", "main"),
        ('gptq@"/x, y"', "/x, y", None),
        ('gptq@"say ""hi"""', 'say "hi"', None),
        ('gptq@org/name:"a,b"', "org/name", "a,b"),
    ],
)
def test_checkpoints(text: str, checkpoint: str, revision: str | None) -> None:
    assert one(text) == Scheme("gptq", {}, checkpoint, revision)


def test_a_bracket_in_a_path_does_not_hide_the_comma_after_it() -> None:
    assert [name for name, _ in parse_schemes("gptq@/a[1,fp16")] == ["gptq@/a[1", "fp16"]


def test_options_take_their_own_types() -> None:
    assert one("gptq[bits=3,damp=0.1,act_order=no,calibration=/tmp/a.txt]").options == {
        "bits": 3,
        "damp": 0.1,
        "act_order": False,
        "calibration": "/tmp/a.txt",
    }
    assert one('gptq[calibration="a,b]=c"]').options == {"calibration": "a,b]=c"}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("fp61", "There is no scheme 'fp61'.", "Did you mean 'fp16'?"),
        ("GPTQ", "There is no scheme 'GPTQ'.", "Did you mean 'gptq'?"),
        ("bnb", "There is no scheme 'bnb'.", "Did you mean 'bnb8' or 'bnb4'?"),
        ("nf4", "There is no scheme 'nf4'.", "Did you mean 'bnb4'?"),
        ("fp4", "There is no scheme 'fp4'.", "Did you mean 'bnb4[quant_type=fp4]'?"),
        ("xyzzy", "There is no scheme 'xyzzy'.", "Known: aqlm, "),
        ("gptq[bit=3]", "gptq has no option 'bit'.", "Did you mean 'bits'?"),
        ("gptq[bits=5]", "gptq[bits=...] cannot be '5'.", "Choose from: 2, 3, 4, 8."),
        ("gptq[bits=four]", "gptq[bits=...] cannot be 'four'.", "Choose from: 2, 3, 4, 8."),
        ("gptq[damp=nan]", "gptq[damp=...] cannot be 'nan'.", "It takes a number, at least 0."),
        ("gptq[samples=-1]", "gptq[samples=...] cannot be '-1'.", "It takes a whole number, at least 0."),
        ("bnb4[double_quant=perhaps]", "cannot be 'perhaps'.", "It takes true or false."),
        ("bnb4[quant_type=nf5]", "cannot be 'nf5'.", "Choose from: nf4, fp4."),
        ("gptq[bits=3,bits=4]", "gptq is given bits twice.", "Leave one of them out."),
        ("fp16,,bnb4", "A scheme is missing", "Write kind"),
        ("", "A scheme is missing", "Write kind"),
        ("gptq[bits=3", "A bracket is not closed", "Write kind"),
        ("gptq]", "A bracket is not closed", "Write kind"),
        ('gptq@"x', "A quote is not closed", "Write kind"),
        ("gptq[bits=3]x", "has something after its options", "Write kind"),
        ("gptq@", "names no checkpoint", "Write kind"),
        ("gptq@org/name:", "names no checkpoint", "Write kind"),
        ('gptq@"a"b', "names no checkpoint", "Write kind"),
        ("fp16@org/name", "fp16 reads no ready checkpoints.", "Leave out @org/name."),
        ("fp16,fp16", "Two schemes are named 'fp16'.", "fp16-2=fp16"),
        ("fp16,x=bnb4,x=gptq", "Two schemes are named 'x'.", "x-2=gptq"),
        ("x-2=fp16,x=bnb4,x=gptq[bits=3]", "Two schemes are named 'x'.", "x-3=gptq[bits=3]"),
        ("a b=fp16", "'a b' is not a valid name for a scheme.", "Use letters"),
        ("=fp16", "'' is not a valid name for a scheme.", "Use letters"),
    ],
)
def test_what_is_refused_and_the_remedy(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_schemes(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_what_others_call_a_scheme_leads_to_one() -> None:
    assert not set(CALLED) & set(SCHEMES.names())
    for here in set(CALLED.values()):
        kind = here.partition("[")[0]
        needs_one = SCHEMES[kind].checkpoint == "required"
        assert one(f"{here}@org/name" if needs_one else here).kind == kind


def test_the_remedy_for_a_name_used_twice_works() -> None:
    with pytest.raises(UsageError) as caught:
        parse_schemes("gptq[bits=3],gptq[bits=3]")
    remedy = caught.value.hint.split(": ")[1]
    assert len(parse_schemes(f"gptq[bits=3],{remedy}")) == 2


WORDS = st.text(min_size=1).filter(lambda word: "\0" not in word)
VALUES = {bool: st.booleans(), int: st.integers(0, 10**6), float: st.floats(0, 1e6), str: WORDS}


@st.composite
def schemes(draw: st.DrawFn) -> Scheme:
    spec = SCHEMES[draw(st.sampled_from(sorted(SCHEMES)))]
    chosen = draw(st.lists(st.sampled_from(spec.options), unique=True)) if spec.options else []
    options = {
        option.name: draw(st.sampled_from(option.choices) if option.choices else VALUES[option.type])
        for option in chosen
    }
    if spec.checkpoint == "no" or (spec.checkpoint == "optional" and draw(st.booleans())):
        return Scheme(spec.name, options)
    return Scheme(spec.name, options, draw(WORDS), draw(st.none() | WORDS))


@given(schemes())
def test_reading_inverts_writing(scheme: Scheme) -> None:
    ((name, found),) = parse_schemes(scheme_text(scheme))
    assert found == scheme
    assert scheme_text(found) == name  # the same whatever order the options were written in
    assert parse_schemes(name) == ((name, scheme),)


@given(st.lists(schemes(), min_size=1, max_size=4))
def test_reading_inverts_writing_in_a_list_with_names(found: list[Scheme]) -> None:
    text = ",".join(f"v{at}={scheme_text(scheme)}" for at, scheme in enumerate(found))
    assert [scheme for _, scheme in parse_schemes(text)] == found


@given(st.text(alphabet='abfp16nq4=[],@:"./ ', max_size=20))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    refusal = None
    try:
        parse_schemes(text)
    except UsageError as error:
        refusal = error
    assert refusal is None or (refusal.message and refusal.hint)
