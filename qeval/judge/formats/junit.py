"""The gate as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from qeval.base.records import Decision
from qeval.base.rules import describe
from qeval.base.text import one_line
from qeval.judge.formats import Format
from qeval.judge.formats.cells import status_words
from qeval.judge.gate import Outcome, counts_as


def junit(outcome: Outcome) -> str:
    """JUnit XML, valid against Jenkins' junit-10.xsd: a suite per variant, a case per rule and row.

    A required FAIL or INCONCLUSIVE is a failure, MISSING an error: red wherever the exit code is not 0. What
    the policy forgives is skipped, and so is an advisory rule that did not pass: neither fails a build.
    """
    root = ET.Element("testsuites", name=_xml(outcome.headline))
    for variant in outcome.verdicts:
        cases = [one for one in outcome.decisions if one.variant == variant]
        kinds = [_junit_kind(outcome, one) for one in cases]
        suite = ET.SubElement(root, "testsuite", name=_xml(variant), tests=str(len(cases)))
        for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(attribute, str(kinds.count(kind)))
        for one, kind in zip(cases, kinds, strict=True):
            suite.append(_junit_case(outcome, one, kind))
        found = (outcome.findings[variant],) if variant in outcome.findings else ()
        said = (outcome.verdicts[variant], *found, *outcome.notes)
        ET.SubElement(suite, "system-out").text = "\n".join(map(_xml, said))
    for attribute in ("tests", "failures", "errors"):
        root.set(attribute, str(sum(int(suite.get(attribute, "0")) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _junit_kind(outcome: Outcome, one: Decision) -> str:
    if one.status == "PASS":
        return ""
    if one.rule.tier == "advisory" or counts_as(one, outcome.policy) == "PASS":
        return "skipped"
    return "error" if one.status == "MISSING" else "failure"


def _junit_case(outcome: Outcome, one: Decision, kind: str) -> ET.Element:
    classname = f"{outcome.suite}.{one.variant}"
    case = ET.Element(
        "testcase",
        name=_xml(": ".join(filter(None, (one.task, describe(one.rule))))),
        classname=_xml(classname),
    )
    if kind:
        reason = _xml(one.reason)
        ET.SubElement(case, kind, type=status_words(one), message=reason).text = reason
    return case


def _unjudged(why: str) -> str:
    """JUnit XML of a gate without a verdict: one case, which is an error."""
    root = ET.Element("testsuites", name="No verdict", tests="1", failures="0", errors="1")
    suite = ET.SubElement(root, "testsuite", name="gate", tests="1", failures="0", errors="1", skipped="0")
    case = ET.SubElement(suite, "testcase", name="verdict", classname="gate")
    ET.SubElement(case, "error", type="no verdict", message=_xml(why)).text = _xml(why)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _xml(text: str) -> str:
    """Text on one line, which begins with what qeval says and not with what a name holds, every character
    of it seen: those that XML 1.0 cannot hold at all are among them."""
    return one_line(text)


FORMAT = Format("junit", junit, "Write JUnit XML here.", _unjudged, "<testsuites")
