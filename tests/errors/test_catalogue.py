"""The catalogue of errors has every message that the code can raise, and none that it cannot."""

import ast
import re

from refold import errors
from tests.errors import sites
from tests.errors.catalogue import PAGE, entries, says, section

LEAST_LETTERS = 12
"""Fewer than that in a text say nothing: it only passes on what another place has said."""

PASSED_ON = {
    ("ActRefused", "…"): "a step refuses a result given by hand: what `ValueRefused` says",
    ("ConfigurationError", "…"): "a folder could not be made when the run began: what was said then",
    ("ConfigurationError", "…: … …. Its workflows: …"): "listed with the words that fill it",
    ("ConfigurationError", "--input …: …"): "the operating system's words",
    ("ConfigurationError", "--folder …: …"): "the operating system's words",
    ("ConfigurationError", "cannot load …: ……: …"): "listed with what fills it",
    ("HandlerError", "…"): "`unexpected`, listed",
    ("HandlerError", "run …: …"): "the reason of the run's attention, listed",
    ("HandlerStuck", "…"): "`unexpected`, and appends refused again and again; both listed",
    ("NonDeterminismError", "…"): "the report, listed",
    ("StoreError", "…"): "`synchronous_commit`, listed where it is found when the store is opened",
    ("ValueRefused", "item … of the map: …"): "what `ValueRefused` says",
    ("VoteRefused", "run …: …"): "`choose`, both of its texts listed",
    ("VoteRefused", "run … gate …: …"): "`Gate.refusal`, every one listed",
}
"""Texts with nothing of their own to find them by, and whose words they pass on."""


def test_every_class_has_its_section_in_the_order_of_the_tree() -> None:
    headings = re.findall(r"^## `(\w+)`$", PAGE, re.MULTILINE)
    assert sorted(headings) == sorted(errors.__all__)
    for kind in errors.__all__:
        assert f"(#{kind.lower()})" in PAGE or kind == "RefoldError", f"{kind} is not in the overview"


def test_the_tree_in_the_module_has_every_class() -> None:
    text = ast.get_docstring(sites.modules()[sites.ROOT / "events" / "errors.py"]) or ""
    assert sorted([*re.findall(r"─ (\w+)", text), "RefoldError"]) == sorted(errors.__all__)


def _is_listed(site: sites.Site) -> bool:
    kinds = [kind.__name__ for kind in getattr(errors, site.kind).__mro__ if kind.__name__ in errors.__all__]
    return any(
        kind in kinds and (says(pattern, site.text) or says(site.text, pattern))
        for kind, pattern in entries()
    )


BY_THE_CLASS = (errors.StepFailed, errors.RunNotFound, errors.AppendRefused)
"""Classes that take no message, and those below them."""


def test_every_message_that_the_code_raises_is_in_the_catalogue() -> None:
    missing = [
        f"{site.place}: {site.kind}: {site.text}"
        for site in sites.sites()
        if not sites.texts_of(site.kind)
        and not issubclass(getattr(errors, site.kind), BY_THE_CLASS)
        and (site.kind, site.text) not in PASSED_ON
        and not (sum(map(str.isalpha, site.text)) >= LEAST_LETTERS and _is_listed(site))
    ]
    told = "put them into docs/reference/errors.md, and meet them in tests/errors:"
    assert not missing, "\n  ".join([told, *missing])


def test_what_a_class_says_by_itself_is_in_the_catalogue() -> None:
    for kind in errors.__all__:
        for text in sites.texts_of(kind):
            assert _is_listed(sites.Site("errors.py", kind, text)) or "……" in text, text


def test_a_message_that_nobody_listed_is_noticed() -> None:
    site = sites.Site("somewhere.py:1", "ConfigurationError", "the moon is … and nobody expected that")
    assert not _is_listed(site)


def test_what_is_excused_is_still_there() -> None:
    assert {(site.kind, site.text) for site in sites.sites()} >= PASSED_ON.keys()


def test_no_message_of_the_catalogue_would_pass_for_any_text() -> None:
    for kind, pattern in entries():
        assert sum(map(str.isalpha, pattern)) >= 5, f"{kind}: {pattern}"
        assert kind == "RefoldError" or not says(pattern, "what nobody has ever said about anything")


def test_every_warning_and_error_that_is_logged_is_in_the_catalogue() -> None:
    text = section("What only the log says")
    patterns = re.findall(r"^\| (?:warning|error) \| (`{1,2})(.+?)\1 \|", text, re.MULTILINE)
    for place, message in sites.logged():
        assert any(says(pattern, message) for _, pattern in patterns), f"{place}: {message}"


def test_every_reason_for_skipping_a_message_is_in_the_catalogue() -> None:
    listed = re.findall(r"^\| `([^`]+)` \|", section("What only the log says"), re.MULTILINE)
    reasons = list(sites.skipped())
    assert len(reasons) >= 9
    for place, reason in reasons:
        assert any(says(pattern, reason) for pattern in listed), f"{place}: {reason}"
