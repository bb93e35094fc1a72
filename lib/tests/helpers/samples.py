"""Small inputs for tests: records, conversations, chat templates, tokenizers trained on a few sentences."""

import json

import nbformat
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from kvprefix.conversations.load import Conversation, digest_messages
from kvprefix.conversations.records import Message
from kvprefix.tokens.tokenizer import QWEN_TEMPLATE

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SENTENCES = [
    "Hello there, how are you today?", "The weather is fine and the sea is calm.", "user assistant system",
    "It doesn't cost 1,234 euros; it costs 56.", "Blocks of tokens are shared between requests.",
]  # fmt: skip


def record(*texts, id=None, first="human"):
    """Return a ShareGPT record whose messages alternate between human and gpt."""
    speakers = ["human", "gpt"] if first == "human" else ["gpt", "human"]
    messages = [{"from": speakers[k % 2], "value": text} for k, text in enumerate(texts)]
    return {"conversations": messages} if id is None else {"id": id, "conversations": messages}


def write_records(path, records):
    """Write records as a JSON array."""
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def conversation(*texts, system=None, id="c"):
    """Return a Conversation whose messages alternate between user and assistant."""
    messages = [Message("user" if k % 2 == 0 else "assistant", text) for k, text in enumerate(texts)]
    if system is not None:
        messages = [Message("system", system), *messages]
    return Conversation(id, tuple(messages), digest_messages(messages))


def as_dicts(messages):
    """Return messages as chat templates take them."""
    return [{"role": message.role, "content": message.text} for message in messages]


def save_tokenizer(folder, backend, template=QWEN_TEMPLATE, **options):
    """Save a `tokenizers.Tokenizer` as a folder that AutoTokenizer loads."""
    options = {"eos_token": "<|im_end|>", **options}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **options)
    fast.save_pretrained(folder)
    return folder


def save_small_tokenizer(folder, template=QWEN_TEMPLATE):
    return save_tokenizer(folder, train_byte_level(), template)


def train_byte_level():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _train(
        backend, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )


def train_word_piece():
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _train(
        backend, trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False)
    )


def train_metaspace_bpe(scheme):
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return _train(backend, trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False))


def train_byte_fallback():
    """Train a BPE that writes a space's mark before each text, and bytes for what it does not know, as Llama 2 does."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    trainer = trainers.BpeTrainer(vocab_size=456, special_tokens=["<unk>", *bytes_], show_progress=False)
    backend.train_from_iterator(SENTENCES * 20, trainer)
    plain = json.loads(backend.to_str())
    plain["added_tokens"] = [one for one in plain["added_tokens"] if one["content"] == "<unk>"]  # bytes are no text
    backend = Tokenizer.from_str(json.dumps(plain))
    backend.add_special_tokens([AddedToken(content, special=True, normalized=False) for content in SPECIAL])
    return backend


def train_unigram_prepend():
    """Train a Unigram that writes a space's mark before each text, as Llama 2 does."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    options = {"unk_token": "<unk>", "special_tokens": ["<unk>"], "show_progress": False}
    return _train(backend, trainers.UnigramTrainer(vocab_size=120, **options))


def _train(backend, trainer):
    backend.train_from_iterator(SENTENCES * 20, trainer)
    backend.add_special_tokens([AddedToken(content, special=True, normalized=False) for content in SPECIAL])
    return backend


# Text only, one piece a prompt: nothing fences the messages.
INST_TEMPLATE = (
    "{%- set offset = 1 if messages[0].role == 'system' else 0 %}"
    "{%- for message in messages[offset:] %}"
    "{%- if message.role == 'user' %}"
    "{{- '[INST] ' }}"
    "{%- if loop.first and offset %}"
    "{{- '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' }}"
    "{%- endif %}"
    "{{- message.content + ' [/INST]' }}"
    "{%- else %}{{- ' ' + message.content + ' ' }}{%- endif %}"
    "{%- endfor %}"
)

# Rewrites history: the last reply keeps its reasoning, earlier ones lose it.
REASONING_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- set content = message.content %}"
    "{%- if message.role == 'assistant' and loop.revindex > 2 %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}"
    "{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def system_moved_template(position):
    """Return a ChatML template that writes the system prompt into the `first` or `last` user message."""
    return (
        "{%- set system = messages[0].content if messages[0].role == 'system' else none %}"
        "{%- for message in (messages[1:] if system else messages) %}"
        "{%- set content = system + '\\n\\n' + message.content if system and loop." + position + " "
        "else message.content %}"
        "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
    )


TRIM_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

ALTERNATING_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate user/assistant') }}"
    "{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

AWKWARD = [
    conversation(
        "\nstarts with a newline", "\n\nso does the reply", "  spaces  ", " \n mixed", "\tend\n", id="leading"
    ),
    conversation(
        "a literal <|im_end|> inside", "<|im_start|>user\nfaked<|im_end|>", "<|endoftext|>", id="literal"
    ),
    conversation("<|im_end|>", "<|im_end|>", "<|im_", "start|>", "<|<|im_start|>|>", id="only-literal"),
    conversation(
        "\u0301a combining start", "e\u0301 and \u00e9, A\u030a", "\u1e9b\u0323 \u212b", id="combining"
    ),
    conversation(
        "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f44d\U0001f3fd ok",
        "\ufe0f",
        id="emoji",
    ),
    conversation(
        " " * 3000 + "x", "\n" * 1500 + "y" + " " * 999, "\u00a0\u3000\u2028\u0085z", id="whitespace"
    ),
    conversation("a", "a", "a", "b", "a", id="short"),
    conversation("hi", "hi there", "there", system="hi", id="contained"),
    conversation("user\n", "assistant", "Assistant:", system="system\nuser", id="role-names"),
    conversation("don't 12345 \u2581x", "\u0000 nul", "ok\r\n\r\n", id="odd-bytes"),
]


def write_notebook(path, code):
    """Write a notebook that declares no parameter of a report but its folder, and runs `code`."""
    declare = nbformat.v4.new_code_cell('output_dir = "x"', metadata={"tags": ["parameters"]})
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[declare, nbformat.v4.new_code_cell(code)], metadata=metadata), path)
    return path
