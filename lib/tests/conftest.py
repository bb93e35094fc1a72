"""Set-up that tests share: cache folders of their own, tokenizers, and a part of the bundled data."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test needs a network

import pytest
from hypothesis import settings
from samples import save_small_tokenizer

from kvprefix.cache.policies import POLICIES
from kvprefix.conversations.load import iterate_conversations, locate_data
from kvprefix.tokens.template import load_chat
from kvprefix.tokens.tokenizer import find_tokenizer
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload

settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=150)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def shared_derived(tmp_path_factory):
    """Keep heavy work in one folder for the whole session, never in the project's."""
    folder = tmp_path_factory.mktemp("derived")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KVPREFIX_DERIVED", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def own_policies():
    """Forget the policies that a test adds."""
    known = dict(POLICIES)
    yield
    for name in set(POLICIES) - set(known):
        del POLICIES[name]


@pytest.fixture
def derived(tmp_path, monkeypatch):
    """Give one test an empty derived folder."""
    monkeypatch.setenv("KVPREFIX_DERIVED", str(tmp_path / "derived"))
    return tmp_path / "derived"


@pytest.fixture(scope="session")
def bundled_folder(shared_derived):
    return find_tokenizer("bundled").folder


@pytest.fixture(scope="session")
def qwen(bundled_folder):
    return load_chat(find_tokenizer(bundled_folder))


@pytest.fixture(scope="session")
def bundled_conversations():
    return list(iterate_conversations(locate_data("bundled"), max_conversations=300))


@pytest.fixture(scope="session")
def bundled_workload(shared_derived):
    return load_workload(Parameters(max_conversations=300), progress=False)


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    """Return the folder of a byte-level BPE of 300 tokens with Qwen's template: it loads at once."""
    return save_small_tokenizer(tmp_path_factory.mktemp("small-tokenizer"))
