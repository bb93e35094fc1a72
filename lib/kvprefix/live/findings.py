"""Say what the live check found: the agreement, what may spoil the comparison, and causes of differences."""

from pathlib import Path

from kvprefix.live.facts import facts_causes, facts_comparison, facts_warnings
from kvprefix.report.words import Words

WORDS = Words(Path(__file__).parent / "words")


def describe_comparison(summary):
    """Say in one sentence whether predicted and measured cached tokens agree; plain text."""
    return WORDS.say("comparison.txt", facts_comparison(summary))


def find_causes(recording, summary, compared):
    """Return possible causes of differences, a sentence each, those with evidence first."""
    return WORDS.say_each("causes.txt", facts_causes(recording, summary, compared))


def find_warnings(recording, summary):
    """Return what may spoil the comparison, a sentence each."""
    return WORDS.say_each("warnings.txt", facts_warnings(recording, summary))
